#include "qanat/content/epoch.h"

#include <cstring>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/content/blob_store.h"

namespace qanat::content {

std::string epoch_key(std::string_view project) { return str_cat("/v1/gc/", project, "/epoch"); }

std::string condemned_prefix(std::string_view project) {
  return str_cat("/v1/gc/", project, "/condemned/");
}

Result<uint64_t> read_epoch(const meta::Store& meta, std::string_view project) {
  QANAT_ASSIGN_OR_RETURN(std::optional<meta::KeyValue> item, meta.get(epoch_key(project)));
  return item ? from_hex16(item->value) : Result<uint64_t>(uint64_t{0});
}

EpochReader::EpochReader(meta::Store* meta, std::string project, std::function<Status()> on_move)
    : meta_(meta), project_(std::move(project)), on_move_(std::move(on_move)) {}

Result<Epoch> EpochReader::current() {
  static const auto none = std::make_shared<const std::set<chunk::PackId>>();
  meta::KeyRange key = meta::KeyRange::single(epoch_key(project_));
  QANAT_ASSIGN_OR_RETURN(meta::RangeResult range, meta_->range(key));
  Epoch epoch;
  epoch.condemned = none;
  if (range.items.empty()) return epoch;
  epoch.revision = range.items[0].mod_revision;
  {
    MutexLock lock(mutex_);
    if (last_.condemned != nullptr && last_.revision == epoch.revision) return last_;
  }
  QANAT_ASSIGN_OR_RETURN(epoch.number, from_hex16(range.items[0].value));

  // At a revision not before the epoch's: more packs than this epoch's may be there, which is as
  // safe.
  std::string prefix = condemned_prefix(project_);
  meta::RangeOptions options;
  options.keys_only = true;
  QANAT_ASSIGN_OR_RETURN(meta::RangeResult packs,
                         meta_->range(meta::KeyRange::prefix(prefix), options));
  auto condemned = std::make_shared<std::set<chunk::PackId>>();
  for (const meta::KeyValue& item : packs.items) {
    std::string object_key =
        str_cat("packs/", project_, "/", std::string_view(item.key).substr(prefix.size()));
    QANAT_ASSIGN_OR_RETURN(chunk::PackId pack, parse_pack_object_key(object_key));
    condemned->insert(pack);
  }
  epoch.condemned = std::move(condemned);
  if (on_move_) QANAT_RETURN_IF_ERROR(on_move_());
  MutexLock lock(mutex_);
  last_ = epoch;
  return epoch;
}

}  // namespace qanat::content
