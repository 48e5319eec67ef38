#include "qanat/content/stored_segment.h"

#include <algorithm>

#include "qanat/base/string.h"

namespace qanat::content {

using chunk::SegmentBlocks;
using chunk::SegmentEntry;
using chunk::SegmentFooter;
using chunk::SegmentView;

namespace {

// Parts of a segment's space in the cache.
constexpr uint64_t kWholePart = 0;
constexpr uint64_t kHeadPart = 1;
constexpr uint64_t kBlockPart = 2;
constexpr uint64_t kFilterPart = 3;

// What is read first of a large segment: mostly the footer and the block index in one piece.
constexpr uint64_t kTailGuess = 64u << 10;

constexpr size_t kChecksum = 8;

}  // namespace

struct StoredSegment::Whole {
  std::string bytes;
  SegmentView view;
};

struct StoredSegment::Head {
  SegmentFooter footer;
  SegmentBlocks blocks;
  std::string filter;  // whole and checked, or empty
};

struct StoredSegment::Block {
  std::string bytes;
  std::string_view entries;
};

StoredSegment::StoredSegment(object::ObjectStore* objects, BlockCache* cache,
                             SegmentLocation location)
    : objects_(objects),
      cache_(cache),
      location_(std::move(location)),
      space_(BlockCache::new_space()) {}

Status StoredSegment::context(const Status& status) const {
  return status.with_context(str_cat("index segment in ", location_.object_key));
}

Result<std::string> StoredSegment::read(uint64_t offset, uint64_t length) const {
  if (offset > location_.length || length > location_.length - offset) {
    return context(data_loss("a part lies outside of it"));
  }
  Result<std::string> bytes =
      objects_->read(location_.object_key, static_cast<int64_t>(location_.offset + offset),
                     static_cast<int64_t>(length));
  if (!bytes.ok()) return context(bytes.status());
  return bytes;
}

Result<std::shared_ptr<const StoredSegment::Whole>> StoredSegment::whole() const {
  BlockCache::Key key = BlockCache::position_key(space_, 0, kWholePart);
  if (auto cached = cache_->get<Whole>(key)) return cached;
  auto whole = std::make_shared<Whole>();
  QANAT_ASSIGN_OR_RETURN(whole->bytes, read(0, location_.length));
  Result<SegmentView> view = SegmentView::open(whole->bytes);
  if (!view.ok()) return context(view.status());
  whole->view = *std::move(view);
  cache_->put(key, whole, whole->bytes.capacity() + whole->view.blocks().memory());
  return std::shared_ptr<const Whole>(std::move(whole));
}

void StoredSegment::remember(std::string bytes) const {
  if (location_.length > kWholeLimit || bytes.size() != location_.length) return;
  auto whole = std::make_shared<Whole>();
  whole->bytes = std::move(bytes);
  Result<SegmentView> view = SegmentView::open(whole->bytes);
  if (!view.ok()) return;  // a reader will find out, and say so
  whole->view = *std::move(view);
  size_t charge = whole->bytes.capacity() + whole->view.blocks().memory();
  cache_->put(BlockCache::position_key(space_, 0, kWholePart), std::move(whole), charge);
}

Result<std::shared_ptr<const StoredSegment::Head>> StoredSegment::head() const {
  BlockCache::Key key = BlockCache::position_key(space_, 0, kHeadPart);
  if (auto cached = cache_->get<Head>(key)) return cached;
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<const Head> head, read_head());
  cache_->put(key, head, sizeof(Head) + head->blocks.memory() + head->filter.capacity());
  return head;
}

