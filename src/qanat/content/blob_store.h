// BlobStore: reads blobs of one project, verified.
//
// A blob is found through the index `blobs`, read from its pack, decompressed, and hashed against
// its name. Nodes and small chunks are kept in a bounded cache; chunks that are read many at a time
// are not: these are streams, which pass once and would push out what is read again. Thread-safe.
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

  // Reads and verifies a blob whose place is known; fills the cache.
  Result<Blob> read_at(const BlobRef& ref, const chunk::BlobLocation& location);
  // Puts a verified blob into the cache (a writer's nodes are read again soon).
  void remember(const BlobRef& ref, const Blob& blob);

  const std::string& project() const { return project_; }
  SegmentIndex& index() { return *index_; }

 private:
  // Verifies a blob; `keep`: in the cache.
  Result<Blob> take(const BlobRef& ref, const chunk::BlobLocation& location,
                    std::string_view stored, bool keep);
  Result<Blob> fetch(const BlobRef& ref, const chunk::BlobLocation& location, bool keep);

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
