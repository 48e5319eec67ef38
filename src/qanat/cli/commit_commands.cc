// start, finish, list, inspect, wait, find, delete of commits, and their provenance.

#include <nlohmann/json.hpp>

#include "qanat/api/commits.h"
#include "qanat/api/files.h"
#include "qanat/api/jobs.h"
#include "qanat/api/repos.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"
#include "qanat/cli/wait.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string address;
  std::string parent;
  std::string description;
  std::string from;
  int64_t number = 0;
  bool all = false;
};

Parameters repo_parameters(const api::Address& address) {
  return {{"project", address.project}, {"repo", address.repo}};
}
Parameters commit_parameters(const api::Address& address) {
  return {{"project", address.project}, {"repo", address.repo}, {"ref", address.ref.to_string()}};
}

const std::vector<Column<api::CommitInfo>>& commit_columns() {
  static const std::vector<Column<api::CommitInfo>> columns = {
      {"REPO", [](const api::CommitInfo& c) { return c.repo; }},
      {"BRANCH", [](const api::CommitInfo& c) { return c.branch.empty() ? "-" : c.branch; }},
      {"COMMIT", [](const api::CommitInfo& c) { return c.id; }},
      {"STATE", [](const api::CommitInfo& c) { return show_state(api::enum_name(c.state)); }},
      {"FINISHED", [](const api::CommitInfo& c) { return show_age(c.finished.ms); }},
      {"FILES", [](const api::CommitInfo& c) { return std::to_string(c.files); }},
      {"SIZE", [](const api::CommitInfo& c) { return show_size(c.size_bytes); }},
      {"KIND", [](const api::CommitInfo& c) { return std::string(api::enum_name(c.kind)); }, true},
      {"ROOT", [](const api::CommitInfo& c) { return show_id(c.root); }, true},
      {"DESCRIPTION",
       [](const api::CommitInfo& c) { return c.error.empty() ? c.description : c.error; }},
  };
  return columns;
}

std::string show_commit_refs(const std::vector<api::CommitRef>& commits) {
  std::vector<std::string> names;
  for (const api::CommitRef& c : commits)
    names.push_back(str_cat(c.repo, "@", c.branch.empty() ? "" : c.branch + " = ", c.commit));
  return names.empty() ? "-" : join(names, "\n");
}

Lines commit_lines(const api::CommitInfo& c) {
  Lines lines = {{"Commit", str_cat(c.repo, "@", c.id)},
                 {"Branch", c.branch.empty() ? "- (detached)" : c.branch},
                 {"Parent", c.parent.empty() ? "-" : c.parent},
                 {"State", show_state(api::enum_name(c.state))}};
  if (!c.error.empty()) lines.emplace_back("Error", colour("red", c.error));
  lines.emplace_back("Started", show_time(c.started.ms));
  lines.emplace_back("Finished", show_time(c.finished.ms));
  lines.emplace_back("Root", c.root);
  lines.emplace_back("Content", str_cat(c.files, " files, ", show_size(c.size_bytes)));
  if (!c.description.empty()) lines.emplace_back("Description", c.description);
  if (!c.pipeline.empty()) {
    lines.emplace_back("Made by",
                       str_cat("pipeline ", c.pipeline, ", version ", c.pipeline_version));
    if (!c.image_digest.empty()) lines.emplace_back("Image", c.image_digest);
    lines.emplace_back("From", show_commit_refs(c.provenance));
  }
  return lines;
}

const std::vector<Column<api::WaveInfo>>& wave_columns() {
  static const std::vector<Column<api::WaveInfo>> columns = {
      {"ID", [](const api::WaveInfo& w) { return w.id; }},
      {"CAUSE", [](const api::WaveInfo& w) { return std::string(api::enum_name(w.cause)); }},
      {"CHANGED",
       [](const api::WaveInfo& w) {
         std::vector<std::string> names;
         for (const auto& c : w.changed) names.push_back(c.repo + "@" + c.branch);
         return names.empty() ? "-" : join(names, ",");
       }},
      {"PIPELINES", [](const api::WaveInfo& w) { return std::to_string(w.pipelines.size()); }},
      {"STATE",
       [](const api::WaveInfo& w) {
         return !w.finished ? show_state("RUNNING")
                : w.failed  ? show_state("FAILURE")
                            : show_state("SUCCESS");
       }},
      {"CREATED", [](const api::WaveInfo& w) { return show_age(w.created.ms); }},
  };
  return columns;
}

