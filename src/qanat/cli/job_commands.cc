// Jobs, datums and logs.

#include <algorithm>
#include <cstdio>

#include "qanat/api/jobs.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"
#include "qanat/cli/wait.h"

namespace qanat::cli {
namespace {

constexpr int64_t kAllLines = -1;

struct Arguments {
  std::string address;
  std::string datum;
  std::string pipeline;
  std::string job;
  std::string state;
  int64_t number = 0;
  bool follow = false;
  bool raw = false;
};

std::string show_progress(const api::DatumCounts& d) {
  std::string text = str_cat(d.processed, " + ", d.skipped, " / ", d.total);
  if (d.failed > 0) text += str_cat(", ", d.failed, " failed");
  if (d.recovered > 0) text += str_cat(", ", d.recovered, " recovered");
  return text;
}

std::string show_duration(const api::JobInfo& j) {
  if (j.started.ms == 0 || j.finished.ms == 0) return "-";
  return format_duration(j.finished.ms - j.started.ms);
}

const std::vector<Column<api::JobInfo>>& job_columns() {
  static const std::vector<Column<api::JobInfo>> columns = {
      {"PIPELINE", [](const api::JobInfo& j) { return j.pipeline; }},
      {"JOB", [](const api::JobInfo& j) { return j.id; }},
      {"STARTED", [](const api::JobInfo& j) { return show_age(j.started.ms); }},
      {"TOOK", show_duration},
      {"RAN + SKIPPED / ALL", [](const api::JobInfo& j) { return show_progress(j.datums); }},
      {"DOWN", [](const api::JobInfo& j) { return show_size(j.download_bytes); }, true},
      {"UP", [](const api::JobInfo& j) { return show_size(j.upload_bytes); }, true},
      {"RESTARTS", [](const api::JobInfo& j) { return std::to_string(j.restarts); }, true},
      {"STATE", [](const api::JobInfo& j) { return show_state(api::enum_name(j.state)); }},
      {"REASON",
       [](const api::JobInfo& j) { return std::string(split_once(j.reason, '\n').first); }},
  };
  return columns;
}

std::string show_inputs(const std::vector<api::DatumInputInfo>& inputs) {
  std::vector<std::string> names;
  for (const api::DatumInputInfo& i : inputs) names.push_back(str_cat(i.name, ":", i.path));
  return join(names, " ");
}

Parameters job_parameters(const api::JobAddress& job) {
  return {{"project", job.project}, {"pipeline", job.pipeline}, {"job", job.job}};
}

// The id of a datum: as given, or the datum that one of whose inputs has this path.
Result<std::string> find_datum(Connection& server, const api::JobAddress& job,
                               const std::string& text) {
  if (text.find('/') == std::string::npos) return text;
  QANAT_ASSIGN_OR_RETURN(
      const auto datums,
      server.list<api::List<api::DatumInfo>>("list_datums", job_parameters(job), {{"path", text}}));
  if (datums.empty())
    return not_found(str_cat("no datum of ", job.to_string(), " has the input path ", text),
                     "`qanat list datum` shows the datums");
  if (datums.size() > 1)
    return failed_precondition(
        str_cat(datums.size(), " datums of ", job.to_string(), " have the input path ", text),
        "give the id of one: `qanat list datum` shows them");
  return datums[0].id;
}

Result<Parameters> datum_parameters(Connection& server, const api::JobAddress& job,
                                    const std::string& text) {
  Parameters parameters = job_parameters(job);
  QANAT_ASSIGN_OR_RETURN(parameters["datum"], find_datum(server, job, text));
  return parameters;
}

void add_jobs(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("list", "job", "List jobs, newest first")
      .argument("[ID]", a->address, "Only those that share this id", false)
      .option("-p,--pipeline", a->pipeline, "Only this pipeline's")
      .option("--state", a->state, "Only in this state")
      .option("-n,--number", a->number, "At most so many")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        Parameters query;
        std::string project = cli.project();
        if (!a->pipeline.empty()) {
          QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->pipeline));
          project = name.project;
          query["pipeline"] = name.repo;
        }
        if (!a->state.empty()) query["state"] = a->state;
        if (!a->address.empty() && !is_id(lower_id(a->address))) {
          const bool is_job = a->address.find('@') != std::string::npos;
          return invalid_argument(
              str_cat(quoted(a->address), " is not an id that jobs share"),
              is_job ? str_cat("`qanat inspect job ", a->address, "` shows one job")
                     : str_cat("`qanat list job -p ", a->address, "` lists a pipeline's jobs"));
        }
        if (!a->address.empty()) query["wave"] = lower_id(a->address);
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto jobs,
                               server->list<api::List<api::JobInfo>>(
                                   "list_jobs", {{"project", project}}, query,
                                   a->number > 0 ? static_cast<size_t>(a->number) : SIZE_MAX));
        return print_list<api::JobInfo>(format, jobs, job_columns(), [](const api::JobInfo& j) {
          return j.pipeline + "@" + j.id;
        });
      });
  cli.command("inspect", "job", "Show a job")
      .argument("PIPELINE@JOB", a->address, "The job")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::JobAddress address, cli.job_address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto j,
                               server->get<api::JobInfo>("inspect_job", job_parameters(address)));
        std::vector<std::string> inputs;
        for (const auto& i : j.inputs)
          inputs.push_back(str_cat(i.name, " = ", i.repo, "@", i.branch, " ",
                                   i.commit.empty() ? "(no commit)" : i.commit));
        Lines lines = {{"Job", str_cat(j.pipeline, "@", j.id)},
                       {"State", show_state(api::enum_name(j.state))}};
        if (!j.reason.empty()) lines.emplace_back("Reason", j.reason);
        lines.emplace_back("Datums",
                           show_progress(j.datums) + str_cat(" (", j.datums.running, " running, ",
                                                             j.datums.waiting, " waiting)"));
        lines.emplace_back("Started", show_time(j.started.ms));
        lines.emplace_back("Took", show_duration(j));
        lines.emplace_back("Spec version", std::to_string(j.pipeline_version));
        if (!j.image_digest.empty()) lines.emplace_back("Image", j.image_digest);
        lines.emplace_back("Inputs", inputs.empty() ? "-" : join(inputs, "\n"));
        if (!j.output_commit.empty())
          lines.emplace_back("Output", str_cat(j.pipeline, "@", j.output_commit));
        if (!j.parent_job.empty()) lines.emplace_back("Starts from", j.parent_job);
        lines.emplace_back("Moved", str_cat(show_size(j.download_bytes), " to workers, ",
                                            show_size(j.upload_bytes), " from them"));
        return print_item(format, j, lines, j.pipeline + "@" + j.id);
      });
  cli.command("stop", "job", "Kill a job; what is downstream of it cannot run")
      .argument("PIPELINE@JOB", a->address, "The job")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::JobAddress address, cli.job_address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server->call("stop_job", job_parameters(address)).status();
      });
  cli.command("wait", "job", "Wait until a job and everything downstream of it has ended")
      .argument("PIPELINE@JOB | ID", a->address,
                "The job, or the id that all jobs of a change share")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const auto wave, wait_for_job(cli, a->address));
        QANAT_RETURN_IF_ERROR(print_list<api::JobInfo>(Format::kTable, wave.jobs, job_columns(),
                                                       [](const api::JobInfo& j) { return j.id; }));
        return wave_outcome(wave);
      });
}

