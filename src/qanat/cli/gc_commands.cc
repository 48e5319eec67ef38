// garbage-collect, list trash, undelete, pause, resume.

#include <chrono>
#include <thread>

#include "qanat/api/commit_sets.h"
#include "qanat/api/commits.h"
#include "qanat/api/gc.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string name;
  std::string reason;
  bool dry_run = false;
  bool now = false;
  bool recursive = false;
};

void print_report(const api::CollectionInfo& c) {
  auto line = [](const std::string& what, const std::string& value) {
    std::printf("%-28s %s\n", what.c_str(), value.c_str());
  };
  line("Stored", str_cat(show_size(c.stored_bytes), " in ", c.packs, " packs"));
  line("Needed", show_size(c.live_bytes));
  line(c.dry_run ? "Would be freed" : "Freed",
       c.dry_run ? str_cat(show_size(c.dead_bytes), " (", c.dead_packs, " packs, and ",
                           c.rewritten_packs, " rewritten)")
                 : str_cat(show_size(c.freed_bytes), " in ", c.freed_objects, " objects"));
  if (!c.dry_run && c.rewritten_packs > 0) {
    line("Rewritten", str_cat(c.rewritten_packs, " packs, ", show_size(c.rewritten_bytes)));
  }
  if (!c.dry_run && c.waiting_packs > 0) {
    line("Goes soon",
         str_cat(c.waiting_packs, " packs, when readers and writers of before are done"));
  }
  if (c.young_bytes > 0) line("Too young to tell", show_size(c.young_bytes));
  if (c.forgotten_results > 0) {
    line("Results forgotten", std::to_string(c.forgotten_results));
  }
  if (c.ended_uploads > 0) {
    line("Uploads ended", str_cat(c.ended_uploads, ", which nobody had used for two minutes"));
  }
  if (c.missing_blobs > 0) {
    line("Damage", str_cat(c.missing_blobs, " blobs are missing: see `qanat fsck`"));
  }
  if (c.holders.empty()) return;
  std::printf("\nWhat keeps bytes alive (each line: beyond the lines above it)\n");
  std::vector<std::vector<std::string>> rows;
  for (const api::HolderInfo& h : c.holders) {
    rows.push_back({h.kind, h.name, show_size(h.bytes), std::to_string(h.blobs)});
  }
  print_table({"KIND", "NAME", "BYTES", "CHUNKS AND NODES"}, rows);
}

Status collect(Cli& cli, const Arguments& a) {
  QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  const Parameters parameters = {{"project", cli.project()}};
  QANAT_ASSIGN_OR_RETURN(
      auto info, server->send<api::CollectionInfo>("collect_garbage", parameters,
                                                   api::CollectGarbageRequest{a.dry_run, a.now}));
  const int64_t number = info.number;
  std::string phase;
  while (info.number == number && info.running && info.phase != "waiting for readers") {
    if (info.phase != phase && !cli.quiet()) {
      phase = info.phase;
      std::fputs((phase + "\n").c_str(), stderr);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    QANAT_ASSIGN_OR_RETURN(info,
                           server->get<api::CollectionInfo>("inspect_collection", parameters));
  }
  if (info.number != number) {
    return unavailable(
        "another collection was begun meanwhile, which goes on with this one's work");
  }
  if (!info.error.empty()) return unavailable(info.error, info.hint);
  if (format == Format::kTable || format == Format::kWide) {
    print_report(info);
    return ok_status();
  }
  return print_item(format, info, {}, std::to_string(info.number));
}

const std::vector<Column<api::TrashInfo>>& trash_columns() {
  static const std::vector<Column<api::TrashInfo>> columns = {
      {"KIND", [](const api::TrashInfo& t) { return t.kind; }},
      {"NAME", [](const api::TrashInfo& t) { return t.name; }},
      {"DELETED", [](const api::TrashInfo& t) { return show_age(t.deleted.ms); }},
      {"KEPT UNTIL", [](const api::TrashInfo& t) { return show_time(t.expires.ms); }},
  };
  return columns;
}

}  // namespace

