#include "qanat/worker/datum_runner.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "qanat/base/string.h"
#include "qanat/worker/output_walk.h"

namespace qanat::worker {
namespace {

constexpr int64_t kLiveIntervalMs = 200;
constexpr size_t kMaxFilesInMemory = 10'000;
constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string stdin_text(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) str_append(text, line, "\n");
  return text;
}

// What programs say when they wanted a network and there is none.
bool mentions_network(std::string_view output) {
  static constexpr std::string_view kSigns[] = {
      "Temporary failure in name resolution",
      "Name or service not known",
      "Could not resolve host",
      "could not resolve host",
      "could not translate host name",
      "Network is unreachable",
      "network is unreachable",
      "Network unreachable",
      "bad address '",
      "unable to resolve host address",
      "getaddrinfo",
      "EAI_AGAIN",
      "ENOTFOUND",
      "UnknownHostException",
      "no such host",
      "dial tcp",
      "Connection refused",
      "ECONNREFUSED",
      "Failed to establish a new connection",
      "nodename nor servname provided",
      "No route to host",
  };
  return std::any_of(std::begin(kSigns), std::end(kSigns), [&](std::string_view sign) {
    return output.find(sign) != std::string_view::npos;
  });
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name == nullptr ? str_cat("signal ", signal) : str_cat("SIG", name);
}

}  // namespace

DatumRunner::DatumRunner(api::WorkerTransform transform, api::WorkerSettings settings,
                         UserProcesses& processes, InputStream inputs, LiveLog live_log,
                         Clock& clock)
    : transform_(std::move(transform)),
      settings_(std::move(settings)),
      found_account_(find_account(transform_.user)),
      account_(found_account_.ok() ? *found_account_ : Account{}),
      processes_(processes),
      inputs_(std::move(inputs)),
      live_log_(std::move(live_log)),
      clock_(clock),
      pfs_("/", account_) {}

CommandSpec DatumRunner::command_for(const FetchedDatum& datum, bool error_command) const {
  CommandSpec command;
  command.argv = error_command ? transform_.err_cmd : transform_.cmd;
  if (error_command) command.field = "transform.err_cmd";
  command.input = stdin_text(error_command ? transform_.err_stdin : transform_.stdin_lines);
  command.account = account_;
  command.working_dir = transform_.working_dir.empty() ? "/" : transform_.working_dir;
  command.timeout_ms = settings_.datum_timeout_ms;
  for (const std::string& variable : transform_.image_env) {
    auto [name, value] = split_once(variable, '=');
    if (!name.empty()) command.env[std::string(name)] = value;
  }
  for (const auto& [name, value] : transform_.env) command.env[name] = value;
  for (const auto& [name, value] : datum.datum.env) command.env[name] = value;
  command.env.emplace("PATH", kDefaultPath);
  command.env.emplace("HOME", account_.home);
  return command;
}

Status DatumRunner::materialise(const FetchedDatum& datum, RanDatum& ran) {
  std::vector<std::string> inputs;
  for (const api::DatumInput& input : datum.datum.inputs) inputs.push_back(input.name);
  // Not at the end of an attempt: output may be links that lead to these.
  QANAT_RETURN_IF_ERROR(scratch_.clean());
  QANAT_RETURN_IF_ERROR(pfs_.prepare(inputs));
  ran.report.input_bytes = 0;
  ran.report.input_files = 0;
  if (!datum.in_memory) return inputs_(datum, pfs_, ran.report);
  for (const SmallFile& file : datum.files) {
    QANAT_RETURN_IF_ERROR(pfs_.write_file(file.path, file.bytes));
    ran.report.input_bytes += file.bytes.size();
    ++ran.report.input_files;
  }
  return ok_status();
}

