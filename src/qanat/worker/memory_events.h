// How often the kernel killed a process of this container for memory: cgroup v2 memory.events, v1
// memory.oom_control.
#pragma once

#include <cstdint>
#include <string_view>

namespace qanat::worker {

// 0 when this cannot be known.
std::uint64_t oom_kills();

// The number after "oom_kill " at the beginning of a line; 0 if there is none.
std::uint64_t parse_oom_kills(std::string_view text);

}  // namespace qanat::worker
