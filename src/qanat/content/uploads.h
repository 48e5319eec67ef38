// Upload sessions: what a client has sent ahead of the edit that will refer to it.
//
//   /v1/upload/<project>/<id>              UploadRecord
//   /v1/upload/<project>/<id>/pack/<pack>  empty: a pack that this upload wrote; the pack as in a
//                                          condemned key: <epoch 16 hex>_<pack id 32 hex>
//
// All keys of an upload hang on one lease of 24 hours, renewed by each use, so a client that never
// comes back leaves no record for long: they also end with the repo, and when garbage is collected
// `--now`, those that nobody has used for two minutes. Garbage collection condemns no pack of an
// epoch that is not below the `epoch` of every record: what an upload has written since it began
// stays until its record is gone. Bytes: docs/formats.md, "Upload records".
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/chunk/pack.h"
#include "qanat/meta/store.h"

namespace qanat::content {

struct UploadRecord {
  uint64_t epoch = 0;  // of the project, when the upload began
  int64_t created_ms = 0;
  std::string caller;  // whose upload it is: nobody else may use it
  std::string repo;    // that it may be used for

  bool operator==(const UploadRecord&) const = default;
};
std::string encode_upload(const UploadRecord& record);
Result<UploadRecord> parse_upload(std::string_view bytes);

// "/v1/upload/<project>/".
std::string uploads_prefix(std::string_view project);
std::string upload_key(std::string_view project, std::string_view id);
// True for the record of an upload, false for the pack keys beside it.
bool is_upload_key(std::string_view key);

// A session that lives.
struct Upload {
  std::string project;
  std::string id;
  UploadRecord record;
  int64_t create_revision = 0;  // of its record
  int64_t lease = 0;

  std::string key() const { return upload_key(project, id); }
  // The compare that a transaction makes which counts on the upload.
  meta::Compare alive() const;
  // The operation that notes a pack as written by it.
  meta::Operation note_pack(const chunk::PackId& pack) const;
};

inline constexpr int64_t kUploadTtlMs = 24LL * 3600 * 1000;

// Reads the project's epoch and begins a session that nothing may be collected from.
Result<Upload> begin_upload(meta::Store& meta, std::string_view project, std::string_view repo,
                            std::string_view caller, int64_t now_ms);
// The session, its lease renewed. kNotFound: ended, expired, or never begun.
Result<Upload> use_upload(meta::Store& meta, std::string_view project, std::string_view id);
// All that live; their leases are not renewed.
Result<std::vector<Upload>> list_uploads(const meta::Store& meta, std::string_view project);
// The packs that it wrote.
Result<std::set<chunk::PackId>> upload_packs(meta::Store& meta, const Upload& upload);
// Removes its keys. OK if they are gone.
Status end_upload(meta::Store& meta, const Upload& upload);
// Ends all that are for a repo, as it is being deleted.
Status end_uploads_of(meta::Store& meta, std::string_view project, std::string_view repo);
// Ends all that no request has used for `idle_ms`; gives how many. Its client, should it come back,
// begins a new one.
Result<uint64_t> end_idle_uploads(meta::Store& meta, std::string_view project, int64_t idle_ms);

}  // namespace qanat::content
