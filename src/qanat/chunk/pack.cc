#include "qanat/chunk/pack.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/chunk/chunker.h"

namespace qanat::chunk {
namespace {

constexpr std::string_view kHeader = "QNTPACK1";
constexpr std::string_view kTrailer = "QNTPEND1";
static_assert(kHeader.size() == kPackHeaderLength);
static_assert(kPackTrailerLength == 16 + kTrailer.size());

constexpr size_t kPackIdLength = 16;
constexpr uint8_t kEndsInCut = 0x80;  // beside the codec

Status damaged(std::string_view what) { return data_loss(str_cat("pack: ", what)); }

}  // namespace

std::string encode_location(const BlobLocation& location) {
  std::string out;
  put_u8(out, location.pack ? 1 : 0);
  if (location.pack) {
    put_varint(out, location.pack->epoch);
    out.append(reinterpret_cast<const char*>(location.pack->id.data()), kPackIdLength);
  }
  put_varint(out, location.offset);
  put_varint(out, location.stored_length);
  put_varint(out, location.plain_length);
  put_u8(out, static_cast<uint8_t>(static_cast<uint8_t>(location.codec) |
                                   (location.ends_in_cut ? kEndsInCut : 0)));
  return out;
}

Result<BlobLocation> parse_location(std::string_view value) {
  Reader reader(value);
  BlobLocation location;
  QANAT_ASSIGN_OR_RETURN(uint8_t where, reader.u8());
  if (where > 1) return damaged("a blob's location is of an unknown kind");
  if (where == 1) {
    location.pack.emplace();
    QANAT_ASSIGN_OR_RETURN(location.pack->epoch, reader.varint());
    QANAT_ASSIGN_OR_RETURN(std::string_view id, reader.raw(kPackIdLength));
    std::memcpy(location.pack->id.data(), id.data(), kPackIdLength);
  }
  QANAT_ASSIGN_OR_RETURN(location.offset, reader.varint());
  QANAT_ASSIGN_OR_RETURN(uint64_t stored, reader.varint());
  QANAT_ASSIGN_OR_RETURN(uint64_t plain, reader.varint());
  QANAT_ASSIGN_OR_RETURN(uint8_t codec, reader.u8());
  QANAT_RETURN_IF_ERROR(reader.expect_end());
  location.ends_in_cut = (codec & kEndsInCut) != 0;
  codec &= static_cast<uint8_t>(~kEndsInCut);
  constexpr uint64_t kLimit = uint64_t{1} << 48;
  if (location.offset < kPackHeaderLength || location.offset > kLimit || plain > kMaxBlobLength ||
      stored > plain || codec > static_cast<uint8_t>(Codec::kZstd) ||
      (codec == static_cast<uint8_t>(Codec::kRaw) && stored != plain) ||
      (location.ends_in_cut && (plain < kMinChunk || plain > kMaxChunk))) {
    return damaged("a blob's location is impossible");
  }
  location.stored_length = static_cast<uint32_t>(stored);
  location.plain_length = static_cast<uint32_t>(plain);
  location.codec = static_cast<Codec>(codec);
  return location;
}

PackWriter::PackWriter(AppendSink sink, Encoder* encoder)
    : sink_(std::move(sink)), encoder_(encoder) {}

Result<BlobLocation> PackWriter::add(const BlobRef& ref, std::string_view plain) {
  if (auto found = entries_.find(ref); found != entries_.end()) return found->second;
  return add_encoded(ref, plain, encoder_->encode(plain));
}

Result<BlobLocation> PackWriter::add_encoded(const BlobRef& ref, std::string_view plain,
                                             const Encoded& encoded) {
  if (plain.size() > kMaxBlobLength) {
    return invalid_argument(
        str_cat(ref.to_string(), " has ", plain.size(), " bytes; the limit is ", kMaxBlobLength));
  }
  if (auto found = entries_.find(ref); found != entries_.end()) return found->second;
  if (size_ == 0) {
    QANAT_RETURN_IF_ERROR(sink_(kHeader));
    size_ = kHeader.size();
  }
  QANAT_RETURN_IF_ERROR(sink_(encoded.bytes));
  BlobLocation location;
  location.offset = size_;
  location.stored_length = static_cast<uint32_t>(encoded.bytes.size());
  location.plain_length = static_cast<uint32_t>(plain.size());
  location.codec = encoded.codec;
  location.ends_in_cut = ref.kind == BlobKind::kChunk && ends_in_cut(plain);
  size_ += encoded.bytes.size();
  entries_.emplace(ref, location);
  return location;
}

Result<PackFooter> PackWriter::finish(std::string* footer_bytes) {
  if (size_ == 0) {
    QANAT_RETURN_IF_ERROR(sink_(kHeader));
    size_ = kHeader.size();
  }
  if (footer_bytes != nullptr) footer_bytes->clear();
  SegmentWriter segment([&](std::string_view bytes) -> Status {
    if (footer_bytes != nullptr) footer_bytes->append(bytes);
    return sink_(bytes);
  });
  for (const auto& [ref, location] : entries_) {
    QANAT_RETURN_IF_ERROR(segment.add(blob_key(ref), encode_location(location)));
  }
  QANAT_ASSIGN_OR_RETURN(SegmentFooter written, segment.finish());
  PackFooter footer{size_, written.length()};
  std::string trailer;
  put_u64(trailer, footer.segment_offset);
  put_u64(trailer, footer.segment_length);
  trailer.append(kTrailer);
  QANAT_RETURN_IF_ERROR(sink_(trailer));
  size_ = footer.pack_length();
  return footer;
}

Result<PackFooter> parse_pack_trailer(std::string_view bytes, uint64_t pack_length) {
  if (bytes.size() != kPackTrailerLength || bytes.substr(16) != kTrailer) {
    return damaged("no trailer at its end");
  }
  PackFooter footer{load_u64(bytes.data()), load_u64(bytes.data() + 8)};
  if (pack_length < kPackHeaderLength + kSegmentFooterLength + kPackTrailerLength ||
      footer.segment_offset < kPackHeaderLength || footer.segment_offset > pack_length ||
      footer.segment_length > pack_length || footer.pack_length() != pack_length) {
    return damaged("its parts do not add up to its length");
  }
  return footer;
}

Result<std::string> open_blob(const BlobRef& ref, const BlobLocation& location,
                              std::string_view stored) {
  Result<std::string> plain = stored.size() == location.stored_length
                                  ? decode(location.codec, stored, location.plain_length)
                                  : Result<std::string>(data_loss("the stored bytes are cut off"));
  if (!plain.ok()) return plain.status().with_context(ref.to_string());
  QANAT_RETURN_IF_ERROR(verify_blob(ref, *plain));
  return plain;
}

Status verify_pack(std::string_view pack) {
  if (pack.size() < kPackHeaderLength + kSegmentFooterLength + kPackTrailerLength ||
      pack.substr(0, kHeader.size()) != kHeader) {
    return damaged("it does not begin as one");
  }
  QANAT_ASSIGN_OR_RETURN(
      PackFooter footer,
      parse_pack_trailer(pack.substr(pack.size() - kPackTrailerLength), pack.size()));
  QANAT_ASSIGN_OR_RETURN(SegmentView segment, SegmentView::open(pack.substr(
                                                  footer.segment_offset, footer.segment_length)));
  std::vector<std::pair<uint64_t, uint64_t>> extents;  // offset, length
  QANAT_RETURN_IF_ERROR(segment.for_each([&](const SegmentEntry& entry) -> Status {
    QANAT_ASSIGN_OR_RETURN(BlobRef ref, parse_blob_key(entry.key));
    QANAT_ASSIGN_OR_RETURN(BlobLocation location, parse_location(entry.value));
    if (location.pack || location.offset > footer.segment_offset ||
        location.stored_length > footer.segment_offset - location.offset) {
      return damaged(str_cat(ref.to_string(), " lies outside"));
    }
    extents.emplace_back(location.offset, location.stored_length);
    QANAT_ASSIGN_OR_RETURN(
        const std::string plain,
        open_blob(ref, location, pack.substr(location.offset, location.stored_length)));
    if (location.ends_in_cut != (ref.kind == BlobKind::kChunk && ends_in_cut(plain))) {
      return damaged(str_cat(ref.to_string(), " is said to end otherwise than it does"));
    }
    return ok_status();
  }));
  std::sort(extents.begin(), extents.end());
  uint64_t at = kPackHeaderLength;
  for (const auto& [offset, length] : extents) {
    if (offset != at) return damaged("its blobs leave a gap or overlap");
    at += length;
  }
  if (at != footer.segment_offset) return damaged("its blobs leave a gap or overlap");
  return ok_status();
}

}  // namespace qanat::chunk
