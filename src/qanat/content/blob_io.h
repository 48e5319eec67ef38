// How trees read and write blobs, without knowing where they lie.
//
// BlobStore reads, ContentWriter reads and writes; tests may use a map in memory.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/chunk/blob_ref.h"

namespace qanat::content {

using chunk::Blob;
using chunk::BlobKind;
using chunk::BlobRef;

class BlobReader {
 public:
  virtual ~BlobReader() = default;

  // The plain bytes, verified against ref.hash. kDataLoss if they are missing or do not match.
  virtual Result<Blob> read(const BlobRef& ref) = 0;
  // In the order of `refs`. Cheaper than single reads (lookups are sorted, neighbours in a pack are
  // read at once). The caller bounds the memory by the number of refs. Default: one by one.
  virtual Result<std::vector<Blob>> read_many(std::span<const BlobRef> refs);
};

class BlobWriter : public BlobReader {
 public:
  // Makes sure that the blob will exist once the writer's work is committed, and gives its name.
  // What was added can be read at once through this object. `known` is the hash of `plain` if the
  // caller has computed it (not checked again).
  virtual Result<BlobRef> add(BlobKind kind, std::string_view plain,
                              const Hash* known = nullptr) = 0;
};

}  // namespace qanat::content
