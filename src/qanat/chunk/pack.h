// Packs: many blobs in one object.
//
// A pack is its blobs' stored bytes one after another, then a footer that is a segment (segment.h)
// from blob key to where the blob lies. So a fresh pack's footer serves as an index segment itself,
// without being copied. Bytes: docs/formats.md, "Pack".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/chunk/blob_ref.h"
#include "qanat/chunk/codec.h"
#include "qanat/chunk/segment.h"

namespace qanat::chunk {

inline constexpr size_t kPackTarget =
    16u << 20;  // writers close a pack at the first blob that reaches it
inline constexpr size_t kPackHeaderLength = 8;
inline constexpr size_t kPackTrailerLength = 24;

// Which pack, when the entry does not lie in the pack itself: the epoch and the id of its object
// key.
struct PackId {
  uint64_t epoch = 0;
  std::array<uint8_t, 16> id{};
  auto operator<=>(const PackId&) const = default;
};

// Where a blob lies. The value of an index entry.
struct BlobLocation {
  std::optional<PackId> pack;  // none: the pack whose footer holds the entry
  uint64_t offset = 0;         // from the pack's first byte
  uint32_t stored_length = 0;
  uint32_t plain_length = 0;
  Codec codec = Codec::kRaw;
  // Of a chunk: a file may go on after it (chunker.h, ends_in_cut). So whoever composes a file of
  // chunks that are there need not read them to know that they are its chunks.
  bool ends_in_cut = false;
};
std::string encode_location(const BlobLocation& location);
Result<BlobLocation> parse_location(std::string_view value);

// Where a pack's footer segment lies in it.
struct PackFooter {
  uint64_t segment_offset = 0;
  uint64_t segment_length = 0;
  uint64_t pack_length() const { return segment_offset + segment_length + kPackTrailerLength; }
};

// Streams a pack. Memory: the footer's entries (about 100 bytes a blob). Thread-compatible.
class PackWriter {
 public:
  // `encoder` is borrowed; may be null if only add_encoded() is used.
  PackWriter(AppendSink sink, Encoder* encoder);

  // Compresses and appends. `ref` must be the name of `plain` (not checked). A blob that is already
  // in this pack is not written again.
  Result<BlobLocation> add(const BlobRef& ref, std::string_view plain);
  // The same for bytes that were encoded before (by an Encoder of the caller's).
  Result<BlobLocation> add_encoded(const BlobRef& ref, std::string_view plain,
                                   const Encoded& encoded);
  // Writes footer and trailer; `footer_bytes`, if given, receives the bytes of the footer segment.
  // At most once.
  Result<PackFooter> finish(std::string* footer_bytes = nullptr);

  uint64_t size() const { return size_; }
  size_t blobs() const { return entries_.size(); }

 private:
  AppendSink sink_;
  Encoder* encoder_;
  std::map<BlobRef, BlobLocation> entries_;
  uint64_t size_ = 0;
};

// The last kPackTrailerLength bytes of a pack of `pack_length` bytes.
Result<PackFooter> parse_pack_trailer(std::string_view bytes, uint64_t pack_length);

// The plain bytes of a blob from its stored bytes; kDataLoss unless they hash to its name.
Result<std::string> open_blob(const BlobRef& ref, const BlobLocation& location,
                              std::string_view stored);

// Checks a whole pack: every part, every blob against its name (so the bytes that a reader gets are
// right; a bit of a compressed frame that says nothing may differ), and that blobs fill the pack
// without gap or overlap.
Status verify_pack(std::string_view pack);

}  // namespace qanat::chunk
