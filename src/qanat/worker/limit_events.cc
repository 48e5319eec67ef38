#include "qanat/worker/limit_events.h"

#include <initializer_list>

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

std::uint64_t read_count(std::initializer_list<const char*> paths, std::string_view name) {
  for (const char* path : paths) {
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

LimitEvents limit_events() {
  return {
      .oom_kills = read_count(
          {"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}, "oom_kill"),
      .refused_forks =
          read_count({"/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events"}, "max"),
  };
}

}  // namespace qanat::worker
