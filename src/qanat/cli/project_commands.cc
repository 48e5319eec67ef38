// create, list, inspect of projects.

#include <algorithm>

#include "qanat/api/list.h"
#include "qanat/api/repos.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string name;
  std::string description;
};

Result<std::vector<api::ProjectInfo>> all_projects(Cli& cli) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  return server->list<api::List<api::ProjectInfo>>("list_projects", {});
}

}  // namespace

void add_project_commands(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("create", "project",
              "Create a project: a namespace of repos and pipelines, and a boundary of access")
      .argument("NAME", a->name, "Letters, digits, _ and -")
      .option("--description", a->description, "Free text")
      .example("qanat create project sales")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->send<api::ProjectInfo>("create_project", {},
                                     api::ProjectInfo{a->name, a->description, {}})
            .status();
      });
  cli.command("list", "project", "List the projects in which you may do something")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const auto projects, all_projects(cli));
        return print_list<api::ProjectInfo>(
            format, projects,
            {{"NAME", [](const api::ProjectInfo& p) { return p.name; }},
             {"CREATED", [](const api::ProjectInfo& p) { return show_age(p.created.ms); }},
             {"DESCRIPTION", [](const api::ProjectInfo& p) { return p.description; }}},
            [](const api::ProjectInfo& p) { return p.name; });
      });
  cli.command("inspect", "project", "Show a project")
      .argument("NAME", a->name, "The project")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const auto projects, all_projects(cli));
        const auto is_it = [&](const api::ProjectInfo& p) { return p.name == a->name; };
        const auto project = std::find_if(projects.begin(), projects.end(), is_it);
        if (project == projects.end()) {
          return not_found(str_cat("project ", a->name, " does not exist"),
                           "`qanat list project` shows those there are");
        }
        return print_item(
            format, *project,
            {{"Name", project->name},
             {"Description", project->description.empty() ? "-" : project->description},
             {"Created", show_time(project->created.ms)}},
            project->name);
      });
}

}  // namespace qanat::cli
