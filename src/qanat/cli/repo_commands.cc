// create, update, list, inspect, delete of repos and branches.

#include "qanat/api/repos.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string name;
  std::string description;
  std::string head;
  std::vector<std::string> provenance;
  bool force = false;
  bool now = false;
};

const std::vector<Column<api::RepoInfo>>& repo_columns() {
  static const std::vector<Column<api::RepoInfo>> columns = {
      {"NAME", [](const api::RepoInfo& r) { return r.name; }},
      {"CREATED", [](const api::RepoInfo& r) { return show_age(r.created.ms); }},
      {"FILES", [](const api::RepoInfo& r) { return std::to_string(r.files); }},
      {"SIZE (MASTER)", [](const api::RepoInfo& r) { return show_size(r.size_bytes); }},
      {"PIPELINE", [](const api::RepoInfo& r) { return r.pipeline.empty() ? "-" : r.pipeline; }},
      {"BRANCHES", [](const api::RepoInfo& r) { return join(r.branches, ","); }, true},
      {"DESCRIPTION", [](const api::RepoInfo& r) { return r.description; }},
  };
  return columns;
}

std::string show_provenance(const std::vector<api::BranchRef>& branches) {
  std::vector<std::string> names;
  for (const api::BranchRef& branch : branches) names.push_back(branch.repo + "@" + branch.branch);
  return names.empty() ? "-" : join(names, ", ");
}

const std::vector<Column<api::BranchInfo>>& branch_columns() {
  static const std::vector<Column<api::BranchInfo>> columns = {
      {"BRANCH", [](const api::BranchInfo& b) { return b.name; }},
      {"HEAD", [](const api::BranchInfo& b) { return b.head.empty() ? "-" : b.head; }},
      {"OPEN COMMIT",
       [](const api::BranchInfo& b) { return b.open_commit.empty() ? "-" : b.open_commit; }},
      {"DERIVED FROM", [](const api::BranchInfo& b) { return show_provenance(b.provenance); }},
      {"CREATED", [](const api::BranchInfo& b) { return show_age(b.created.ms); }, true},
  };
  return columns;
}

void add_repos(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("create", "repo", "Create a repo: a named, versioned file tree")
      .argument("NAME", a->name, "Letters, digits, _ and -")
      .option("--description", a->description, "Free text")
      .example("qanat create repo orders")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->send<api::RepoInfo>("create_repo", {{"project", name.project}},
                                  api::CreateRepoRequest{name.repo, a->description})
            .status();
      });
  cli.command("update", "repo", "Change a repo's description")
      .argument("NAME", a->name, "The repo")
      .option("--description", a->description, "Free text")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->send<api::RepoInfo>("update_repo", {{"project", name.project}, {"repo", name.repo}},
                                  api::UpdateRepoRequest{a->description})
            .status();
      });
  cli.command("list", "repo", "List the repos you may read")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto repos, server->list<api::List<api::RepoInfo>>(
                                                     "list_repos", {{"project", cli.project()}}));
        return print_list<api::RepoInfo>(format, repos, repo_columns(),
                                         [](const api::RepoInfo& r) { return r.name; });
      });
  cli.command("inspect", "repo", "Show a repo")
      .argument("NAME", a->name, "The repo")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(
            const auto repo, server->get<api::RepoInfo>(
                                 "inspect_repo", {{"project", name.project}, {"repo", name.repo}}));
        return print_item(
            format, repo,
            {{"Name", repo.name},
             {"Description", repo.description.empty() ? "-" : repo.description},
             {"Created", show_time(repo.created.ms)},
             {"Output of pipeline", repo.pipeline.empty() ? "-" : repo.pipeline},
             {"Branches", join(repo.branches, ", ")},
             {"Head of master", str_cat(repo.files, " files, ", show_size(repo.size_bytes))}},
            repo.name);
      });
  cli.command("delete", "repo", "Delete a repo with all its commits")
      .argument("NAME", a->name, "The repo")
      .flag("-f,--force", a->force, "Even if other branches are derived from it")
      .flag("--now", a->now, "Not into the trash: it cannot be brought back")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->call("delete_repo", {{"project", name.project}, {"repo", name.repo}},
                   {{"force", a->force ? "true" : "false"}, {"now", a->now ? "true" : "false"}})
            .status();
      });
}

