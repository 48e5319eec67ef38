// Directory trees: what a commit contains. A directory is a prolly map of names to entries; an
// entry is a file (FileRef) or a directory (its MapRoot). Directories exist through their files, so
// no directory but the root is empty.
//
// Paths have no leading or trailing slash; "" is the root. All walks go in tree order
// (tree_order.h), stream, and read only what they must. Errors: kNotFound names the path;
// kDataLoss from damaged nodes; others from the reader. Immutable: a Tree is cheap to copy, but its
// reader's thread safety is its own.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/glob.h"
#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/file_ref.h"
#include "qanat/content/map_root.h"

namespace qanat::content {

extern const MapType kDirectoryMap;  // counts files and their bytes, of whole subtrees

// A directory with everything below it. totals: its files and their bytes.
using TreeRoot = MapRoot;
// The content id of a directory; for a commit's root, its Merkle root.
Hash tree_hash(const TreeRoot& root);

struct TreeEntry {
  bool is_directory = false;
  FileRef file;        // if it is a file
  TreeRoot directory;  // if it is a directory

  uint64_t files() const { return is_directory ? directory.totals.count : 1; }
  uint64_t bytes() const { return is_directory ? directory.totals.bytes : file.size; }
  // Equal if and only if kind and content are: FileRef::content_id() or tree_hash().
  Hash content_id() const;

  // The value in a directory's map (docs/formats.md, "Node").
  void encode_to(std::string& out) const;
  static Result<TreeEntry> decode(std::string_view bytes);

  friend bool operator==(const TreeEntry&, const TreeEntry&) = default;
};

struct NamedEntry {
  std::string name;
  TreeEntry entry;
};

// Gets a path and its entry; false stops the walk.
using TreeVisitor = std::function<Result<bool>(std::string_view path, const TreeEntry& entry)>;

class Tree {
 public:
  Tree(BlobReader& reader, TreeRoot root) : reader_(&reader), root_(std::move(root)) {}

  const TreeRoot& root() const { return root_; }
  Hash hash() const { return tree_hash(root_); }

  // nullopt if nothing is there. The root always exists.
  Result<std::optional<TreeEntry>> find(std::string_view path) const;
  // kNotFound if nothing is there.
  Result<TreeEntry> stat(std::string_view path) const;
  // The entries of a directory in name order, those after the name `after` ("" for all), at most
  // `limit` of them. kNotFound, or kFailedPrecondition if the path is a file.
  Result<std::vector<NamedEntry>> list(std::string_view directory, std::string_view after,
                                       size_t limit) const;

  // The files at or under `prefix` (a path, not a string prefix), in path order. With `after`:
  // those after that path. OK without a call if nothing is there. False if the visitor stopped it.
  Result<bool> walk(std::string_view prefix, const TreeVisitor& visit,
                    std::string_view after = {}) const;

  // Files and directories that match, in path order; the root for a pattern that matches the root,
  // unless the tree is empty.
  // With `after`: those after that path. Enters only directories below which something can match.
  Result<bool> glob(const Glob& glob, const TreeVisitor& visit, std::string_view after = {}) const;

 private:
  BlobReader* reader_;
  TreeRoot root_;
};

// What changed at a path; nullopt where nothing is.
struct TreeDifference {
  std::string_view path;
  std::optional<TreeEntry> before;
  std::optional<TreeEntry> after;
};
// False stops.
using TreeDiffVisitor = std::function<Result<bool>(const TreeDifference&)>;

// The files at or under `prefix` that were added, changed or removed from `a` to `b`, in path
// order. Where a directory took a file's place (or the reverse), its files are reported one by one.
// Equal subtrees are not read. With `after`: those after that path.
Result<bool> diff_trees(BlobReader& reader, const TreeRoot& a, const TreeRoot& b,
                        std::string_view prefix, const TreeDiffVisitor& visit,
                        std::string_view after = {});

// The matches of `glob` (files and directories) whose content was added, changed or removed, in
// path order: what changes a pipeline's datums. Equal subtrees are not read.
Result<bool> diff_matches(BlobReader& reader, const TreeRoot& a, const TreeRoot& b,
                          const Glob& glob, const TreeDiffVisitor& visit);

}  // namespace qanat::content
