#include "qanat/worker/user_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "qanat/base/clock.h"
#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

constexpr size_t kChildStack = 256 * 1024;
constexpr size_t kReadSize = 64 * 1024;
constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_;
};

Status make_pipe(Fd& read_end, Fd& write_end) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return errno_status(errno, "pipe");
  read_end.reset(fds[0]);
  write_end.reset(fds[1]);
  return ok_status();
}

// Everything the child needs, made before it exists: it shares this memory, and may only make
// system calls.
struct ChildPlan {
  const char* const* candidates;  // programs to try, null-terminated
  char* const* argv;
  char* const* env;
  const char* working_dir;
  uid_t uid;
  gid_t gid;
  const gid_t* groups;
  size_t group_count;
  int in;
  int out;
  int err;
  rlim_t open_files;  // 0: leave
  // Written by the child.
  enum Step { kNone, kSetUp, kIdentity, kDirectory, kExec } step;
  int error;
};

void fail(ChildPlan* plan, ChildPlan::Step step) {
  plan->step = step;
  plan->error = errno;
  ::syscall(SYS_exit_group, 127);
}

// Runs on its own stack, in the parent's memory, while the parent's thread stands still. Raw system
// calls for credentials: the C library's wrappers would change all threads of the parent.
int child_main(void* argument) {
  auto* plan = static_cast<ChildPlan*>(argument);
  struct sigaction default_action = {};
  default_action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < 32; ++signal) ::sigaction(signal, &default_action, nullptr);
  ::syscall(SYS_setsid);
  // The pipes' descriptors are above 2 (see run), so these do not overwrite one another.
  if (::dup2(plan->in, 0) < 0 || ::dup2(plan->out, 1) < 0 || ::dup2(plan->err, 2) < 0) {
    fail(plan, ChildPlan::kSetUp);
  }
  ::syscall(SYS_close_range, 3u, ~0u, 0u);  // all are close-on-exec too, for kernels without it
  int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd >= 0) {
    [[maybe_unused]] ssize_t written = ::write(fd, "500", 3);
    ::close(fd);
  }
  struct rlimit limit = {0, 0};
  ::setrlimit(RLIMIT_CORE, &limit);
  if (plan->open_files != 0 && ::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = plan->open_files < limit.rlim_max ? plan->open_files : limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  ::umask(022);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail(plan, ChildPlan::kSetUp);
  if (::syscall(SYS_setgroups, plan->group_count, plan->groups) != 0 ||
      ::syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) != 0 ||
      ::syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) != 0) {
    fail(plan, ChildPlan::kIdentity);
  }
  if (::chdir(plan->working_dir) != 0) fail(plan, ChildPlan::kDirectory);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  int error = ENOENT;
  for (const char* const* candidate = plan->candidates; *candidate != nullptr; ++candidate) {
    ::execve(*candidate, plan->argv, plan->env);
    // As execvp: go on past what is not there, remember that something was forbidden, stop at what
    // exists and fails.
    if (errno == EACCES) {
      error = EACCES;
    } else if (errno != ENOENT && errno != ENOTDIR) {
      error = errno;
      break;
    }
  }
  errno = error;
  fail(plan, ChildPlan::kExec);
  return 127;
}

