#include "qanat/worker/output_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "qanat/base/path.h"
#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

constexpr size_t kMaxDepth = 400;
// Links may multiply what they lead to; nobody needs so many.
constexpr uint64_t kMaxFollowed = 1'000'000;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// The calling thread's identity towards file systems, and root's again at the end of the scope. Raw
// system calls: they concern this thread only.
class FileSystemIdentity {
 public:
  explicit FileSystemIdentity(const Account& account) : active_(account.uid != 0) {
    if (!active_) return;
    const int count = ::getgroups(0, nullptr);
    groups_.resize(count > 0 ? static_cast<size_t>(count) : 0);
    if (count > 0) ::getgroups(count, groups_.data());
    ::syscall(SYS_setgroups, account.groups.size(), account.groups.data());
    ::setfsgid(account.gid);
    ::setfsuid(account.uid);
  }
  ~FileSystemIdentity() {
    if (!active_) return;
    ::setfsuid(0);
    ::setfsgid(0);
    ::syscall(SYS_setgroups, groups_.size(), groups_.data());
  }
  FileSystemIdentity(const FileSystemIdentity&) = delete;
  FileSystemIdentity& operator=(const FileSystemIdentity&) = delete;

 private:
  const bool active_;
  std::vector<gid_t> groups_;
};

// For one open call as root.
class AsRoot {
 public:
  explicit AsRoot(const Account& account) : account_(account) {
    if (account_.uid != 0) ::setfsuid(0);
  }
  ~AsRoot() {
    if (account_.uid != 0) ::setfsuid(account_.uid);
  }
  AsRoot(const AsRoot&) = delete;
  AsRoot& operator=(const AsRoot&) = delete;

 private:
  const Account& account_;
};

bool kernel_file_system(int fd) {
  struct statfs info;
  if (::fstatfs(fd, &info) != 0) return true;
  switch (static_cast<uint32_t>(info.f_type)) {
    case 0x9fa0:      // proc
    case 0x62656572:  // sysfs
    case 0x27e0eb:    // cgroup
    case 0x63677270:  // cgroup2
    case 0x64626720:  // debugfs
    case 0x74726163:  // tracefs
    case 0x73636673:  // securityfs
    case 0x1cd1:      // devpts
    case 0x6e736673:  // nsfs
      return true;
    default:
      return false;
  }
}

