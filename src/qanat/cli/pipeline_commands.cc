// create, update, list, inspect, start, stop, delete, validate of pipelines.

#include <cstdio>

#include "qanat/api/pipelines.h"
#include "qanat/api/spec_validate.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string name;
  std::string file = "-";
  bool reprocess = false;
  bool keep_results = false;
  bool keep_repo = false;
  bool force = false;
};

std::string show_workers(const api::PipelineInfo& p) {
  return str_cat(p.workers.running, "/", p.workers.wanted);
}
std::string show_last_job(const api::PipelineInfo& p) {
  return p.last_job ? show_state(api::enum_name(p.last_job->state)) : "-";
}

const std::vector<Column<api::PipelineInfo>>& pipeline_columns() {
  static const std::vector<Column<api::PipelineInfo>> columns = {
      {"NAME", [](const api::PipelineInfo& p) { return p.name; }},
      {"VERSION", [](const api::PipelineInfo& p) { return std::to_string(p.version); }},
      {"INPUT", [](const api::PipelineInfo& p) { return join(p.input_repos, ","); }},
      {"STATE", [](const api::PipelineInfo& p) { return show_state(api::enum_name(p.state)); }},
      {"LAST JOB", show_last_job},
      {"WORKERS", show_workers},
      {"CREATED", [](const api::PipelineInfo& p) { return show_age(p.created.ms); }},
      {"IMAGE", [](const api::PipelineInfo& p) { return p.image; }, true},
      {"DESCRIPTION",
       [](const api::PipelineInfo& p) { return p.reason.empty() ? p.description : p.reason; }},
  };
  return columns;
}

// By the server, which knows its runner and defaults; where none runs, by this program.
Result<api::ValidateResponse> validate(Cli& cli, std::string text) {
  const auto server = cli.connection();
  if (server.code() == Code::kFailedPrecondition) {
    std::fputs("No server runs here: checked as one with its defaults would.\n", stderr);
    return api::validate_pipeline_specs(
        text, {.project = cli.project(), .default_image = std::string(api::kDefaultImage)});
  }
  if (!server.ok()) return server.status();
  QANAT_ASSIGN_OR_RETURN(
      const std::string answer,
      (*server)->call("validate_pipelines", {{"project", cli.project()}}, {}, std::move(text)));
  return api::parse_json<api::ValidateResponse>(answer, {.ignore_unknown = true});
}

void note_reported(const api::PipelineInfo& p) {
  for (const api::FieldReport& field : p.reported) {
    print_note(str_cat("note: ", p.name, ": ", field.field, " has no effect: ", field.why));
  }
}

Result<std::string> read_specs(const std::string& file) {
  if (file.starts_with("http://") || file.starts_with("https://"))
    return invalid_argument(str_cat("specs are not read from URLs: ", file),
                            "fetch it first, and give the file: `curl ... | qanat create pipeline "
                            "-f -`");
  return read_whole(file);
}

void add_making(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("create", "pipeline", "Create pipelines from a spec (JSON or YAML, one or several)")
      .option("-f,--file", a->file, "The file; - for standard input")
      .example("qanat create pipeline -f edges.json")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(std::string text, read_specs(a->file));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(
            const std::string answer,
            server->call("create_pipelines", {{"project", cli.project()}}, {}, std::move(text)));
        QANAT_ASSIGN_OR_RETURN(const auto made, api::parse_json<api::List<api::PipelineInfo>>(
                                                    answer, {.ignore_unknown = true}));
        for (const auto& pipeline : made.items) note_reported(pipeline);
        return ok_status();
      });
  cli.command("update", "pipeline",
              "Give pipelines a new spec; what is not there yet is created. Only results that the "
              "change affects are computed again")
      .option("-f,--file", a->file, "The file; - for standard input")
      .flag("--reprocess", a->reprocess, "Compute everything again")
      .flag("--keep-results", a->keep_results, "Accept the results of the old code as they are")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(std::string text, read_specs(a->file));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const std::string answer,
                               server->call("update_pipelines", {{"project", cli.project()}},
                                            {{"reprocess", a->reprocess ? "true" : "false"},
                                             {"keep_results", a->keep_results ? "true" : "false"}},
                                            std::move(text)));
        QANAT_ASSIGN_OR_RETURN(const auto made, api::parse_json<api::List<api::PipelineInfo>>(
                                                    answer, {.ignore_unknown = true}));
        for (const auto& pipeline : made.items) note_reported(pipeline);
        return ok_status();
      });
  cli.command("validate", "pipeline",
              "Check a spec without creating anything: what is honoured, reported, refused")
      .option("-f,--file", a->file, "The file; - for standard input")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(std::string text, read_specs(a->file));
        QANAT_ASSIGN_OR_RETURN(const auto found, validate(cli, std::move(text)));
        if (format == Format::kJson || format == Format::kYaml) {
          QANAT_RETURN_IF_ERROR(print_item(format, found, {}, ""));
        } else {
          for (const auto& pipeline : found.pipelines) {
            std::vector<std::vector<std::string>> rows;
            for (const auto& field : pipeline.honoured)
              rows.push_back({field, colour("green", "honoured"), ""});
            for (const auto& field : pipeline.reported)
              rows.push_back({field.field, colour("yellow", "reported"), field.why});
            for (const auto& field : pipeline.refused)
              rows.push_back({field.field, colour("red", "refused"), field.why});
            std::puts(colour("bold", pipeline.name).c_str());
            print_table({"FIELD", "", "WHY"}, rows);
          }
        }
        if (found.ok) return ok_status();
        return invalid_argument(found.errors.empty() ? "the spec has refused fields"
                                                     : join(found.errors, "\n"));
      });
}

