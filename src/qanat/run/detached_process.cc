#include "qanat/run/detached_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include "qanat/base/string.h"

namespace qanat::run {
namespace {

// What exec takes: pointers into `texts`, then a null.
std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

Result<pid_t> start_detached(const DetachedProcess& process) {
  std::vector<std::string> arguments = process.arguments;
  std::vector<std::string> environment = process.environment.value_or(std::vector<std::string>());
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> env = pointers(environment);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(
      &actions, 1, process.log_file.c_str(),
      O_WRONLY | O_CREAT | (process.truncate_log ? O_TRUNC : O_APPEND), 0600);
  ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, process.program.c_str(), &actions, &attributes,
                                  argv.data(), process.environment ? env.data() : environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return errno_status(error, str_cat("start ", process.program));
  return child;
}

}  // namespace qanat::run
