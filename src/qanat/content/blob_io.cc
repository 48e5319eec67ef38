#include "qanat/content/blob_io.h"

namespace qanat::content {

Result<std::vector<Blob>> BlobReader::read_many(std::span<const BlobRef> refs) {
  std::vector<Blob> blobs;
  blobs.reserve(refs.size());
  for (const BlobRef& ref : refs) {
    QANAT_ASSIGN_OR_RETURN(Blob blob, read(ref));
    blobs.push_back(std::move(blob));
  }
  return blobs;
}

namespace {

class AddedChunk : public PendingChunk {
 public:
  explicit AddedChunk(Result<BlobRef> added) : added_(std::move(added)) {}
  Result<BlobRef> wait() override { return added_; }

 private:
  const Result<BlobRef> added_;
};

}  // namespace

std::unique_ptr<PendingChunk> BlobWriter::begin_add(Buffer plain, Check check) {
  if (check != nullptr) {
    if (Status status = check(plain.view()); !status.ok())
      return std::make_unique<AddedChunk>(std::move(status));
  }
  return std::make_unique<AddedChunk>(add(BlobKind::kChunk, plain.view()));
}

}  // namespace qanat::content