std::vector<std::string> candidates_of(const CommandSpec& spec) {
  const std::string& program = spec.argv[0];
  if (program.find('/') != std::string::npos) return {program};
  auto found = spec.env.find("PATH");
  std::string_view path = found == spec.env.end() ? kDefaultPath : std::string_view(found->second);
  std::vector<std::string> candidates;
  for (std::string_view folder : split(path, ':')) {
    candidates.push_back(folder.empty() ? program : str_cat(folder, "/", program));
  }
  return candidates;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

Status exec_error(const CommandSpec& spec, const std::vector<std::string>& candidates, int error) {
  const std::string program = quoted(spec.argv[0]);
  for (const std::string& candidate : candidates) {
    if (::access(candidate.c_str(), F_OK) != 0) continue;
    if (error == ENOENT) {
      return failed_precondition(
          str_cat(spec.field, ": ", program,
                  " is in the image, but the interpreter in its first line, or the loader it was "
                  "linked for, is not"),
          "use an image that has the interpreter, or a statically linked program");
    }
    if (error == ENOEXEC) {
      return failed_precondition(
          str_cat(spec.field, ": ", program,
                  " is neither a program for this machine's architecture nor a script that names "
                  "its interpreter"),
          "check the program's architecture, or begin the script with a line such as #!/bin/sh");
    }
    if (error == EACCES) {
      return failed_precondition(
          str_cat(spec.field, ": ", program, " may not be executed by uid ", spec.account.uid),
          "make it executable (chmod +x) in the image, or name it as an argument of its "
          "interpreter");
    }
  }
  if (error == ENOENT || error == EACCES) {
    const bool by_path = spec.argv[0].find('/') != std::string::npos;
    return failed_precondition(
        str_cat(spec.field, ": ", program,
                by_path ? " is not in the image" : " is not in the image's PATH"),
        "check the command's name, or use an image that has it; shell syntax needs [\"sh\"] with "
        "stdin, or [\"sh\", \"-c\", ...]");
  }
  if (error == E2BIG) {
    return failed_precondition(
        str_cat(spec.field, ": arguments and environment are too long (E2BIG)"),
        "pass long input through a file or transform.stdin");
  }
  return errno_status(error, str_cat(spec.field, ": cannot execute ", program));
}

Status start_error(const CommandSpec& spec, const ChildPlan& plan,
                   const std::vector<std::string>& candidates) {
  switch (plan.step) {
    case ChildPlan::kExec:
      return exec_error(spec, candidates, plan.error);
    case ChildPlan::kDirectory:
      return failed_precondition(str_cat("transform.working_dir: ", quoted(spec.working_dir), ": ",
                                         std::strerror(plan.error)),
                                 "name a folder of the image that transform.user may enter");
    case ChildPlan::kIdentity:
      return errno_status(plan.error, str_cat("cannot become uid ", spec.account.uid));
    default:
      return errno_status(plan.error, "cannot set up the command's process");
  }
}

void set_nonblocking(int fd) { ::fcntl(fd, F_SETFL, O_NONBLOCK); }

// Reads what is there, at most some megabytes at a time so that deadlines are kept; false at the
// end of the stream.
bool drain(int fd, int stream, std::string& buffer, const OutputSink& sink) {
  for (int i = 0; i < 64;) {
    ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n > 0) {
      sink(stream, std::string_view(buffer.data(), static_cast<size_t>(n)));
      ++i;
    } else if (n == 0) {
      return false;
    } else if (errno != EINTR) {
      return errno == EAGAIN;
    }
  }
  return true;
}

int64_t milliseconds(const timeval& time) { return time.tv_sec * 1000 + time.tv_usec / 1000; }

}  // namespace

Cancellation::Cancellation() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
Cancellation::~Cancellation() {
  if (fd_ >= 0) ::close(fd_);
}

void Cancellation::cancel() {
  cancelled_.store(true);
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = ::write(fd_, &one, sizeof one);
}

void Cancellation::reset() {
  uint64_t value;
  [[maybe_unused]] ssize_t n = ::read(fd_, &value, sizeof value);
  cancelled_.store(false);
}

Result<std::unique_ptr<UserProcesses>> UserProcesses::create() {
  if (::getpid() != 1) {
    return failed_precondition(
        "qanat-worker is not process 1 of its container",
        "workers are started by the server; an engine that shares the host's process numbers "
        "with containers (--pid=host) cannot run them");
  }
  auto processes = std::unique_ptr<UserProcesses>(new UserProcesses);
  sigset_t child_ended;
  ::sigemptyset(&child_ended);
  ::sigaddset(&child_ended, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child_ended, nullptr);
  processes->signal_fd_ = ::signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
  if (processes->signal_fd_ < 0) return errno_status(errno, "signalfd");
  processes->stack_ = std::make_unique<char[]>(kChildStack);
  // The pipes of a child must not be numbered 0 to 2.
  while (true) {
    int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0) fd = ::dup(processes->signal_fd_);
    if (fd < 0) return errno_status(errno, "open");
    if (fd > 2) {
      ::close(fd);
      break;
    }
  }
  return processes;
}

UserProcesses::~UserProcesses() {
  if (signal_fd_ >= 0) ::close(signal_fd_);
}

void UserProcesses::set_ticker(std::int64_t interval_ms, std::function<void()> tick) {
  tick_ms_ = interval_ms;
  tick_ = std::move(tick);
}

int UserProcesses::kill_all() {
  // A fork in progress either sees the signal and fails, or its child is on the list that kill(-1)
  // walks.
  ::kill(-1, SIGKILL);
  int count = 0;
  while (true) {
    pid_t pid = ::waitpid(-1, nullptr, 0);
    if (pid > 0) {
      ++count;
    } else if (errno != EINTR) {
      return count;
    }
  }
}

