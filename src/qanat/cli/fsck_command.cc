// qanat fsck

#include "qanat/api/fsck.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {
namespace {

struct Arguments {
  bool data = false;
};

constexpr size_t kShownTouches = 3;

std::string show_touches(const api::FsckProblem& problem, bool all) {
  if (problem.touches.empty()) return "nothing";
  const size_t shown =
      all ? problem.touches.size() : std::min(problem.touches.size(), kShownTouches);
  std::string text =
      join(std::vector<std::string>(problem.touches.begin(),
                                    problem.touches.begin() + static_cast<ptrdiff_t>(shown)),
           ", ");
  const int64_t more = problem.touched - static_cast<int64_t>(shown);
  return more > 0 ? str_cat(text, " and ", more, " more") : text;
}

void show_progress(const api::FsckProgress& progress) {
  std::string line = "fsck: " + progress.phase;
  if (progress.done > 0 || progress.total > 0) line += str_cat("  ", progress.done);
  if (progress.total > 0) line += str_cat("/", progress.total);
  std::fputs(("\r\x1b[K" + line).c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

void add_fsck_command(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("fsck", "",
              "Check a project: that its records agree, and that everything they name is there and "
              "undamaged. Changes nothing. Exit code 1 if something is wrong")
      .flag("--data", a->data, "Read all data too, and check every byte against its hash")
      .option("-o,--output", cli.output(), kFormatHelp)
      .example("qanat fsck")
      .example("qanat fsck --data --project sales -o json")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        const bool progress = stderr_is_terminal() && !cli.quiet();
        Parameters query;
        if (a->data) query["data"] = "true";
        std::vector<api::FsckProblem> problems;
        std::optional<api::FsckSummary> summary;
        std::string failed;
        const Status status = server->events(
            "fsck", {{"project", cli.project()}}, query,
            [&](const net::Event& event) -> Result<bool> {
              QANAT_ASSIGN_OR_RETURN(
                  auto told, api::parse_json<api::FsckEvent>(event.data, {.ignore_unknown = true}));
              if (told.progress && progress) show_progress(*told.progress);
              if (told.problem) problems.push_back(*std::move(told.problem));
              summary = std::move(told.summary);
              failed = told.error;
              return told.type != "done" && told.type != "failed";
            });
        if (progress) std::fputs("\r\x1b[K", stderr);
        QANAT_RETURN_IF_ERROR(status);
        if (!failed.empty()) return unavailable("the check could not go on: " + failed);
        if (!summary) return unavailable("the server ended the check before it was done");
        const bool table = format == Format::kTable || format == Format::kWide;
        if (!problems.empty() || !table) {
          QANAT_RETURN_IF_ERROR(print_list<api::FsckProblem>(
              format, problems,
              {{"WHAT", [](const api::FsckProblem& p) { return p.what; }},
               {"WHERE", [](const api::FsckProblem& p) { return p.where.empty() ? "-" : p.where; }},
               {"TOUCHES",
                [format](const api::FsckProblem& p) {
                  return show_touches(p, format == Format::kWide);
                }}},
              [](const api::FsckProblem& p) { return p.where; }));
        }
        if (table) {
          std::string read = str_cat(summary->records, " records, ", summary->segments,
                                     " index segments, ", summary->packs, " packs, ",
                                     summary->nodes, " nodes, ", summary->chunks, " chunks");
          if (a->data) read += str_cat(", ", show_size(summary->bytes), " read");
          print_note(str_cat("checked ", read));
        }
        if (summary->problems == 0) return ok_status();
        return data_loss(
            str_cat(summary->problems, summary->problems == 1 ? " problem" : " problems",
                    " in project ", summary->project,
                    summary->truncated ? ", and more damage than could be named" : ""),
            "restore what is missing from a backup of the data folder; files that are not touched "
            "can be read as ever");
      });
}

}  // namespace qanat::cli
