// BlobStore: reads blobs of one project, verified.
//
// A blob is found through the index `blobs`, read from its pack, decompressed, and hashed against
// its name. Nodes and small chunks are kept in a bounded cache. A pack that is gone when it is read
// (garbage collection has moved the blob elsewhere) makes it look the blob up once more.
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

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

  // Which of them the index knows, in order. Says nothing about a pack that is condemned: writers
  // ask locate_many.
  Result<std::vector<bool>> has(std::span<const BlobRef> refs);
  // Where they lie, in order; nothing for those that are not there.
  Result<std::vector<std::optional<chunk::BlobLocation>>> locate_many(
      std::span<const BlobRef> refs);

  // All places where each lies that the index knows, newest first.
  Result<std::vector<std::vector<chunk::BlobLocation>>> locate_copies(
      std::span<const BlobRef> refs);

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
  Result<Blob> take(const BlobRef& ref, const chunk::BlobLocation& location,
                    std::string_view stored);

  std::string project_;
  object::ObjectStore* objects_;
  SegmentIndex* index_;
  BlockCache* cache_;
  uint64_t space_;
};

// The object key of a pack, and back (for the index's rebase).
std::string pack_object_key(std::string_view project, const chunk::PackId& pack);
Result<chunk::PackId> parse_pack_object_key(std::string_view object_key);

}  // namespace qanat::content
