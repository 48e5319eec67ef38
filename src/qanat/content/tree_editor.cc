#include "qanat/content/tree_editor.h"

#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/map_editor.h"
#include "qanat/content/prolly.h"
#include "qanat/content/tree_order.h"

namespace qanat::content {

TreeEdit TreeEdit::remove(std::string path) {
  return {.path = std::move(path), .kind = Kind::kDelete};
}
TreeEdit TreeEdit::put(std::string path, FileRef file) {
  return {.path = std::move(path), .kind = Kind::kPutFile, .file = file};
}
TreeEdit TreeEdit::append(std::string path, FileRef file) {
  return {.path = std::move(path), .kind = Kind::kAppendFile, .file = file};
}
TreeEdit TreeEdit::put_directory(std::string path, TreeRoot directory) {
  return {.path = std::move(path), .kind = Kind::kPutDirectory, .directory = std::move(directory)};
}

// Edits of one path change a Slot: what will be at that path. When an edit beneath it comes, the
// slot becomes a Frame, an open directory; when an edit elsewhere comes, it goes into the directory
// above. Open directories are the path from the root to the present edit.
class TreeEditor::Impl {
 public:
  Impl(BlobWriter& writer, TreeRoot root, TreeEditOptions options)
      : writer_(writer), options_(options) {
    slot_ = Slot{};
    if (!root.empty()) slot_->base = TreeEntry{.is_directory = true, .directory = std::move(root)};
    slot_->entry = slot_->base;
  }

  Status apply(const TreeEdit& edit) {
    if (slot_.has_value() && slot_->path == edit.path) return edit_slot(edit);
    if (edit.path.empty() || (slot_.has_value() && !path_before(slot_->path, edit.path))) {
      return internal_error(str_cat("edits of a tree out of order: ", quoted(edit.path), " after ",
                                    quoted(slot_.has_value() ? slot_->path : std::string())));
    }
    QANAT_RETURN_IF_ERROR(check_path(edit.path));
    QANAT_RETURN_IF_ERROR(leave_slot(edit.path));
    while (!path_is_within(edit.path, frames_.back()->path)) QANAT_RETURN_IF_ERROR(close_frame());
    for (;;) {
      const size_t begin = frames_.back()->path.empty() ? 0 : frames_.back()->path.size() + 1;
      const size_t end = edit.path.find('/', begin);
      QANAT_RETURN_IF_ERROR(open_slot(edit.path.substr(0, end), begin));
      if (end == std::string::npos) break;
      open_frame();
    }
    return edit_slot(edit);
  }

  Result<TreeRoot> finish() {
    if (!frames_.empty()) {
      QANAT_RETURN_IF_ERROR(close_slot());
      while (frames_.size() > 1) QANAT_RETURN_IF_ERROR(close_frame());
      return frames_.front()->editor.finish();
    }
    if (!slot_->entry.has_value()) return TreeRoot{};
    return slot_->entry->directory;
  }

 private:
  struct Slot {
    std::string path;
    size_t name_begin = 0;          // of the name in `path`
    std::optional<TreeEntry> base;  // what the directory above has
    std::optional<TreeEntry> entry;
    // While `entry` is a directory: a file that is to take its place once it is empty.
    std::optional<FileRef> file_instead;
    // The file in `entry` or `file_instead` goes on with these appended bytes.
    std::unique_ptr<FileWriter> appended;
  };
  struct Frame {
    Frame(BlobWriter& writer, TreeRoot root) : editor(kDirectoryMap, writer, std::move(root)) {}

    std::string path;
    size_t name_begin = 0;
    std::optional<TreeEntry> base;
    std::optional<FileRef> file_instead;
    bool file_is_new = false;  // file_instead was put by an edit
    std::string put_below;     // the first path put in here
    MapEditor editor;
  };

  std::string_view name_of(const Slot& slot) const {
    return std::string_view(slot.path).substr(slot.name_begin);
  }

  Status edit_slot(const TreeEdit& edit) {
    Slot& slot = *slot_;
    const bool exists = slot.entry.has_value();
    const bool is_directory = exists && slot.entry->is_directory;
    switch (edit.kind) {
      case TreeEdit::Kind::kDelete:
        if (!exists && options_.missing_delete_is_error) {
          return not_found(str_cat("nothing to delete at /", edit.path));
        }
        slot.entry.reset();
        slot.file_instead.reset();
        slot.appended.reset();
        return ok_status();
      case TreeEdit::Kind::kPutFile:
        if (edit.path.empty()) return invalid_argument("a file needs a path; this one is empty");
        slot.appended.reset();
        set_file(slot, edit.file);
        return ok_status();
      case TreeEdit::Kind::kAppendFile:
        if (edit.path.empty()) return invalid_argument("a file needs a path; this one is empty");
        if (slot.appended == nullptr) {
          FileRef before;
          if (slot.file_instead.has_value()) {
            before = *slot.file_instead;
          } else if (exists && !is_directory) {
            before = slot.entry->file;
          }
          if (before.empty()) {
            // Nothing to join: the bytes are the file, until more is appended.
            set_file(slot, edit.file);
            return ok_status();
          }
          slot.appended = std::make_unique<FileWriter>(writer_);
          QANAT_RETURN_IF_ERROR(slot.appended->append_file(before));
        }
        return slot.appended->append_file(edit.file);
      case TreeEdit::Kind::kPutDirectory:
        if (exists) {
          return failed_precondition(
              str_cat("a directory cannot be put at /", edit.path, ": a ",
                      is_directory ? "directory" : "file", " of that path exists"),
              "delete that path first, or choose another");
        }
        if (edit.directory.empty()) {
          if (edit.path.empty()) return ok_status();
          return invalid_argument(str_cat("the directory to put at /", edit.path, " is empty"),
                                  "directories exist through their files");
        }
        slot.entry = TreeEntry{.is_directory = true, .directory = edit.directory};
        return ok_status();
    }
    return internal_error("an edit of a tree of unknown kind");
  }

