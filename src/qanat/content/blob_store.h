// BlobStore: reads blobs of one project, verified.
//
// A blob is found through the index `blobs`, read from its pack, decompressed, and hashed against
// its name. Nodes and small chunks are kept in a bounded cache. A pack that is gone when it is read
// (garbage collection has moved the blob elsewhere) makes it look the blob up once more; if the
// copy that the index finds first is damaged or gone, the others are tried.
//
// Copies that are known to be damaged are remembered, some 100,000 of them and until the server
// ends, so that writers do not count on them: what is put again is stored again.
// Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "qanat/base/thread_annotations.h"
#include "qanat/chunk/pack.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/block_cache.h"
#include "qanat/content/segment_index.h"
#include "qanat/object/object_store.h"

namespace qanat::content {

// Of a read of what must be there: it is damaged, or missing. Other errors are the store's.
inline bool is_damage(const Status& status) {
  return status.code() == Code::kNotFound || status.code() == Code::kDataLoss;
}

class BlobStore : public BlobReader {
 public:
  // Borrowed: all outlive the store.
  BlobStore(std::string project, object::ObjectStore* objects, SegmentIndex* index,
            BlockCache* cache);

  Result<Blob> read(const BlobRef& ref) override;
  Result<std::vector<Blob>> read_many(std::span<const BlobRef> refs) override;

  // Where they lie, in order; nothing for those that are not there.
  Result<std::vector<std::optional<chunk::BlobLocation>>> locate_many(
      std::span<const BlobRef> refs,
      SegmentIndex::OnDamage on_damage = SegmentIndex::OnDamage::kFail);
  // The same for writers, which do not write what is there: nothing also for what is known to be
  // damaged, or of which only a damaged part of the index may know.
  Result<std::vector<std::optional<chunk::BlobLocation>>> locate_for_reuse(
      std::span<const BlobRef> refs);

  // All places where each lies that the index knows, newest first.
  Result<std::vector<std::vector<chunk::BlobLocation>>> locate_copies(
      std::span<const BlobRef> refs,
      SegmentIndex::OnDamage on_damage = SegmentIndex::OnDamage::kFail);

  // That the copy in this pack is damaged or gone.
  void note_damaged(const BlobRef& ref, const chunk::PackId& pack);
  bool is_damaged(const BlobRef& ref, const chunk::PackId& pack) const;

  // Reads and verifies a blob whose place is known; fills the cache.
  Result<Blob> read_at(const BlobRef& ref, const chunk::BlobLocation& location);
  // Reads and verifies blobs whose places are known, in ascending order of place: neighbours are
  // read at once. Leaves the cache alone. kNotFound: a pack is gone.
  struct Located {
    BlobRef ref;
    chunk::BlobLocation location;
  };
  Result<std::vector<Blob>> read_located(std::span<const Located> blobs);
  // Puts a verified blob into the cache (a writer's nodes are read again soon).
  void remember(const BlobRef& ref, const Blob& blob);

  const std::string& project() const { return project_; }
  SegmentIndex& index() { return *index_; }

 private:
  // The same with the cache, in any order.
  Result<Blob> fetch(const BlobRef& ref, const chunk::BlobLocation& location);
  Result<Blob> find(const BlobRef& ref);
  Result<std::vector<Blob>> find_many(std::span<const BlobRef> refs);
  // From the first copy that is sound.
  Result<Blob> find_any_copy(const BlobRef& ref);
  Result<Blob> take(const BlobRef& ref, const chunk::BlobLocation& location,
                    std::string_view stored);

  std::string project_;
  object::ObjectStore* objects_;
  SegmentIndex* index_;
  BlockCache* cache_;
  uint64_t space_;
  std::atomic<bool> any_damaged_ = false;
  mutable Mutex damaged_mutex_;
  std::set<std::pair<BlobRef, chunk::PackId>> damaged_ GUARDED_BY(damaged_mutex_);
};

// The object key of a pack, and back (for the index's rebase).
std::string pack_object_key(std::string_view project, const chunk::PackId& pack);
Result<chunk::PackId> parse_pack_object_key(std::string_view object_key);

}  // namespace qanat::content