void add_making(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("start", "commit", "Open a commit and print its id; it is written to by that id")
      .argument("REPO[@BRANCH]", a->address, "Where; default branch: master")
      .option("--parent", a->parent, "The commit it follows; default: the branch's head")
      .option("-m,--message,--description", a->description, "Free text")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto commit,
                               server->send<api::CommitInfo>(
                                   "start_commit", repo_parameters(address),
                                   api::StartCommitRequest{address.ref.to_string(),
                                                           lower_id(a->parent), a->description}));
        std::puts(commit.id.c_str());
        return ok_status();
      });
  cli.command("finish", "commit", "Close a commit; pipelines downstream start")
      .argument("REPO@BRANCH-OR-COMMIT", a->address, "The open commit, or its branch")
      .option("-m,--message,--description", a->description, "Replaces the text given at the start")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->send<api::CommitInfo>("finish_commit", commit_parameters(address),
                                    api::FinishCommitRequest{a->description})
            .status();
      });
  cli.command("delete", "commit", "Throw away an open commit")
      .argument("REPO@COMMIT", a->address, "The open commit")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server->call("delete_commit", commit_parameters(address)).status();
      });
}

Status list_waves(Cli& cli, const Arguments& a, Format format) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  QANAT_ASSIGN_OR_RETURN(const auto waves,
                         server->list<api::List<api::WaveInfo>>(
                             "list_waves", {{"project", cli.project()}}, {},
                             a.number > 0 ? static_cast<size_t>(a.number) : SIZE_MAX));
  return print_list<api::WaveInfo>(format, waves, wave_columns(),
                                   [](const api::WaveInfo& w) { return w.id; });
}

// All commits of an id. One that is open, or that started no wave, is in one repo only: which one
// is looked up.
Result<api::WaveInfo> find_wave(Connection& server, const std::string& project,
                                const std::string& id) {
  auto wave = server.get<api::WaveInfo>("inspect_wave", {{"project", project}, {"wave", id}});
  if (wave.code() != Code::kNotFound) return wave;
  const auto repos = server.list<api::List<api::RepoInfo>>("list_repos", {{"project", project}});
  if (!repos.ok()) return repos.status();
  for (const api::RepoInfo& repo : *repos) {
    auto commit = server.get<api::CommitInfo>(
        "inspect_commit", {{"project", project}, {"repo", repo.name}, {"ref", id}});
    if (!commit.ok()) continue;
    api::WaveInfo alone;
    alone.project = project;
    alone.id = id;
    alone.commits.push_back(*std::move(commit));
    return alone;
  }
  return not_found(str_cat("no commit or job in project ", project, " has the id ", id),
                   "`qanat list commit` shows the ids there are");
}

Status show_wave(Cli& cli, const std::string& id, Format format) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  QANAT_ASSIGN_OR_RETURN(const auto wave, find_wave(*server, cli.project(), id));
  if (format != Format::kTable && format != Format::kWide)
    return print_item(format, wave, {}, wave.id);
  return print_list<api::CommitInfo>(format, wave.commits, commit_columns(),
                                     [](const api::CommitInfo& c) { return c.id; });
}

