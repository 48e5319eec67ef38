// A bounded cache of immutable things that were read from the object store: index blocks, footers,
// decoded blobs.
//
// Least recently used goes first, when the charges (bytes) exceed the capacity. Values are shared:
// one that is evicted lives on as long as a reader holds it, so the bound is capacity plus what
// readers hold. Thread-safe; sharded, no I/O under a lock.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "qanat/chunk/blob_ref.h"

namespace qanat::content {

class BlockCache {
 public:
  struct Key {
    std::array<uint64_t, 5> words{};
    bool operator==(const Key&) const = default;
  };
  // Keys of blobs, and of positions in a space (see new_space), never collide.
  static Key blob_key(uint64_t space, const chunk::BlobRef& ref);
  static Key position_key(uint64_t space, uint64_t position, uint64_t part = 0);
  // A number that no other caller in this process gets: one for each segment, project, ...
  static uint64_t new_space();

  explicit BlockCache(size_t capacity_bytes);
  ~BlockCache();

  template <class T>
  std::shared_ptr<const T> get(const Key& key) {
    return std::static_pointer_cast<const T>(find(key));
  }
  // Replaces what is there. A value larger than a shard is not kept.
  void put(const Key& key, std::shared_ptr<const void> value, size_t charge);
  void erase(const Key& key);

  size_t charge() const;
  size_t capacity() const { return capacity_; }
  uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }
  uint64_t misses() const { return misses_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kShards = 8;
  struct Shard;
  std::shared_ptr<const void> find(const Key& key);
  Shard& shard(const Key& key) const;

  size_t capacity_;
  std::unique_ptr<Shard[]> shards_;
  std::atomic<uint64_t> hits_{0};
  std::atomic<uint64_t> misses_{0};
};

}  // namespace qanat::content