Result<std::shared_ptr<const StoredSegment::Head>> StoredSegment::read_head() const {
  if (location_.length < chunk::kSegmentFooterLength) return context(data_loss("it is too short"));
  uint64_t guess = std::min(location_.length, kTailGuess);
  QANAT_ASSIGN_OR_RETURN(std::string tail, read(location_.length - guess, guess));
  std::string_view view = tail;
  auto head = std::make_shared<Head>();
  Result<SegmentFooter> footer = chunk::parse_segment_footer(
      view.substr(view.size() - chunk::kSegmentFooterLength), location_.length);
  if (!footer.ok()) return context(footer.status());
  head->footer = *std::move(footer);
  uint64_t index_and_footer = head->footer.index_length + chunk::kSegmentFooterLength;
  std::string index;
  if (index_and_footer <= guess) {
    index = view.substr(view.size() - index_and_footer, head->footer.index_length);
  } else {
    QANAT_ASSIGN_OR_RETURN(index, read(head->footer.index_offset(), head->footer.index_length));
  }
  Result<SegmentBlocks> blocks = SegmentBlocks::parse(head->footer, index);
  if (!blocks.ok()) return context(blocks.status());
  head->blocks = *std::move(blocks);
  const SegmentFooter& known = head->footer;
  // Never so large a part of the cache that segments push each other out.
  if (known.filter_length <= std::min<uint64_t>(kWholeFilterLimit, cache_->capacity() / 64)) {
    QANAT_ASSIGN_OR_RETURN(head->filter, read(known.filter_offset(), known.filter_length));
    for (uint64_t page = 0; page < known.filter_pages(); ++page) {
      Status status = chunk::check_segment_filter_page(
          std::string_view(head->filter).substr(page * known.filter_page, known.filter_page));
      if (!status.ok()) return context(status);
    }
  }
  return std::shared_ptr<const Head>(std::move(head));
}

Result<std::shared_ptr<const StoredSegment::Block>> StoredSegment::block(const Head& head,
                                                                         size_t i) const {
  SegmentBlocks::Block place = head.blocks.block(i);
  BlockCache::Key key = BlockCache::position_key(space_, place.offset, kBlockPart);
  if (auto cached = cache_->get<Block>(key)) return cached;
  auto block = std::make_shared<Block>();
  QANAT_ASSIGN_OR_RETURN(block->bytes, read(place.offset, place.length));
  Result<std::string_view> entries = chunk::check_segment_block(block->bytes);
  if (!entries.ok()) return context(entries.status());
  block->entries = *entries;
  cache_->put(key, block, block->bytes.capacity());
  return std::shared_ptr<const Block>(std::move(block));
}

Result<bool> StoredSegment::may_contain(const Head& head, uint64_t key_hash) const {
  const SegmentFooter& footer = head.footer;
  if (footer.entries == 0) return false;
  uint64_t page = chunk::segment_filter_page(key_hash, footer.filter_pages());
  if (!head.filter.empty()) {
    return chunk::segment_may_contain(
        std::string_view(head.filter).substr(page * footer.filter_page, footer.filter_page),
        key_hash);
  }
  uint64_t offset = footer.filter_offset() + page * footer.filter_page;
  BlockCache::Key key = BlockCache::position_key(space_, offset, kFilterPart);
  auto bytes = cache_->get<std::string>(key);
  if (bytes == nullptr) {
    QANAT_ASSIGN_OR_RETURN(std::string fresh, read(offset, footer.filter_page));
    if (Status status = chunk::check_segment_filter_page(fresh); !status.ok()) {
      return context(status);
    }
    bytes = std::make_shared<const std::string>(std::move(fresh));
    cache_->put(key, bytes, bytes->capacity());
  }
  return chunk::segment_may_contain(*bytes, key_hash);
}

std::shared_ptr<const void> StoredSegment::opened() const {
  constexpr uint32_t kAskEvery = 256;
  MutexLock lock(opened_mutex_);
  return ++times_opened_ % kAskEvery == 0 ? nullptr : opened_.lock();
}

void StoredSegment::set_opened(const std::shared_ptr<const void>& part) const {
  MutexLock lock(opened_mutex_);
  opened_ = part;
}