void add_reading(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("list", "commit",
              "List commits of a repo, newest first; without a repo: of all, by the change that "
              "caused them")
      .argument("[REPO[@REF] | ID]", a->address,
                "A repo; from a branch or commit back; or an id, for all commits that share it",
                false)
      .option("-n,--number", a->number, "At most so many")
      .option("--from", a->from, "Stop before this commit")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        if (a->address.empty()) return list_waves(cli, *a, format);
        if (const std::string id = lower_id(a->address); is_id(id))
          return show_wave(cli, id, format);
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        Parameters query;
        if (address.has_ref) query["ref"] = address.ref.to_string();
        if (!a->from.empty()) query["from"] = lower_id(a->from);
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto commits,
                               server->list<api::List<api::CommitInfo>>(
                                   "list_commits", repo_parameters(address), query,
                                   a->number > 0 ? static_cast<size_t>(a->number) : SIZE_MAX));
        return print_list<api::CommitInfo>(format, commits, commit_columns(),
                                           [](const api::CommitInfo& c) { return c.id; });
      });
  cli.command("inspect", "commit", "Show a commit; with an id alone, all commits that share it")
      .argument("REPO@REF | ID", a->address, "The commit")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        if (const std::string id = lower_id(a->address); is_id(id))
          return show_wave(cli, id, format);
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(
            const auto commit,
            server->get<api::CommitInfo>("inspect_commit", commit_parameters(address)));
        return print_item(format, commit, commit_lines(commit), commit.id);
      });
  cli.command("list", "provenance", "What a commit was made from, and what was made from it")
      .argument("REPO@REF", a->address, "The commit")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto found,
                               server->get<api::ProvenanceInfo>(
                                   "provenance", {{"project", address.project}},
                                   {{"repo", address.repo}, {"ref", address.ref.to_string()}}));
        if (format != Format::kTable && format != Format::kWide)
          return print_item(format, found, {}, found.commit.id);
        auto made_by = [](const api::CommitInfo& c) {
          if (c.pipeline.empty()) return std::string("put by a client");
          return str_cat("pipeline ", c.pipeline, " version ", c.pipeline_version,
                         c.image_digest.empty() ? "" : ", image " + c.image_digest);
        };
        std::vector<std::vector<std::string>> rows;
        auto add = [&](const char* where, const api::CommitInfo& c) {
          rows.push_back(
              {where, c.repo + "@" + (c.branch.empty() ? "-" : c.branch), c.id, made_by(c)});
        };
        for (auto it = found.upstream.rbegin(); it != found.upstream.rend(); ++it)
          add("upstream", *it);
        add("THIS", found.commit);
        for (const auto& c : found.downstream) add("downstream", c);
        print_table({"", "BRANCH", "COMMIT", "MADE BY"}, rows);
        return ok_status();
      });
  cli.command("find", "commit", "The history of a path: the commits that changed it, newest first")
      .argument("REPO[@REF]:PATH", a->address, "The file or directory")
      .option("-n,--number", a->number, "At most so many")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        if (!address.has_path)
          return invalid_argument("there is no path in the address", "write REPO@BRANCH:/PATH");
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto changes,
                               server->list<api::List<api::FileChange>>(
                                   "file_history", repo_parameters(address),
                                   {{"ref", address.ref.to_string()}, {"path", address.path}},
                                   a->number > 0 ? static_cast<size_t>(a->number) : SIZE_MAX));
        if (changes.empty()) {
          return not_found(str_cat("no commit in the history of ", address.repo, "@",
                                   address.ref.to_string(), " has changed /", address.path),
                           "`qanat list file` shows the paths there are");
        }
        return print_list<api::FileChange>(
            format, changes,
            {{"COMMIT", [](const api::FileChange& c) { return c.commit.id; }},
             {"CHANGE", [](const api::FileChange& c) { return std::string(api::enum_name(c.op)); }},
             {"FINISHED", [](const api::FileChange& c) { return show_age(c.commit.finished.ms); }},
             {"SIZE",
              [](const api::FileChange& c) {
                return c.file ? show_size(c.file->size_bytes) : "-";
              }},
             {"HASH",
              [](const api::FileChange& c) { return c.file ? show_id(c.file->hash) : "-"; }},
             {"DESCRIPTION", [](const api::FileChange& c) { return c.commit.description; }}},
            [](const api::FileChange& c) { return c.commit.id; });
      });
  cli.command(
         "wait", "commit",
         "Wait until a commit and everything downstream of it has ended; fails if a job failed")
      .argument("REPO@REF | ID", a->address,
                "The commit, also one that a job is still to make; or an id, for all that share it")
      .option("-o,--output", cli.output(), kFormatHelp)
      .example("qanat wait commit orders@master")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const auto wave, wait_for_commit(cli, a->address));
        if (format == Format::kTable || format == Format::kWide) {
          QANAT_RETURN_IF_ERROR(
              print_list<api::CommitInfo>(format, wave.commits, commit_columns(),
                                          [](const api::CommitInfo& c) { return c.id; }));
        } else {
          QANAT_RETURN_IF_ERROR(print_item(format, wave, {}, wave.id));
        }
        return wave_outcome(wave);
      });
}

}  // namespace

void add_commit_commands(Cli& cli) {
  add_making(cli);
  add_reading(cli);
}

}  // namespace qanat::cli