// Follows links, but not the magic ones of /proc.
int open_following(int folder, const char* name) {
  struct open_how how = {};
  how.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
  how.resolve = RESOLVE_NO_MAGICLINKS;
  long fd = ::syscall(SYS_openat2, folder, name, &how, sizeof how);
  if (fd < 0 && (errno == ENOSYS || errno == EPERM)) {
    return ::openat(folder, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  }
  return static_cast<int>(fd);
}

struct Identity {
  dev_t device;
  ino_t inode;
  bool operator==(const Identity&) const = default;
};

class Walk {
 public:
  Walk(const Account& account, const OutputVisitor& visit) : account_(account), visit_(visit) {}

  Status folder(int fd, const std::string& path, bool followed) {
    if (ancestors_.size() >= kMaxDepth) {
      return failed_precondition(
          str_cat("/pfs/out/", quoted(path.substr(0, 200)), "...: folders are nested deeper than ",
                  kMaxDepth, " levels"),
          "use fewer levels");
    }
    struct stat info;
    if (::fstat(fd, &info) != 0) return errno_status(errno, str_cat("read /pfs/out/", path));
    const Identity self{info.st_dev, info.st_ino};
    if (std::find(ancestors_.begin(), ancestors_.end(), self) != ancestors_.end()) {
      return failed_precondition(
          str_cat("/pfs/out/", quoted(path), " is a symbolic link to a folder that contains it"),
          "remove the link: following it would never end");
    }
    ancestors_.push_back(self);
    std::vector<Entry> entries;
    QANAT_RETURN_IF_ERROR(list(fd, path, entries));
    for (const Entry& entry : entries) {
      QANAT_RETURN_IF_ERROR(visit_entry(fd, path, entry, followed));
    }
    ancestors_.pop_back();
    return ok_status();
  }

 private:
  struct Entry {
    std::string name;
    bool link;
    bool is_folder;  // itself, or what the link leads to
  };

  Status list(int fd, const std::string& path, std::vector<Entry>& entries) {
    int copy = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy < 0 && errno == EACCES) {
      AsRoot root(account_);
      copy = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    DIR* dir = copy < 0 ? nullptr : ::fdopendir(copy);
    if (dir == nullptr) return errno_status(errno, str_cat("read /pfs/out/", path));
    std::unique_ptr<DIR, int (*)(DIR*)> closer(dir, ::closedir);
    while (true) {
      errno = 0;
      dirent* entry = ::readdir(dir);
      if (entry == nullptr) {
        if (errno != 0) return errno_status(errno, str_cat("read /pfs/out/", path));
        break;
      }
      std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (Status status = check_path_part(name); !status.ok()) {
        return failed_precondition(
            str_cat("the command wrote ", quoted(join_path(path, name)),
                    " to /pfs/out, which no repo can hold: ", status.message()),
            "give the file another name");
      }
      bool link = entry->d_type == DT_LNK;
      bool is_folder = entry->d_type == DT_DIR;
      if (link || entry->d_type == DT_UNKNOWN) {
        struct stat info;
        if (entry->d_type == DT_UNKNOWN &&
            ::fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
          link = S_ISLNK(info.st_mode);
          is_folder = S_ISDIR(info.st_mode);
        }
        if (link && ::fstatat(fd, entry->d_name, &info, 0) == 0) is_folder = S_ISDIR(info.st_mode);
      }
      entries.push_back({std::move(name), link, is_folder});
    }
    // Bytewise order of whole paths: a folder counts as "name/".
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return (a.is_folder ? a.name + "/" : a.name) < (b.is_folder ? b.name + "/" : b.name);
    });
    return ok_status();
  }

  int open_entry(int folder, const Entry& entry, bool followed) {
    const char* name = entry.name.c_str();
    if (entry.link) return open_following(folder, name);
    const int flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW;
    int fd = ::openat(folder, name, flags);
    if (fd < 0 && errno == EACCES && !followed) {
      AsRoot root(account_);
      struct stat info;
      if (::fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && info.st_uid == account_.uid) {
        fd = ::openat(folder, name, flags);
        // The user's own folder: what is in it is reached by the user's rights again.
        if (fd >= 0 && entry.is_folder) ::fchmod(fd, 0700);
        return fd;
      }
      errno = EACCES;
    }
    return fd;
  }

  Status visit_entry(int folder_fd, const std::string& folder_path, const Entry& entry,
                     bool followed) {
    const std::string path = join_path(folder_path, entry.name);
    const std::string shown = str_cat("/pfs/out/", path);
    QANAT_RETURN_IF_ERROR(check_type(folder_fd, entry, shown));
    Fd fd(open_entry(folder_fd, entry, followed));
    if (fd.get() < 0) return open_error(entry, shown, errno);
    if (entry.link && ++followed_ > kMaxFollowed) {
      return failed_precondition(
          str_cat(shown, ": more than ", kMaxFollowed, " symbolic links were followed"),
          "write files instead of links, or link fewer");
    }
    struct stat info;
    if (::fstat(fd.get(), &info) != 0) return errno_status(errno, shown);
    if (entry.link && kernel_file_system(fd.get())) {
      return failed_precondition(
          str_cat(shown, " is a symbolic link into a file system of the kernel"),
          "copy the content into a file of /pfs/out");
    }
    if (S_ISDIR(info.st_mode)) return folder(fd.get(), path, followed || entry.link);
    if (!S_ISREG(info.st_mode)) return special_file(shown, info.st_mode);
    if (Status status = check_path(path); !status.ok()) {
      return failed_precondition(
          str_cat("the command wrote a file to /pfs/out that no repo can hold: ", status.message()),
          "use a shorter path");
    }
    return visit_(path, fd.get(), static_cast<uint64_t>(info.st_size));
  }

  // Before it is opened: opening a device or a pipe may do something.
  Status check_type(int folder_fd, const Entry& entry, const std::string& shown) {
    struct stat info;
    if (::fstatat(folder_fd, entry.name.c_str(), &info, entry.link ? 0 : AT_SYMLINK_NOFOLLOW) !=
        0) {
      return open_error(entry, shown, errno);
    }
    if (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) return ok_status();
    return special_file(shown, info.st_mode);
  }

  Status special_file(const std::string& shown, mode_t mode) {
    const char* what = S_ISFIFO(mode) ? "a named pipe" : S_ISSOCK(mode) ? "a socket" : "a device";
    return failed_precondition(str_cat(shown, " is ", what, ", which no repo can hold"),
                               "leave only files, folders and links to files in /pfs/out");
  }

  Status open_error(const Entry& entry, const std::string& shown, int error) {
    if (entry.link) {
      const char* why = error == ENOENT   ? "that leads nowhere"
                        : error == ELOOP  ? "that leads in a circle, or into /proc"
                        : error == EACCES ? "to something that transform.user may not read"
                                          : "that cannot be followed";
      return failed_precondition(str_cat(shown, " is a symbolic link ", why),
                                 "remove the link, or write the content itself");
    }
    if (error == EACCES) {
      return failed_precondition(str_cat(shown, " may not be read by transform.user"),
                                 "leave files in /pfs/out readable");
    }
    return errno_status(error, shown);
  }

  const Account& account_;
  const OutputVisitor& visit_;
  std::vector<Identity> ancestors_;
  uint64_t followed_ = 0;
};

}  // namespace

Status walk_output(int out_fd, const Account& account, const OutputVisitor& visit) {
  struct stat info;
  if (::fstat(out_fd, &info) == 0 && (info.st_mode & S_IRWXU) != S_IRWXU &&
      info.st_uid == account.uid) {
    ::fchmod(out_fd, 0700);
  }
  FileSystemIdentity identity(account);
  return Walk(account, visit).folder(out_fd, "", false);
}

}  // namespace qanat::worker