void add_looking(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("list", "pipeline", "List the pipelines you may see")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto pipelines,
                               server->list<api::List<api::PipelineInfo>>(
                                   "list_pipelines", {{"project", cli.project()}}));
        return print_list<api::PipelineInfo>(format, pipelines, pipeline_columns(),
                                             [](const api::PipelineInfo& p) { return p.name; });
      });
  cli.command("inspect", "pipeline", "Show a pipeline and its spec")
      .argument("NAME", a->name, "The pipeline")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto p, server->get<api::PipelineInfo>(
                                                 "inspect_pipeline", {{"project", name.project},
                                                                      {"pipeline", name.repo}}));
        Lines lines = {
            {"Pipeline", p.name},
            {"State",
             show_state(api::enum_name(p.state)) + (p.reason.empty() ? "" : ": " + p.reason)},
            {"Version", std::to_string(p.version)},
            {"Created", show_time(p.created.ms)},
            {"Updated", show_time(p.updated.ms)},
            {"Image", p.image + (p.image_digest.empty() ? "" : " = " + p.image_digest)},
            {"Workers", str_cat(p.workers.running, " of ", p.workers.wanted, " running, ",
                                p.workers.busy, " busy")},
            {"Input", join(p.input_repos, ", ")},
            {"Output", str_cat(p.name, "@", p.output_branch)},
            {"Rights", p.rights.empty() ? "-" : join(p.rights, ", ")},
            {"Last job", p.last_job ? str_cat(p.last_job->id, " ",
                                              show_state(api::enum_name(p.last_job->state)))
                                    : "-"},
            {"Spec", p.spec.text}};
        return print_item(format, p, lines, p.name);
      });
}

void add_steering(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  for (const auto& [verb, help] :
       {std::pair{"start", "Go on with a stopped pipeline: one job for the heads as they are now"},
        std::pair{"stop",
                  "Stop a pipeline: it misses commits until it is started again; its running job "
                  "is killed"}}) {
    const std::string route = str_cat(verb, "_pipeline");
    cli.command(verb, "pipeline", help)
        .argument("NAME", a->name, "The pipeline")
        .run([&cli, a, route]() -> Status {
          QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
          QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
          return server->call(route, {{"project", name.project}, {"pipeline", name.repo}}).status();
        });
  }
  cli.command("delete", "pipeline",
              "Delete a pipeline with its jobs; its output repo goes to the trash")
      .argument("NAME", a->name, "The pipeline")
      .flag("--keep-repo", a->keep_repo, "Keep the output repo, as one that nobody's pipeline owns")
      .flag("-f,--force", a->force, "Even if others derive from its output")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->call("delete_pipeline", {{"project", name.project}, {"pipeline", name.repo}},
                   {{"keep_repo", a->keep_repo ? "true" : "false"},
                    {"force", a->force ? "true" : "false"}})
            .status();
      });
}

}  // namespace

void add_pipeline_commands(Cli& cli) {
  add_making(cli);
  add_looking(cli);
  add_steering(cli);
}

}  // namespace qanat::cli
