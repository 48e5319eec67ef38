// StoredSegment: lookups in one segment that lies in the object store, through the cache.
//
// A small segment is read and checked as a whole, once. Of a large one the footer and the block
// index are kept in the cache, with the whole filter unless it is large, and blocks and pages of
// large filters as they are needed. Immutable and thread-safe; holds no bytes itself, but knows
// where those are that the cache or a reader holds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/thread_annotations.h"
#include "qanat/chunk/segment.h"
#include "qanat/content/block_cache.h"
#include "qanat/content/index_manifest.h"
#include "qanat/object/object_store.h"

namespace qanat::content {

// Bytes that a value of an index refers to, kept alive.
struct PinnedValue {
  std::shared_ptr<const void> owner;
  std::string_view value;
};

class StoredSegment : public std::enable_shared_from_this<StoredSegment> {
 public:
  // Segments up to this size are held whole.
  static constexpr uint64_t kWholeLimit = 256u << 10;
  // Filters up to this size (about 400,000 keys: a pack's) are held whole.
  static constexpr uint64_t kWholeFilterLimit = 512u << 10;

  // Borrowed: objects, cache.
  StoredSegment(object::ObjectStore* objects, BlockCache* cache, SegmentLocation location);

  const SegmentLocation& location() const { return location_; }

  // For many lookups in a row: holds what every lookup needs, so that the cache is asked once.
  class Handle {
   public:
    // The stored value, as it lies there. kNotFound: the object is gone (compacted away).
    // kDataLoss: damaged.
    Result<std::optional<PinnedValue>> find(std::string_view key, uint64_t key_hash) const;

   private:
    friend class StoredSegment;
    std::shared_ptr<const StoredSegment> segment_;
    std::shared_ptr<const void> whole_;  // a Whole, or null and
    std::shared_ptr<const void> head_;   // a Head
  };
  Result<Handle> open() const;

  // Puts the segment's bytes, if it is small, into the cache: the caller has just written them.
  void remember(std::string bytes) const;

  // Walks entries in order, from the first key that is not below `from`. Reads ahead about
  // `read_ahead` bytes and leaves the cache alone. Views are valid until the next call. One thread.
  class Cursor {
   public:
    Result<bool> next(chunk::SegmentEntry* entry);  // false at the end

   private:
    friend class StoredSegment;
    std::shared_ptr<const StoredSegment> segment_;
    std::shared_ptr<const void> owner_;
    const chunk::SegmentBlocks* blocks_ = nullptr;
    std::string_view whole_bytes_;  // not empty: the segment is in memory
    uint64_t read_ahead_ = 0;
    std::string from_;  // entries below it are passed over
    size_t next_block_ = 0;
    std::string buffer_;
    uint64_t buffer_offset_ = 0;
    std::string_view rest_;
  };
  Result<Cursor> cursor(std::string_view from, uint64_t read_ahead) const;

 private:
  struct Whole;
  struct Head;
  struct Block;

  Result<std::shared_ptr<const Whole>> whole() const;
  Result<std::shared_ptr<const Head>> head() const;
  Result<std::shared_ptr<const Head>> read_head() const;
  // What was opened last, if it still lives: lookups come by the million, and the cache's table and
  // lists would be most of their cost. Now and then the cache is asked anyway, so that it knows
  // what is used.
  std::shared_ptr<const void> opened() const;
  void set_opened(const std::shared_ptr<const void>& part) const;
  Result<std::string> read(uint64_t offset, uint64_t length) const;
  Result<std::shared_ptr<const Block>> block(const Head& head, size_t i) const;
  Result<bool> may_contain(const Head& head, uint64_t key_hash) const;
  Status context(const Status& status) const;

  object::ObjectStore* objects_;
  BlockCache* cache_;
  SegmentLocation location_;
  uint64_t space_;
  mutable Mutex opened_mutex_;
  mutable std::weak_ptr<const void> opened_ GUARDED_BY(opened_mutex_);  // a Whole or a Head
  mutable uint32_t times_opened_ GUARDED_BY(opened_mutex_) = 0;
};

}  // namespace qanat::content
