#include "qanat/pipeline/report_content.h"

namespace qanat::pipeline {

using content::Blob;
using content::BlobKind;
using content::BlobRef;

namespace {

constexpr size_t kBlobCost = 128;  // its entries in the tables

}  // namespace

Result<BlobRef> ReportContent::add(BlobKind kind, std::string_view plain, const Hash* known) {
  if (!writer_ && bytes_ + plain.size() + kBlobCost > kMaxInMemory) QANAT_RETURN_IF_ERROR(spill());
  if (writer_) return writer_->add(kind, plain, known);
  const BlobRef ref = known != nullptr ? BlobRef{kind, *known} : chunk::name_blob(kind, plain);
  if (places_.try_emplace(ref, blobs_.size()).second) {
    blobs_.emplace_back(ref, std::make_shared<const std::string>(plain));
    bytes_ += plain.size() + kBlobCost;
  }
  return ref;
}

Result<Blob> ReportContent::read(const BlobRef& ref) {
  if (writer_) return writer_->read(ref);
  const auto place = places_.find(ref);
  return place == places_.end() ? store_.blobs().read(ref) : blobs_[place->second].second;
}

Result<std::vector<Blob>> ReportContent::read_many(std::span<const BlobRef> refs) {
  if (writer_) return writer_->read_many(refs);
  return BlobReader::read_many(refs);
}

Status ReportContent::copy_to(content::ContentWriter& writer) const {
  for (const auto& [ref, blob] : blobs_)
    QANAT_RETURN_IF_ERROR(writer.add(ref.kind, *blob, &ref.hash).status());
  return ok_status();
}

Status ReportContent::spill() {
  auto writer = store_.new_writer({.may_use_reserve = true});
  QANAT_RETURN_IF_ERROR(copy_to(*writer));
  writer_ = std::move(writer);
  blobs_.clear();
  places_.clear();
  bytes_ = 0;
  return ok_status();
}

Status ReportContent::make_durable() {
  if (!writer_) QANAT_RETURN_IF_ERROR(spill());
  return writer_->flush();
}

}  // namespace qanat::pipeline
