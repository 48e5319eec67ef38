#include "qanat/run/private_engine.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "qanat/base/file_system.h"
#include "qanat/base/hash.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/run/detached_process.h"
#include "qanat/run/docker_engine.h"

namespace qanat::run {
namespace {

constexpr std::int64_t kStartMs = 20'000;
constexpr std::int64_t kStopMs = 15'000;
constexpr std::int64_t kPollMs = 50;
constexpr size_t kMaxSocketPath = 107;
// The longest path that dockerd makes under its exec root.
constexpr std::string_view kLongestBelow = "/exec/containerd/containerd-debug.sock";

// Moves the new process into a cgroup of its own in every hierarchy that lets it, then becomes
// dockerd. v1: a folder for each controller; v2: one folder. cpuset's (v1) needs its values set
// before a process may join, and limits nothing here: left alone. Arguments: name, then dockerd's.
constexpr const char* kLaunch = R"(
name=$1; shift
for dir in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
  parent=${dir%/cgroup.procs}
  [ -w "$dir" ] || continue
  case $parent in */cpuset) continue;; esac
  if [ ! -e /sys/fs/cgroup/cgroup.controllers ] || [ "$parent" = /sys/fs/cgroup ]; then
    mkdir "$parent/$name" 2>/dev/null
    echo $$ > "$parent/$name/cgroup.procs"
  fi
done 2>/dev/null
exec "$@"
)";

std::string find_program(const char* name) {
  const char* path = std::getenv("PATH");
  std::string folders = str_cat(path == nullptr ? "" : path, ":/usr/local/bin:/usr/sbin:/usr/bin");
  for (std::string_view folder : split(folders, ':')) {
    if (folder.empty()) continue;
    std::string file = str_cat(folder, "/", name);
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  return {};
}

}  // namespace

PrivateEngine::PrivateEngine(const std::string& data_folder, Clock& clock)
    : folder_(str_cat(data_folder, "/engine")), clock_(clock) {
  exec_root_ = str_cat(folder_, "/exec");
  socket_ = str_cat(folder_, "/sock");
  if (folder_.size() + kLongestBelow.size() > kMaxSocketPath) {
    const std::string place = str_cat("/run/qanat-", sha256(folder_).to_hex().substr(0, 12));
    exec_root_ = str_cat(place, "/exec");
    socket_ = str_cat(place, "/sock");
  }
}

// By its arguments: the number in a pid file may have become another process's.
bool PrivateEngine::is_this_engine(int pid) const {
  if (pid <= 1) return false;
  const std::string arguments =
      posix_file_system().read_file(str_cat("/proc/", pid, "/cmdline"), 64 << 10).value_or("");
  const std::vector<std::string_view> words = split(arguments, '\0');
  const auto option = std::find(words.begin(), words.end(), "--data-root");
  return option != words.end() && option + 1 != words.end() &&
         *(option + 1) == str_cat(folder_, "/root");
}

int PrivateEngine::living_pid() const {
  const std::string text = posix_file_system().read_file(str_cat(folder_, "/pid"), 64).value_or("");
  const int written = static_cast<int>(parse_u64(trim(text)).value_or(0));
  if (is_this_engine(written)) return written;
  // It writes its pid file a while after it was started.
  const int child = child_;
  return is_this_engine(child) ? child : 0;
}

bool PrivateEngine::running() const {
  if (::access(socket_.c_str(), F_OK) != 0) return false;
  return DockerEngine(socket_).ping().ok();
}

Status PrivateEngine::possible() const {
  if (find_program("dockerd").empty()) {
    return unavailable(
        "no container engine answers, and Docker is not installed",
        "install Docker (Debian: apt install docker.io) or Podman and start it, or set "
        "DOCKER_HOST=unix:///path/of/its/socket; without one, qanat serve --runner process runs "
        "pipelines with this machine's own programs");
  }
  if (::geteuid() != 0) {
    return unavailable(
        "no container engine answers; Docker is installed, but only root can start an engine",
        "start Docker (systemctl start docker) and join its group, or run qanat serve as root, "
        "or set DOCKER_HOST=unix:///path/of/its/socket");
  }
  return ok_status();
}

std::string PrivateEngine::log_tail() const {
  std::string text = posix_file_system().read_file(str_cat(folder_, "/log")).value_or("");
  std::string_view tail = trim(text);
  for (size_t i = tail.size(), lines = 0; i-- > 0;) {
    if (tail[i] == '\n' && ++lines == 3) {
      tail.remove_prefix(i + 1);
      break;
    }
  }
  return std::string(tail);
}

