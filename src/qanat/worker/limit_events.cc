#include "qanat/worker/limit_events.h"

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

constexpr std::string_view kMounts = "/sys/fs/cgroup";

std::uint64_t read_count(const std::vector<std::string>& paths, std::string_view name) {
  for (const std::string& path : paths) {
    Result<std::string> text = posix_file_system().read_file(path, 64 << 10);
    if (text.ok()) return parse_event_count(*text, name);
  }
  return 0;
}

}  // namespace

std::uint64_t parse_event_count(std::string_view text, std::string_view name) {
  for (std::string_view line : split(text, '\n')) {
    auto [found, value] = split_once(line, ' ');
    if (found == name) return parse_u64(trim(value)).value_or(0);
  }
  return 0;
}

std::vector<std::string> cgroup_files(std::string_view cgroups, std::string_view controller,
                                      std::string_view v1_file, std::string_view v2_file) {
  std::vector<std::string> files;
  for (std::string_view line : split(cgroups, '\n')) {
    auto [number, rest] = split_once(line, ':');
    auto [controllers, path] = split_once(rest, ':');
    if (path.size() <= 1) continue;
    const std::string below = path.find("..") == std::string_view::npos ? std::string(path) : "";
    if (below.empty()) continue;
    bool named = false;
    for (std::string_view one : split(controllers, ',')) named = named || one == controller;
    if (named) files.push_back(str_cat(kMounts, "/", controller, below, "/", v1_file));
    if (number == "0" && controllers.empty())
      files.push_back(str_cat(kMounts, below, "/", v2_file));
  }
  files.push_back(str_cat(kMounts, "/", v2_file));
  files.push_back(str_cat(kMounts, "/", controller, "/", v1_file));
  return files;
}

LimitEvents limit_events() {
  static const std::string cgroups =
      posix_file_system().read_file("/proc/self/cgroup", 64 << 10).value_or("");
  static const std::vector<std::string> memory =
      cgroup_files(cgroups, "memory", "memory.oom_control", "memory.events");
  static const std::vector<std::string> pids =
      cgroup_files(cgroups, "pids", "pids.events", "pids.events");
  return {.oom_kills = read_count(memory, "oom_kill"), .refused_forks = read_count(pids, "max")};
}

}  // namespace qanat::worker
