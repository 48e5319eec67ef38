#include "qanat/content/block_cache.h"

#include <cstring>
#include <list>
#include <unordered_map>

#include "qanat/base/thread_annotations.h"

namespace qanat::content {
namespace {

// Spaces of positions and of blobs must not collide: the first word is the space, the second says
// which kind of key follows.
constexpr uint64_t kPositionTag = 0;

struct KeyHasher {
  size_t operator()(const BlockCache::Key& key) const {
    uint64_t h = 0;
    for (uint64_t word : key.words) h = (h ^ word) * 0x9e3779b97f4a7c15 + (h >> 29);
    return h ^ (h >> 32);
  }
};

// Charged for each entry beside its value: list node, table node and control block.
constexpr size_t kOverhead = 160;

}  // namespace

struct BlockCache::Shard {
  struct Item {
    Key key;
    std::shared_ptr<const void> value;
    size_t charge;
  };
  mutable Mutex mutex;
  std::list<Item> items GUARDED_BY(mutex);  // most recently used first
  std::unordered_map<Key, std::list<Item>::iterator, KeyHasher> table GUARDED_BY(mutex);
  size_t charge GUARDED_BY(mutex) = 0;
};

BlockCache::Key BlockCache::blob_key(uint64_t space, const chunk::BlobRef& ref) {
  // Space and kind share a word; 256 bits of hash take the rest.
  Key key;
  key.words[0] = space << 8 | static_cast<uint64_t>(ref.kind);
  static_assert(Hash::kSize == 4 * sizeof(uint64_t));
  std::memcpy(&key.words[1], ref.hash.bytes.data(), Hash::kSize);
  return key;
}

BlockCache::Key BlockCache::position_key(uint64_t space, uint64_t position, uint64_t part) {
  return Key{{space << 8 | kPositionTag, position, part, 0, 0}};
}

uint64_t BlockCache::new_space() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

BlockCache::BlockCache(size_t capacity_bytes)
    : capacity_(capacity_bytes), shards_(std::make_unique<Shard[]>(kShards)) {}

BlockCache::~BlockCache() = default;

BlockCache::Shard& BlockCache::shard(const Key& key) const {
  return shards_[(KeyHasher()(key) >> 24) % kShards];
}

std::shared_ptr<const void> BlockCache::find(const Key& key) {
  Shard& shard = this->shard(key);
  MutexLock lock(shard.mutex);
  auto found = shard.table.find(key);
  if (found == shard.table.end()) {
    misses_.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
  }
  hits_.fetch_add(1, std::memory_order_relaxed);
  shard.items.splice(shard.items.begin(), shard.items, found->second);
  return found->second->value;
}

void BlockCache::put(const Key& key, std::shared_ptr<const void> value, size_t charge) {
  charge += kOverhead;
  size_t limit = capacity_ / kShards;
  if (charge > limit) return;
  Shard& shard = this->shard(key);
  std::list<Shard::Item> dropped;  // values are destroyed after the lock is let go
  MutexLock lock(shard.mutex);
  auto drop = [&](std::list<Shard::Item>::iterator item) REQUIRES(shard.mutex) {
    shard.charge -= item->charge;
    shard.table.erase(item->key);
    dropped.splice(dropped.begin(), shard.items, item);
  };
  if (auto found = shard.table.find(key); found != shard.table.end()) drop(found->second);
  while (shard.charge + charge > limit) drop(std::prev(shard.items.end()));
  shard.items.push_front({key, std::move(value), charge});
  shard.table.emplace(key, shard.items.begin());
  shard.charge += charge;
}

void BlockCache::erase(const Key& key) {
  Shard& shard = this->shard(key);
  std::list<Shard::Item> dropped;
  MutexLock lock(shard.mutex);
  auto found = shard.table.find(key);
  if (found == shard.table.end()) return;
  shard.charge -= found->second->charge;
  dropped.splice(dropped.begin(), shard.items, found->second);
  shard.table.erase(found);
}

size_t BlockCache::charge() const {
  size_t total = 0;
  for (size_t i = 0; i < kShards; ++i) {
    MutexLock lock(shards_[i].mutex);
    total += shards_[i].charge;
  }
  return total;
}

}  // namespace qanat::content
