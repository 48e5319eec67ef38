// BlobRef: the name of a piece of content.
//
// A blob is either a *chunk* (bytes of a file) or a *node* (a piece of a tree). Its name is its
// kind and the SHA-256 of its plain bytes. The kind is part of every index key, so that a file
// whose bytes happen to be a tree's node is never taken for one, nor the other way round.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"

namespace qanat::chunk {

enum class BlobKind : uint8_t { kChunk = 1, kNode = 2 };

std::string_view kind_name(BlobKind kind);  // "chunk" or "node"

struct BlobRef {
  BlobKind kind = BlobKind::kChunk;
  Hash hash;

  auto operator<=>(const BlobRef&) const = default;
  // "node 3f2a…": for messages.
  std::string to_string() const;
};

struct BlobRefHasher {
  size_t operator()(const BlobRef& ref) const;
};

// Plain bytes of a blob, shared so that caches and readers need not copy them. Never null in a
// result that is OK.
using Blob = std::shared_ptr<const std::string>;

// No blob is longer than this; a reader refuses a length above it before it allocates anything.
inline constexpr size_t kMaxBlobLength = 16u << 20;

// The key of a blob in an index: u8 kind, then the 32 bytes of the hash. Ordered as BlobRef is.
inline constexpr size_t kBlobKeyLength = 33;
std::string blob_key(const BlobRef& ref);
// kDataLoss if it is not such a key.
Result<BlobRef> parse_blob_key(std::string_view key);

// The name that `plain` has.
BlobRef name_blob(BlobKind kind, std::string_view plain);
// kDataLoss unless the SHA-256 of `plain` is ref.hash.
Status verify_blob(const BlobRef& ref, std::string_view plain);

}  // namespace qanat::chunk
