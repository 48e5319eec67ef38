#include "qanat/chunk/segment.h"

#include <algorithm>
#include <limits>

#include "qanat/base/bytes.h"
#include "qanat/base/hash.h"
#include "qanat/base/string.h"

namespace qanat::chunk {
namespace {

constexpr std::string_view kMagic = "QNTSEGM1";
constexpr uint32_t kVersion = 1;
constexpr size_t kChecksum = 8;
constexpr uint64_t kBitsPerKey = 10;
constexpr int kProbes = 7;  // about ln 2 times kBitsPerKey: under 1 % of absent keys pass

constexpr uint64_t kFullPageBits = (kSegmentFilterPage - kChecksum) * 8;

struct FilterShape {
  uint64_t pages = 0;
  uint32_t page_bytes = 0;
};

// Full pages, except that a lone page is as short as its keys allow (in words of 8 bytes).
FilterShape filter_shape(uint64_t entries) {
  if (entries == 0) return {};
  uint64_t bits = entries * kBitsPerKey;
  uint64_t pages = (bits + kFullPageBits - 1) / kFullPageBits;
  if (pages > 1) return {pages, kSegmentFilterPage};
  return {1, static_cast<uint32_t>((bits + 63) / 64 * 8 + kChecksum)};
}

// The finaliser of SplitMix64: makes the bits within a page independent of the choice of the page.
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Calls `bit` with each probe's position until it returns false (Kirsch and Mitzenmacher, "Less
// Hashing, Same Performance", 2006).
template <class F>
bool probe(uint64_t key_hash, uint64_t bits, F&& bit) {
  uint64_t mixed = mix(key_hash);
  auto a = static_cast<uint32_t>(mixed);
  uint32_t step = static_cast<uint32_t>(mixed >> 32) | 1;
  for (int i = 0; i < kProbes; ++i, a += step) {
    if (!bit((a * bits) >> 32)) return false;
  }
  return true;
}

void append_checksum(std::string* bytes) { put_u64(*bytes, hash64(*bytes)); }

bool checksum_holds(std::string_view bytes) {
  if (bytes.size() < kChecksum) return false;
  std::string_view body = bytes.substr(0, bytes.size() - kChecksum);
  return load_u64(bytes.data() + body.size()) == hash64(body);
}

Status damaged(std::string_view what) { return data_loss(str_cat("segment: ", what)); }

// Reads varint length and bytes at `from`; null if they are not there.
const char* decode_bytes(const char* from, const char* end, std::string_view* bytes) {
  uint64_t length = 0;
  from = decode_varint(from, end, &length);
  if (from == nullptr || length > static_cast<uint64_t>(end - from)) return nullptr;
  *bytes = std::string_view(from, length);
  return from + length;
}

}  // namespace

SegmentWriter::SegmentWriter(AppendSink sink) : sink_(std::move(sink)) {}

Status SegmentWriter::add(std::string_view key, std::string_view value) {
  if (key.size() > kMaxSegmentKey || value.size() > kMaxSegmentValue) {
    return invalid_argument(str_cat("an index entry is too long: key of ", key.size(),
                                    " bytes, value of ", value.size()));
  }
  if (!hashes_.empty() && key <= last_key_) {
    return invalid_argument("keys of a segment must ascend");
  }
  put_bytes(block_, key);
  put_bytes(block_, value);
  last_key_.assign(key);
  hashes_.push_back(segment_key_hash(key));
  if (block_.size() >= kSegmentBlockTarget) return close_block();
  return ok_status();
}

Status SegmentWriter::close_block() {
  append_checksum(&block_);
  put_bytes(index_, last_key_);
  put_varint(index_, block_.size());
  QANAT_RETURN_IF_ERROR(sink_(block_));
  written_ += block_.size();
  block_.clear();
  ++blocks_;
  return ok_status();
}

Result<SegmentFooter> SegmentWriter::finish() {
  if (!block_.empty()) QANAT_RETURN_IF_ERROR(close_block());
  SegmentFooter footer;
  footer.data_length = written_;
  footer.entries = hashes_.size();
  footer.blocks = blocks_;
  footer.index_length = index_.size();
  FilterShape shape = filter_shape(footer.entries);
  footer.filter_page = shape.page_bytes;
  footer.filter_length = shape.pages * shape.page_bytes;

  // Ascending hashes give ascending pages: each page is made, checked and handed on before the
  // next.
  std::sort(hashes_.begin(), hashes_.end());
  size_t next = 0;
  for (uint64_t page = 0; page < shape.pages; ++page) {
    std::string bits(shape.page_bytes - kChecksum, '\0');
    for (; next < hashes_.size() && segment_filter_page(hashes_[next], shape.pages) == page;
         ++next) {
      probe(hashes_[next], bits.size() * 8, [&](uint64_t bit) {
        bits[bit / 8] = static_cast<char>(bits[bit / 8] | (1 << (bit % 8)));
        return true;
      });
    }
    append_checksum(&bits);
    QANAT_RETURN_IF_ERROR(sink_(bits));
  }

  QANAT_RETURN_IF_ERROR(sink_(index_));
  footer.digest = sha256(index_).view();
  std::string tail;
  put_u64(tail, footer.data_length);
  put_u64(tail, footer.filter_length);
  put_u64(tail, footer.index_length);
  put_u64(tail, footer.entries);
  put_u32(tail, footer.blocks);
  put_u32(tail, footer.filter_page);
  tail.append(footer.digest);
  put_u32(tail, kVersion);
  put_u32(tail, 0);
  append_checksum(&tail);
  tail.append(kMagic);
  QANAT_RETURN_IF_ERROR(sink_(tail));
  return footer;
}

Result<SegmentFooter> parse_segment_footer(std::string_view bytes, uint64_t segment_length) {
  if (bytes.size() != kSegmentFooterLength) return damaged("the footer is cut off");
  if (bytes.substr(bytes.size() - kMagic.size()) != kMagic) return damaged("no footer at its end");
  bytes.remove_suffix(kMagic.size());
  if (!checksum_holds(bytes)) return damaged("the footer's checksum is wrong");
  Reader reader(bytes);
  SegmentFooter footer;
  footer.data_length = *reader.u64();
  footer.filter_length = *reader.u64();
  footer.index_length = *reader.u64();
  footer.entries = *reader.u64();
  footer.blocks = *reader.u32();
  footer.filter_page = *reader.u32();
  footer.digest = *reader.raw(Hash::kSize);
  uint32_t version = *reader.u32();
  uint32_t zero = *reader.u32();
  if (version != kVersion || zero != 0) {
    return damaged(str_cat("version ", version, " is unknown to this Qanat"));
  }
  // Each length is checked before it is added, so that no sum wraps.
  constexpr uint64_t kLimit = uint64_t{1} << 48;
  if (footer.data_length > kLimit || footer.filter_length > kLimit ||
      footer.index_length > kLimit || footer.length() != segment_length) {
    return damaged("its parts do not add up to its length");
  }
  if (footer.entries > footer.data_length || footer.blocks > footer.entries ||
      (footer.blocks == 0) != (footer.entries == 0)) {
    return damaged("its counts are impossible");
  }
  FilterShape shape = filter_shape(footer.entries);
  if (shape.page_bytes != footer.filter_page ||
      shape.pages * shape.page_bytes != footer.filter_length) {
    return damaged("its filter does not fit its entries");
  }
  return footer;
}

Result<SegmentBlocks> SegmentBlocks::parse(const SegmentFooter& footer, std::string_view bytes) {
  if (bytes.size() != footer.index_length || sha256(bytes).view() != footer.digest) {
    return damaged("the block index does not match its hash");
  }
  if (bytes.size() > std::numeric_limits<uint32_t>::max())
    return damaged("the block index is too long");
  SegmentBlocks result;
  result.bytes_.assign(bytes);
  const char* begin = result.bytes_.data();
  const char* end = begin + result.bytes_.size();
  const char* at = begin;
  uint64_t offset = 0;
  std::string_view last;
  while (at != end) {
    std::string_view key;
    uint64_t length = 0;
    at = decode_bytes(at, end, &key);
    if (at != nullptr) at = decode_varint(at, end, &length);
    if (at == nullptr || length <= kChecksum || length > kMaxSegmentBlock ||
        (!result.blocks_.empty() && key <= last)) {
      return damaged("the block index is malformed");
    }
    result.blocks_.push_back({offset, static_cast<uint32_t>(length)});
    result.keys_.emplace_back(key.data() - begin, key.size());
    offset += length;
    last = key;
  }
  if (result.blocks_.size() != footer.blocks || offset != footer.data_length) {
    return damaged("the block index does not cover its blocks");
  }
  return result;
}

size_t SegmentBlocks::find(std::string_view key) const {
  size_t low = 0;
  size_t high = blocks_.size();
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (last_key(middle) < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

size_t SegmentBlocks::memory() const {
  return sizeof(*this) + bytes_.capacity() + blocks_.capacity() * sizeof(Block) +
         keys_.capacity() * sizeof(keys_[0]);
}

Result<std::string_view> check_segment_block(std::string_view block) {
  if (!checksum_holds(block)) return damaged("a block's checksum is wrong");
  block.remove_suffix(kChecksum);
  const char* at = block.data();
  const char* end = at + block.size();
  std::string_view last;
  bool any = false;
  while (at != end) {
    std::string_view key;
    std::string_view value;
    at = decode_bytes(at, end, &key);
    if (at != nullptr) at = decode_bytes(at, end, &value);
    if (at == nullptr || key.size() > kMaxSegmentKey || value.size() > kMaxSegmentValue ||
        (any && key <= last)) {
      return damaged("a block's entries are malformed");
    }
    last = key;
    any = true;
  }
  if (!any) return damaged("a block is empty");
  return block;
}

bool next_segment_entry(std::string_view* rest, SegmentEntry* entry) {
  if (rest->empty()) return false;
  const char* end = rest->data() + rest->size();
  const char* at = decode_bytes(rest->data(), end, &entry->key);
  if (at != nullptr) at = decode_bytes(at, end, &entry->value);
  if (at == nullptr) {  // not a checked block; stop rather than run on
    *rest = {};
    return false;
  }
  *rest = std::string_view(at, end - at);
  return true;
}

std::optional<std::string_view> find_in_segment_block(std::string_view entries,
                                                      std::string_view key) {
  SegmentEntry entry;
  while (next_segment_entry(&entries, &entry)) {
    if (entry.key < key) continue;
    if (entry.key == key) return entry.value;
    break;
  }
  return std::nullopt;
}

uint64_t segment_key_hash(std::string_view key) { return hash64(key); }

uint64_t segment_filter_page(uint64_t key_hash, uint64_t pages) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(key_hash) * pages) >> 64);
}

