#include "qanat/cli/wait.h"

#include <set>

#include "qanat/base/clock.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"

namespace qanat::cli {
namespace {

constexpr int64_t kReconnectMs = 60'000;

void show_progress(const api::JobInfo& job) {
  const auto& d = job.datums;
  std::string line =
      str_cat(job.pipeline, "  ", api::enum_name(job.state), "  ",
              d.processed + d.skipped + d.failed + d.recovered, "/", d.total, " datums");
  if (d.failed > 0) line += str_cat(", ", d.failed, " failed");
  std::fputs(("\r\x1b[K" + line).c_str(), stderr);
  std::fflush(stderr);
}

// What keeps a job from going on is said once.
void note_trouble(const api::JobInfo& job, std::set<std::string>& noted) {
  if (api::is_final(job.state) || job.reason.empty()) return;
  const std::string note = str_cat("note: job ", job.pipeline, "@", job.id,
                                   " waits: ", split_once(job.reason, '\n').first);
  if (noted.insert(note).second) std::fputs((note + "\n").c_str(), stderr);
}

Result<api::WaveInfo> wait_at(Cli& cli, std::string route, Parameters parameters) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  Parameters query;
  const bool progress = stderr_is_terminal() && !cli.quiet();
  std::set<std::string> noted;
  int64_t lost_ms = 0;
  while (true) {
    std::optional<api::WaveInfo> done;
    Status status =
        server->events(route, parameters, query, [&](const net::Event& event) -> Result<bool> {
          lost_ms = 0;
          QANAT_ASSIGN_OR_RETURN(
              auto change, api::parse_json<api::ChangeEvent>(event.data, {.ignore_unknown = true}));
          if (progress) std::fputs("\r\x1b[K", stderr);
          if (change.job && !cli.quiet()) note_trouble(*change.job, noted);
          if (progress && change.job) show_progress(*change.job);
          // From now on this wave is meant, even if the branch moves or the connection is lost.
          if (change.wave && route == "wait_commit") {
            route = "wait_wave";
            query["repo"] = parameters["repo"];
            parameters = {{"project", change.wave->project.empty() ? parameters["project"]
                                                                   : change.wave->project},
                          {"wave", change.wave->id}};
          }
          if (change.type != "done") return true;
          done = std::move(change.wave);
          return false;
        });
    if (progress) std::fputs("\r\x1b[K", stderr);
    if (done) return *done;
    if (!status.ok() && status.code() != Code::kUnavailable &&
        status.code() != Code::kDeadlineExceeded)
      return status;
    const int64_t now = real_clock().monotonic_ms();
    if (lost_ms == 0) lost_ms = now;
    if (now - lost_ms > kReconnectMs) {
      return status.ok()
                 ? unavailable("the server ends the connection each time before the wave has ended")
                 : status;
    }
    real_clock().sleep_for_ms(200);
  }
}

}  // namespace

Result<api::WaveInfo> wait_for_commit(Cli& cli, const std::string& text) {
  if (const std::string id = lower_id(text); is_id(id))
    return wait_at(cli, "wait_wave", {{"project", cli.project()}, {"wave", id}});
  QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(text));
  return wait_at(
      cli, "wait_commit",
      {{"project", address.project}, {"repo", address.repo}, {"ref", address.ref.to_string()}});
}

Result<api::WaveInfo> wait_for_job(Cli& cli, const std::string& text) {
  if (const std::string id = lower_id(text); is_id(id))
    return wait_at(cli, "wait_wave", {{"project", cli.project()}, {"wave", id}});
  QANAT_ASSIGN_OR_RETURN(const api::JobAddress job, cli.job_address(text));
  return wait_at(cli, "wait_job",
                 {{"project", job.project}, {"pipeline", job.pipeline}, {"job", job.job}});
}

Status wave_outcome(const api::WaveInfo& wave) {
  std::vector<std::string> failures;
  for (const api::JobInfo& job : wave.jobs) {
    if (api::is_final(job.state) && job.state != api::JobState::kSuccess) {
      failures.push_back(str_cat(job.pipeline, "@", job.id, " ", api::enum_name(job.state),
                                 job.reason.empty() ? "" : ": " + job.reason));
    }
  }
  if (failures.empty()) return ok_status();
  return failed_precondition(join(failures, "\n"), str_cat("`qanat logs --job PIPELINE@", wave.id,
                                                           "` shows what its datums printed."));
}

}  // namespace qanat::cli
