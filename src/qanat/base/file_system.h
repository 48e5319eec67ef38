// The disk, behind an interface: the embedded meta store and the local object store reach it
// through here only, so that a test can lose, tear and reorder whatever was not synced
// (tests/support/fault_file_system.h).
//
// What is durable when (POSIX, as ext4 and xfs keep it):
//  - bytes written are durable once sync() of the file has returned OK; before that, any subset of
//  them may survive a power cut;
//  - a name (created, renamed, removed) is durable once sync_directory() of its folder has returned
//  OK;
//  - rename() replaces atomically: after a power cut the name means the old or the new file, never
//  neither. It does not
//    make the new file's bytes durable: sync() first.
// After sync() fails nothing is known about the file's unsynced bytes and calling it again proves
// nothing (the kernel drops dirty pages after an error): give the file up.
//
// Errors: errno as errno_status maps it, with the operation and the path. No space and no quota are
// kResourceExhausted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat {

enum class OpenMode {
  kReadOnly,         // must exist
  kReadWrite,        // must exist
  kReadWriteCreate,  // created empty unless it exists
  kCreateExclusive,  // kAlreadyExists if it exists; read and write
};

// An open file. Calls on different ranges may run at once (pread, pwrite); append, truncate and
// close need the caller's own order. Destruction closes, but only close() tells of errors.
class File {
 public:
  virtual ~File() = default;
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Reads up to `length` bytes; fewer only at the end of the file. Says how many.
  virtual Result<size_t> pread(uint64_t offset, char* buffer, size_t length) = 0;
  // Writes all of it, extending the file with zeros where need be. After an error any part may be
  // written. Not durable until sync().
  virtual Status pwrite(uint64_t offset, std::string_view bytes) = 0;
  // A hint that these bytes, written before, can be on their way to the disk while more are being
  // written, so that sync() finds less to do.
  virtual void start_writing(uint64_t /*offset*/, uint64_t /*length*/) {}
  // pwrite at the end. One appender at a time. After an error the file may be longer by any part of
  // `bytes`.
  virtual Status append(std::string_view bytes) = 0;
  // Cuts or extends with zeros. Not durable until sync().
  virtual Status truncate(uint64_t size) = 0;
  virtual Result<uint64_t> size() = 0;
  // Makes the bytes and the size durable (fdatasync); not the file's name.
  virtual Status sync() = 0;
  // Makes nothing durable. Idempotent; nothing else may be called afterwards.
  virtual Status close() = 0;
};

struct DirectoryEntry {
  std::string name;
  bool is_directory = false;
};

struct FileInfo {
  uint64_t size = 0;
  bool is_directory = false;
  int64_t modified_ms = 0;  // since 1970
};

struct SpaceInfo {
  uint64_t total = 0;      // bytes
  uint64_t available = 0;  // bytes that this user may still write
};

// Holds a lock on a file until destroyed. The kernel frees it when the process dies.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

// Thread safe. Paths are the system's own (absolute, or relative to the working directory). New
// files are readable and writable by their owner only (0600), folders likewise (0700): data folders
// are private.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  // A file. kNotFound if there is none. Durable after sync_directory of its folder.
  virtual Status remove(const std::string& path) = 0;
  // An empty folder. kFailedPrecondition if it is not empty.
  virtual Status remove_directory(const std::string& path) = 0;
  // Replaces `to` atomically. Durable after sync_directory of both folders.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // Sorted by name, without `.` and `..`. Holds all names in memory: for folders that Qanat keeps
  // small.
  virtual Result<std::vector<DirectoryEntry>> list(const std::string& directory) = 0;
  // The folder and what is missing above it; OK if it exists. Each folder it creates is made
  // durable in its parent.
  virtual Status make_directories(const std::string& path) = 0;
  // Makes the names in this folder durable (fsync of the folder).
  virtual Status sync_directory(const std::string& directory) = 0;
  virtual Result<FileInfo> stat(const std::string& path) = 0;
  virtual Result<SpaceInfo> free_space(const std::string& path) = 0;
  // Takes an exclusive lock (flock), creating the file if need be; kFailedPrecondition at once if
  // another holder has it.
  virtual Result<std::unique_ptr<FileLock>> lock_file(const std::string& path) = 0;

  // The rest is written in terms of the above.

  // False also when the path cannot be looked at.
  bool exists(const std::string& path);
  // The whole file; kTooLarge when it is longer than `limit` bytes.
  Result<std::string> read_file(const std::string& path, uint64_t limit = uint64_t{1} << 30);
  // Replaces or creates the file so that after a power cut it is the old one or the new one, whole:
  // writes `path`.new, syncs, renames, syncs the folder. Durable when it returns OK. Not for two
  // writers of one path at once.
  Status write_file_durably(const std::string& path, std::string_view bytes);
  // A folder and everything in it; OK if it does not exist. Does not follow symbolic links. Not
  // durable. The machine's own file system has its own (tree_removal.h), which takes any depth and
  // any number of names.
  virtual Status remove_tree(const std::string& path);
};

// The machine's own. Lives as long as the process.
FileSystem& posix_file_system();

// "/a/b/c" -> "/a/b"; "c" -> "."; "/c" -> "/".
std::string parent_directory(const std::string& path);

}  // namespace qanat