Status DatumRunner::collect(RanDatum& ran) {
  QANAT_ASSIGN_OR_RETURN(int out, pfs_.open_out());
  uint64_t in_memory = 0;
  ran.files.clear();
  ran.large = false;
  ran.report.output_bytes = 0;
  ran.report.output_files = 0;
  Status status =
      walk_output(out, account_, [&](std::string_view path, int fd, uint64_t size) -> Status {
        ran.report.output_bytes += size;
        ++ran.report.output_files;
        in_memory += size + path.size();
        if (in_memory > kMaxOutputInMemory || ran.files.size() >= kMaxFilesInMemory) {
          ran.large = true;
        }
        if (ran.large) {
          ran.files = {};
          return ok_status();
        }
        SmallFile file{std::string(path), std::string(size, '\0')};
        size_t done = 0;
        while (done < size) {
          ssize_t n = ::pread(fd, file.bytes.data() + done, size - done, static_cast<off_t>(done));
          if (n < 0 && errno == EINTR) continue;
          if (n < 0) return errno_status(errno, str_cat("read /pfs/out/", path));
          if (n == 0) break;
          done += static_cast<size_t>(n);
        }
        file.bytes.resize(done);
        ran.files.push_back(std::move(file));
        return ok_status();
      });
  ::close(out);
  return status;
}

void DatumRunner::explain(const CommandResult& result, const LimitEvents& before,
                          const DatumLog& log, Attempt& attempt) const {
  const LimitEvents now = limit_events();
  const std::uint64_t oom = now.oom_kills - before.oom_kills;
  const std::string after = str_cat(" after ", format_duration(result.duration_ms));
  const bool killed = result.exit_code == 128 + SIGKILL;
  switch (result.end) {
    case CommandResult::End::kTimedOut:
      attempt.reason = str_cat("datum_timeout: the command was killed", after);
      attempt.hint = "raise datum_timeout, or make datums smaller";
      return;
    case CommandResult::End::kCancelled:
      attempt.reason = "cancelled";
      return;
    case CommandResult::End::kNotStarted:
      attempt.reason = result.start_error.message();
      attempt.hint = result.start_error.hint();
      return;
    default:
      break;
  }
  if (oom > 0) {
    const std::string limit =
        settings_.memory_limit == 0
            ? std::string("the machine's memory")
            : str_cat("resource_limits.memory (", format_size(settings_.memory_limit), ")");
    attempt.reason =
        str_cat("the kernel killed ", oom == 1 ? "a process" : "processes", " of the command",
                killed ? "" : str_cat(", which then ended with code ", result.exit_code), after,
                ": over ", limit);
    attempt.hint = "raise resource_limits.memory, or make datums smaller";
    return;
  }
  attempt.reason =
      result.end == CommandResult::End::kSignalled
          ? str_cat("the command was killed by ", signal_name(result.exit_code - 128), after)
          : str_cat("the command ended with code ", result.exit_code, after);
  if (now.refused_forks > before.refused_forks) {
    attempt.reason += ", after being refused a process or thread: over resource_limits.pids";
    attempt.hint = "raise resource_limits.pids, or start fewer processes at once";
    return;
  }
  if (settings_.network == "none" &&
      (mentions_network(log.recent(2)) || mentions_network(log.recent(1)))) {
    attempt.reason += "; it seems to want a network, and has none";
    attempt.hint =
        "if it needs one, ask for it in the spec: transform.network: \"host\" (takes the scope "
        "network-host)";
  }
}

DatumRunner::Attempt DatumRunner::attempt(const CommandSpec& command, const Cancellation& cancel,
                                          DatumLog& log, RanDatum& ran) {
  Attempt attempt;
  const LimitEvents before = limit_events();
  CommandResult result = processes_.run(
      command, [&log](int stream, std::string_view bytes) { log.write(stream, bytes); }, cancel);
  log.end_attempt();
  ran.report.process_ms += result.duration_ms;
  ran.report.user_ms += result.user_ms;
  ran.report.system_ms += result.system_ms;
  attempt.exit_code = result.exit_code;
  const auto& accepted = transform_.accept_return_code;
  attempt.success = result.end == CommandResult::End::kExited &&
                    (result.exit_code == 0 || std::find(accepted.begin(), accepted.end(),
                                                        result.exit_code) != accepted.end()) &&
                    // A shell or a pool of processes may hide that a part of it was killed, and its
                    // output is then not whole.
                    limit_events().oom_kills == before.oom_kills;
  if (!attempt.success) {
    explain(result, before, log, attempt);
    attempt.final = result.end == CommandResult::End::kNotStarted &&
                    result.start_error.code() == Code::kFailedPrecondition;
  }
  return attempt;
}

