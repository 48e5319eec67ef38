// CachingObjectStore: another store, with a bounded cache of what was read and written on a local
// disk.
//
// For stores that are far away. Objects are cached in blocks of 256 KiB, a file each, by the least
// recent use. Every block is checked against its checksum whenever it is read, so a damaged or torn
// cache file is a miss, never wrong data; nothing is synced, and a crash loses what it loses. The
// cache survives restarts. It never makes the store fail: when its disk is full or broken, it
// caches less. What is written through this store is cached too.
//
// A cache folder belongs to one process at a time. Keys of objects are never used twice
// (object_store.h), so what is cached is never stale; an object that another process removed may
// still be read for a while.
//
// Files: FOLDER/<2 hex>/<hash of the key, 16 hex>-<number of the block>, each: the block's bytes;
// the object's key; then u64 size of the object (2^64 - 1: not known), u32 length of the key, u64
// XXH3-64 of all before it, "QNTCACH1".
//
// Thread-safe. Concurrent readers of one block fetch it once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "qanat/base/file_system.h"
#include "qanat/object/object_store.h"

namespace qanat::object {

class BlockFiles;  // the cache itself

class CachingObjectStore : public ObjectStore {
 public:
  static constexpr int64_t kBlock = 256 << 10;

  // Bytes on disk, at least 16 MiB. kFailedPrecondition if another process uses the folder.
  static Result<std::unique_ptr<CachingObjectStore>> open(std::unique_ptr<ObjectStore> store,
                                                          FileSystem& files, std::string folder,
                                                          uint64_t capacity);
  ~CachingObjectStore() override;

  using ObjectStore::create;
  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key,
                                               CreateOptions options) override;
  Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const override;
  Result<int64_t> size(std::string_view key) const override;
  Status remove(std::string_view key) override;
  Status list(std::string_view prefix, const Visitor& each) const override;
  std::string describe() const override;
  void cancel() override { store_->cancel(); }
  PresignedUrls* presigned_urls() override { return store_->presigned_urls(); }

  // Bytes on disk now.
  uint64_t cached_bytes() const;

 private:
  class Writer;
  CachingObjectStore(std::unique_ptr<ObjectStore> store, std::unique_ptr<BlockFiles> cache);
  // Makes this caller the one that fetches the block; false: it is there by now, or (without
  // `wait`) another is at it. BlockFiles::done ends it.
  bool begin_fetch(std::string_view key, int64_t number, bool wait) const;
  // Reads blocks [first, last] of an object from the store, in one piece, into the cache.
  Status fetch(std::string_view key, int64_t first, int64_t last, int64_t object_size,
               std::string* bytes) const;

  const std::unique_ptr<ObjectStore> store_;
  const std::unique_ptr<BlockFiles> cache_;
};

}  // namespace qanat::object
