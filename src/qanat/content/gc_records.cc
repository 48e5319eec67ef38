#include "qanat/content/gc_records.h"

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/content/blob_store.h"
#include "qanat/content/epoch.h"

namespace qanat::content {
namespace {

constexpr uint8_t kVersion = 1;

}  // namespace

std::string gc_lock_key(std::string_view project) { return str_cat("/v1/gc/", project, "/lock"); }

std::string gc_collection_key(std::string_view project) {
  return str_cat("/v1/gc/", project, "/collection");
}

std::string condemned_key(std::string_view project, const chunk::PackId& pack) {
  const std::string_view id(reinterpret_cast<const char*>(pack.id.data()), pack.id.size());
  return str_cat(condemned_prefix(project), to_hex16(pack.epoch), "/", to_hex(id));
}

std::string encode_collection(const CollectionRecord& record) {
  std::string out;
  put_u8(out, kVersion);
  put_u8(out, static_cast<uint8_t>(record.phase));
  put_varint(out, record.epoch);
  put_varint(out, static_cast<uint64_t>(record.time_ms));
  return out;
}

Result<CollectionRecord> parse_collection(std::string_view bytes) {
  Reader in(bytes);
  QANAT_ASSIGN_OR_RETURN(const uint8_t version, in.u8());
  if (version != kVersion) {
    return data_loss(str_cat("a collection's record of unknown version ", int{version}));
  }
  CollectionRecord record;
  QANAT_ASSIGN_OR_RETURN(const uint8_t phase, in.u8());
  if (phase != static_cast<uint8_t>(CollectionRecord::Phase::kCondemned) &&
      phase != static_cast<uint8_t>(CollectionRecord::Phase::kRescued)) {
    return data_loss(str_cat("a collection's record of unknown phase ", int{phase}));
  }
  record.phase = static_cast<CollectionRecord::Phase>(phase);
  QANAT_ASSIGN_OR_RETURN(record.epoch, in.varint());
  QANAT_ASSIGN_OR_RETURN(const uint64_t time, in.varint());
  if (time > INT64_MAX) return data_loss("a collection's record has an impossible time");
  record.time_ms = static_cast<int64_t>(time);
  QANAT_RETURN_IF_ERROR(in.expect_end());
  return record;
}

Result<std::optional<CollectionRecord>> read_collection(const meta::Store& meta,
                                                        std::string_view project) {
  QANAT_ASSIGN_OR_RETURN(const auto item, meta.get(gc_collection_key(project)));
  if (!item) return std::optional<CollectionRecord>();
  QANAT_ASSIGN_OR_RETURN(const CollectionRecord record, parse_collection(item->value));
  return std::optional<CollectionRecord>(record);
}

Result<std::vector<chunk::PackId>> read_condemned(const meta::Store& meta,
                                                  std::string_view project) {
  const std::string prefix = condemned_prefix(project);
  meta::RangeOptions options;
  options.keys_only = true;
  QANAT_ASSIGN_OR_RETURN(const meta::RangeResult found,
                         meta.range(meta::KeyRange::prefix(prefix), options));
  std::vector<chunk::PackId> packs;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(
        packs.emplace_back(),
        parse_pack_object_key(str_cat("packs/", project, "/", item.key.substr(prefix.size()))));
  }
  return packs;
}

}  // namespace qanat::content