Result<StoredSegment::Handle> StoredSegment::open() const {
  Handle handle;
  handle.segment_ = shared_from_this();
  const bool small = location_.length <= kWholeLimit;
  std::shared_ptr<const void>& part = small ? handle.whole_ : handle.head_;
  part = opened();
  if (part != nullptr) return handle;
  if (small) {
    QANAT_ASSIGN_OR_RETURN(part, whole());
  } else {
    QANAT_ASSIGN_OR_RETURN(part, head());
  }
  set_opened(part);
  return handle;
}

Result<std::optional<PinnedValue>> StoredSegment::Handle::find(std::string_view key,
                                                               uint64_t key_hash) const {
  if (whole_ != nullptr) {
    const auto& whole = *static_cast<const Whole*>(whole_.get());
    if (!whole.view.may_contain(key_hash)) return std::optional<PinnedValue>();
    auto value = whole.view.find(key);
    if (!value) return std::optional<PinnedValue>();
    return std::optional<PinnedValue>(PinnedValue{whole_, *value});
  }
  const auto& head = *static_cast<const Head*>(head_.get());
  QANAT_ASSIGN_OR_RETURN(bool maybe, segment_->may_contain(head, key_hash));
  if (!maybe) return std::optional<PinnedValue>();
  size_t i = head.blocks.find(key);
  if (i == head.blocks.size()) return std::optional<PinnedValue>();
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<const Block> block, segment_->block(head, i));
  auto value = chunk::find_in_segment_block(block->entries, key);
  if (!value) return std::optional<PinnedValue>();
  return std::optional<PinnedValue>(PinnedValue{block, *value});
}

Result<StoredSegment::Cursor> StoredSegment::cursor(std::string_view from,
                                                    uint64_t read_ahead) const {
  Cursor cursor;
  cursor.segment_ = shared_from_this();
  cursor.read_ahead_ = read_ahead;
  cursor.from_ = from;
  if (location_.length <= kWholeLimit) {
    QANAT_ASSIGN_OR_RETURN(std::shared_ptr<const Whole> whole, this->whole());
    cursor.whole_bytes_ = whole->bytes;
    cursor.blocks_ = &whole->view.blocks();
    cursor.owner_ = std::move(whole);
  } else {
    QANAT_ASSIGN_OR_RETURN(std::shared_ptr<const Head> head, this->head());
    cursor.blocks_ = &head->blocks;
    cursor.owner_ = std::move(head);
  }
  cursor.next_block_ = cursor.blocks_->find(from);
  return cursor;
}

Result<bool> StoredSegment::Cursor::next(SegmentEntry* entry) {
  while (true) {
    while (chunk::next_segment_entry(&rest_, entry)) {
      if (from_.empty()) return true;
      if (entry->key < from_) continue;
      from_.clear();
      return true;
    }
    if (next_block_ == blocks_->size()) return false;
    SegmentBlocks::Block place = blocks_->block(next_block_++);
    if (!whole_bytes_.empty()) {  // checked when it was opened
      rest_ = whole_bytes_.substr(place.offset, place.length - kChecksum);
      continue;
    }
    if (place.offset < buffer_offset_ ||
        place.offset + place.length > buffer_offset_ + buffer_.size()) {
      // As many whole blocks as fit in the read-ahead, at least this one.
      uint64_t length = place.length;
      for (size_t i = next_block_; i < blocks_->size(); ++i) {
        if (length + blocks_->block(i).length > read_ahead_) break;
        length += blocks_->block(i).length;
      }
      buffer_.clear();  // before the new piece comes, so that there are never two
      buffer_.shrink_to_fit();
      QANAT_ASSIGN_OR_RETURN(buffer_, segment_->read(place.offset, length));
      buffer_offset_ = place.offset;
    }
    Result<std::string_view> entries = chunk::check_segment_block(
        std::string_view(buffer_).substr(place.offset - buffer_offset_, place.length));
    if (!entries.ok()) return segment_->context(entries.status());
    rest_ = *entries;
  }
}

}  // namespace qanat::content
