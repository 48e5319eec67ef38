// Blobs in a map in memory, with counts of what was asked: for tests of trees without a store.
#pragma once

#include <unordered_map>

#include "qanat/base/string.h"
#include "qanat/content/blob_io.h"

namespace qanat::content {

class MemoryBlobs : public BlobWriter {
 public:
  Result<Blob> read(const BlobRef& ref) override {
    ++(ref.kind == BlobKind::kNode ? nodes_read : chunks_read);
    auto found = blobs_.find(ref);
    if (found == blobs_.end()) return data_loss(str_cat(ref.to_string(), " is missing"));
    return found->second;
  }

  Result<BlobRef> add(BlobKind kind, std::string_view plain, const Hash*) override {
    ++(kind == BlobKind::kNode ? nodes_written : chunks_written);
    const BlobRef ref = chunk::name_blob(kind, plain);
    auto [place, is_new] = blobs_.try_emplace(ref);
    if (is_new) {
      place->second = std::make_shared<const std::string>(plain);
      bytes += plain.size();
    }
    return ref;
  }

  void reset_counts() {
    nodes_read = nodes_written = chunks_read = chunks_written = 0;
    bytes = 0;
  }

  const std::unordered_map<BlobRef, Blob, chunk::BlobRefHasher>& blobs() const { return blobs_; }
  std::unordered_map<BlobRef, Blob, chunk::BlobRefHasher>& mutable_blobs() { return blobs_; }

  uint64_t nodes_read = 0;
  uint64_t nodes_written = 0;
  uint64_t chunks_read = 0;
  uint64_t chunks_written = 0;
  uint64_t bytes = 0;  // of new blobs

 private:
  std::unordered_map<BlobRef, Blob, chunk::BlobRefHasher> blobs_;
};

// The value of a Result in a test; ends the program with the reason otherwise.
template <class T>
T must(Result<T> result) {
  if (!result.ok()) {
    fprintf(stderr, "unexpected error: %s\n", result.status().to_string().c_str());
    abort();
  }
  return *std::move(result);
}
inline void must(const Status& status) {
  if (!status.ok()) {
    fprintf(stderr, "unexpected error: %s\n", status.to_string().c_str());
    abort();
  }
}

}  // namespace qanat::content
