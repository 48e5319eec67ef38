// What `put file` remembers between commands, in the cache folder (${XDG_CACHE_HOME:-~/.cache}/
// qanat): which upload an interrupted put belongs to, and what files looked like when they were
// put. All of it may be deleted at any time; it costs time, never content.
//
// Files are named after what is put where: SHA-256 of server, project, repo, branch, path and the
// local source. They are replaced by renaming, so a reader finds a whole one. Formats are of this
// machine only and carry a version; what does not read back is ignored.
//   uploads/<key>   "QNUP1\n", the id of the upload
//   stat/<key>      "QNSTAT2\n"; u64 time of the scan (ns since 1970); 16 id of the commit that the
//                   put made (zeros: not known); then records in walk order: u32 length of what
//                   follows; bytes path; u64 size, mtime ns, ctime ns, inode; 32 content id; u64
//                   XXH3-64 of all that from `path` on
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/cli/folder_walk.h"

namespace qanat::cli {

// The key of a put; "" if there is no cache folder, then nothing is remembered.
std::string put_key(const std::vector<std::string_view>& parts);

// The upload that a put of this key began and did not finish.
std::optional<std::string> find_upload(const std::string& key);
void save_upload(const std::string& key, const std::string& id);
void forget_upload(const std::string& key);

// Reads the stat cache of a key beside a walk: both in walk order, constant memory.
class StatCacheReader {
 public:
  explicit StatCacheReader(const std::string& key);
  ~StatCacheReader();

  // The content id that `path` had when it was put, if the file has not changed since. Paths must
  // ascend. A file whose times are not older than the scan that read it is not trusted: it may have
  // changed in the same tick of the file system's clock ("racily clean").
  std::optional<Hash> find(std::string_view path, const FileStamp& stamp);
  // The commit that holds the files as they were put; "" if it is not known.
  const std::string& commit() const { return commit_; }

 private:
  struct Record {
    std::string path;
    FileStamp stamp;
    Hash id;
  };
  std::optional<Record> read();

  void* file_ = nullptr;  // FILE
  int64_t scan_ns_ = 0;
  std::string commit_;
  std::optional<Record> record_;
};

// Writes the next one. Errors only mean that there will be none.
class StatCacheWriter {
 public:
  StatCacheWriter(const std::string& key, int64_t scan_ns);
  // Removes what was not kept.
  ~StatCacheWriter();

  // In walk order. A zero id is set later: the answer names the record (0: none was written).
  uint64_t add(std::string_view path, const FileStamp& stamp, const Hash& id);
  void set(uint64_t record, const Hash& id);
  // The commit that the put made, by its id.
  void set_commit(std::string_view id);
  // It becomes the cache of its key; old ones of other keys (not used for 30 days) go.
  void keep();

 private:
  const std::string path_;
  const std::string temporary_;
  void* file_ = nullptr;
  uint64_t offset_ = 0;
};

}  // namespace qanat::cli
