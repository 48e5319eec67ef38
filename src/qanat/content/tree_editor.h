// Edits of directory trees.
//
// TreeEditor takes edits sorted in tree order (tree_order.h) and gives the new root, reading and
// writing only near the edits; memory is one path. For edits in any order see edit_buffer.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/file_ref.h"
#include "qanat/content/tree.h"

namespace qanat::content {

struct TreeEdit {
  enum class Kind : uint8_t {
    kDelete = 1,       // the file or the directory with everything in it; "" empties the tree
    kPutFile = 2,      // creates or replaces the file
    kAppendFile = 3,   // adds `file`'s bytes at the end; creates it
    kPutDirectory = 4  // `directory` as it is, as a copy does; the path must be free
  };

  std::string path;
  Kind kind = Kind::kPutFile;
  FileRef file;
  TreeRoot directory;

  static TreeEdit remove(std::string path);
  static TreeEdit put(std::string path, FileRef file);
  static TreeEdit append(std::string path, FileRef file);
  static TreeEdit put_directory(std::string path, TreeRoot directory);
};

struct TreeEditOptions {
  // A delete of a path where nothing is: kNotFound, or nothing happens.
  bool missing_delete_is_error = false;
};

// Rules:
//  - edits come in tree order; edits of one path apply in the order given; edits of a directory
//    apply before those of paths in it;
//  - a file cannot take the place of a directory, unless that is deleted or ends up empty in the
//    same run, nor a directory that of a file or directory, unless that is deleted:
//    kFailedPrecondition naming both;
//  - a directory whose last file goes is gone;
//  - an empty directory cannot be put (kInvalidArgument) except as the root.
// Paths are checked (check_path). After an error the editor may only be destroyed; the old root is
// untouched, as ever. One thread at a time.
class TreeEditor {
 public:
  // `writer` must outlive the editor.
  TreeEditor(BlobWriter& writer, TreeRoot root, TreeEditOptions options = {});
  ~TreeEditor();
  TreeEditor(const TreeEditor&) = delete;
  TreeEditor& operator=(const TreeEditor&) = delete;

  Status apply(const TreeEdit& edit);
  Result<TreeRoot> finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qanat::content