void add_datums(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("list", "datum", "List the datums of a job")
      .argument("PIPELINE@JOB", a->address, "The job")
      .option("--state", a->state, "Only in this state")
      .option("-n,--number", a->number, "At most so many")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::JobAddress address, cli.job_address(a->address));
        Parameters query;
        if (!a->state.empty()) query["state"] = a->state;
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto datums,
                               server->list<api::List<api::DatumInfo>>(
                                   "list_datums", job_parameters(address), query,
                                   a->number > 0 ? static_cast<size_t>(a->number) : SIZE_MAX));
        return print_list<api::DatumInfo>(
            format, datums,
            {{"DATUM", [&cli](const api::DatumInfo& d) { return show_id(d.id, cli.full_ids()); }},
             {"INPUTS", [](const api::DatumInfo& d) { return show_inputs(d.inputs); }},
             {"STATE", [](const api::DatumInfo& d) { return show_state(api::enum_name(d.state)); }},
             {"TOOK",
              [](const api::DatumInfo& d) {
                return d.process_ms == 0 ? "-" : format_duration(d.process_ms);
              }},
             {"TRIES", [](const api::DatumInfo& d) { return std::to_string(d.attempts); }, true},
             {"WHY",
              [](const api::DatumInfo& d) {
                return std::string(
                    split_once(d.message.empty() ? d.reason : d.message, '\n').first);
              }}},
            [](const api::DatumInfo& d) { return d.id; });
      });
  cli.command("inspect", "datum", "Show a datum of a job")
      .argument("PIPELINE@JOB", a->address, "The job")
      .argument("DATUM", a->datum, "Its id, or /PATH of one of its inputs")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::JobAddress address, cli.job_address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const Parameters parameters,
                               datum_parameters(*server, address, a->datum));
        QANAT_ASSIGN_OR_RETURN(const auto d,
                               server->get<api::DatumInfo>("inspect_datum", parameters));
        std::vector<std::string> inputs;
        for (const auto& i : d.inputs)
          inputs.push_back(str_cat(i.name, " = ", i.repo, "@", i.commit, ":", i.path, " (",
                                   show_size(i.size_bytes), ", ", show_id(i.hash), ")"));
        Lines lines = {
            {"Datum", d.id}, {"State", show_state(api::enum_name(d.state))}, {"Why", d.reason}};
        if (!d.message.empty()) lines.emplace_back("Message", d.message);
        lines.emplace_back("Inputs", join(inputs, "\n"));
        if (!d.result_job.empty()) lines.emplace_back("Computed by job", d.result_job);
        lines.emplace_back("Attempts", std::to_string(d.attempts));
        lines.emplace_back("Exit code", std::to_string(d.exit_code));
        lines.emplace_back("Times",
                           str_cat("inputs ", d.download_ms, " ms, command ", d.process_ms, " ms"));
        lines.emplace_back("Moved", str_cat(show_size(d.download_bytes), " in, ",
                                            show_size(d.upload_bytes), " out"));
        lines.emplace_back("Result key", d.key);
        return print_item(format, d, lines, d.id);
      });
  cli.command("explain", "datum", "Why a datum ran or was skipped, from records")
      .argument("PIPELINE@JOB", a->address, "The job")
      .argument("DATUM", a->datum, "Its id, or /PATH of one of its inputs")
      .option("-o,--output", cli.output(), kFormatHelp)
      .example("qanat explain datum standardize@4f0c... /2017-03.csv")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::JobAddress address, cli.job_address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const Parameters parameters,
                               datum_parameters(*server, address, a->datum));
        QANAT_ASSIGN_OR_RETURN(const auto found,
                               server->get<api::DatumExplanation>("explain_datum", parameters));
        std::vector<std::string> reasons;
        for (const auto& reason : found.reasons) reasons.push_back(reason.text);
        Lines lines = {
            {"Datum", str_cat(show_inputs(found.datum.inputs), " (", show_id(found.datum.id), ")")},
            {"Decision", found.decision},
            {"Why", join(reasons, "\n")}};
        if (!found.compared_with.empty())
          lines.emplace_back("Compared with job", found.compared_with);
        return print_item(format, found, lines, found.decision);
      });
}

