#include "qanat/content/prolly.h"

#include <algorithm>
#include <utility>

namespace qanat::content {

Result<std::optional<std::string>> map_get(const MapType& type, BlobReader& reader,
                                           const MapRoot& root, std::string_view key) {
  if (root.empty()) return std::optional<std::string>();
  QANAT_ASSIGN_OR_RETURN(NodePtr node, read_map_root(type, reader, root));
  for (;;) {
    const size_t index = node->lower_bound(key);
    if (index == node->size()) return std::optional<std::string>();
    if (node->is_leaf()) {
      const NodeEntry& entry = node->entries()[index];
      if (entry.key != key) return std::optional<std::string>();
      return std::optional<std::string>(std::string(entry.value));
    }
    QANAT_ASSIGN_OR_RETURN(node, read_map_child(type, reader, *node, index));
  }
}

Status MapCursor::load_root() {
  if (root_node_ == nullptr && !root_.empty()) {
    QANAT_ASSIGN_OR_RETURN(root_node_, read_map_root(*type_, *reader_, root_));
  }
  return ok_status();
}

Status MapCursor::push_child() {
  const Frame& parent = path_.back();
  QANAT_ASSIGN_OR_RETURN(NodePtr child,
                         read_map_child(*type_, *reader_, *parent.node, parent.index));
  path_.push_back({std::move(child), 0});
  return ok_status();
}

Status MapCursor::descend_first() {
  while (!path_.back().node->is_leaf()) QANAT_RETURN_IF_ERROR(push_child());
  return ok_status();
}

Status MapCursor::descend_last() {
  while (!path_.back().node->is_leaf()) {
    QANAT_RETURN_IF_ERROR(push_child());
    path_.back().index = path_.back().node->size() - 1;
  }
  return ok_status();
}

Status MapCursor::seek(std::string_view key) {
  QANAT_RETURN_IF_ERROR(load_root());
  if (root_node_ == nullptr) return ok_status();
  if (path_.empty()) path_.push_back({root_node_, 0});
  // The present path is kept as far down as it is the way to the key.
  for (size_t depth = 0;; ++depth) {
    Frame& frame = path_[depth];
    const size_t index = frame.node->lower_bound(key);
    if (index == frame.node->size()) {  // at the root only: children end with the key they promise
      path_.clear();
      return ok_status();
    }
    if (index != frame.index || depth + 1 == path_.size()) {
      frame.index = index;
      path_.resize(depth + 1);
      if (frame.node->is_leaf()) return ok_status();
      QANAT_RETURN_IF_ERROR(push_child());
    }
  }
}

Status MapCursor::seek_last() {
  QANAT_RETURN_IF_ERROR(load_root());
  path_.clear();
  if (root_node_ == nullptr) return ok_status();
  path_.push_back({root_node_, root_node_->size() - 1});
  return descend_last();
}

Status MapCursor::seek_before(std::string_view key) {
  QANAT_RETURN_IF_ERROR(seek(key));
  return valid() ? previous() : seek_last();
}

Status MapCursor::seek_rank(uint64_t rank) {
  QANAT_RETURN_IF_ERROR(load_root());
  path_.clear();
  if (root_node_ == nullptr || rank >= root_node_->totals().count) return ok_status();
  path_.push_back({root_node_, 0});
  for (;;) {
    Frame& frame = path_.back();
    while (rank >= frame.node->entries()[frame.index].totals.count) {
      rank -= frame.node->entries()[frame.index].totals.count;
      ++frame.index;
    }
    if (frame.node->is_leaf()) return ok_status();
    QANAT_RETURN_IF_ERROR(push_child());
  }
}

uint64_t MapCursor::rank() const {
  uint64_t before = 0;
  for (const Frame& frame : path_) {
    for (size_t i = 0; i < frame.index; ++i) before += frame.node->entries()[i].totals.count;
  }
  return before;
}

Status MapCursor::next() {
  ++path_.back().index;
  while (path_.back().index == path_.back().node->size()) {
    path_.pop_back();
    if (path_.empty()) return ok_status();
    ++path_.back().index;
  }
  return descend_first();
}

Status MapCursor::previous() {
  while (path_.back().index == 0) {
    path_.pop_back();
    if (path_.empty()) return ok_status();
  }
  --path_.back().index;
  return descend_last();
}

KeyRange KeyRange::with_prefix(std::string_view prefix) {
  KeyRange range{std::string(prefix), std::string(prefix)};
  while (!range.to.empty() && range.to.back() == '\xff') range.to.pop_back();
  if (!range.to.empty()) range.to.back() = static_cast<char>(range.to.back() + 1);
  return range;
}

namespace {

// One of the two maps that are compared: a position that may be an entry of any level, meaning all
// that is below it.
class DiffSide {
 public:
  DiffSide(const MapType& type, BlobReader& reader, const KeyRange& range)
      : type_(type), reader_(reader), range_(range) {}

