// Starts the programs that outlive the server: a private container engine, the process runner's
// workers.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::run {

struct DetachedProcess {
  std::string program;                 // a path
  std::vector<std::string> arguments;  // the first is the name that the program is called by
  // NAME=VALUE each; without it, what this process has.
  std::optional<std::vector<std::string>> environment;
  std::string log_file;       // gets stdout and stderr; made (0600) if it is missing
  bool truncate_log = false;  // else what it holds stays in front
};

// The child's pid. It has a session of its own, default signal handlers with nothing blocked,
// stdin from /dev/null, and no descriptor of the server (its lock, its listening sockets), which
// must not live on in it. The caller reaps it.
Result<pid_t> start_detached(const DetachedProcess& process);

}  // namespace qanat::run
