// How trees read and write blobs, without knowing where they lie.
//
// BlobStore reads, ContentWriter reads and writes; tests may use a map in memory.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "qanat/base/buffer.h"
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

// A chunk on its way into a writer.
class PendingChunk {
 public:
  virtual ~PendingChunk() = default;
  // Its name, once it is known: the chunk is then added. Once, on the writer's thread.
  virtual Result<BlobRef> wait() = 0;
};

class BlobWriter : public BlobReader {
 public:
  // Makes sure that the blob will exist once the writer's work is committed, and gives its name.
  // What was added can be read at once through this object. `known` is the hash of `plain` if the
  // caller has computed it (not checked again).
  virtual Result<BlobRef> add(BlobKind kind, std::string_view plain,
                              const Hash* known = nullptr) = 0;

  // What must be true of a chunk's bytes; run on any thread.
  using Check = Status (*)(std::string_view plain);

  // As add() of a chunk, in two steps, so that checking and hashing go on beside the caller. An
  // error of the check is wait()'s. For chunks that are long enough to be worth it. A caller keeps
  // at most ahead() of them.
  virtual std::unique_ptr<PendingChunk> begin_add(Buffer plain, Check check = nullptr);
  // How many begin_add() before the first wait(); 0: begin_add() does all at once.
  virtual size_t ahead() const { return 0; }
};

}  // namespace qanat::content
