#include "qanat/content/map_editor.h"

#include "qanat/base/string.h"

namespace qanat::content {

MapEditor::MapEditor(const MapType& type, BlobWriter& writer, MapRoot root)
    : type_(type), writer_(writer), root_(std::move(root)), builder_(writer, &type) {}

Status MapEditor::start() {
  started_ = true;
  if (root_.empty()) return ok_status();
  QANAT_ASSIGN_OR_RETURN(NodePtr node, read_map_root(type_, writer_, root_));
  path_.push_back({std::move(node), 0, true});
  return ok_status();
}

Status MapEditor::take_over(const std::string_view* until) {
  while (!path_.empty()) {
    Frame& frame = path_.back();
    if (frame.index == frame.node->size()) {
      path_.pop_back();
      continue;
    }
    const NodeEntry& entry = frame.node->entries()[frame.index];
    if (frame.node->is_leaf()) {
      if (until != nullptr && entry.key >= *until) return ok_status();
      QANAT_RETURN_IF_ERROR(builder_.append_entry(entry.key, entry.value, entry.totals));
      ++frame.index;
      continue;
    }
    // A subtree that begins where the new tree is between nodes on all its levels has its cuts
    // where they were, since cuts depend on what follows the last one only. Nodes on the right edge
    // end for want of entries, not at a cut: they can be taken over if nothing follows.
    const bool last = frame.last && frame.index + 1 == frame.node->size();
    const int level = frame.node->level();
    const bool untouched = until == nullptr || (entry.key < *until && !last);
    if (untouched && builder_.aligned_below(level)) {
      QANAT_RETURN_IF_ERROR(builder_.append_child(level, entry.key, entry.hash(), entry.totals));
      ++frame.index;
      continue;
    }
    QANAT_ASSIGN_OR_RETURN(NodePtr child, read_map_child(type_, writer_, *frame.node, frame.index));
    ++frame.index;
    path_.push_back({std::move(child), 0, last});
  }
  return ok_status();
}

Status MapEditor::advance(std::string_view key) {
  if (any_key_ && key <= last_key_) {
    return internal_error(str_cat("edits of a ", type_.name, " out of order: ", quoted(key),
                                  " after ", quoted(last_key_)));
  }
  if (!started_) QANAT_RETURN_IF_ERROR(start());
  return take_over(&key);
}

// After advance: the old entry of this key, if there is one.
const NodeEntry* MapEditor::old_entry(std::string_view key) const {
  if (path_.empty()) return nullptr;
  const Frame& frame = path_.back();
  const NodeEntry& entry = frame.node->entries()[frame.index];
  return entry.key == key ? &entry : nullptr;
}

Status MapEditor::put(std::string_view key, std::string_view value) {
  if (key.size() + value.size() > kMaxEntryBytes) {
    return invalid_argument(str_cat("an entry of ", key.size() + value.size(), " bytes in a ",
                                    type_.name, "; at most ", kMaxEntryBytes, " are possible"));
  }
  Totals totals;
  if (!type_.totals(key, value, &totals)) {
    return internal_error(str_cat("a malformed value for ", quoted(key), " in a ", type_.name));
  }
  QANAT_RETURN_IF_ERROR(advance(key));
  if (old_entry(key) != nullptr) ++path_.back().index;
  last_key_.assign(key);
  any_key_ = true;
  return builder_.append_entry(key, value, totals);
}

Status MapEditor::erase(std::string_view key) {
  QANAT_RETURN_IF_ERROR(advance(key));
  if (old_entry(key) != nullptr) ++path_.back().index;
  last_key_.assign(key);
  any_key_ = true;
  return ok_status();
}

Result<std::optional<std::string_view>> MapEditor::old_value(std::string_view key) {
  QANAT_RETURN_IF_ERROR(advance(key));
  const NodeEntry* entry = old_entry(key);
  if (entry == nullptr) return std::optional<std::string_view>();
  return std::optional<std::string_view>(entry->value);
}

Result<MapRoot> MapEditor::finish() {
  if (!any_key_) return root_;  // nothing was edited
  QANAT_RETURN_IF_ERROR(take_over(nullptr));
  return finish_map(builder_, type_, writer_);
}

}  // namespace qanat::content
