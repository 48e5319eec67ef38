#include "qanat/chunk/blob_ref.h"

#include <cstring>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

namespace qanat::chunk {

std::string_view kind_name(BlobKind kind) { return kind == BlobKind::kChunk ? "chunk" : "node"; }

std::string BlobRef::to_string() const { return str_cat(kind_name(kind), " ", hash.to_hex()); }

size_t BlobRefHasher::operator()(const BlobRef& ref) const {
  return std::hash<Hash>()(ref.hash) + static_cast<size_t>(ref.kind);
}

std::string blob_key(const BlobRef& ref) {
  std::string key;
  key.reserve(kBlobKeyLength);
  key.push_back(static_cast<char>(ref.kind));
  key.append(ref.hash.view());
  return key;
}

Result<BlobRef> parse_blob_key(std::string_view key) {
  if (key.size() != kBlobKeyLength || (key[0] != 1 && key[0] != 2)) {
    return data_loss(str_cat("not the key of a blob: ", to_hex(key.substr(0, kBlobKeyLength))));
  }
  BlobRef ref;
  ref.kind = static_cast<BlobKind>(key[0]);
  std::memcpy(ref.hash.bytes.data(), key.data() + 1, Hash::kSize);
  return ref;
}

BlobRef name_blob(BlobKind kind, std::string_view plain) { return {kind, sha256(plain)}; }

Status verify_blob(const BlobRef& ref, std::string_view plain) {
  if (sha256(plain) == ref.hash) return ok_status();
  return data_loss(
      str_cat(ref.to_string(), ": the stored bytes do not match this name"),
      "the stored object is damaged; restore it from a backup or write the data again");
}

}  // namespace qanat::chunk