CommandResult UserProcesses::run(const CommandSpec& spec, const OutputSink& sink,
                                 const Cancellation& cancel) {
  CommandResult result;
  Fd in_read, in_write, out_read, out_write, err_read, err_write;
  for (const Status& status : {make_pipe(in_read, in_write), make_pipe(out_read, out_write),
                               make_pipe(err_read, err_write)}) {
    if (!status.ok()) {
      result.start_error = status;
      return result;
    }
  }
  std::vector<std::string> candidates = candidates_of(spec);
  std::vector<std::string> argv = spec.argv;
  std::vector<std::string> env;
  env.reserve(spec.env.size());
  for (const auto& [name, value] : spec.env) env.push_back(str_cat(name, "=", value));
  std::vector<char*> candidate_pointers = pointers(candidates);
  std::vector<char*> argv_pointers = pointers(argv);
  std::vector<char*> env_pointers = pointers(env);
  ChildPlan plan = {};
  plan.candidates = candidate_pointers.data();
  plan.argv = argv_pointers.data();
  plan.env = env_pointers.data();
  plan.working_dir = spec.working_dir.c_str();
  plan.uid = spec.account.uid;
  plan.gid = spec.account.gid;
  plan.groups = spec.account.groups.data();
  plan.group_count = spec.account.groups.size();
  plan.in = in_read.get();
  plan.out = out_write.get();
  plan.err = err_write.get();
  plan.open_files = spec.open_files;

  const int64_t start_ms = real_clock().monotonic_ms();
  // No signal may run a handler of ours in the child while it shares our memory.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child =
      ::clone(child_main, stack_.get() + kChildStack, CLONE_VM | CLONE_VFORK | SIGCHLD, &plan);
  const int clone_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  in_read.reset();
  out_write.reset();
  err_write.reset();
  if (child < 0) {
    result.start_error = errno_status(clone_error, "cannot start the command's process");
    if (clone_error == EAGAIN) {
      result.start_error = result.start_error.with_hint("raise resource_limits.pids");
    }
    return result;
  }
  if (plan.step != ChildPlan::kNone) {
    kill_all();
    result.start_error = start_error(spec, plan, candidates);
    return result;
  }

  set_nonblocking(in_write.get());
  set_nonblocking(out_read.get());
  set_nonblocking(err_read.get());
  std::string buffer(kReadSize, '\0');
  std::string_view input = spec.input;
  int status = 0;
  struct rusage usage = {};
  bool alive = true;
  int64_t next_tick_ms = start_ms + tick_ms_;
  while (alive) {
    // A closed standard input is what a command with no input sees as its end.
    while (!input.empty()) {
      ssize_t n = ::write(in_write.get(), input.data(), input.size());
      if (n > 0) {
        input.remove_prefix(static_cast<size_t>(n));
      } else if (n < 0 && errno == EAGAIN) {
        break;
      } else if (!(n < 0 && errno == EINTR)) {
        input = {};  // it does not read any more: its own affair
      }
    }
    if (input.empty()) in_write.reset();
    const int64_t now_ms = real_clock().monotonic_ms();
    int64_t wait_ms = -1;
    if (spec.timeout_ms > 0) {
      wait_ms = start_ms + spec.timeout_ms - now_ms;
      if (wait_ms <= 0) {
        result.end = CommandResult::End::kTimedOut;
        break;
      }
    }
    if (cancel.cancelled()) {
      result.end = CommandResult::End::kCancelled;
      break;
    }
    if (tick_) {
      if (now_ms >= next_tick_ms) {
        tick_();
        next_tick_ms = now_ms + tick_ms_;
      }
      const int64_t tick_wait_ms = next_tick_ms - now_ms;
      if (wait_ms < 0 || tick_wait_ms < wait_ms) wait_ms = tick_wait_ms;
    }
    pollfd polled[] = {{signal_fd_, POLLIN, 0},
                       {cancel.fd(), POLLIN, 0},
                       {out_read.get(), POLLIN, 0},
                       {err_read.get(), POLLIN, 0},
                       {in_write.get(), POLLOUT, 0}};
    if (::poll(polled, 5, wait_ms > INT_MAX ? INT_MAX : static_cast<int>(wait_ms)) < 0) continue;
    if (polled[2].revents != 0 && !drain(out_read.get(), 1, buffer, sink)) out_read.reset();
    if (polled[3].revents != 0 && !drain(err_read.get(), 2, buffer, sink)) err_read.reset();
    if (polled[0].revents != 0) {
      signalfd_siginfo info;
      while (::read(signal_fd_, &info, sizeof info) > 0) {
      }
      // Signals coalesce: reap everything that has ended, orphans of the command among it.
      while (true) {
        int ended_status = 0;
        struct rusage ended_usage = {};
        pid_t ended = ::wait4(-1, &ended_status, WNOHANG, &ended_usage);
        if (ended <= 0) break;
        if (ended == child) {
          alive = false;
          status = ended_status;
          usage = ended_usage;
        }
      }
    }
  }
  result.duration_ms = real_clock().monotonic_ms() - start_ms;
  result.leftovers = kill_all();
  // All writers are gone: what is in the pipes is all there will be.
  if (out_read.get() >= 0) drain(out_read.get(), 1, buffer, sink);
  if (err_read.get() >= 0) drain(err_read.get(), 2, buffer, sink);
  if (alive) {
    result.exit_code = 128 + SIGKILL;
    return result;
  }
  result.user_ms = milliseconds(usage.ru_utime);
  result.system_ms = milliseconds(usage.ru_stime);
  if (WIFSIGNALED(status)) {
    result.end = CommandResult::End::kSignalled;
    result.exit_code = 128 + WTERMSIG(status);
  } else {
    result.end = CommandResult::End::kExited;
    result.exit_code = WEXITSTATUS(status);
  }
  return result;
}

}  // namespace qanat::worker