Status check_segment_filter_page(std::string_view page) {
  if (page.size() <= kChecksum || !checksum_holds(page))
    return damaged("a filter page's checksum is wrong");
  return ok_status();
}

bool segment_may_contain(std::string_view checked_page, uint64_t key_hash) {
  return probe(key_hash, (checked_page.size() - kChecksum) * 8,
               [&](uint64_t bit) { return (checked_page[bit / 8] >> (bit % 8) & 1) != 0; });
}

Result<SegmentView> SegmentView::open(std::string_view bytes) {
  if (bytes.size() < kSegmentFooterLength) return damaged("it is cut off");
  SegmentView view;
  view.bytes_ = bytes;
  QANAT_ASSIGN_OR_RETURN(
      view.footer_,
      parse_segment_footer(bytes.substr(bytes.size() - kSegmentFooterLength), bytes.size()));
  const SegmentFooter& footer = view.footer_;
  QANAT_ASSIGN_OR_RETURN(
      view.blocks_,
      SegmentBlocks::parse(footer, bytes.substr(footer.index_offset(), footer.index_length)));
  std::vector<std::string_view> pages;
  for (uint64_t i = 0; i < footer.filter_pages(); ++i) {
    std::string_view page =
        bytes.substr(footer.filter_offset() + i * footer.filter_page, footer.filter_page);
    QANAT_RETURN_IF_ERROR(check_segment_filter_page(page));
    pages.push_back(page);
  }
  uint64_t entries = 0;
  std::string_view last;
  for (size_t i = 0; i < view.blocks_.size(); ++i) {
    SegmentBlocks::Block block = view.blocks_.block(i);
    QANAT_ASSIGN_OR_RETURN(std::string_view rest,
                           check_segment_block(bytes.substr(block.offset, block.length)));
    SegmentEntry entry;
    while (next_segment_entry(&rest, &entry)) {
      if (entries > 0 && entry.key <= last) return damaged("its blocks are out of order");
      uint64_t hash = segment_key_hash(entry.key);
      if (!segment_may_contain(pages[segment_filter_page(hash, pages.size())], hash)) {
        return damaged("its filter misses a key");
      }
      last = entry.key;
      ++entries;
    }
    if (last != view.blocks_.last_key(i)) return damaged("the block index names a wrong key");
  }
  if (entries != footer.entries) return damaged("it holds another number of entries than it says");
  return view;
}

bool SegmentView::may_contain(uint64_t key_hash) const {
  if (footer_.entries == 0) return false;
  uint64_t page = segment_filter_page(key_hash, footer_.filter_pages());
  return segment_may_contain(
      bytes_.substr(footer_.filter_offset() + page * footer_.filter_page, footer_.filter_page),
      key_hash);
}

std::optional<std::string_view> SegmentView::find(std::string_view key) const {
  size_t i = blocks_.find(key);
  if (i == blocks_.size()) return std::nullopt;
  SegmentBlocks::Block block = blocks_.block(i);
  return find_in_segment_block(bytes_.substr(block.offset, block.length - kChecksum), key);
}

Status SegmentView::for_each(const std::function<Status(const SegmentEntry&)>& each) const {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    SegmentBlocks::Block block = blocks_.block(i);
    std::string_view rest = bytes_.substr(block.offset, block.length - kChecksum);
    SegmentEntry entry;
    while (next_segment_entry(&rest, &entry)) QANAT_RETURN_IF_ERROR(each(entry));
  }
  return ok_status();
}

}  // namespace qanat::chunk
