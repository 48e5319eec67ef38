// What meta holds about a SegmentIndex: locations of segments, the manifest of compacted runs, and
// lists of objects to delete later. Values of keys below /v1/index/; bytes: docs/formats.md, "Index
// records".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::content {

// Where a segment lies. `object_key` is a segment of its own, or a pack whose footer it is.
struct SegmentLocation {
  std::string object_key;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t entries = 0;
  bool is_pack = false;  // the object holds more than this segment: compaction never deletes it

  bool operator==(const SegmentLocation&) const = default;
};
std::string encode_segment_location(const SegmentLocation& location);
Result<SegmentLocation> parse_segment_location(std::string_view bytes);

// A compacted segment and the range of its keys, ends included.
struct RunSegment {
  SegmentLocation location;
  std::string first_key;
  std::string last_key;

  bool operator==(const RunSegment&) const = default;
};

// One sorted map in pieces: segments with ascending, disjoint key ranges.
using SegmentRun = std::vector<RunSegment>;
uint64_t run_bytes(const SegmentRun& run);

// Newest run first.
struct IndexManifest {
  std::vector<SegmentRun> runs;

  bool operator==(const IndexManifest&) const = default;
};
std::string encode_manifest(const IndexManifest& manifest);
Result<IndexManifest> parse_manifest(std::string_view bytes);

// Objects that nothing refers to any more, or that a compaction under way is about to write.
struct RemovalRecord {
  int64_t time_ms = 0;  // wall clock; the objects go a grace after it
  std::vector<std::string> object_keys;

  bool operator==(const RemovalRecord&) const = default;
};
std::string encode_removal(const RemovalRecord& removal);
Result<RemovalRecord> parse_removal(std::string_view bytes);

}  // namespace qanat::content
