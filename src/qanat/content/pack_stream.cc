#include "qanat/content/pack_stream.h"

#include "qanat/base/bytes.h"
#include "qanat/base/random.h"
#include "qanat/content/blob_store.h"
#include "qanat/content/stored_segment.h"

namespace qanat::content {

PackStream::PackStream(object::ObjectStore* objects, object::ObjectStore::CreateOptions options,
                       const std::string& project, uint64_t epoch)
    : objects_(objects),
      options_(options),
      writer_([this](std::string_view bytes) { return take(bytes); }, nullptr) {
  id_.epoch = epoch;
  system_random().fill(reinterpret_cast<char*>(id_.id.data()), id_.id.size());
  object_key_ = pack_object_key(project, id_);
}

Status PackStream::take(std::string_view bytes) {
  if (bytes.size() >= kLarge) {
    QANAT_RETURN_IF_ERROR(drain());
    return store(bytes);
  }
  if (buffer_.size() + bytes.size() > kBuffer) QANAT_RETURN_IF_ERROR(drain());
  buffer_.append(bytes);
  return ok_status();
}

Status PackStream::drain() {
  if (buffer_.empty()) return ok_status();
  QANAT_RETURN_IF_ERROR(store(buffer_));
  buffer_.clear();
  return ok_status();
}

Status PackStream::store(std::string_view bytes) {
  if (object_ == nullptr) {
    QANAT_ASSIGN_OR_RETURN(object_, objects_->create(object_key_, options_));
  }
  QANAT_RETURN_IF_ERROR(object_->append(bytes));
  buffer_offset_ += bytes.size();
  return ok_status();
}

Result<chunk::BlobLocation> PackStream::add(const BlobRef& ref, std::string_view plain,
                                            const chunk::Encoded& encoded, const Blob& shared) {
  QANAT_ASSIGN_OR_RETURN(chunk::BlobLocation location, writer_.add_encoded(ref, plain, encoded));
  location.pack = id_;
  if (shared != nullptr) {
    overlay_.emplace(ref, shared);
    overlay_bytes_ += shared->capacity() + 128;
  }
  return location;
}

Blob PackStream::node(const BlobRef& ref) const {
  const auto found = overlay_.find(ref);
  return found == overlay_.end() ? nullptr : found->second;
}

Result<Blob> PackStream::read(const BlobRef& ref, const chunk::BlobLocation& location) const {
  if (Blob kept = node(ref)) return kept;
  if (location.offset < buffer_offset_) return Blob();
  QANAT_ASSIGN_OR_RETURN(std::string plain, chunk::open_blob(ref, location,
                                                             std::string_view(buffer_).substr(
                                                                 location.offset - buffer_offset_,
                                                                 location.stored_length)));
  return std::make_shared<const std::string>(std::move(plain));
}

bool PackStream::full() const {
  return writer_.size() >= chunk::kPackTarget || writer_.blobs() >= kMaxBlobs ||
         overlay_bytes_ >= kMaxOverlay;
}

Result<SegmentRegistration> PackStream::close() {
  SegmentRegistration registration;
  registration.id =
      to_hex(std::string_view(reinterpret_cast<const char*>(id_.id.data()), id_.id.size()));
  QANAT_ASSIGN_OR_RETURN(chunk::PackFooter footer, writer_.finish(&registration.bytes));
  QANAT_RETURN_IF_ERROR(drain());
  QANAT_RETURN_IF_ERROR(object_->finish());
  object_.reset();
  registration.location.object_key = object_key_;
  registration.location.offset = footer.segment_offset;
  registration.location.length = footer.segment_length;
  registration.location.entries = writer_.blobs();
  registration.location.is_pack = true;
  // The cache would not take a larger one.
  if (registration.bytes.size() > StoredSegment::kWholeLimit)
    std::string().swap(registration.bytes);
  return registration;
}

}  // namespace qanat::content
