// The owner tree of a pipeline's output: who wrote what. A plain map of (path, datum sort key) to
// the file that the datum wrote at that path. Ordered by path in tree order, then by datum: the
// merge of outputs reads all writers of a path side by side, in datum order.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/file_ref.h"
#include "qanat/content/map_editor.h"
#include "qanat/content/map_root.h"
#include "qanat/content/prolly.h"

namespace qanat::content {

// path_to_key(path), 0x00, sort key.
std::string owner_key(std::string_view path, std::string_view sort_key);
// kDataLoss if it is not such a key. `sort_key` points into `key`.
struct OwnerKey {
  std::string path;
  std::string_view sort_key;
};
Result<OwnerKey> parse_owner_key(std::string_view key);

// Gets each writer of a path in datum order; false stops.
using OwnerVisitor = std::function<Result<bool>(std::string_view sort_key, const FileRef& file)>;

class OwnerTree {
 public:
  OwnerTree(BlobReader& reader, MapRoot root) : reader_(&reader), root_(std::move(root)) {}

  const MapRoot& root() const { return root_; }
  Result<bool> visit_owners(std::string_view path, const OwnerVisitor& visit) const;
  // All entries at or under `prefix` in path order, then datum order.
  Result<bool> visit_under(
      std::string_view prefix,
      const std::function<Result<bool>(const OwnerKey& key, const FileRef& file)>& visit) const;

 private:
  BlobReader* reader_;
  MapRoot root_;
};

// Edits in ascending order of (path in tree order, sort key).
class OwnerTreeEditor {
 public:
  OwnerTreeEditor(BlobWriter& writer, MapRoot root) : editor_(kPlainMap, writer, std::move(root)) {}

  Status put(std::string_view path, std::string_view sort_key, const FileRef& file);
  Status erase(std::string_view path, std::string_view sort_key);
  Result<MapRoot> finish() { return editor_.finish(); }

 private:
  MapEditor editor_;
};

}  // namespace qanat::content