void add_gc_commands(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("garbage-collect", "", "Free the space of what nothing needs any more")
      .flag("--dry-run", a->dry_run, "Only say what would be freed, and what keeps the rest")
      .flag("--now", a->now, "Empty the trash too, and give readers of what has moved no grace")
      .option("-o,--output", cli.output(), kFormatHelp)
      .example("qanat garbage-collect --dry-run")
      .run([&cli, a] { return collect(cli, *a); });
  cli.command("list", "trash", "List what was deleted and can still be brought back")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto trash, server->list<api::List<api::TrashInfo>>(
                                                     "list_trash", {{"project", cli.project()}}));
        return print_list<api::TrashInfo>(format, trash, trash_columns(),
                                          [](const api::TrashInfo& t) { return t.name; });
      });
  cli.command("undelete", "repo", "Bring a deleted repo back, with its branches and commits")
      .argument("NAME", a->name, "The repo")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address name, cli.name(a->name));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->call("undelete_repo", {{"project", name.project}, {"repo", name.repo}}, {}, "")
            .status();
      });
  cli.command("undelete", "branch", "Bring a deleted branch back")
      .argument("REPO@BRANCH", a->name, "The branch")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->name));
        if (!address.has_ref) {
          return invalid_argument(str_cat(quoted(a->name), " does not name a branch"),
                                  "write REPO@BRANCH");
        }
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server
            ->call("undelete_branch",
                   {{"project", address.project},
                    {"repo", address.repo},
                    {"branch", address.ref.name}},
                   {}, "")
            .status();
      });
  for (const char* verb : {"squash", "drop"}) {
    const bool squash = std::string_view(verb) == "squash";
    cli.command(verb, "commit",
                squash ? "Take all commits of an id out of history; their children stay as they are"
                       : "Take all commits of an id out, which have no children; branches go back")
        .argument("ID", a->name, "The id, or REPO@COMMIT")
        .flag("-r,--recursive", a->recursive,
              "Also commits of other changes that were made from these")
        .flag("--now", a->now, "Not into the trash: they cannot be brought back")
        .run([&cli, a, squash]() -> Status {
          Parameters parameters{{"project", cli.project()}, {"commit", lower_id(a->name)}};
          Parameters query{{"recursive", a->recursive ? "true" : "false"},
                           {"now", a->now ? "true" : "false"}};
          QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
          if (a->name.find('@') != std::string::npos) {
            QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->name));
            QANAT_ASSIGN_OR_RETURN(
                const auto commit,
                server->get<api::CommitInfo>("inspect_commit", {{"project", address.project},
                                                                {"repo", address.repo},
                                                                {"ref", address.ref.to_string()}}));
            parameters["project"] = address.project;
            parameters["commit"] = commit.id;
            query["repo"] = address.repo;
          }
          QANAT_ASSIGN_OR_RETURN(
              const std::string text,
              server->call(squash ? "squash_commit" : "drop_commit", parameters, query, ""));
          QANAT_ASSIGN_OR_RETURN(const auto gone, api::parse_json<api::RemovedCommits>(
                                                      text, {.ignore_unknown = true}));
          for (const std::string& commit : gone.commits) std::puts(commit.c_str());
          return ok_status();
        });
  }
  cli.command("undelete", "commit",
              "Bring squashed or dropped commits back, by their id; branches stay where they are")
      .argument("ID", a->name, "The id")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        const std::string id = lower_id(a->name);
        QANAT_RETURN_IF_ERROR(
            server->call("undelete_commit", {{"project", cli.project()}, {"commit", id}}, {}, "")
                .status());
        if (!cli.quiet()) {
          print_note(str_cat("commit ", id,
                             " is back, and reached by its id; branches stay where they are. To "
                             "move one to it: qanat update branch REPO@BRANCH --head ",
                             id));
        }
        return ok_status();
      });
  cli.command("pause", "", "Make the installation read-only, for maintenance")
      .option("--reason", a->reason, "Shown to those whose writes are refused")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server->send<api::MaintenanceInfo>("pause", {}, api::PauseRequest{a->reason})
            .status();
      });
  cli.command("resume", "", "End a pause").run([&cli]() -> Status {
    QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
    return server->send<api::MaintenanceInfo>("resume", {}, api::PauseRequest{}).status();
  });
}

}  // namespace qanat::cli
