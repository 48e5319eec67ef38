// A file system in memory that loses what POSIX allows to be lost, for tests of everything that
// promises durability.
//
// A test runs its subject on a FaultFileSystem, lets it "crash" at some operation, reboots with a
// seed, and looks whether what was acknowledged is still there:
//
//   for (uint64_t n = 1;; ++n) {
//     FaultFileSystem disk;
//     disk.crash_at(n);
//     ... use the disk, note what was acknowledged, stop at the first error ...
//     bool crashed = disk.crashed();
//     for (uint64_t seed = 0; seed < 20; ++seed) {
//       std::unique_ptr<FaultFileSystem> after = disk.reboot(seed);
//       ... open the subject on *after; everything acknowledged is there, anything else is whole or
//       absent ...
//     }
//     if (!crashed) break;  // the run had fewer than n operations: every crash point was tried
//   }
//
// What a reboot keeps of each file: all that was synced; of the rest, for each sector of 512 bytes
// on its own, some version from the synced one to the newest (so writes are dropped, torn and
// reordered), and some size the file had since its sync. What a reboot keeps of each folder: the
// names as of its last sync_directory, and any subset of the changes since. A rename within a
// folder happens wholly or not at all. A file that was created and synced can still lose its name.
// Making and removing folders is durable at once, as FileSystem promises for make_directories.
// After a sync was made to fail (fail_with), the file's unsynced writes stay losable even if a
// later sync succeeds: kernels drop dirty pages after an error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/file_system.h"

namespace qanat::testing {

// Operations that change the disk; these are what crash_at counts.
enum class Operation {
  kCreate,  // open() that made a file
  kWrite,   // pwrite, append
  kTruncate,
  kSync,  // of a file
  kRename,
  kRemove,
  kSyncDirectory,
  kMakeDirectory,  // each folder that make_directories made
  kRemoveDirectory,
};

// Thread safe. Paths are normalized ("a//b/" is "a/b"); "/" and "." exist from the start. Folders
// cannot be renamed.
class FaultFileSystem : public FileSystem {
 public:
  FaultFileSystem();
  ~FaultFileSystem() override;

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Status remove(const std::string& path) override;
  Status remove_directory(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Result<std::vector<DirectoryEntry>> list(const std::string& directory) override;
  Status make_directories(const std::string& path) override;
  Status sync_directory(const std::string& directory) override;
  Result<FileInfo> stat(const std::string& path) override;
  Result<SpaceInfo> free_space(const std::string& path) override;
  Result<std::unique_ptr<FileLock>> lock_file(const std::string& path) override;

  // The n-th operation from now (1 = the next) fails half done: what it wrote, renamed or removed
  // may or may not survive, and a sync makes nothing durable. Everything after it fails, reads too.
  void crash_at(uint64_t n);
  // The same, now.
  void crash();
  bool crashed() const;
  // How many operations were done; with the same subject and inputs the count is the same in every
  // run.
  uint64_t operations() const;

  // The disk after a power cut, everything on it durable, without crash points, hooks or locks. The
  // same seed gives the same disk. This one stays as it is, so that many seeds can be tried; it
  // should not be used further by a subject. Seed 0 loses everything that may be lost, seed 1 keeps
  // everything.
  std::unique_ptr<FaultFileSystem> reboot(uint64_t seed) const;

  // Asked before each operation; what it returns, if not OK, is the operation's outcome and nothing
  // is changed. It is called under the disk's lock: it must not use the disk. An empty function
  // ends it.
  void fail_with(std::function<Status(Operation operation, const std::string& path)> hook);
  // Bytes in files over this make writes fail with kResourceExhausted. No limit at first.
  void set_capacity(uint64_t bytes);
  // Turns one bit around in the file as stored, durable too: bit 0 is the lowest of the first byte.
  Status flip_bit(const std::string& path, uint64_t bit);

 private:
  struct Disk;
  class OpenFile;
  class Lock;

  explicit FaultFileSystem(std::shared_ptr<Disk> disk);

  const std::shared_ptr<Disk> disk_;  // shared with open files and locks
};

}  // namespace qanat::testing