Status PrivateEngine::spawn(const std::string& dockerd) {
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(folder_));
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(exec_root_));
  const std::string log_path = str_cat(folder_, "/log");
  // A dockerd that was killed leaves its pid file, and refuses to start when that number lives
  // again. The caller knows that none lives.
  ::unlink(str_cat(folder_, "/pid").c_str());
  ::unlink(socket_.c_str());
  const std::string name = cgroup_name();
  std::vector<std::string> arguments = {
      "/bin/sh", "-c", kLaunch, "sh", name, dockerd, "--data-root", str_cat(folder_, "/root"),
      "--exec-root", exec_root_, "--pidfile", str_cat(folder_, "/pid"), "-H",
      str_cat("unix://", socket_), "--iptables=false", "--ip6tables=false", "--bridge=none",
      "--ip-forward=false",
      // Another engine's containerd may be found and used: its containers are not ours.
      "--containerd-namespace", name, "--containerd-plugins-namespace", str_cat(name, "-plugins")};
  QANAT_ASSIGN_OR_RETURN(const pid_t child, start_detached({.program = "/bin/sh",
                                                            .arguments = std::move(arguments),
                                                            .log_file = log_path,
                                                            .truncate_log = true}));
  child_ = child;
  const std::int64_t deadline_ms = clock_.monotonic_ms() + kStartMs;
  while (clock_.monotonic_ms() < deadline_ms) {
    if (running()) {
      log_info("private container engine started", {{"socket", socket_}, {"pid", child}});
      return ok_status();
    }
    int status = 0;
    if (::waitpid(child, &status, WNOHANG) == child) {
      return unavailable(
          str_cat("a private container engine was started and ended at once: ", log_tail()),
          str_cat("see ", log_path,
                  "; a Docker or Podman engine started by other "
                  "means is used if it answers, or set DOCKER_HOST"));
    }
    clock_.sleep_for_ms(kPollMs);
  }
  // It is waited for again when it is needed next.
  return unavailable(str_cat("a private container engine was started and did not answer within ",
                             kStartMs / 1000, " s: ", log_tail()),
                     str_cat("it may be slow; see ", log_path));
}

Status PrivateEngine::start() {
  if (running()) return ok_status();
  const std::int64_t deadline_ms = clock_.monotonic_ms() + kStartMs;
  while (const int engine = living_pid()) {
    if (clock_.monotonic_ms() >= deadline_ms) {
      return unavailable(
          str_cat("this data folder's private container engine (dockerd, process ", engine,
                  ") has not ended, but does not answer at ", socket_),
          str_cat("it is waited for; see ", folder_, "/log; if it stays so, kill ", engine));
    }
    clock_.sleep_for_ms(kPollMs);
    if (running()) return ok_status();
  }
  QANAT_RETURN_IF_ERROR(possible());
  return spawn(find_program("dockerd"));
}

std::string PrivateEngine::cgroup_name() const {
  return str_cat("qanat-engine-", sha256(folder_).to_hex().substr(0, 12));
}

void PrivateEngine::remove_cgroups() const {
  ::rmdir(str_cat("/sys/fs/cgroup/", cgroup_name()).c_str());
  auto hierarchies = posix_file_system().list("/sys/fs/cgroup");
  if (!hierarchies.ok()) return;
  for (const DirectoryEntry& hierarchy : *hierarchies) {
    ::rmdir(str_cat("/sys/fs/cgroup/", hierarchy.name, "/", cgroup_name()).c_str());
  }
}

Status PrivateEngine::stop() {
  const int engine = living_pid();
  if (engine == 0) return ok_status();
  if (::kill(engine, SIGTERM) != 0 && errno != ESRCH) return errno_status(errno, "stop dockerd");
  const std::int64_t deadline_ms = clock_.monotonic_ms() + kStopMs;
  while (clock_.monotonic_ms() < deadline_ms) {
    // It may be a child of this very process.
    ::waitpid(engine, nullptr, WNOHANG);
    if (::kill(engine, 0) != 0) {
      remove_cgroups();
      return ok_status();
    }
    clock_.sleep_for_ms(kPollMs);
  }
  return deadline_exceeded(str_cat("dockerd (pid ", engine, ") does not end"),
                           str_cat("look at ", folder_, "/log, then end it with kill"));
}

}  // namespace qanat::run
