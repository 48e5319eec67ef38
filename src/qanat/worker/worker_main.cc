#include "qanat/worker/worker_main.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "qanat/base/clock.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/worker/private_root.h"
#include "qanat/worker/user_process.h"
#include "qanat/worker/worker_loop.h"

extern char** environ;

namespace qanat::worker {
namespace {

void say(const Status& status) {
  std::string text = str_cat("qanat-worker: ", status.message(), "\n");
  if (!status.hint().empty()) str_append(text, "  ", status.hint(), "\n");
  std::fputs(text.c_str(), stderr);
}

// Takes the options out of the environment and wipes it, the kernel's copy (/proc/1/environ is this
// very memory) included.
WorkerOptions take_options() {
  WorkerOptions options;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    auto [name, value] = split_once(*variable, '=');
    if (name == "QANAT_WORKER_ID") options.id = value;
    if (name == "QANAT_WORKER_CREDENTIAL") options.credential = value;
    if (name == "QANAT_WORKER_SOCKET" && !value.empty()) options.socket = value;
    ::explicit_bzero(*variable, std::strlen(*variable));
  }
  static char* no_environment[] = {nullptr};
  environ = no_environment;
  return options;
}

int work() {
  // Before anything secret is read: nobody may attach to this process, dump it, or read its memory
  // through /proc.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    say(errno_status(errno, "prctl(PR_SET_DUMPABLE)"));
    return 1;
  }
  WorkerOptions options = take_options();
  struct rlimit limit = {0, 0};
  ::setrlimit(RLIMIT_CORE, &limit);
  ::umask(022);
  ::signal(SIGPIPE, SIG_IGN);
  if (options.id.empty() || options.credential.empty()) {
    say(invalid_argument("QANAT_WORKER_ID and QANAT_WORKER_CREDENTIAL are not set",
                         "workers are started by the server; to see what this program is, run "
                         "`qanat-worker version`"));
    return 2;
  }
  Result<std::unique_ptr<UserProcesses>> processes = UserProcesses::create();
  if (!processes.ok()) {
    say(processes.status());
    return 1;
  }
  Status reason = run_worker(std::move(options), **processes, real_clock());
  say(reason);
  const bool unwanted =
      reason.code() == Code::kUnauthenticated || reason.code() == Code::kPermissionDenied;
  return unwanted ? 0 : 1;
}

int sandbox(int argc, char** argv) {
  PrivateRootSpec spec;
  for (int i = 2; i < argc; ++i) {
    auto [name, value] = split_once(argv[i], '=');
    if (name == "--state") {
      spec.state_folder = value;
    } else if (name == "--program") {
      spec.program = value;
    } else if (name == "--sockets") {
      spec.socket_folder = value;
    } else if (name == "--hide") {
      spec.hidden.emplace_back(value);
    } else if (name == "--exit-file") {
      spec.exit_file = value;
    } else if (name == "--network") {
      spec.network = true;
    } else {
      say(invalid_argument(str_cat("sandbox: unknown argument ", quoted(argv[i]))));
      return 2;
    }
  }
  if (spec.state_folder.empty() || spec.program.empty() || spec.socket_folder.empty()) {
    say(invalid_argument("sandbox: --state, --program and --sockets are needed"));
    return 2;
  }
  return run_in_private_root(spec, {});
}

}  // namespace

int worker_main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command.empty()) return work();
  if (command == "sandbox") return sandbox(argc, argv);
  if (command == "version") {
    std::puts("qanat-worker " QANAT_VERSION);
    return 0;
  }
  say(invalid_argument(str_cat("unknown command ", quoted(command)),
                       "without a command it is a worker; others are: sandbox, version"));
  return 2;
}

}  // namespace qanat::worker