  Status start(const MapRoot& root) {
    if (root.empty()) return ok_status();
    QANAT_ASSIGN_OR_RETURN(NodePtr node, read_map_root(type_, reader_, root));
    push(std::move(node));
    return ok_status();
  }

  bool valid() const { return !path_.empty(); }
  int level() const { return path_.back().node->level(); }
  const NodeEntry& entry() const { return path_.back().node->entries()[path_.back().index]; }

  Status descend() {
    const Frame& at = path_.back();
    QANAT_ASSIGN_OR_RETURN(NodePtr child, read_map_child(type_, reader_, *at.node, at.index));
    push(std::move(child));
    return ok_status();
  }

  // Past this entry, to the next one on the same or a higher level.
  void skip() {
    if (level() > 0 && !range_.to.empty() && entry().key >= range_.to) {
      path_.clear();
      return;
    }
    ++path_.back().index;
    while (path_.back().index == path_.back().node->size()) {
      path_.pop_back();
      if (path_.empty()) return;
      ++path_.back().index;
    }
    check_end();
  }

 private:
  struct Frame {
    NodePtr node;
    size_t index;
  };

  void push(NodePtr node) {
    const size_t index = node->lower_bound(range_.from);
    if (index == node->size()) {  // only the root can end before the range
      path_.clear();
      return;
    }
    path_.push_back({std::move(node), index});
    check_end();
  }

  void check_end() {
    if (level() == 0 && !range_.to.empty() && entry().key >= range_.to) path_.clear();
  }

  const MapType& type_;
  BlobReader& reader_;
  const KeyRange& range_;
  std::vector<Frame> path_;
};

}  // namespace

// Both sides stand at the same place in the order of keys, each at the start of a subtree or at an
// entry. Equal subtrees are passed; else the higher side goes down, or both; entries are compared.
// A side that leaves a node rises by itself, so that after a difference the two meet again at the
// highest level at which both have a subtree that begins there.
Result<bool> diff_maps(const MapType& type, BlobReader& reader, const MapRoot& a, const MapRoot& b,
                       const KeyRange& range,
                       const std::function<Result<bool>(const MapDifference&)>& visit) {
  if (a == b) return true;
  DiffSide before(type, reader, range);
  DiffSide after(type, reader, range);
  QANAT_RETURN_IF_ERROR(before.start(a));
  QANAT_RETURN_IF_ERROR(after.start(b));
  while (before.valid() || after.valid()) {
    const int level_before = before.valid() ? before.level() : -1;
    const int level_after = after.valid() ? after.level() : -1;
    const int level = std::max(level_before, level_after);
    if (level > 0) {
      if (level_before == level_after && before.entry().value == after.entry().value &&
          before.entry().key == after.entry().key) {
        before.skip();
        after.skip();
        continue;
      }
      if (level_before == level) QANAT_RETURN_IF_ERROR(before.descend());
      if (level_after == level) QANAT_RETURN_IF_ERROR(after.descend());
      continue;
    }
    MapDifference difference;
    int order = 0;
    if (!before.valid()) {
      order = 1;
    } else if (after.valid()) {
      order = before.entry().key.compare(after.entry().key);
    } else {
      order = -1;
    }
    difference.key = order <= 0 ? before.entry().key : after.entry().key;
    if (order <= 0) difference.before = before.entry().value;
    if (order >= 0) difference.after = after.entry().value;
    if (difference.before != difference.after) {
      QANAT_ASSIGN_OR_RETURN(bool more, visit(difference));
      if (!more) return false;
    }
    if (order <= 0) before.skip();
    if (order >= 0) after.skip();
  }
  return true;
}

}  // namespace qanat::content
