// BlockFiles: the blocks of a CachingObjectStore on disk; caching_object_store.h says how.
//
// Thread-safe; no I/O under the lock. Errors of the disk are not passed on: a block that cannot be
// read or written is not there.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "qanat/base/file_system.h"
#include "qanat/base/thread_annotations.h"

namespace qanat::object {

class BlockFiles {
 public:
  // Takes the folder (made if need be) and finds the blocks that are there.
  static Result<std::unique_ptr<BlockFiles>> open(FileSystem& files, std::string folder,
                                                  uint64_t capacity);

  static constexpr int64_t kUnknownSize = -1;
  struct Block {
    std::string bytes;
    int64_t object_size = kUnknownSize;
  };
  // The block, checked; nothing if it is not there.
  std::optional<Block> get(std::string_view key, int64_t number);
  void put(std::string_view key, int64_t number, int64_t object_size, std::string_view bytes);
  // All blocks of an object.
  void forget(std::string_view key);

  // Sizes of objects, as far as they are known (a bounded number).
  std::optional<int64_t> size_of(std::string_view key);
  void remember_size(std::string_view key, int64_t size);

  // One fetch of a block at a time: true if the caller is to fetch it, and call done(). False if
  // another does: at once, or (`wait`) when that is done.
  bool begin_fetch(std::string_view key, int64_t number, bool wait);
  void done(std::string_view key, int64_t number);

  uint64_t bytes() const;
  const std::string& folder() const { return folder_; }
  uint64_t capacity() const { return capacity_; }

 private:
  using Name = std::pair<uint64_t, int64_t>;  // hash of the key, number of the block
  struct Item {
    uint64_t bytes = 0;  // on disk
    std::list<Name>::iterator place;
  };

  BlockFiles(FileSystem& files, std::string folder, uint64_t capacity)
      : files_(files), folder_(std::move(folder)), capacity_(capacity) {}
  Status load();
  std::string path_of(const Name& name) const;
  std::string folder_of(const Name& name) const;
  void erase(const Name& name) EXCLUDES(mutex_);
  // Takes out the least recently used beyond the capacity, less what is about to come.
  std::vector<Name> make_room(uint64_t bytes) REQUIRES(mutex_);
  void take_out(std::map<Name, Item>::iterator item) REQUIRES(mutex_);
  void remove_files(const std::vector<Name>& names);

  FileSystem& files_;
  const std::string folder_;
  const uint64_t capacity_;
  std::unique_ptr<FileLock> lock_;

  mutable Mutex mutex_;
  CondVar fetched_;
  std::map<Name, Item> items_ GUARDED_BY(mutex_);
  std::list<Name> order_ GUARDED_BY(mutex_);  // most recently used first
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
  uint64_t next_temporary_ GUARDED_BY(mutex_) = 0;
  std::set<Name> fetching_ GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, int64_t> sizes_ GUARDED_BY(mutex_);
};

}  // namespace qanat::object
