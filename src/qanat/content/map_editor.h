// MapEditor: applies a sorted run of edits to a prolly map and gives the new root.
//
// Reads the nodes on the way to each edit, and writes the nodes that change: from the first changed
// entry until the new cuts meet the old ones again, whole subtrees are taken over everywhere else.
// The result is the same as building the edited map from nothing. Editing the empty map is the bulk
// load. Memory: one path read and one unfinished node per level.
//
//   MapEditor editor(kPlainMap, writer, root);
//   QANAT_RETURN_IF_ERROR(editor.put("a", "1"));
//   QANAT_RETURN_IF_ERROR(editor.erase("b"));
//   QANAT_ASSIGN_OR_RETURN(MapRoot edited, editor.finish());
//
// Nodes are written as they fill, so an editor that is given up leaves nodes that nothing refers
// to. One thread at a time. After an error the editor may only be destroyed.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/map_root.h"
#include "qanat/content/node.h"

namespace qanat::content {

class MapEditor {
 public:
  // `type` and `writer` must outlive the editor.
  MapEditor(const MapType& type, BlobWriter& writer, MapRoot root);

  // Keys of successive calls of put and erase must strictly ascend (kInternal otherwise). The
  // bytes are copied. kInvalidArgument if key and value are together above kMaxEntryBytes.
  Status put(std::string_view key, std::string_view value);
  // OK also if there is no such key.
  Status erase(std::string_view key);
  // The value that the map had for `key` before this editor; keys must not descend below those of
  // put and erase. A following put or erase of the same key does not read again.
  Result<std::optional<std::string_view>> old_value(std::string_view key);

  Result<MapRoot> finish();

 private:
  struct Frame {
    NodePtr node;
    size_t index;  // the next entry to take over
    bool last;     // on the right edge of the tree
  };

  Status start();
  // Moves old entries to the new tree: those below `until`, all for null.
  Status take_over(const std::string_view* until);
  // Checks that `key` is above the last one, and takes over up to it.
  Status advance(std::string_view key);
  const NodeEntry* old_entry(std::string_view key) const;

  const MapType& type_;
  BlobWriter& writer_;
  MapRoot root_;
  NodeBuilder builder_;
  std::vector<Frame> path_;
  bool started_ = false;
  bool any_key_ = false;
  std::string last_key_;
};

}  // namespace qanat::content
