// Prolly maps: ordered maps of byte keys to byte values, stored as trees of nodes whose ends are
// chosen by content (node.h). Equal maps have equal roots, whatever their history; two versions of
// a map share all nodes away from their differences.
//
// Keys are ordered bytewise. Nothing here loads a whole map: memory is one path of nodes.
// Errors: kDataLoss from damaged or missing nodes, and whatever the reader gives. Objects are for
// one thread at a time; the stored maps are immutable, so any number of them may look at one map.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/map_root.h"
#include "qanat/content/node.h"

namespace qanat::content {

// The value of `key`, or nullopt. Reads one path.
Result<std::optional<std::string>> map_get(const MapType& type, BlobReader& reader,
                                           const MapRoot& root, std::string_view key);

// A position in a map. Starts nowhere: seek first. `reader` and `type` must outlive it.
//   MapCursor cursor(kPlainMap, reader, root);
//   QANAT_RETURN_IF_ERROR(cursor.seek(from));
//   while (cursor.valid()) { use(cursor.key(), cursor.value());
//   QANAT_RETURN_IF_ERROR(cursor.next()); }
class MapCursor {
 public:
  MapCursor(const MapType& type, BlobReader& reader, MapRoot root)
      : type_(&type), reader_(&reader), root_(std::move(root)) {}

  // To the first entry whose key is not below `key`; past the end if there is none. A seek to a key
  // near the present one reads only what is not on the present path.
  Status seek(std::string_view key);
  Status seek_first() { return seek({}); }
  Status seek_last();
  // To the last entry whose key is below `key`: for walks backwards.
  Status seek_before(std::string_view key);
  // To the entry that holds the `rank`th (from 0) unit of the totals' count: in a plain map, the
  // `rank`th entry; in a directory, where the `rank`th file is. Past the end if there are not so
  // many.
  Status seek_rank(uint64_t rank);

  bool valid() const { return !path_.empty(); }
  // Only while valid; the views live until the cursor moves.
  std::string_view key() const { return entry().key; }
  std::string_view value() const { return entry().value; }
  const NodeEntry& entry() const { return path_.back().node->entries()[path_.back().index]; }
  // The sum of counts before this entry.
  uint64_t rank() const;

  // Past the end and before the start a cursor is not valid.
  Status next();
  Status previous();

 private:
  struct Frame {
    NodePtr node;
    size_t index;
  };

  Status load_root();
  Status push_child();
  // From an inner entry on the path's end to a leaf entry, leftmost or rightmost.
  Status descend_first();
  Status descend_last();

  const MapType* type_;
  BlobReader* reader_;
  MapRoot root_;
  NodePtr root_node_;
  std::vector<Frame> path_;  // from the root to a leaf; empty when not valid
};

// A difference between two maps: the value before and after; nullopt where the key is missing. The
// views live during the call.
struct MapDifference {
  std::string_view key;
  std::optional<std::string_view> before;
  std::optional<std::string_view> after;
};

// Keys in [from, to); an empty `to` has no bound.
struct KeyRange {
  std::string from;
  std::string to;

  // All keys that begin with `prefix`.
  static KeyRange with_prefix(std::string_view prefix);
};

// Calls `visit` with each difference from `a` to `b` in key order, until it gives false (which
// diff_maps then gives too; true means it went to the end). Subtrees in both maps are skipped
// unread, also where they hang in different places: the cost is the difference times a logarithm.
Result<bool> diff_maps(const MapType& type, BlobReader& reader, const MapRoot& a, const MapRoot& b,
                       const KeyRange& range,
                       const std::function<Result<bool>(const MapDifference&)>& visit);

}  // namespace qanat::content
