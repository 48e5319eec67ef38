// Runs one command of the user as a child of process 1, and leaves nothing of it behind.
//
// The child gets: the user's uid, gids and nothing else (no_new_privs; capabilities go with the
// uid, and a root user keeps what the container was given), its own session, an empty signal mask
// and default handlers, umask 022, no file descriptors but 0 to 2, exactly the environment asked
// for, no core dumps, and a raised oom_score, so that the kernel takes it before the worker. It is
// started with clone(CLONE_VM | CLONE_VFORK): no page tables are copied, about a millisecond
// including exec.
//
// Only for a process that is number 1 of its pid namespace: "everything that is left" is killed
// with kill(-1), which anywhere else would mean the whole machine. `UserProcesses::create` checks
// that.
//
// Thread safety: one run at a time; `Cancellation` may be set from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/worker/account.h"

namespace qanat::worker {

// Ends a run from another thread. May be used again after reset().
class Cancellation {
 public:
  Cancellation();
  ~Cancellation();
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;
  void cancel();
  void reset();
  bool cancelled() const { return cancelled_.load(); }
  int fd() const { return fd_; }  // readable once cancelled

 private:
  int fd_;
  std::atomic<bool> cancelled_{false};
};

struct CommandSpec {
  std::vector<std::string>
      argv;  // not empty; argv[0] is looked up in PATH of `env` if it has no slash
  std::map<std::string, std::string> env;
  std::string working_dir = "/";
  Account account;
  std::string input;  // piped to stdin, then end of file; a process that does not read it is fine
  std::string field = "transform.cmd";  // of the spec, that errors name
  std::int64_t timeout_ms = 0;          // 0: none
  std::uint64_t open_files = 0;         // soft limit, at most the hard one; 0: as inherited
};

struct CommandResult {
  enum class End { kExited, kSignalled, kTimedOut, kCancelled, kNotStarted };
  End end = End::kNotStarted;
  int exit_code = 0;  // 128 + signal for kSignalled, kTimedOut and kCancelled
  // kNotStarted: what is wrong with the command (program not found, no such working directory ...),
  // with a hint.
  Status start_error;
  std::int64_t duration_ms = 0;
  std::int64_t user_ms = 0;  // processor time of the command and of its waited-for children
  std::int64_t system_ms = 0;
  int leftovers = 0;  // processes that still ran when the command had ended, and were killed
};

// Receives what the command writes, in the order it was read. stream is 1 or 2.
using OutputSink = std::function<void(int stream, std::string_view bytes)>;

class UserProcesses {
 public:
  // kFailedPrecondition unless this is process 1. Blocks SIGCHLD for the calling thread: call
  // before other threads start.
  static Result<std::unique_ptr<UserProcesses>> create();
  ~UserProcesses();

  // Runs to the end. When it returns, no other process of this pid namespace is alive and all have
  // been reaped.
  CommandResult run(const CommandSpec& spec, const OutputSink& sink, const Cancellation& cancel);

  // Called about every `interval_ms` during run(), on the same thread (to send log lines).
  void set_ticker(std::int64_t interval_ms, std::function<void()> tick);

  // Kills and reaps every process but this one; says how many there were.
  int kill_all();

 private:
  UserProcesses() = default;

  int signal_fd_ = -1;
  std::int64_t tick_ms_ = 0;
  std::function<void()> tick_;
  std::unique_ptr<char[]> stack_;  // of the child until it execs
};

}  // namespace qanat::worker
