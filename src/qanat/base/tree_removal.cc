#include "qanat/base/tree_removal.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "qanat/base/string.h"

namespace qanat {
namespace {

// Folders that are open at once: one descriptor and a buffer of 32 KiB each.
constexpr size_t kMaxOpen = 32;

struct CloseStream {
  void operator()(DIR* stream) const { ::closedir(stream); }
};

struct Level {
  std::unique_ptr<DIR, CloseStream> stream;
  std::string name;      // in the level above
  bool removed = false;  // something, since the stream was at its beginning
  int descriptor() const { return ::dirfd(stream.get()); }
};

class TreeRemoval {
 public:
  explicit TreeRemoval(const std::string& path) : path_(path) {}

  Status run() {
    if (!open(AT_FDCWD, path_)) {
      return errno == ENOENT ? ok_status() : failed("open", "");
    }
    while (true) {
      errno = 0;
      const dirent* entry = ::readdir(levels_.back().stream.get());
      if (entry == nullptr) {
        if (errno != 0) return failed("list", "");
        QANAT_ASSIGN_OR_RETURN(const bool done, leave());
        if (done) return ok_status();
        continue;
      }
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") QANAT_RETURN_IF_ERROR(remove(entry->d_name, entry->d_type));
    }
  }

 private:
  // False, with errno, if it cannot be opened.
  bool open(int parent, const std::string& name) {
    const int descriptor = ::openat(parent, name.c_str(),
                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return false;
    DIR* stream = ::fdopendir(descriptor);
    if (stream == nullptr) {
      const int error = errno;
      ::close(descriptor);
      errno = error;
      return false;
    }
    levels_.push_back({.stream = {stream, {}}, .name = name});
    return true;
  }

  // An entry of the last level: removed, or a folder that is entered or put where it will be.
  Status remove(const std::string& name, unsigned char type) {
    const int parent = levels_.back().descriptor();
    if (type != DT_DIR) {
      if (::unlinkat(parent, name.c_str(), 0) == 0) return removed();
      if (errno == ENOENT) return ok_status();
      if (errno != EISDIR) return failed("remove", name);
    }
    // Also keeps us out of what is mounted here (EBUSY).
    if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0) return removed();
    if (errno == ENOENT) return ok_status();
    if (errno != ENOTEMPTY && errno != EEXIST) return failed("remove folder", name);
    if (levels_.size() < kMaxOpen) {
      return open(parent, name) ? ok_status() : failed("open", name);
    }
    QANAT_RETURN_IF_ERROR(move_up(parent, name));
    return removed();
  }

  Status removed() {
    levels_.back().removed = true;
    return ok_status();
  }

  // To the top of the tree, whose next pass finds it. Never over something: a name that is taken is
  // that of a file or of a folder with something in it.
  Status move_up(int parent, const std::string& name) {
    while (true) {
      const std::string to = str_cat(".removing-", moved_++);
      if (::renameat(parent, name.c_str(), levels_.front().descriptor(), to.c_str()) == 0) {
        levels_.front().removed = true;
        return ok_status();
      }
      if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR) return failed("move", name);
    }
  }

  // The last level has been read to its end. True when that was the whole tree.
  Result<bool> leave() {
    Level& level = levels_.back();
    const bool whole = levels_.size() == 1;
    const int parent = whole ? AT_FDCWD : levels_[levels_.size() - 2].descriptor();
    if (::unlinkat(parent, level.name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) {
      levels_.pop_back();
      if (!whole) levels_.back().removed = true;
      return whole;
    }
    // Names that were moved here meanwhile, or that the stream has passed over because others went.
    if ((errno == ENOTEMPTY || errno == EEXIST) && level.removed) {
      level.removed = false;
      ::rewinddir(level.stream.get());
      return false;
    }
    return failed("remove folder", "");
  }

  // Of the last level, or of a name in it.
  Status failed(std::string_view operation, const std::string& name) const {
    const int error = errno;
    std::string where = path_;
    for (size_t i = 1; i < levels_.size(); ++i) str_append(where, "/", levels_[i].name);
    if (!name.empty()) str_append(where, "/", name);
    return errno_status(error, str_cat(operation, " ", where));
  }

  const std::string path_;
  std::vector<Level> levels_;  // from the top down
  uint64_t moved_ = 0;
};

}  // namespace

Status remove_directory_tree(const std::string& path) { return TreeRemoval(path).run(); }

}  // namespace qanat
