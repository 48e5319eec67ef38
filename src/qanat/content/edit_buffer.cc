#include "qanat/content/edit_buffer.h"

#include <optional>
#include <utility>
#include <vector>

#include "qanat/base/bytes.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/content/tree_order.h"

namespace qanat::content {

namespace {

// What the edits of one directory mean for those beneath it; numbers are those of add().
struct Scope {
  std::string path;
  uint64_t cleared = 0;  // edits beneath up to this one are undone by a later delete
  uint64_t placed = 0;   // a directory was put here by this edit
};

// Something that lay beneath a directory when that was put, unless an edit before that took it
// away.
struct Obstacle {
  std::string directory;
  std::string path;

  Status conflict() const {
    return failed_precondition(
        str_cat("a directory cannot be put at /", directory, ": /", path, " was put there before"),
        "delete that directory first, or choose another path");
  }
};

std::string encode_edit(uint64_t number, const TreeEdit& edit) {
  std::string value;
  put_varint(value, number);
  put_u8(value, static_cast<uint8_t>(edit.kind));
  if (edit.kind == TreeEdit::Kind::kPutDirectory) {
    edit.directory.encode_to(value);
  } else if (edit.kind != TreeEdit::Kind::kDelete) {
    edit.file.encode_to(value);
  }
  return value;
}

Result<TreeEdit> decode_edit(std::string_view key, std::string_view value, uint64_t* number) {
  Reader in(value);
  TreeEdit edit{.path = key_to_path(key)};
  QANAT_ASSIGN_OR_RETURN(*number, in.varint());
  QANAT_ASSIGN_OR_RETURN(uint8_t kind, in.u8());
  edit.kind = static_cast<TreeEdit::Kind>(kind);
  if (edit.kind == TreeEdit::Kind::kPutDirectory) {
    QANAT_ASSIGN_OR_RETURN(edit.directory, TreeRoot::decode(in.rest()));
  } else if (edit.kind != TreeEdit::Kind::kDelete) {
    QANAT_ASSIGN_OR_RETURN(edit.file, FileRef::decode(in.rest()));
  }
  return edit;
}

}  // namespace

EditBuffer::EditBuffer(FileSystem& file_system, std::string directory, size_t memory_budget)
    : sorter_(file_system, std::move(directory), memory_budget) {}

Status EditBuffer::add(const TreeEdit& edit) {
  if (!edit.path.empty()) QANAT_RETURN_IF_ERROR(check_path(edit.path));
  // Sorted by path; the sorter keeps the order of equal keys.
  return sorter_.add(path_to_key(edit.path), encode_edit(++count_, edit));
}

Result<TreeRoot> EditBuffer::apply(BlobWriter& writer, const TreeRoot& root) {
  QANAT_RETURN_IF_ERROR(sorted_ ? sorter_.rewind() : sorter_.finish());
  sorted_ = true;
  TreeEditor editor(writer, root);
  std::vector<Scope> scopes;  // directories on the way to the present path that have edits
  std::optional<Obstacle> obstacle;
  for (; sorter_.valid();) {
    uint64_t number = 0;
    QANAT_ASSIGN_OR_RETURN(TreeEdit edit, decode_edit(sorter_.key(), sorter_.value(), &number));
    QANAT_RETURN_IF_ERROR(sorter_.next());
    while (!scopes.empty() && !path_is_within(edit.path, scopes.back().path)) scopes.pop_back();
    if (scopes.empty() || scopes.back().path != edit.path) {
      // No later edit of its path took it away.
      if (obstacle) return obstacle->conflict();
      const Scope above = scopes.empty() ? Scope{} : scopes.back();
      scopes.push_back({edit.path, above.cleared, above.placed});
    }
    Scope& scope = scopes.back();
    const Scope* above = scopes.size() > 1 ? &scopes[scopes.size() - 2] : nullptr;
    if (above != nullptr && number < above->cleared) continue;
    if (above != nullptr && number < above->placed) {
      // Made before the directory was put, which found the path free only if nothing was left.
      if (edit.kind == TreeEdit::Kind::kDelete) {
        scope.cleared = number;
        obstacle.reset();
      } else {
        obstacle = Obstacle{above->path, edit.path};
      }
      continue;
    }
    if (obstacle) return obstacle->conflict();
    if (edit.kind == TreeEdit::Kind::kDelete) {
      scope.cleared = number;
      scope.placed = 0;
    } else if (edit.kind == TreeEdit::Kind::kPutDirectory) {
      scope.placed = number;
    }
    QANAT_RETURN_IF_ERROR(editor.apply(edit));
  }
  if (obstacle) return obstacle->conflict();
  return editor.finish();
}

}  // namespace qanat::content