  static void set_file(Slot& slot, const FileRef& file) {
    if (slot.entry.has_value() && slot.entry->is_directory) {
      slot.file_instead = file;
    } else {
      slot.entry = TreeEntry{.file = file};
    }
  }

  // Brings appended bytes into the slot's file.
  Status end_append() {
    if (slot_->appended == nullptr) return ok_status();
    QANAT_ASSIGN_OR_RETURN(FileRef file, slot_->appended->finish());
    slot_->appended.reset();
    set_file(*slot_, file);
    return ok_status();
  }

  Status leave_slot(std::string_view next) {
    if (!path_is_within(next, slot_->path)) return close_slot();
    QANAT_RETURN_IF_ERROR(end_append());
    open_frame();
    return ok_status();
  }

  // A slot for a path whose parent is the innermost open directory.
  Status open_slot(std::string path, size_t name_begin) {
    slot_ = Slot{};
    slot_->path = std::move(path);
    slot_->name_begin = name_begin;
    QANAT_ASSIGN_OR_RETURN(std::optional<std::string_view> old,
                           frames_.back()->editor.old_value(name_of(*slot_)));
    if (old.has_value()) {
      QANAT_ASSIGN_OR_RETURN(slot_->base, TreeEntry::decode(*old));
      slot_->entry = slot_->base;
    }
    return ok_status();
  }

  // The slot becomes an open directory.
  void open_frame() {
    Slot& slot = *slot_;
    TreeRoot root;
    std::optional<FileRef> file = slot.file_instead;
    bool file_is_new = file.has_value();
    if (slot.entry.has_value()) {
      if (slot.entry->is_directory) {
        root = std::move(slot.entry->directory);
      } else {
        file = slot.entry->file;
        file_is_new = slot.entry != slot.base;
      }
    }
    auto frame = std::make_unique<Frame>(writer_, std::move(root));
    frame->path = std::move(slot.path);
    frame->name_begin = slot.name_begin;
    frame->base = std::move(slot.base);
    frame->file_instead = file;
    frame->file_is_new = file_is_new;
    frames_.push_back(std::move(frame));
    slot_.reset();
  }

  Status close_slot() {
    QANAT_RETURN_IF_ERROR(end_append());
    if (slot_->file_instead.has_value()) {  // nothing beneath was edited: it is not empty
      QANAT_ASSIGN_OR_RETURN(std::string inside, first_name(slot_->entry->directory));
      return file_over_directory(slot_->path, inside);
    }
    if (slot_->entry.has_value()) note_put(slot_->path);
    QANAT_RETURN_IF_ERROR(set(*frames_.back(), name_of(*slot_), slot_->base, slot_->entry));
    slot_.reset();
    return ok_status();
  }

  Status close_frame() {
    const std::unique_ptr<Frame> frame = std::move(frames_.back());
    frames_.pop_back();
    QANAT_ASSIGN_OR_RETURN(TreeRoot root, frame->editor.finish());
    std::optional<TreeEntry> entry;
    if (frame->file_instead.has_value()) {
      if (!root.empty()) {
        if (frame->put_below.empty() || frame->file_is_new) {
          QANAT_ASSIGN_OR_RETURN(std::string inside, first_name(root));
          return file_over_directory(frame->path, inside);
        }
        return failed_precondition(
            str_cat("/", frame->put_below, " cannot be written: /", frame->path, " is a file"),
            "delete that file first, or choose another path");
      }
      entry = TreeEntry{.file = *frame->file_instead};
    } else if (!root.empty()) {
      entry = TreeEntry{.is_directory = true, .directory = std::move(root)};
    }
    if (!frame->put_below.empty()) note_put(frame->put_below);
    return set(*frames_.back(), std::string_view(frame->path).substr(frame->name_begin),
               frame->base, entry);
  }

  static Status file_over_directory(std::string_view path, std::string_view inside) {
    return failed_precondition(str_cat("/", path, " cannot be a file: it is a directory, with /",
                                       path, "/", inside, " in it"),
                               "delete that directory first, or choose another path");
  }

  Result<std::string> first_name(const TreeRoot& directory) {
    MapCursor cursor(kDirectoryMap, writer_, directory);
    QANAT_RETURN_IF_ERROR(cursor.seek_first());
    return std::string(cursor.valid() ? cursor.key() : std::string_view("?"));
  }

  void note_put(const std::string& path) {
    if (frames_.back()->put_below.empty()) frames_.back()->put_below = path;
  }

  Status set(Frame& directory, std::string_view name, const std::optional<TreeEntry>& base,
             const std::optional<TreeEntry>& entry) {
    if (entry == base) return ok_status();  // the old entry, or none, is taken over
    if (!entry.has_value()) return directory.editor.erase(name);
    value_.clear();
    entry->encode_to(value_);
    return directory.editor.put(name, value_);
  }

  BlobWriter& writer_;
  const TreeEditOptions options_;
  std::vector<std::unique_ptr<Frame>> frames_;  // open directories, from the root
  std::optional<Slot> slot_;                    // always there between calls
  std::string value_;
};

TreeEditor::TreeEditor(BlobWriter& writer, TreeRoot root, TreeEditOptions options)
    : impl_(std::make_unique<Impl>(writer, std::move(root), options)) {}
TreeEditor::~TreeEditor() = default;

Status TreeEditor::apply(const TreeEdit& edit) { return impl_->apply(edit); }
Result<TreeRoot> TreeEditor::finish() { return impl_->finish(); }

}  // namespace qanat::content
