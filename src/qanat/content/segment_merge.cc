#include "qanat/content/segment_merge.h"

#include <algorithm>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

namespace qanat::content {
namespace {

Status no_tag(const SegmentLocation& location) {
  return data_loss(str_cat("index segment in ", location.object_key, ": a value has no tag"));
}

Status too_few(const SegmentLocation& location) {
  return data_loss(str_cat("index segment in ", location.object_key, ": one value as several"));
}

}  // namespace

Result<std::optional<std::string>> index_value(std::string_view stored,
                                               const SegmentLocation& location,
                                               const RebaseValue& rebase) {
  if (location.is_pack) {
    return std::optional<std::string>(rebase ? rebase(stored, location.object_key)
                                             : std::string(stored));
  }
  if (!stored.empty() && stored[0] == kValueTag) {
    return std::optional<std::string>(std::string(stored.substr(1)));
  }
  if (stored.size() == 1 && stored[0] == kTombstoneTag) return std::optional<std::string>();
  if (stored.empty() || stored[0] != kCopiesTag) return no_tag(location);
  Reader reader(stored.substr(1));
  QANAT_ASSIGN_OR_RETURN(const std::string_view value, reader.bytes());
  if (reader.at_end()) return too_few(location);
  return std::optional<std::string>(std::string(value));
}

Result<bool> append_index_values(std::string_view stored, const SegmentLocation& location,
                                 const RebaseValue& rebase, std::vector<std::string>* values) {
  if (location.is_pack || stored.empty() || stored[0] != kCopiesTag) {
    QANAT_ASSIGN_OR_RETURN(auto value, index_value(stored, location, rebase));
    if (!value) return false;
    values->push_back(*std::move(value));
    return true;
  }
  Reader reader(stored.substr(1));
  size_t count = 0;
  for (; !reader.at_end(); ++count) {
    QANAT_ASSIGN_OR_RETURN(const std::string_view value, reader.bytes());
    values->emplace_back(value);
  }
  if (count < 2) return too_few(location);
  return true;
}

void encode_index_values(std::span<const std::string> values, std::string* stored) {
  if (values.size() <= 1) {
    stored->assign(1, values.empty() ? kTombstoneTag : kValueTag);
    if (!values.empty()) stored->append(values[0]);
    return;
  }
  stored->assign(1, kCopiesTag);
  for (const std::string& value : values) put_bytes(*stored, value);
}

Result<SegmentMerge> SegmentMerge::open(std::vector<MergeSource> sources, std::string_view from,
                                        uint64_t read_ahead, const RebaseValue* rebase) {
  SegmentMerge merge;
  merge.read_ahead_ = read_ahead;
  merge.rebase_ = rebase;
  merge.inputs_.reserve(sources.size());
  for (MergeSource& source : sources) {
    Input& input = merge.inputs_.emplace_back();
    input.segments = std::move(source);
  }
  for (size_t i = 0; i < merge.inputs_.size(); ++i) {
    QANAT_ASSIGN_OR_RETURN(bool any, merge.advance(&merge.inputs_[i], from));
    if (any) merge.heap_.push_back(i);
  }
  std::make_heap(merge.heap_.begin(), merge.heap_.end(),
                 [&](size_t a, size_t b) { return merge.later(a, b); });
  return merge;
}

bool SegmentMerge::later(size_t a, size_t b) const {
  int order = inputs_[a].entry.key.compare(inputs_[b].entry.key);
  return order != 0 ? order > 0 : a > b;
}

Result<bool> SegmentMerge::advance(Input* input, std::string_view from) {
  while (true) {
    if (!input->cursor) {
      if (input->segment == input->segments.size()) return false;
      Result<StoredSegment::Cursor> cursor =
          input->segments[input->segment]->cursor(from, read_ahead_);
      if (!cursor.ok()) return cursor.status();
      input->cursor = *std::move(cursor);
    }
    QANAT_ASSIGN_OR_RETURN(bool any, input->cursor->next(&input->entry));
    if (any) return true;
    input->cursor.reset();
    ++input->segment;
  }
}

Result<bool> SegmentMerge::next(Entry* entry) {
  auto order = [this](size_t a, size_t b) { return later(a, b); };
  for (size_t i : consumed_) {
    QANAT_ASSIGN_OR_RETURN(bool any, advance(&inputs_[i], {}));
    if (!any) continue;
    heap_.push_back(i);
    std::push_heap(heap_.begin(), heap_.end(), order);
  }
  consumed_.clear();
  if (heap_.empty()) return false;
  auto pop = [&] {
    std::pop_heap(heap_.begin(), heap_.end(), order);
    consumed_.push_back(heap_.back());
    heap_.pop_back();
  };
  pop();
  entry->key = inputs_[consumed_[0]].entry.key;
  entry->values.clear();
  bool hidden = false;  // by a tombstone
  for (size_t i = 0;; ++i) {
    const Input& input = inputs_[consumed_[i]];
    if (!hidden) {
      QANAT_ASSIGN_OR_RETURN(
          const bool any,
          append_index_values(input.entry.value, input.segments[input.segment]->location(),
                              *rebase_, &entry->values));
      hidden = !any;
    }
    if (heap_.empty() || inputs_[heap_.front()].entry.key != entry->key) return true;
    pop();
  }
}

}  // namespace qanat::content
