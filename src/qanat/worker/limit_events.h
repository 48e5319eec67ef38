// How often this container met its limits, as the kernel counts it: cgroup v2 memory.events and
// pids.events, v1 memory.oom_control and pids.events.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qanat::worker {

struct LimitEvents {
  std::uint64_t oom_kills = 0;      // processes killed for memory
  std::uint64_t refused_forks = 0;  // processes and threads that were one too many
};

// Since the container began; 0 where this cannot be known (no cgroup file system, as with the
// process runner, whose limits make allocations fail instead of killing).
LimitEvents limit_events();

// Where the kernel shows a file of this process' cgroup, likeliest first. `cgroups` is the text of
// /proc/self/cgroup; `controller` and `v1_file` are v1's names. Engines mount the container's own
// cgroup at the top, whatever its path; with the host's cgroup namespace it lies at its path.
std::vector<std::string> cgroup_files(std::string_view cgroups, std::string_view controller,
                                      std::string_view v1_file, std::string_view v2_file);

// The number after `name` and a space at the beginning of a line; 0 if there is none.
std::uint64_t parse_event_count(std::string_view text, std::string_view name);

}  // namespace qanat::worker
