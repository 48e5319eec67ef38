#include "qanat/worker/pfs_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

constexpr int kOpenFolder = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
// Deeper folders are moved to the top before they are emptied.
constexpr int kMaxDepth = 64;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

Status error_at(std::string_view what, std::string_view path) {
  return errno_status(errno, str_cat(what, " /pfs/", path));
}

class Remover {
 public:
  explicit Remover(int top_fd) : top_fd_(top_fd) {}

  // Empties the folder; takes over `fd`.
  Status empty(int fd, int depth) {
    std::unique_ptr<DIR, CloseDir> dir(::fdopendir(fd));
    if (dir == nullptr) {
      Status status = errno_status(errno, "open folder");
      ::close(fd);
      return status;
    }
    // Names may be missed when a folder changes under readdir: go on until a pass finds none.
    for (bool found = true; found;) {
      found = false;
      ::rewinddir(dir.get());
      while (dirent* entry = ::readdir(dir.get())) {
        const std::string_view name = entry->d_name;
        if (name == "." || name == "..") continue;
        found = true;
        QANAT_RETURN_IF_ERROR(remove(fd, entry->d_name, entry->d_type, depth));
      }
    }
    return ok_status();
  }

 private:
  Status remove(int fd, const char* name, unsigned char type, int depth) {
    if (type != DT_DIR) {
      if (::unlinkat(fd, name, 0) == 0 || errno == ENOENT) return ok_status();
      if (errno != EISDIR && errno != EPERM) return errno_status(errno, "remove file");
    }
    if (::unlinkat(fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return ok_status();
    if (errno != ENOTEMPTY && errno != EEXIST) return errno_status(errno, "remove folder");
    if (depth >= kMaxDepth) {
      // It will be found there by the top folder's next pass.
      const std::string moved = str_cat(".qanat-removing-", ++moved_);
      if (::renameat(fd, name, top_fd_, moved.c_str()) != 0) {
        return errno_status(errno, "move folder");
      }
      return ok_status();
    }
    int child = ::openat(fd, name, kOpenFolder);
    if (child < 0) return errno_status(errno, "open folder");
    QANAT_RETURN_IF_ERROR(empty(child, depth + 1));
    if (::unlinkat(fd, name, AT_REMOVEDIR) != 0) return errno_status(errno, "remove folder");
    return ok_status();
  }

  const int top_fd_;
  uint64_t moved_ = 0;
};

}  // namespace

Status empty_folder(int folder_fd) {
  int fd = ::openat(folder_fd, ".", kOpenFolder);
  if (fd < 0) return errno_status(errno, "open folder");
  return Remover(folder_fd).empty(fd, 0);
}

PfsFolder::PfsFolder(std::string parent, Account owner)
    : parent_(std::move(parent)), owner_(std::move(owner)) {}

PfsFolder::~PfsFolder() {
  close_parent();
  if (file_fd_ >= 0) ::close(file_fd_);
  if (root_fd_ >= 0) ::close(root_fd_);
}

void PfsFolder::close_parent() {
  if (folder_fd_ >= 0) ::close(folder_fd_);
  folder_fd_ = -1;
  folder_path_.clear();
}

Status PfsFolder::open_root() {
  if (root_fd_ >= 0) ::close(root_fd_);
  root_fd_ = -1;
  int parent = ::open(parent_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0) return errno_status(errno, str_cat("open ", parent_));
  // User code may have put a link or a file in its place, or taken it away.
  for (int attempt = 0; attempt < 3 && root_fd_ < 0; ++attempt) {
    root_fd_ = ::openat(parent, "pfs", kOpenFolder);
    if (root_fd_ >= 0) break;
    if (errno == ENOENT) {
      ::mkdirat(parent, "pfs", 0755);
    } else if (errno == ENOTDIR || errno == ELOOP) {
      ::unlinkat(parent, "pfs", 0);
    } else {
      break;
    }
  }
  const int error = errno;
  ::close(parent);
  if (root_fd_ < 0) return errno_status(error, "make /pfs");
  if (::fchmod(root_fd_, 0755) != 0 || ::fchown(root_fd_, owner_.uid, owner_.gid) != 0) {
    return errno_status(errno, "make /pfs");
  }
  return ok_status();
}

Status PfsFolder::clear() {
  close_parent();
  if (file_fd_ >= 0) ::close(file_fd_);
  file_fd_ = -1;
  QANAT_RETURN_IF_ERROR(open_root());
  return empty_folder(root_fd_).with_context("empty /pfs");
}

Status PfsFolder::prepare(const std::vector<std::string>& inputs) {
  QANAT_RETURN_IF_ERROR(clear());
  std::vector<std::string> names = inputs;
  names.push_back("out");
  for (const std::string& name : names) {
    if (::mkdirat(root_fd_, name.c_str(), 0755) != 0 && errno != EEXIST) {
      return error_at("make", name);
    }
    if (owner_.uid == 0 && owner_.gid == 0) continue;
    if (::fchownat(root_fd_, name.c_str(), owner_.uid, owner_.gid, AT_SYMLINK_NOFOLLOW) != 0) {
      return error_at("make", name);
    }
  }
  return ok_status();
}

// Leaves the folder of `path` open in folder_fd_, making what is missing. Files come sorted, so it
// is mostly open already.
Status PfsFolder::open_parent(std::string_view path, std::string_view& name) {
  const size_t slash = path.rfind('/');
  std::string_view folder =
      slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
  name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  if (folder_fd_ >= 0 && folder == folder_path_) return ok_status();
  close_parent();
  int fd = ::openat(root_fd_, ".", kOpenFolder);
  if (fd < 0) return error_at("open", "");
  if (!folder.empty()) {
    for (std::string_view part_view : split(folder, '/')) {
      const std::string part(part_view);
      const bool made = ::mkdirat(fd, part.c_str(), 0755) == 0;
      if (!made && errno != EEXIST) {
        Status status = error_at("make folder", folder);
        ::close(fd);
        return status;
      }
      int next = ::openat(fd, part.c_str(), kOpenFolder);
      Status status = next < 0 ? error_at("open folder", folder) : ok_status();
      ::close(fd);
      fd = next;
      QANAT_RETURN_IF_ERROR(status);
      if (made && ::fchown(fd, owner_.uid, owner_.gid) != 0) {
        status = error_at("make folder", folder);
        ::close(fd);
        return status;
      }
    }
  }
  folder_fd_ = fd;
  folder_path_ = folder;
  return ok_status();
}

Status PfsFolder::begin_file(std::string_view path) {
  std::string_view name;
  QANAT_RETURN_IF_ERROR(open_parent(path, name));
  file_path_ = path;
  file_fd_ = ::openat(folder_fd_, std::string(name).c_str(),
                      O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (file_fd_ < 0) return error_at("create", path);
  if ((owner_.uid != 0 || owner_.gid != 0) && ::fchown(file_fd_, owner_.uid, owner_.gid) != 0) {
    return error_at("create", path);
  }
  return ok_status();
}

Status PfsFolder::append(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = ::write(file_fd_, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return error_at("write", file_path_);
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return ok_status();
}

Status PfsFolder::end_file() {
  const int fd = file_fd_;
  file_fd_ = -1;
  if (::close(fd) != 0) return error_at("write", file_path_);
  return ok_status();
}

Status PfsFolder::write_file(std::string_view path, std::string_view bytes) {
  QANAT_RETURN_IF_ERROR(begin_file(path));
  QANAT_RETURN_IF_ERROR(append(bytes));
  return end_file();
}

Result<int> PfsFolder::open_out() {
  close_parent();
  // Held since prepare(); /pfs may have been renamed or replaced, so it is looked up again.
  int parent = ::open(parent_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0) return errno_status(errno, str_cat("open ", parent_));
  int root = ::openat(parent, "pfs", kOpenFolder);
  ::close(parent);
  int out = root < 0 ? -1 : ::openat(root, "out", kOpenFolder);
  const int error = errno;
  if (root >= 0) ::close(root);
  if (out >= 0) return out;
  return failed_precondition(
      error == ENOENT ? "the command removed /pfs/out"
                      : "the command put something that is not a folder in the place of /pfs/out",
      "leave /pfs/out a folder and write files into it");
}

}  // namespace qanat::worker
