#include "qanat/content/uploads.h"

#include <cstring>

#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/content/epoch.h"

namespace qanat::content {
namespace {

constexpr uint8_t kVersion = 1;
constexpr std::string_view kPrefix = "/v1/upload/";
constexpr std::string_view kPack = "/pack/";

std::string packs_prefix(const Upload& upload) { return upload.key() + std::string(kPack); }

Result<uint64_t> current_epoch(meta::Store& meta, std::string_view project, int64_t* revision) {
  QANAT_ASSIGN_OR_RETURN(const auto item, meta.get(epoch_key(project)));
  *revision = item ? item->mod_revision : 0;
  if (!item) return uint64_t{0};
  return from_hex16(item->value);
}

Result<Upload> upload_of(std::string_view project, std::string_view id,
                         const meta::KeyValue& item) {
  Upload upload{.project = std::string(project), .id = std::string(id)};
  auto record = parse_upload(item.value);
  if (!record.ok()) return record.status().with_context(item.key);
  upload.record = *std::move(record);
  upload.create_revision = item.create_revision;
  upload.lease = item.lease;
  return upload;
}

}  // namespace

std::string encode_upload(const UploadRecord& record) {
  std::string out;
  put_u8(out, kVersion);
  put_varint(out, record.epoch);
  put_varint(out, static_cast<uint64_t>(record.created_ms));
  put_bytes(out, record.caller);
  put_bytes(out, record.repo);
  return out;
}

Result<UploadRecord> parse_upload(std::string_view bytes) {
  Reader reader(bytes);
  QANAT_ASSIGN_OR_RETURN(const uint8_t version, reader.u8());
  if (version != kVersion) {
    return data_loss(
        str_cat("an upload's record has format version ", version, ", unknown to this Qanat"),
        "use the Qanat that wrote this installation, or a newer one");
  }
  UploadRecord record;
  QANAT_ASSIGN_OR_RETURN(record.epoch, reader.varint());
  QANAT_ASSIGN_OR_RETURN(const uint64_t created, reader.varint());
  if (created > INT64_MAX) return data_loss("an upload's record has an impossible time");
  record.created_ms = static_cast<int64_t>(created);
  QANAT_ASSIGN_OR_RETURN(record.caller, reader.bytes());
  QANAT_ASSIGN_OR_RETURN(record.repo, reader.bytes());
  QANAT_RETURN_IF_ERROR(reader.expect_end());
  return record;
}

std::string uploads_prefix(std::string_view project) { return str_cat(kPrefix, project, "/"); }

std::string upload_key(std::string_view project, std::string_view id) {
  return str_cat(kPrefix, project, "/", id);
}

bool is_upload_key(std::string_view key) {
  return key.starts_with(kPrefix) && key.find(kPack, kPrefix.size()) == std::string_view::npos;
}

meta::Compare Upload::alive() const { return meta::create_revision_is(key(), create_revision); }

meta::Operation Upload::note_pack(const chunk::PackId& pack) const {
  const std::string_view pack_id(reinterpret_cast<const char*>(pack.id.data()), pack.id.size());
  return meta::put(str_cat(packs_prefix(*this), to_hex16(pack.epoch), "_", to_hex(pack_id)), "",
                   lease);
}

Result<Upload> begin_upload(meta::Store& meta, std::string_view project, std::string_view repo,
                            std::string_view caller, int64_t now_ms) {
  constexpr int kAttempts = 5;
  Upload upload{.project = std::string(project), .id = random_id()};
  upload.record.created_ms = now_ms;
  upload.record.caller = caller;
  upload.record.repo = repo;
  QANAT_ASSIGN_OR_RETURN(upload.lease, meta.grant_lease(kUploadTtlMs));
  Status status = conflict("garbage collection kept moving the epoch", "try again");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    int64_t revision = 0;
    QANAT_ASSIGN_OR_RETURN(upload.record.epoch, current_epoch(meta, project, &revision));
    // With the epoch unmoved: a collection that moves it afterwards sees the record.
    meta::Transaction transaction;
    transaction.when(meta::key_absent(upload.key()))
        .when(meta::mod_revision_is(epoch_key(project), revision))
        .put(upload.key(), encode_upload(upload.record), upload.lease);
    auto result = meta.commit(std::move(transaction));
    if (!result.ok()) {
      status = result.status();
      break;
    }
    if (result->succeeded) {
      upload.create_revision = result->revision;
      return upload;
    }
  }
  (void)meta.revoke_lease(upload.lease);
  return status;
}