void add_logs(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  a->number = kAllLines;
  cli.command("logs", "",
              "What datums printed: of a pipeline's newest job, of a job, or of a datum")
      .option("-p,--pipeline", a->pipeline, "The pipeline: its newest job")
      .option("-j,--job", a->job, "PIPELINE@JOB")
      .option("-d,--datum", a->datum, "Only this datum: its id, or /PATH of an input (with --job)")
      .flag("-f,--follow", a->follow,
            "Go on as lines come, until the job ends (of a pipeline: until Ctrl-C)")
      .option("-t,--tail", a->number, "Only the last so many lines")
      .flag("--raw", a->raw, "The lines as JSON")
      .example("qanat logs --job train@4f0c...")
      .run([&cli, a]() -> Status {
        Parameters query;
        std::string project = cli.project();
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        if (!a->job.empty() && !a->pipeline.empty())
          return invalid_argument("--job names its pipeline itself", "leave --pipeline out");
        if (!a->job.empty()) {
          QANAT_ASSIGN_OR_RETURN(const api::JobAddress job, cli.job_address(a->job));
          project = job.project;
          query["pipeline"] = job.pipeline;
          query["job"] = job.job;
          if (!a->datum.empty()) {
            QANAT_ASSIGN_OR_RETURN(query["datum"], find_datum(*server, job, a->datum));
          }
        } else if (!a->pipeline.empty()) {
          QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->pipeline));
          project = name.project;
          query["pipeline"] = name.repo;
        } else {
          return invalid_argument("whose logs?", "give --job PIPELINE@JOB or --pipeline NAME");
        }
        if (!a->datum.empty() && a->job.empty())
          return invalid_argument("a datum is one of a job",
                                  "give --job PIPELINE@JOB with --datum");
        if (a->number >= 0 && a->follow)
          return invalid_argument(
              "--tail does not go with --follow, which shows a job's lines from the first",
              "leave one of them out");
        // For the server, 0 is all; that the job is there is checked for none, too.
        if (a->number >= 0) query["tail"] = std::to_string(std::max<int64_t>(a->number, 1));
        if (a->follow) query["follow"] = "true";
        return server->events(
            "logs", {{"project", project}}, query, [&](const net::Event& event) -> Result<bool> {
              if (event.name == "end") return false;
              if (a->number == 0) return true;
              if (a->raw) {
                std::puts(event.data.c_str());
                QANAT_RETURN_IF_ERROR(flush_output());
                return true;
              }
              QANAT_ASSIGN_OR_RETURN(const auto line, api::parse_json<api::LogLine>(
                                                          event.data, {.ignore_unknown = true}));
              const std::string head =
                  str_cat(api::format_timestamp(line.time), " ", show_id(line.datum),
                          line.attempt > 1 ? str_cat(" try ", line.attempt) : "",
                          line.stream == "stderr"   ? " err"
                          : line.stream == "worker" ? " qanat"
                                                    : "");
              // Elsewhere than on a terminal the bytes are the user's, as they are.
              const std::string text =
                  stdout_is_terminal() ? str_cat(printable(line.text), "\x1b[0m") : line.text;
              std::puts(str_cat(colour("dim", head), " ", text).c_str());
              QANAT_RETURN_IF_ERROR(flush_output());
              return true;
            });
      });
}

}  // namespace

void add_job_commands(Cli& cli) {
  add_jobs(cli);
  add_datums(cli);
  add_logs(cli);
}

}  // namespace qanat::cli
