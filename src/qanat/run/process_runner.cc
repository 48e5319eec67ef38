#include "qanat/run/process_runner.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "qanat/base/file_system.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/run/detached_process.h"
#include "qanat/run/worker_program.h"

namespace qanat::run {
namespace {

using pipeline::ImageInfo;
using pipeline::WorkerGroupId;
using pipeline::WorkerGroupSpec;

constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// What a worker's `state` file holds, a line each.
struct State {
  int pid = 0;
  // With the pid it names a process for good. 0: it had ended before this could be read.
  std::uint64_t started_ticks = 0;
  std::int64_t started_ms = 0;
  WorkerGroupId group;
  std::string fingerprint;
};

// Field 22 of /proc/<pid>/stat; 0 if there is no such process, or only its remains.
std::uint64_t start_ticks(int pid) {
  std::string text =
      posix_file_system().read_file(str_cat("/proc/", pid, "/stat"), 4096).value_or("");
  const size_t end = text.rfind(')');  // the name may hold anything
  if (end == std::string::npos || end + 2 >= text.size()) return 0;
  std::vector<std::string_view> fields = split(std::string_view(text).substr(end + 2), ' ');
  if (fields.size() < 20 || fields[0] == "Z" || fields[0] == "X") return 0;
  return parse_u64(fields[19]).value_or(0);
}

std::string state_text(const State& state) {
  return str_cat(state.pid, "\n", state.started_ticks, "\n", state.started_ms, "\n",
                 state.group.project, "\n", state.group.pipeline, "\n", state.group.version, "\n",
                 state.fingerprint, "\n");
}

Result<State> parse_state(std::string_view text) {
  std::vector<std::string_view> lines = split(text, '\n');
  if (lines.size() < 7) return data_loss("a worker's state file is cut off");
  State state;
  QANAT_ASSIGN_OR_RETURN(std::uint64_t pid, parse_u64(lines[0]));
  state.pid = static_cast<int>(pid);
  QANAT_ASSIGN_OR_RETURN(state.started_ticks, parse_u64(lines[1]));
  QANAT_ASSIGN_OR_RETURN(state.started_ms, parse_i64(lines[2]));
  state.group.project = lines[3];
  state.group.pipeline = lines[4];
  QANAT_ASSIGN_OR_RETURN(state.group.version, parse_u64(lines[5]));
  state.fingerprint = lines[6];
  return state;
}

bool alive(const State& state) {
  // A child of this process stays as a zombie until it is reaped.
  ::waitpid(state.pid, nullptr, WNOHANG);
  return state.started_ticks != 0 && start_ticks(state.pid) == state.started_ticks;
}

}  // namespace

ProcessRunner::ProcessRunner(ProcessRunnerOptions options, Clock& clock)
    : options_(std::move(options)), clock_(clock), keeper_(*this, clock) {}

ProcessRunner::~ProcessRunner() { keeper_.stop(); }

Status ProcessRunner::start() {
  if (::geteuid() != 0) {
    return failed_precondition(
        "the process runner needs root: it gives each worker mount and pid namespaces of its own",
        "run qanat serve as root, or use the docker runner");
  }
  end_strays();
  keeper_.start();
  return ok_status();
}

Result<ImageInfo> ProcessRunner::resolve_image(const std::string& image) {
  ImageInfo info;
  info.name = image;
  info.os = "linux";
  return info;
}

Status ProcessRunner::check_command(const ImageInfo&, const std::vector<std::string>& cmd,
                                    const std::map<std::string, std::string>& env,
                                    const std::string& working_dir) {
  if (cmd.empty() || cmd[0].empty()) {
    return invalid_argument("the spec has no transform.cmd, and the process runner uses no image",
                            "set transform.cmd");
  }
  const std::string& program = cmd[0];
  std::vector<std::string> candidates;
  if (program.find('/') != std::string::npos) {
    candidates.push_back(program[0] == '/' ? program : str_cat(working_dir, "/", program));
  } else {
    auto found = env.find("PATH");
    for (std::string_view folder :
         split(found == env.end() ? kDefaultPath : std::string_view(found->second), ':')) {
      candidates.push_back(str_cat(folder, "/", program));
    }
  }
  for (const std::string& candidate : candidates) {
    if (candidate.starts_with("/pfs/") || ::access(candidate.c_str(), X_OK) == 0) {
      return ok_status();
    }
  }
  return not_found(str_cat("transform.cmd: ", quoted(program), " is not on this machine"),
                   "the process runner uses this machine's programs, not the image's: install it, "
                   "or use the docker runner");
}

Status ProcessRunner::ensure(const WorkerGroupSpec& spec) { return keeper_.ensure(spec); }
Status ProcessRunner::scale(const WorkerGroupId& id, int count) { return keeper_.scale(id, count); }
Status ProcessRunner::stop(const WorkerGroupId& id) { return keeper_.stop_group(id); }
Status ProcessRunner::stop_unwanted() { return keeper_.stop_unwanted(); }
Result<std::vector<pipeline::WorkerGroupStatus>> ProcessRunner::list() { return keeper_.list(); }
void ProcessRunner::set_listener(std::function<void(const pipeline::WorkerEvent&)> listener) {
  keeper_.set_listener(std::move(listener));
}

// A server that is killed between starting a worker and noting its state leaves a process that
// observe() does not see. It is known by the folder in its arguments.
void ProcessRunner::end_strays() {
  FileSystem& files = posix_file_system();
  const std::string run = str_cat(options_.data_folder, "/run");
  std::set<std::string> strays;  // folders
  for (const DirectoryEntry& group : files.list(run).value_or({})) {
    const std::string folder = str_cat(run, "/", group.name, "/workers");
    for (const DirectoryEntry& entry : files.list(folder).value_or({})) {
      const std::string worker = str_cat(folder, "/", entry.name);
      const Result<std::string> text = files.read_file(str_cat(worker, "/state"), 64 << 10);
      if (!text.ok() || !parse_state(*text).ok()) strays.insert(worker);
    }
    // What a group that is no more has left, if it is empty.
    (void)files.remove_directory(folder);
    (void)files.remove_directory(str_cat(run, "/", group.name));
  }
  if (strays.empty()) return;
  for (const DirectoryEntry& entry : files.list("/proc").value_or({})) {
    const auto pid = parse_u64(entry.name);
    if (!pid.ok()) continue;
    const std::string arguments =
        files.read_file(str_cat("/proc/", entry.name, "/cmdline"), 64 << 10).value_or("");
    for (const std::string_view argument : split(arguments, '\0')) {
      constexpr std::string_view kState = "--state=";
      constexpr std::string_view kTree = "/tree";
      if (!argument.starts_with(kState) || !argument.ends_with(kTree)) continue;
      const std::string_view path = argument.substr(kState.size());
      if (strays.contains(std::string(path.substr(0, path.size() - kTree.size())))) {
        ::kill(static_cast<pid_t>(*pid), SIGKILL);
      }
    }
  }
  for (const std::string& worker : strays) {
    if (Status removed = files.remove_tree(worker); !removed.ok()) {
      log_warning("cannot remove a folder", {{"folder", worker}, {"error", removed}});
    }
  }
}

// All groups' folders are in DATA/run.
Result<std::vector<ObservedWorker>> ProcessRunner::observe() {
  std::vector<ObservedWorker> workers;
  FileSystem& files = posix_file_system();
  const std::string run = str_cat(options_.data_folder, "/run");
  Result<std::vector<DirectoryEntry>> groups = files.list(run);
  if (!groups.ok()) {
    return groups.code() == Code::kNotFound ? Result<std::vector<ObservedWorker>>(workers)
                                            : groups.status();
  }
  for (const DirectoryEntry& group : *groups) {
    const std::string folder = str_cat(run, "/", group.name, "/workers");
    Result<std::vector<DirectoryEntry>> entries = files.list(folder);
    if (!entries.ok()) continue;  // a file, or a group without workers
    for (const DirectoryEntry& entry : *entries) {
      ObservedWorker worker;
      worker.worker_id = entry.name;
      worker.handle = str_cat(folder, "/", entry.name);
      Result<std::string> text = files.read_file(str_cat(worker.handle, "/state"), 64 << 10);
      // Without a state it is being started by another thread, or was left by a crash in between.
      if (!text.ok()) continue;
      Result<State> state = parse_state(*text);
      if (!state.ok()) continue;
      worker.group = state->group;
      worker.fingerprint = state->fingerprint;
      worker.running = alive(*state);
      worker.age_ms = std::max<std::int64_t>(clock_.wall_ms() - state->started_ms, 0);
      workers.push_back(std::move(worker));
    }
  }
  return workers;
}

Status ProcessRunner::start(const WorkerGroupSpec& group, const std::string& worker_id,
                            const std::string& fingerprint, const std::string& credential) {
  if (options_.arguments.empty()) {
    QANAT_RETURN_IF_ERROR(install_worker_program(options_.worker_program, group.run_folder));
  }
  FileSystem& files = posix_file_system();
  const std::string folder = str_cat(group.run_folder, "/workers/", worker_id);
  QANAT_RETURN_IF_ERROR(files.make_directories(str_cat(folder, "/tree")));
  std::vector<std::string> arguments = {options_.worker_program};
  arguments.insert(arguments.end(), options_.arguments.begin(), options_.arguments.end());
  arguments.insert(
      arguments.end(),
      {"sandbox", str_cat("--state=", folder, "/tree"),
       str_cat("--program=", options_.arguments.empty()
                                 ? str_cat(group.run_folder, "/bin/qanat-worker")
                                 : options_.worker_program),
       str_cat("--sockets=", group.run_folder, "/run"), str_cat("--hide=", options_.data_folder),
       str_cat("--exit-file=", folder, "/exit")});
  for (const std::string& hidden : options_.hidden) arguments.push_back(str_cat("--hide=", hidden));
  if (group.network == pipeline::Network::kHost) arguments.push_back("--network");
  const Result<pid_t> child = start_detached(
      {.program = options_.worker_program,
       .arguments = std::move(arguments),
       .environment = std::vector<std::string>{str_cat("QANAT_WORKER_ID=", worker_id),
                                               str_cat("QANAT_WORKER_CREDENTIAL=", credential)},
       .log_file = str_cat(folder, "/log")});
  Status status = child.status();
  if (status.ok()) {
    State state;
    state.pid = *child;
    state.started_ticks = start_ticks(*child);
    // One that has ended already, or that could not be recognized later and must not run on. Not
    // yet waited for, so the number is still its own.
    if (state.started_ticks == 0) ::kill(*child, SIGKILL);
    state.started_ms = clock_.wall_ms();
    state.group = group.id;
    state.fingerprint = fingerprint;
    status = files.write_file_durably(str_cat(folder, "/state"), state_text(state));
    if (!status.ok()) {
      ::kill(*child, SIGKILL);
      ::waitpid(*child, nullptr, 0);
    }
  }
  if (!status.ok()) {
    if (Status removed = files.remove_tree(folder); !removed.ok()) {
      log_warning("cannot remove a folder", {{"folder", folder}, {"error", removed}});
    }
  }
  return status;
}

WorkerEnd ProcessRunner::ended(const ObservedWorker& worker) {
  WorkerEnd end;
  FileSystem& files = posix_file_system();
  std::string exit = files.read_file(str_cat(worker.handle, "/exit"), 64).value_or("");
  auto [how, number] = split_once(trim(exit), ' ');
  end.exit_code = static_cast<int>(parse_u64(number).value_or(SIGKILL));
  if (how != "exit") end.exit_code += 128;
  std::string log = files.read_file(str_cat(worker.handle, "/log"), 16 << 20).value_or("");
  std::string_view tail = trim(log);
  if (const size_t line = tail.rfind('\n'); line != std::string_view::npos) {
    // An error and its hint are two lines.
    const size_t before = tail.rfind('\n', line - 1);
    if (before != std::string_view::npos) tail.remove_prefix(before + 1);
  }
  end.reason = tail;
  return end;
}

Status ProcessRunner::remove(const ObservedWorker& worker) {
  FileSystem& files = posix_file_system();
  Result<std::string> text = files.read_file(str_cat(worker.handle, "/state"), 64 << 10);
  if (text.ok()) {
    Result<State> state = parse_state(*text);
    if (state.ok() && alive(*state)) {
      // Process 1 of the worker dies with its parent, and everything in its namespace with
      // process 1.
      ::kill(state->pid, SIGKILL);
      for (int i = 0; i < 500 && alive(*state); ++i) real_clock().sleep_for_ms(2);
      if (alive(*state)) return unavailable(str_cat("worker ", worker.worker_id, " does not end"));
    }
  }
  return files.remove_tree(worker.handle);
}

}  // namespace qanat::run
