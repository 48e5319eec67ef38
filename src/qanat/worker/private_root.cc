#include "qanat/worker/private_root.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <set>

#include "qanat/base/file_system.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"

extern char** environ;

namespace qanat::worker {
namespace {

Status failed(std::string_view what) {
  Status status = errno_status(errno, what);
  if (errno == EPERM) {
    return status.with_hint(
        "the process runner needs root with the right to make namespaces and mounts; use the "
        "docker runner, or start the server as root");
  }
  return status;
}

Status mount_at(const char* source, const std::string& target, const char* type,
                unsigned long flags, const char* options = nullptr) {
  if (::mount(source, target.c_str(), type, flags, options) != 0) {
    return failed(str_cat("mount ", target));
  }
  return ok_status();
}

Status make_folder(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return failed(str_cat("mkdir ", path));
  ::chmod(path.c_str(), mode);  // whatever the umask
  return ok_status();
}

// Read-only with everything mounted below it, where the kernel can (5.12); else only the top.
Status make_read_only(const std::string& path) {
  struct {
    uint64_t set, clear, propagation, userns_fd;
  } attributes = {0x1 /* MOUNT_ATTR_RDONLY */ | 0x2 /* NOSUID */, 0, 0, 0};
  constexpr long kMountSetattr = 442;
  constexpr unsigned kRecursive = 0x8000;
  if (::syscall(kMountSetattr, AT_FDCWD, path.c_str(), kRecursive, &attributes,
                sizeof attributes) == 0) {
    return ok_status();
  }
  return mount_at(nullptr, path, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID);
}

Status bind_mount(const std::string& source, const std::string& target, bool read_only) {
  QANAT_RETURN_IF_ERROR(mount_at(source.c_str(), target, nullptr, MS_BIND | MS_REC));
  return read_only ? make_read_only(target) : ok_status();
}

// Everything of / that is not made anew.
Status show_machine(const std::string& root) {
  static const std::set<std::string_view> kOwn = {"proc",  "sys", "dev",   "tmp",
                                                  "run",   "pfs", "root",  "home",
                                                  "qanat", "mnt", "media", "lost+found"};
  DIR* dir = ::opendir("/");
  if (dir == nullptr) return failed("read /");
  Status status;
  while (dirent* entry = ::readdir(dir)) {
    const std::string name = entry->d_name;
    if (name == "." || name == ".." || kOwn.count(name) > 0) continue;
    const std::string from = str_cat("/", name);
    const std::string to = str_cat(root, "/", name);
    struct stat info;
    if (::lstat(from.c_str(), &info) != 0) continue;
    if (S_ISLNK(info.st_mode)) {
      char target[PATH_MAX];
      ssize_t n = ::readlink(from.c_str(), target, sizeof target - 1);
      if (n < 0) continue;
      target[n] = '\0';
      if (::symlink(target, to.c_str()) != 0) status = failed(str_cat("link ", to));
    } else if (S_ISDIR(info.st_mode)) {
      status = make_folder(to, 0755);
      if (status.ok()) status = bind_mount(from, to, true);
    }
    if (!status.ok()) break;
  }
  ::closedir(dir);
  return status;
}

Status hide(const std::string& root, const std::vector<std::string>& hidden) {
  for (const std::string& path : hidden) {
    const std::string target = str_cat(root, path);
    struct stat info;
    if (::stat(target.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) continue;
    QANAT_RETURN_IF_ERROR(
        mount_at("hidden", target, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,mode=0"));
  }
  return ok_status();
}

Status make_devices(const std::string& root) {
  const std::string dev = str_cat(root, "/dev");
  QANAT_RETURN_IF_ERROR(make_folder(dev, 0755));
  QANAT_RETURN_IF_ERROR(mount_at("dev", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64m,mode=755"));
  static constexpr struct {
    const char* name;
    unsigned minor;
    unsigned major;
  } kDevices[] = {{"null", 3, 1},   {"zero", 5, 1},    {"full", 7, 1},
                  {"random", 8, 1}, {"urandom", 9, 1}, {"tty", 0, 5}};
  // For the name space of its own that IPC has: cleaned between datums as /dev/shm is.
  const std::string queues = str_cat(dev, "/mqueue");
  QANAT_RETURN_IF_ERROR(make_folder(queues, 01777));
  QANAT_RETURN_IF_ERROR(mount_at("mqueue", queues, "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""));
  for (const auto& device : kDevices) {
    const std::string path = str_cat(dev, "/", device.name);
    if (::mknod(path.c_str(), S_IFCHR | 0666, makedev(device.major, device.minor)) != 0) {
      return failed(str_cat("mknod ", path));
    }
    ::chmod(path.c_str(), 0666);
  }
  QANAT_RETURN_IF_ERROR(make_folder(str_cat(dev, "/shm"), 01777));
  for (auto [name, target] : {std::pair{"fd", "/proc/self/fd"},
                              {"stdin", "/proc/self/fd/0"},
                              {"stdout", "/proc/self/fd/1"},
                              {"stderr", "/proc/self/fd/2"}}) {
    if (::symlink(target, str_cat(dev, "/", name).c_str()) != 0) return failed("link in /dev");
  }
  return ok_status();
}

// Root without capabilities may still write to much of /proc.
Status make_proc(const std::string& root) {
  const std::string proc = str_cat(root, "/proc");
  QANAT_RETURN_IF_ERROR(make_folder(proc, 0555));
  QANAT_RETURN_IF_ERROR(mount_at("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC));
  for (const char* name : {"sys", "sysrq-trigger", "irq", "bus", "fs"}) {
    const std::string path = str_cat(proc, "/", name);
    if (::access(path.c_str(), F_OK) != 0) continue;
    QANAT_RETURN_IF_ERROR(mount_at(path.c_str(), path, nullptr, MS_BIND | MS_REC));
    QANAT_RETURN_IF_ERROR(
        mount_at(nullptr, path, nullptr,
                 MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC));
  }
  for (const char* name :
       {"kcore", "kpagecount", "kpageflags", "kpagecgroup", "keys", "timer_list"}) {
    const std::string path = str_cat(proc, "/", name);
    if (::access(path.c_str(), F_OK) != 0) continue;
    QANAT_RETURN_IF_ERROR(mount_at(str_cat(root, "/dev/null").c_str(), path, nullptr, MS_BIND));
  }
  return ok_status();
}

Status build_root(const PrivateRootSpec& spec) {
  QANAT_RETURN_IF_ERROR(mount_at("none", "/", nullptr, MS_REC | MS_PRIVATE));
  const std::string root = str_cat(spec.state_folder, "/root");
  const std::string pfs = str_cat(spec.state_folder, "/pfs");
  const std::string tmp = str_cat(spec.state_folder, "/tmp");
  QANAT_RETURN_IF_ERROR(make_folder(root, 0755));
  QANAT_RETURN_IF_ERROR(make_folder(pfs, 0755));
  QANAT_RETURN_IF_ERROR(make_folder(tmp, 01777));
  QANAT_RETURN_IF_ERROR(mount_at("root", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"));
  QANAT_RETURN_IF_ERROR(show_machine(root));
  for (auto [name, mode] : {std::pair<const char*, mode_t>{"/run", 0755},
                            {"/root", 0700},
                            {"/home", 0755},
                            {"/mnt", 0755},
                            {"/media", 0755},
                            {"/pfs", 0755},
                            {"/tmp", 01777},
                            {"/qanat", 0755},
                            {"/qanat/bin", 0755},
                            {"/qanat/run", 0755}}) {
    QANAT_RETURN_IF_ERROR(make_folder(str_cat(root, name), mode));
  }
  QANAT_RETURN_IF_ERROR(make_devices(root));
  QANAT_RETURN_IF_ERROR(make_proc(root));
  QANAT_RETURN_IF_ERROR(make_folder(str_cat(root, "/sys"), 0555));
  // A file system of this network namespace; without one of its own the kernel may refuse, and /sys
  // stays empty.
  if (::mount("sysfs", str_cat(root, "/sys").c_str(), "sysfs",
              MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
    log_debug("no /sys in the sandbox");
  }
  const std::string program = str_cat(root, "/qanat/bin/qanat-worker");
  int fd = ::open(program.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
  if (fd < 0) return failed("make /qanat/bin");
  ::close(fd);
  QANAT_RETURN_IF_ERROR(bind_mount(spec.program, program, true));
  QANAT_RETURN_IF_ERROR(bind_mount(spec.socket_folder, str_cat(root, "/qanat/run"), true));
  QANAT_RETURN_IF_ERROR(bind_mount(pfs, str_cat(root, "/pfs"), false));
  QANAT_RETURN_IF_ERROR(bind_mount(tmp, str_cat(root, "/tmp"), false));
  QANAT_RETURN_IF_ERROR(hide(root, spec.hidden));
  const std::string old = str_cat(root, "/.old");
  QANAT_RETURN_IF_ERROR(make_folder(old, 0700));
  if (::syscall(SYS_pivot_root, root.c_str(), old.c_str()) != 0) return failed("pivot_root");
  if (::chdir("/") != 0) return failed("chdir /");
  if (::umount2("/.old", MNT_DETACH) != 0) return failed("unmount the old root");
  ::rmdir("/.old");
  return ok_status();
}

void bring_loopback_up() {
  int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  struct ifreq request = {};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  ::ioctl(fd, SIOCSIFFLAGS, &request);
  ::close(fd);
}

Status drop_capabilities() {
  const std::vector<int>& kept = worker_capabilities();
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
    if (std::find(kept.begin(), kept.end(), capability) != kept.end()) continue;
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return failed("drop capabilities");
  }
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int capability : kept) {
    data[capability / 32].permitted |= 1u << (capability % 32);
    data[capability / 32].effective |= 1u << (capability % 32);
  }
  if (::syscall(SYS_capset, &header, data) != 0) return failed("drop capabilities");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("set no_new_privs");
  return ok_status();
}

// In the child, process 1 of its namespace. Returns only with an error.
Status enter_and_exec(const PrivateRootSpec& spec, const std::vector<std::string>& arguments) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return failed("prctl");
  const int network = spec.network ? 0 : CLONE_NEWNET;
  if (::unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | network) != 0) {
    return failed("make namespaces");
  }
  ::umask(022);
  if (!spec.network) bring_loopback_up();
  QANAT_RETURN_IF_ERROR(build_root(spec));
  ::sethostname("worker", 6);
  QANAT_RETURN_IF_ERROR(drop_capabilities());
  std::vector<std::string> argv = {"qanat-worker"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv_pointers;
  for (std::string& argument : argv) argv_pointers.push_back(argument.data());
  argv_pointers.push_back(nullptr);
  std::vector<char*> env_pointers;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, "QANAT_", 6) == 0) env_pointers.push_back(*variable);
  }
  env_pointers.push_back(nullptr);
  ::execve("/qanat/bin/qanat-worker", argv_pointers.data(), env_pointers.data());
  return failed("start the worker");
}

}  // namespace

const std::vector<int>& worker_capabilities() {
  static const std::vector<int> kCapabilities = {
      CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
      CAP_KILL,  CAP_SETGID,       CAP_SETUID, CAP_NET_BIND_SERVICE};
  return kCapabilities;
}

int run_in_private_root(const PrivateRootSpec& spec, const std::vector<std::string>& arguments) {
  if (::unshare(CLONE_NEWPID) != 0) {
    std::fprintf(stderr, "%s\n", failed("make a pid namespace").to_string().c_str());
    return 125;
  }
  const pid_t child = ::fork();
  if (child < 0) {
    std::fprintf(stderr, "%s\n", failed("fork").to_string().c_str());
    return 125;
  }
  if (child == 0) {
    Status status = enter_and_exec(spec, arguments);
    std::string text = status.message();
    if (!status.hint().empty()) str_append(text, " (", status.hint(), ")");
    std::fprintf(stderr, "%s\n", text.c_str());
    ::_exit(125);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const bool signalled = WIFSIGNALED(status);
  const int number = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
  if (!spec.exit_file.empty()) {
    Status written = posix_file_system().write_file_durably(
        spec.exit_file, str_cat(signalled ? "signal " : "exit ", number, "\n"));
    if (!written.ok()) std::fprintf(stderr, "%s\n", written.to_string().c_str());
  }
  return signalled ? 128 + number : number;
}

}  // namespace qanat::worker
