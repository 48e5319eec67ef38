// PackStream: one pack on its way into the object store.
//
// Blobs are appended; small ones are held until about 1 MiB is there, then handed to the object
// store, so that a small pack is one write; large ones go there at once, uncopied. Nodes stay
// readable until the pack is closed. Destroyed before close(), it leaves nothing behind. One thread
// at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "qanat/chunk/pack.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/segment_index.h"
#include "qanat/object/object_store.h"

namespace qanat::content {

class PackStream {
 public:
  // Borrowed: objects.
  PackStream(object::ObjectStore* objects, object::ObjectStore::CreateOptions options,
             const std::string& project, uint64_t epoch);

  const chunk::PackId& id() const { return id_; }

  // Where the blob lies, its pack included. An error leaves the pack useless.
  Result<chunk::BlobLocation> add(const BlobRef& ref, std::string_view plain,
                                  const chunk::Encoded& encoded, const Blob& shared);
  // A node of this pack, null for other blobs. Also while another thread is in close().
  Blob node(const BlobRef& ref) const;
  // A blob of this pack that is still in memory; null if its bytes have gone to the store.
  Result<Blob> read(const BlobRef& ref, const chunk::BlobLocation& location) const;

  // True when it should be closed: it is long enough, or holds enough memory.
  bool full() const;
  // Makes it durable.
  Result<SegmentRegistration> close();

 private:
  static constexpr size_t kBuffer = 1u << 20;
  static constexpr size_t kLarge = 128u << 10;
  static constexpr size_t kMaxOverlay = 8u << 20;
  static constexpr size_t kMaxBlobs = 64u << 10;  // an entry costs about 150 bytes of memory

  Status take(std::string_view bytes);
  Status drain();
  Status store(std::string_view bytes);

  object::ObjectStore* objects_;
  object::ObjectStore::CreateOptions options_;
  chunk::PackId id_;
  std::string object_key_;
  std::unique_ptr<object::ObjectWriter> object_;
  std::string buffer_;
  uint64_t buffer_offset_ = 0;  // of the buffer's first byte in the pack
  std::unordered_map<BlobRef, Blob, chunk::BlobRefHasher> overlay_;
  size_t overlay_bytes_ = 0;
  chunk::PackWriter writer_;
};

}  // namespace qanat::content
