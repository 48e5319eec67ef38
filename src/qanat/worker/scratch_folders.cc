#include "qanat/worker/scratch_folders.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"
#include "qanat/worker/pfs_folder.h"

namespace qanat::worker {
namespace {

constexpr const char* kPlaces[] = {"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock"};
constexpr size_t kMaxKept = 10'000;
constexpr int kOpenFolder = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

class OpenFolder {
 public:
  explicit OpenFolder(int fd) : fd_(fd) {}
  ~OpenFolder() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFolder(const OpenFolder&) = delete;
  OpenFolder& operator=(const OpenFolder&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

// Calls visit(name, is_folder) for each entry. A name may come twice, or be missed, if entries are
// removed meanwhile.
template <class Visit>
Status visit_entries(int fd, const Visit& visit) {
  const int own = ::openat(fd, ".", kOpenFolder);
  if (own < 0) return errno_status(errno, "open folder");
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(own));
  if (dir == nullptr) {
    Status status = errno_status(errno, "read folder");
    ::close(own);
    return status;
  }
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat info;
    if (::fstatat(fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    QANAT_RETURN_IF_ERROR(visit(name, S_ISDIR(info.st_mode)));
  }
  return ok_status();
}

// Notes everything below; false once there are too many.
bool take_inventory(int fd, const std::string& prefix, std::set<std::string>& kept) {
  bool complete = true;
  const Status status = visit_entries(fd, [&](const std::string& name, bool is_folder) {
    if (kept.size() >= kMaxKept) complete = false;
    if (!complete) return ok_status();
    kept.insert(prefix + name);
    if (!is_folder) return ok_status();
    const OpenFolder child(::openat(fd, name.c_str(), kOpenFolder));
    if (child.get() >= 0) complete = take_inventory(child.get(), str_cat(prefix, name, "/"), kept);
    return ok_status();
  });
  return complete && status.ok();
}

Status remove_entry(int fd, const std::string& name, bool is_folder) {
  if (is_folder) {
    const OpenFolder child(::openat(fd, name.c_str(), kOpenFolder));
    if (child.get() < 0) return errno_status(errno, "open folder");
    QANAT_RETURN_IF_ERROR(empty_folder(child.get()));
  }
  if (::unlinkat(fd, name.c_str(), is_folder ? AT_REMOVEDIR : 0) == 0 || errno == ENOENT)
    return ok_status();
  return errno_status(errno, "remove what a datum left");
}

// The folder of a path that had no links in it, if it still has none.
int open_path(const std::string& path) {
  int fd = ::open("/", kOpenFolder);
  for (const std::string_view part : split(path, '/')) {
    if (part.empty() || fd < 0) continue;
    const int next = ::openat(fd, std::string(part).c_str(), kOpenFolder);
    const int error = errno;
    ::close(fd);
    fd = next;
    errno = error;
  }
  return fd;
}

// ---- System V objects ----

struct IpcKind {
  const char* table;
  size_t uid_column;  // owner; creator two further
  void (*remove)(int id);
};

const IpcKind kIpcKinds[] = {
    {"/proc/sysvipc/shm", 7, [](int id) { ::shmctl(id, IPC_RMID, nullptr); }},
    {"/proc/sysvipc/sem", 4, [](int id) { ::semctl(id, 0, IPC_RMID); }},
    {"/proc/sysvipc/msg", 7, [](int id) { ::msgctl(id, IPC_RMID, nullptr); }},
};

struct IpcObject {
  int id = 0;
  uid_t creator = 0;
};

std::vector<IpcObject> ipc_objects(const IpcKind& kind) {
  std::vector<IpcObject> objects;
  const auto text = posix_file_system().read_file(kind.table, 16 << 20);
  if (!text.ok()) return objects;
  bool header = true;
  for (const std::string_view line : split(*text, '\n')) {
    if (std::exchange(header, false)) continue;
    std::vector<std::string_view> columns;
    for (const std::string_view column : split(line, ' ')) {
      if (!column.empty()) columns.push_back(column);
    }
    if (columns.size() <= kind.uid_column + 2) continue;
    const auto id = parse_u64(columns[1]);
    const auto creator = parse_u64(columns[kind.uid_column + 2]);
    if (id.ok() && creator.ok())
      objects.push_back({static_cast<int>(*id), static_cast<uid_t>(*creator)});
  }
  return objects;
}

bool has_ipc_objects() {
  for (const IpcKind& kind : kIpcKinds) {
    if (!ipc_objects(kind).empty()) return true;
  }
  return false;
}

// Root without CAP_SYS_ADMIN may not remove what others made: this thread becomes them for a
// moment. The raw call changes one thread only; the saved uid lets it come back.
void remove_ipc_objects() {
  const uid_t me = ::geteuid();
  for (const IpcKind& kind : kIpcKinds) {
    for (const IpcObject& object : ipc_objects(kind)) {
      if (object.creator != me && ::syscall(SYS_setresuid, -1, object.creator, -1) != 0) continue;
      kind.remove(object.id);
      if (object.creator != me && ::syscall(SYS_setresuid, -1, me, -1) != 0) ::_exit(1);
    }
  }
}

}  // namespace

ScratchFolders::ScratchFolders(const std::string& root)
    : own_ipc_(root.empty() && !has_ipc_objects()) {
  for (const char* place : kPlaces) {
    // /var/tmp may be a link to /tmp.
    char resolved[PATH_MAX];
    if (::realpath(str_cat(root, place).c_str(), resolved) == nullptr) continue;
    Folder folder;
    folder.path = resolved;
    bool again = false;
    for (const Folder& other : folders_) again = again || other.path == folder.path;
    const OpenFolder opened(::open(resolved, kOpenFolder));
    struct stat info;
    struct statvfs system;
    if (again || opened.get() < 0 || ::fstat(opened.get(), &info) != 0) continue;
    // The process runner shows the machine's own /var/tmp, read-only: nobody leaves anything there,
    // and what comes and goes is not a datum's.
    if (::fstatvfs(opened.get(), &system) != 0 || (system.f_flag & ST_RDONLY) != 0) continue;
    folder.mode = info.st_mode & 07777;
    folder.uid = info.st_uid;
    folder.gid = info.st_gid;
    if (!take_inventory(opened.get(), "", folder.kept)) {
      folder.keep_trees = true;
      folder.kept.clear();
      (void)visit_entries(opened.get(), [&folder](const std::string& name, bool) {
        folder.kept.insert(name);
        return ok_status();
      });
    }
    folders_.push_back(std::move(folder));
  }
}

Status ScratchFolders::clean() const {
  for (const Folder& folder : folders_) {
    const Status status = clean_folder(folder);
    if (!status.ok()) {
      return internal_error(str_cat("clean ", folder.path, ": ", status.message()));
    }
  }
  if (own_ipc_) remove_ipc_objects();
  return ok_status();
}

Status ScratchFolders::clean_folder(const Folder& folder) {
  OpenFolder opened(open_path(folder.path));
  if (opened.get() >= 0) {
    struct stat info;
    if (::fstat(opened.get(), &info) != 0) return errno_status(errno, "stat");
    if ((info.st_uid != folder.uid || info.st_gid != folder.gid) &&
        ::fchown(opened.get(), folder.uid, folder.gid) != 0)
      return errno_status(errno, "chown");
    if ((info.st_mode & 07777) != folder.mode && ::fchmod(opened.get(), folder.mode) != 0)
      return errno_status(errno, "chmod");
    return clean_below(folder, opened.get(), "");
  }
  // Root's code took it away, or put something else there.
  const size_t slash = folder.path.rfind('/');
  const OpenFolder parent(open_path(folder.path.substr(0, slash)));
  const std::string name = folder.path.substr(slash + 1);
  if (parent.get() < 0) return errno_status(errno, "open");
  if (::unlinkat(parent.get(), name.c_str(), 0) != 0 && errno != ENOENT)
    return errno_status(errno, "remove what is in its place");
  if (::mkdirat(parent.get(), name.c_str(), 0700) != 0) return errno_status(errno, "make");
  const OpenFolder made(::openat(parent.get(), name.c_str(), kOpenFolder));
  if (made.get() < 0 || ::fchown(made.get(), folder.uid, folder.gid) != 0 ||
      ::fchmod(made.get(), folder.mode) != 0)
    return errno_status(errno, "make");
  return ok_status();
}

Status ScratchFolders::clean_below(const Folder& folder, int fd, const std::string& prefix) {
  // Names may be missed when a folder changes under readdir: go on until a pass removes none.
  for (bool removed = true; removed;) {
    removed = false;
    QANAT_RETURN_IF_ERROR(visit_entries(fd, [&](const std::string& name, bool is_folder) -> Status {
      const std::string path = prefix + name;
      if (!folder.kept.contains(path)) {
        removed = true;
        return remove_entry(fd, name, is_folder);
      }
      if (!is_folder || folder.keep_trees) return ok_status();
      const OpenFolder child(::openat(fd, name.c_str(), kOpenFolder));
      if (child.get() < 0) return errno_status(errno, "open folder");
      return clean_below(folder, child.get(), path + "/");
    }));
  }
  return ok_status();
}

}  // namespace qanat::worker
