// FileRef: the name of a file's bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "qanat/base/bytes.h"
#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/chunk/blob_ref.h"

namespace qanat::content {

// A function of the bytes alone: equal files have equal FileRefs, whether written at once or
// appended piece by piece. Empty: size 0 and no hash. A file of one chunk: kind kChunk and the
// chunk's hash. Longer: kind kNode and the root of the tree of chunk lists.
struct FileRef {
  uint64_t size = 0;
  chunk::BlobKind kind = chunk::BlobKind::kChunk;
  Hash hash;

  bool empty() const { return size == 0; }
  chunk::BlobRef blob() const { return {kind, hash}; }

  // As in a directory's entry (docs/formats.md): u8 0 | 1 or 2, varint size, 32 hash.
  void encode_to(std::string& out) const;
  std::string encode() const;
  static Result<FileRef> decode(std::string_view bytes);
  // Reads one from the middle of something; `what` has been read already.
  static Result<FileRef> decode_after(uint8_t what, Reader& in);
  // encode() in base64url, for JSON.
  std::string to_text() const;
  static Result<FileRef> from_text(std::string_view text);

  // One hash for size, kind and hash together: SHA-256 of "file\0" and encode(). Differs from every
  // directory's content id.
  Hash content_id() const;

  friend bool operator==(const FileRef&, const FileRef&) = default;
};

}  // namespace qanat::content
