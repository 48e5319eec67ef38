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

}  // namespace qanat::content
