// SegmentMerge: several sorted sources as one, the newest value of each key first.
//
// Used by scans and by compaction. Also the place that knows how values lie in segments: those of a
// pack's footer are rebased; those of other segments begin with a byte that says whether there is
// one value, several, or a tombstone.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/content/stored_segment.h"

namespace qanat::content {

// Makes a value of a pack's footer independent of where it lies.
using RebaseValue = std::function<std::string(std::string_view value, std::string_view object_key)>;

// The first byte of values in segments that are not packs.
inline constexpr char kTombstoneTag = 0;
inline constexpr char kValueTag = 1;
inline constexpr char kCopiesTag = 2;  // at least two values, newest first, each with its length

// What is stored in `location` as the value of a key, in the words of the index's users: the newest
// value, or nothing for a tombstone. kDataLoss for what encode_index_values would not have written.
Result<std::optional<std::string>> index_value(std::string_view stored,
                                               const SegmentLocation& location,
                                               const RebaseValue& rebase);
// Appends all of them, newest first. False: a tombstone.
Result<bool> append_index_values(std::string_view stored, const SegmentLocation& location,
                                 const RebaseValue& rebase, std::vector<std::string>* values);
// The inverse, for segments that are not packs; none: a tombstone.
void encode_index_values(std::span<const std::string> values, std::string* stored);

// Segments with ascending, disjoint key ranges.
using MergeSource = std::vector<std::shared_ptr<const StoredSegment>>;

// Memory: `read_ahead` bytes, and a block index, for each source. One thread. The rebase function
// is borrowed.
class SegmentMerge {
 public:
  struct Entry {
    std::string_view key;
    std::vector<std::string> values;  // newest first; none: a tombstone
  };

  // `sources` newest first; begins with the first key that is not below `from`.
  static Result<SegmentMerge> open(std::vector<MergeSource> sources, std::string_view from,
                                   uint64_t read_ahead, const RebaseValue* rebase);

  // False at the end. The entry is valid until the next call.
  Result<bool> next(Entry* entry);

 private:
  struct Input {
    MergeSource segments;
    size_t segment = 0;  // of the cursor
    std::optional<StoredSegment::Cursor> cursor;
    chunk::SegmentEntry entry;
  };
  // Moves an input to its next entry; false if it has none.
  Result<bool> advance(Input* input, std::string_view from);
  bool later(size_t a, size_t b) const;

  std::vector<Input> inputs_;
  std::vector<size_t>
      heap_;  // of inputs that have an entry; the smallest key, then the newest, first
  std::vector<size_t>
      consumed_;  // inputs whose entry was given out or hidden: advanced at the next call
  uint64_t read_ahead_ = 0;
  const RebaseValue* rebase_ = nullptr;
};

}  // namespace qanat::content