Result<RanDatum> DatumRunner::run(const FetchedDatum& datum, const Cancellation& cancel) {
  RanDatum ran;
  ran.job = datum.job;
  ran.report.id = datum.datum.id;
  ran.report.started.ms = clock_.wall_ms();
  ran.report.download_ms = datum.download_ms;
  DatumLog log(static_cast<uint64_t>(std::max<int64_t>(settings_.log_limit, 0)), clock_);
  log.set_live(true);
  processes_.set_ticker(kLiveIntervalMs, [&] {
    std::vector<api::LogLine> lines = log.take_live();
    if (!lines.empty()) live_log_(datum.job, datum.datum.id, std::move(lines));
  });
  const CommandSpec command = command_for(datum, false);
  const int64_t tries = std::max<int64_t>(settings_.datum_tries, 1);
  Attempt last;
  bool recovered = false;
  for (int64_t number = 1; number <= tries; ++number) {
    log.set_attempt(number);
    Status prepared = found_account_.ok() ? materialise(datum, ran) : found_account_.status();
    if (cancel.cancelled()) {
      ran.cancelled = true;
      return ran;
    }
    const bool damaged = prepared.code() == Code::kDataLoss;  // in the store: trying again is vain
    if (!prepared.ok() && prepared.code() != Code::kResourceExhausted && !damaged &&
        found_account_.ok()) {
      return prepared;
    }
    ran.report.attempts = number;
    if (prepared.ok()) {
      last = attempt(command, cancel, log, ran);
      // It is there, or none would have started: what is outside the folders that are cleaned
      // belongs to all datums of a container, and one of them has broken it.
      if (last.final && has_started_ && !command.argv[0].starts_with("/pfs/") &&
          !command.working_dir.starts_with("/pfs")) {
        return internal_error(str_cat("an earlier datum has changed the container: ", last.reason));
      }
      has_started_ = has_started_ || !last.final;
    } else if (damaged) {
      last = Attempt{.final = true,
                     .reason = str_cat("its input cannot be read: ", prepared.message()),
                     .hint = "`qanat fsck --data` names what is damaged and the files it touches"};
    } else if (!found_account_.ok()) {
      last = Attempt{.final = true, .reason = prepared.message(), .hint = prepared.hint()};
    } else {
      last = Attempt{.reason = prepared.message(),
                     .hint = "the container's disk is too small for the datum's input"};
    }
    if (cancel.cancelled()) {
      ran.cancelled = true;
      return ran;
    }
    if (last.success) {
      Status collected = collect(ran);
      if (!collected.ok()) {
        if (collected.code() != Code::kFailedPrecondition) return collected;
        last.success = false;
        last.reason = collected.message();
        last.hint = collected.hint();
      }
    }
    if (last.success) break;
    log.remark(str_cat("attempt ", number, " of ", tries, " failed: ", last.reason,
                       last.hint.empty() ? "" : str_cat(" (", last.hint, ")")));
    recovered = false;
    if (!transform_.err_cmd.empty() && prepared.ok()) {
      Attempt handled = attempt(command_for(datum, true), cancel, log, ran);
      if (cancel.cancelled()) {
        ran.cancelled = true;
        return ran;
      }
      recovered = handled.success;
      if (!handled.success) log.remark(str_cat("err_cmd failed: ", handled.reason));
    }
    if (last.final) break;
  }
  ran.report.exit_code = last.exit_code;
  ran.report.finished.ms = clock_.wall_ms();
  if (!last.success) {
    ran.files.clear();
    ran.large = false;
    ran.report.output_bytes = 0;
    ran.report.output_files = 0;
    ran.report.reason = last.reason;
    ran.report.hint = last.hint;
    ran.report.state = recovered ? api::DatumOutcome::kRecovered : api::DatumOutcome::kFailed;
    if (recovered) log.remark("err_cmd succeeded: the datum counts as recovered, without output");
  }
  // The rest of the lines for followers, if there have been any before: a short datum's come with
  // its result.
  if (ran.report.process_ms >= kLiveIntervalMs) {
    std::vector<api::LogLine> lines = log.take_live();
    if (!lines.empty()) live_log_(datum.job, datum.datum.id, std::move(lines));
  }
  ran.log = log.take_text();
  return ran;
}

}  // namespace qanat::worker
