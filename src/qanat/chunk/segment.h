// Segments: immutable sorted string tables, the one format of every large index.
//
// A segment maps byte keys to byte values, in strictly ascending bytewise order of the keys. It is
// cut into blocks of about 16 KiB, so that a point lookup reads one block, found by a block index;
// pages of a Bloom filter say "surely absent" without reading a block. Bytes: docs/formats.md,
// "Segment". Every byte is covered by a checksum (SHA-256 for the block index, XXH3-64 for the
// rest), so each part can be read and checked alone.
//
// This header is the core on bytes, with no I/O: the writer gives its bytes to a sink, the reading
// functions are given the bytes of one part. All reading is strict: what the writer would not have
// written is kDataLoss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::chunk {

inline constexpr size_t kSegmentBlockTarget =
    16u << 10;  // a block is closed at the first entry that reaches it
inline constexpr size_t kSegmentFilterPage =
    4096;  // bytes of a filter page, checksum included; a lone page may be shorter
inline constexpr size_t kSegmentFooterLength = 96;
inline constexpr size_t kMaxSegmentKey = 8u << 10;
inline constexpr size_t kMaxSegmentValue = 1u << 20;
inline constexpr size_t kMaxSegmentBlock =
    kMaxSegmentKey + kMaxSegmentValue + kSegmentBlockTarget + 64;

// Takes bytes in order. An error ends the writing and is handed on.
using AppendSink = std::function<Status(std::string_view bytes)>;

// Where the parts of a segment lie, relative to its first byte.
struct SegmentFooter {
  uint64_t data_length = 0;    // blocks: [0, data_length)
  uint64_t filter_length = 0;  // then the filter pages
  uint64_t index_length = 0;   // then the block index, then the footer
  uint64_t entries = 0;
  uint32_t blocks = 0;
  uint32_t filter_page = 0;  // bytes of each filter page
  std::string digest;        // SHA-256 of the block index; 32 bytes

  uint64_t filter_offset() const { return data_length; }
  uint64_t index_offset() const { return data_length + filter_length; }
  uint64_t length() const {
    return data_length + filter_length + index_length + kSegmentFooterLength;
  }
  uint64_t filter_pages() const { return filter_page == 0 ? 0 : filter_length / filter_page; }
};

// Streams a segment. Memory: one block, the block index, and 8 bytes a key for the filter.
// Thread-compatible.
class SegmentWriter {
 public:
  explicit SegmentWriter(AppendSink sink);

  // kInvalidArgument if the key is not above the last one or too long, or the value is too long.
  Status add(std::string_view key, std::string_view value);
  // Writes the rest. At most once.
  Result<SegmentFooter> finish();

  uint64_t entries() const { return hashes_.size(); }
  // Bytes given to the sink and waiting in the open block.
  uint64_t size() const { return written_ + block_.size(); }

 private:
  Status close_block();

  AppendSink sink_;
  std::string block_;
  std::string index_;
  std::string last_key_;
  std::vector<uint64_t> hashes_;
  uint64_t written_ = 0;
  uint32_t blocks_ = 0;
};

// The last kSegmentFooterLength bytes of a segment that is `segment_length` bytes long.
Result<SegmentFooter> parse_segment_footer(std::string_view bytes, uint64_t segment_length);

// The block index, parsed. Immutable, thread-safe.
class SegmentBlocks {
 public:
  static Result<SegmentBlocks> parse(const SegmentFooter& footer, std::string_view bytes);

  struct Block {
    uint64_t offset = 0;
    uint32_t length = 0;  // checksum included
  };
  size_t size() const { return blocks_.size(); }
  const Block& block(size_t i) const { return blocks_[i]; }
  std::string_view last_key(size_t i) const {
    return std::string_view(bytes_).substr(keys_[i].first, keys_[i].second);
  }
  // The first block that may hold a key >= `key`; size() if there is none.
  size_t find(std::string_view key) const;
  size_t memory() const;  // bytes held, for caches

 private:
  std::string bytes_;
  std::vector<Block> blocks_;
  std::vector<std::pair<uint32_t, uint32_t>> keys_;  // offset and length in bytes_
};

// One entry of a block; refers to the block's bytes.
struct SegmentEntry {
  std::string_view key;
  std::string_view value;
};

// Checks a whole block (checksum, order, bounds) and gives the bytes of its entries, without the
// checksum.
Result<std::string_view> check_segment_block(std::string_view block);
// Walks the entries of a block that check_segment_block has accepted. `rest` starts as its result
// and is moved on. False at the end.
bool next_segment_entry(std::string_view* rest, SegmentEntry* entry);
// The value of `key` in such a block.
std::optional<std::string_view> find_in_segment_block(std::string_view entries,
                                                      std::string_view key);

// The filter: which page to read for a key (its hash, see segment_key_hash), and whether the key
// may be there.
uint64_t segment_key_hash(std::string_view key);
uint64_t segment_filter_page(uint64_t key_hash, uint64_t pages);
// kDataLoss if the page's checksum is wrong.
Status check_segment_filter_page(std::string_view page);
bool segment_may_contain(std::string_view checked_page, uint64_t key_hash);

// A whole segment in memory, every part checked when it is opened. Refers to the caller's bytes.
class SegmentView {
 public:
  static Result<SegmentView> open(std::string_view bytes);

  const SegmentFooter& footer() const { return footer_; }
  const SegmentBlocks& blocks() const { return blocks_; }
  // By the filter: false means that the key with this hash is surely absent.
  bool may_contain(uint64_t key_hash) const;
  std::optional<std::string_view> find(std::string_view key) const;
  // In order; stops at the first error.
  Status for_each(const std::function<Status(const SegmentEntry&)>& each) const;

 private:
  std::string_view bytes_;
  SegmentFooter footer_;
  SegmentBlocks blocks_;
};

}  // namespace qanat::chunk
