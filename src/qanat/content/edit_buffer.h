// EditBuffer: gathers edits of a tree in the order they are made, and applies them at once.
//
// Edits may come in any order of paths and any number: what exceeds the memory budget is sorted to
// temporary files (external_sort.h). The result is as if each edit had been applied to the tree
// before the next one: a delete of a directory also undoes earlier puts beneath it, later ones
// stand. Three exceptions. For the better: a conflict (a file where a directory is needed) that a
// later edit resolves is none, and a delete never fails for want of a path. And one limit: a
// directory of the tree, or one put before, that deletes of the files in it have emptied is no free
// place for putting a directory; a delete of the directory itself makes one.
//
// One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "qanat/base/file_system.h"
#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/external_sort.h"
#include "qanat/content/tree_editor.h"

namespace qanat::content {

class EditBuffer {
 public:
  // Temporary files go to `directory`, which must exist, and are removed by the destructor.
  EditBuffer(FileSystem& file_system, std::string directory, size_t memory_budget = 16u << 20);

  // kInvalidArgument for a bad path; errors of the disk.
  Status add(const TreeEdit& edit);
  uint64_t size() const { return count_; }

  // The tree after all edits. May be called again, with another root (the head moved); no add after
  // the first. Errors as TreeEditor's; nothing is applied then.
  Result<TreeRoot> apply(BlobWriter& writer, const TreeRoot& root);

 private:
  ExternalSorter sorter_;
  uint64_t count_ = 0;
  bool sorted_ = false;
};

}  // namespace qanat::content