Result<Upload> use_upload(meta::Store& meta, std::string_view project, std::string_view id) {
  const auto gone = [&] {
    return not_found(str_cat("there is no upload ", id),
                     "it was ended, or nothing used it for 24 hours: begin a new one");
  };
  if (!is_id(id)) return gone();
  QANAT_ASSIGN_OR_RETURN(const auto item, meta.get(upload_key(project, id)));
  if (!item) return gone();
  QANAT_ASSIGN_OR_RETURN(Upload upload, upload_of(project, id, *item));
  const Status alive = meta.keep_alive(upload.lease);
  if (alive.code() == Code::kNotFound) return gone();
  QANAT_RETURN_IF_ERROR(alive);
  return upload;
}

Result<std::vector<Upload>> list_uploads(const meta::Store& meta, std::string_view project) {
  std::vector<Upload> uploads;
  meta::KeyRange range = meta::KeyRange::prefix(uploads_prefix(project));
  meta::RangeOptions one;
  one.limit = 1;
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const meta::RangeResult found, meta.range(range, one));
    if (found.items.empty()) return uploads;
    const meta::KeyValue& item = found.items[0];
    // An upload, or the packs of one that has just ended. Its packs, which may be very many, are
    // passed by.
    const size_t end = item.key.find('/', uploads_prefix(project).size());
    const std::string key = item.key.substr(0, end);
    if (end == std::string::npos) {
      QANAT_ASSIGN_OR_RETURN(
          uploads.emplace_back(),
          upload_of(project, std::string_view(key).substr(key.rfind('/') + 1), item));
    }
    range.begin = meta::prefix_end(key + "/");
  }
}

Result<std::set<chunk::PackId>> upload_packs(meta::Store& meta, const Upload& upload) {
  const std::string prefix = packs_prefix(upload);
  meta::RangeOptions options;
  options.keys_only = true;
  QANAT_ASSIGN_OR_RETURN(const meta::RangeResult range,
                         meta.range(meta::KeyRange::prefix(prefix), options));
  std::set<chunk::PackId> packs;
  for (const meta::KeyValue& item : range.items) {
    const std::string_view name = std::string_view(item.key).substr(prefix.size());
    const auto [epoch, id] = split_once(name, '_');
    chunk::PackId pack;
    QANAT_ASSIGN_OR_RETURN(pack.epoch, from_hex16(epoch));
    QANAT_ASSIGN_OR_RETURN(const std::string bytes, from_hex(id));
    if (bytes.size() != pack.id.size())
      return data_loss(str_cat("not a key of a pack: ", item.key));
    std::memcpy(pack.id.data(), bytes.data(), bytes.size());
    packs.insert(pack);
  }
  return packs;
}

Status end_upload(meta::Store& meta, const Upload& upload) {
  meta::Transaction transaction;
  transaction.when(upload.alive())
      .erase(upload.key())
      .add(meta::erase_range(meta::KeyRange::prefix(packs_prefix(upload))));
  transaction.may_use_reserve = true;
  QANAT_RETURN_IF_ERROR(meta.commit(std::move(transaction)).status());
  const Status revoked = meta.revoke_lease(upload.lease);
  return revoked.code() == Code::kNotFound ? ok_status() : revoked;
}

Status end_uploads_of(meta::Store& meta, std::string_view project, std::string_view repo) {
  QANAT_ASSIGN_OR_RETURN(const std::vector<Upload> uploads, list_uploads(meta, project));
  for (const Upload& upload : uploads) {
    if (upload.record.repo == repo) QANAT_RETURN_IF_ERROR(end_upload(meta, upload));
  }
  return ok_status();
}

Result<uint64_t> end_idle_uploads(meta::Store& meta, std::string_view project, int64_t idle_ms) {
  QANAT_ASSIGN_OR_RETURN(const std::vector<Upload> uploads, list_uploads(meta, project));
  uint64_t ended = 0;
  for (const Upload& upload : uploads) {
    // Each use renews the lease.
    const auto lease = meta.lease_info(upload.lease);
    if (!lease.ok() && lease.code() != Code::kNotFound) return lease.status();
    if (lease.ok() && lease->ttl_ms - lease->remaining_ms < idle_ms) continue;
    QANAT_RETURN_IF_ERROR(end_upload(meta, upload));
    ++ended;
  }
  return ended;
}

}  // namespace qanat::content