Result<Parameters> branch_parameters(const Cli& cli, const std::string& text) {
  QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(text));
  if (!address.has_ref || address.ref.back != 0 || address.ref.from_start != 0) {
    return invalid_argument(str_cat(quoted(text), " does not name a branch"),
                            "write REPO@BRANCH, such as orders@staging");
  }
  return Parameters{
      {"project", address.project}, {"repo", address.repo}, {"branch", address.ref.name}};
}

// What --head says, with or without the repo's name.
Result<std::string> head_of(Cli& cli, const Parameters& branch, const std::string& text) {
  if (text.find('@') == std::string::npos) return lower_id(text);
  QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(text));
  for (const auto& [name, value] : branch) {
    if ((name == "repo" && value != address.repo) ||
        (name == "project" && value != address.project)) {
      return invalid_argument(
          str_cat("--head ", text, " is a commit of another repo"),
          "a branch names commits of its own repo; `qanat copy file` brings files from another");
    }
  }
  return address.ref.to_string();
}

void add_branches(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  for (const char* verb : {"create", "update"}) {
    cli.command(verb, "branch", "Create a branch, or move its head (backward too)")
        .argument("REPO@BRANCH", a->name, "The branch")
        .option("--head", a->head,
                "The commit it names: a branch, an id, with ^ for ancestors; REPO@ may precede")
        .option("-p,--provenance", a->provenance,
                "REPO@BRANCH that it is derived from; may be repeated")
        .example("qanat create branch orders@master --head staging")
        .run([&cli, a]() -> Status {
          QANAT_ASSIGN_OR_RETURN(const Parameters parameters, branch_parameters(cli, a->name));
          api::PutBranchRequest request;
          if (!a->head.empty()) {
            QANAT_ASSIGN_OR_RETURN(request.head, head_of(cli, parameters, a->head));
          }
          if (!a->provenance.empty()) {
            request.provenance.emplace();
            for (const std::string& text : a->provenance) {
              QANAT_ASSIGN_OR_RETURN(const api::Address source, cli.address(text));
              request.provenance->push_back({source.repo, source.ref.name});
            }
          }
          QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
          return server->send<api::BranchInfo>("put_branch", parameters, request).status();
        });
  }
  cli.command("list", "branch", "List the branches of a repo")
      .argument("REPO", a->name, "The repo")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto branches, server->list<api::List<api::BranchInfo>>(
                                                        "list_branches", {{"project", name.project},
                                                                          {"repo", name.repo}}));
        return print_list<api::BranchInfo>(format, branches, branch_columns(),
                                           [](const api::BranchInfo& b) { return b.name; });
      });
  cli.command("inspect", "branch", "Show a branch")
      .argument("REPO@BRANCH", a->name, "The branch")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const Parameters parameters, branch_parameters(cli, a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto branch,
                               server->get<api::BranchInfo>("inspect_branch", parameters));
        return print_item(format, branch,
                          {{"Branch", branch.repo + "@" + branch.name},
                           {"Head", branch.head.empty() ? "- (no commit yet)" : branch.head},
                           {"Open commit", branch.open_commit.empty() ? "-" : branch.open_commit},
                           {"Derived from", show_provenance(branch.provenance)},
                           {"Created", show_time(branch.created.ms)}},
                          branch.name);
      });
  cli.command("delete", "branch", "Delete a branch; its commits stay")
      .argument("REPO@BRANCH", a->name, "The branch")
      .flag("-f,--force", a->force, "Even if other branches are derived from it")
      .flag("--now", a->now, "Not into the trash: it cannot be brought back")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Parameters parameters, branch_parameters(cli, a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->call("delete_branch", parameters,
                   {{"force", a->force ? "true" : "false"}, {"now", a->now ? "true" : "false"}})
            .status();
      });
}

}  // namespace

void add_repo_commands(Cli& cli) {
  add_repos(cli);
  add_branches(cli);
}

}  // namespace qanat::cli
