#include "qanat/content/index_manifest.h"

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

namespace qanat::content {
namespace {

constexpr uint8_t kVersion = 1;

Status expect_version(Reader* reader, std::string_view what) {
  QANAT_ASSIGN_OR_RETURN(uint8_t version, reader->u8());
  if (version == kVersion) return ok_status();
  return data_loss(str_cat(what, " has format version ", version, ", unknown to this Qanat"),
                   "use the Qanat that wrote this installation, or a newer one");
}

void put_location(std::string& out, const SegmentLocation& location) {
  put_bytes(out, location.object_key);
  put_varint(out, location.offset);
  put_varint(out, location.length);
  put_varint(out, location.entries);
  put_u8(out, location.is_pack ? 1 : 0);
}

Result<SegmentLocation> read_location(Reader* reader) {
  SegmentLocation location;
  QANAT_ASSIGN_OR_RETURN(location.object_key, reader->bytes());
  QANAT_ASSIGN_OR_RETURN(location.offset, reader->varint());
  QANAT_ASSIGN_OR_RETURN(location.length, reader->varint());
  QANAT_ASSIGN_OR_RETURN(location.entries, reader->varint());
  QANAT_ASSIGN_OR_RETURN(uint8_t is_pack, reader->u8());
  constexpr uint64_t kLimit = uint64_t{1} << 48;
  if (is_pack > 1 || location.offset > kLimit || location.length > kLimit) {
    return data_loss("the location of an index segment is impossible");
  }
  location.is_pack = is_pack == 1;
  return location;
}

// A count of things that each take at least one byte.
Result<uint64_t> read_count(Reader* reader) {
  QANAT_ASSIGN_OR_RETURN(uint64_t count, reader->varint());
  if (count > reader->remaining()) return data_loss("an index record is cut off");
  return count;
}

}  // namespace

std::string encode_segment_location(const SegmentLocation& location) {
  std::string out;
  put_u8(out, kVersion);
  put_location(out, location);
  return out;
}

Result<SegmentLocation> parse_segment_location(std::string_view bytes) {
  Reader reader(bytes);
  QANAT_RETURN_IF_ERROR(expect_version(&reader, "an index segment's record"));
  QANAT_ASSIGN_OR_RETURN(SegmentLocation location, read_location(&reader));
  QANAT_RETURN_IF_ERROR(reader.expect_end());
  return location;
}

uint64_t run_bytes(const SegmentRun& run) {
  uint64_t bytes = 0;
  for (const RunSegment& segment : run) bytes += segment.location.length;
  return bytes;
}

std::string encode_manifest(const IndexManifest& manifest) {
  std::string out;
  put_u8(out, kVersion);
  put_varint(out, manifest.runs.size());
  for (const SegmentRun& run : manifest.runs) {
    put_varint(out, run.size());
    for (const RunSegment& segment : run) {
      put_location(out, segment.location);
      put_bytes(out, segment.first_key);
      put_bytes(out, segment.last_key);
    }
  }
  return out;
}

Result<IndexManifest> parse_manifest(std::string_view bytes) {
  Reader reader(bytes);
  QANAT_RETURN_IF_ERROR(expect_version(&reader, "an index manifest"));
  IndexManifest manifest;
  QANAT_ASSIGN_OR_RETURN(uint64_t runs, read_count(&reader));
  for (uint64_t i = 0; i < runs; ++i) {
    SegmentRun& run = manifest.runs.emplace_back();
    QANAT_ASSIGN_OR_RETURN(uint64_t segments, read_count(&reader));
    for (uint64_t j = 0; j < segments; ++j) {
      RunSegment segment;
      QANAT_ASSIGN_OR_RETURN(segment.location, read_location(&reader));
      QANAT_ASSIGN_OR_RETURN(segment.first_key, reader.bytes());
      QANAT_ASSIGN_OR_RETURN(segment.last_key, reader.bytes());
      if (segment.last_key < segment.first_key ||
          (!run.empty() && segment.first_key <= run.back().last_key)) {
        return data_loss("an index manifest's segments overlap");
      }
      run.push_back(std::move(segment));
    }
  }
  QANAT_RETURN_IF_ERROR(reader.expect_end());
  return manifest;
}

std::string encode_removal(const RemovalRecord& removal) {
  std::string out;
  put_u8(out, kVersion);
  put_varint(out, static_cast<uint64_t>(removal.time_ms));
  put_varint(out, removal.object_keys.size());
  for (const std::string& key : removal.object_keys) put_bytes(out, key);
  return out;
}

Result<RemovalRecord> parse_removal(std::string_view bytes) {
  Reader reader(bytes);
  QANAT_RETURN_IF_ERROR(expect_version(&reader, "a removal record"));
  RemovalRecord removal;
  QANAT_ASSIGN_OR_RETURN(uint64_t time, reader.varint());
  removal.time_ms = static_cast<int64_t>(time);
  QANAT_ASSIGN_OR_RETURN(uint64_t count, read_count(&reader));
  for (uint64_t i = 0; i < count; ++i) {
    QANAT_ASSIGN_OR_RETURN(std::string_view key, reader.bytes());
    removal.object_keys.emplace_back(key);
  }
  QANAT_RETURN_IF_ERROR(reader.expect_end());
  return removal;
}

}  // namespace qanat::content
