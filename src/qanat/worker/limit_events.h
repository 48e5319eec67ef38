// How often this container met its limits, as the kernel counts it: cgroup v2 memory.events and
// pids.events, v1 memory.oom_control and pids.events.
#pragma once

#include <cstdint>
#include <string_view>

namespace qanat::worker {

struct LimitEvents {
  std::uint64_t oom_kills = 0;      // processes killed for memory
  std::uint64_t refused_forks = 0;  // processes and threads that were one too many
};

// Since the container began; 0 where this cannot be known.
LimitEvents limit_events();

// The number after `name` and a space at the beginning of a line; 0 if there is none.
std::uint64_t parse_event_count(std::string_view text, std::string_view name);

}  // namespace qanat::worker
