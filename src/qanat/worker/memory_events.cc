#include "qanat/worker/memory_events.h"

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"

namespace qanat::worker {

std::uint64_t parse_oom_kills(std::string_view text) {
  for (std::string_view line : split(text, '\n')) {
    auto [name, value] = split_once(line, ' ');
    if (name == "oom_kill") return parse_u64(trim(value)).value_or(0);
  }
  return 0;
}

std::uint64_t oom_kills() {
  for (const char* path :
       {"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}) {
    Result<std::string> text = posix_file_system().read_file(path, 64 << 10);
    if (text.ok()) return parse_oom_kills(*text);
  }
  return 0;
}

}  // namespace qanat::worker
