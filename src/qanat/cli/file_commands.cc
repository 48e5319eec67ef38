// list, glob, inspect, diff, copy, delete of files. put and get are in transfer_commands.cc.

#include "qanat/api/file_stream.h"
#include "qanat/api/files.h"
#include "qanat/base/glob.h"
#include "qanat/base/name.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"
#include "qanat/cli/transfer.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string address;
  std::string other;
  std::string description;
  bool shallow = false;
};

Parameters repo_parameters(const api::Address& address) {
  return {{"project", address.project}, {"repo", address.repo}};
}

std::string show_hash(const api::FileInfo& file) { return show_id(file.hash); }

const std::vector<Column<api::FileInfo>>& file_columns() {
  static const std::vector<Column<api::FileInfo>> columns = {
      {"NAME", [](const api::FileInfo& f) { return f.path; }},
      {"TYPE", [](const api::FileInfo& f) { return std::string(api::enum_name(f.type)); }},
      {"SIZE", [](const api::FileInfo& f) { return show_size(f.size_bytes); }},
      {"FILES",
       [](const api::FileInfo& f) {
         return f.type == api::FileType::kFile ? "" : std::to_string(f.files);
       },
       true},
      {"HASH", show_hash, true},
  };
  return columns;
}

Status print_files(Cli& cli, const std::vector<api::FileInfo>& files) {
  QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
  return print_list<api::FileInfo>(format, files, file_columns(),
                                   [](const api::FileInfo& f) { return f.path; });
}

// What a comparison cannot do is refused: it would compare something else than was asked for.
Status check_comparable(const api::Address& newer, const api::Address& older) {
  if (older.project != newer.project) {
    return invalid_argument(str_cat("commits of two projects cannot be compared: ", newer.project,
                                    " and ", older.project),
                            "get both with -r, and compare the folders");
  }
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(newer.path));
  QANAT_ASSIGN_OR_RETURN(const std::string other, parse_path(older.path));
  if (!older.has_path || other == path) return ok_status();
  return invalid_argument(
      str_cat("two different paths cannot be compared: /", path, " and /", other),
      "a comparison is of one path in two commits: give it in the first address; the second needs "
      "none");
}

void add_looking(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("list", "file", "List a directory of a commit")
      .argument("REPO[@REF][:PATH]", a->address, "The directory; default: the root of master")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto files,
                               server->list<api::List<api::FileInfo>>(
                                   "list_files", repo_parameters(address),
                                   {{"ref", address.ref.to_string()}, {"path", address.path}}));
        return print_files(cli, files);
      });
  cli.command("glob", "file", "List what matches a pattern: * and ? stop at /, ** crosses it")
      .argument("REPO[@REF]:PATTERN", a->address, "The pattern; quote it")
      .option("-o,--output", cli.output(), kFormatHelp)
      .example("qanat glob file \"orders@master:/2017-*\"")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto files, server->list<api::List<api::FileInfo>>(
                                                     "glob_files", repo_parameters(address),
                                                     {{"ref", address.ref.to_string()},
                                                      {"pattern", "/" + address.path}}));
        return print_files(cli, files);
      });
  cli.command("inspect", "file", "Show a file or directory")
      .argument("REPO[@REF]:PATH", a->address, "The file")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(
            const auto file,
            server->get<api::FileInfo>("stat_file", repo_parameters(address),
                                       {{"ref", address.ref.to_string()}, {"path", address.path}}));
        Lines lines = {
            {"Path", file.path},
            {"Type", std::string(api::enum_name(file.type))},
            {"Size", str_cat(show_size(file.size_bytes), " (", file.size_bytes, " bytes)")}};
        if (file.type == api::FileType::kDirectory)
          lines.emplace_back("Files", std::to_string(file.files));
        lines.emplace_back("Hash", file.hash);
        lines.emplace_back("Commit", str_cat(address.repo, "@", file.commit));
        return print_item(format, file, lines, file.path);
      });
  cli.command("diff", "file", "What changed between two commits, in path order")
      .argument("REPO[@REF][:PATH]", a->address, "The newer commit")
      .argument("OTHER", a->other,
                "The older one, as REPO@REF (of the same project and path); default: the parent of "
                "the newer",
                false)
      .option("-o,--output", cli.output(), kFormatHelp)
      .example("qanat diff file orders@master orders@master^2")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        Parameters query = {{"ref", address.ref.to_string()}, {"path", address.path}};
        if (!a->other.empty()) {
          QANAT_ASSIGN_OR_RETURN(const api::Address other, cli.address(a->other));
          QANAT_RETURN_IF_ERROR(check_comparable(address, other));
          if (other.repo != address.repo) query["base_repo"] = other.repo;
          query["base"] = other.ref.to_string();
        }
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(
            const auto changes,
            server->list<api::List<api::FileDiff>>("diff_files", repo_parameters(address), query));
        return print_list<api::FileDiff>(
            format, changes,
            {{"",
              [](const api::FileDiff& d) {
                return d.op == api::DiffOp::kAdded     ? colour("green", "+")
                       : d.op == api::DiffOp::kDeleted ? colour("red", "-")
                                                       : colour("yellow", "~");
              }},
             {"PATH", [](const api::FileDiff& d) { return d.path; }},
             {"BEFORE",
              [](const api::FileDiff& d) {
                return d.before ? show_size(d.before->size_bytes) : "-";
              }},
             {"AFTER",
              [](const api::FileDiff& d) {
                return d.after ? show_size(d.after->size_bytes) : "-";
              }}},
            [](const api::FileDiff& d) { return d.path; });
      });
}

// The pattern that an address means; nothing if it means a path: one without special characters,
// or one that is there as it is written.
Result<std::optional<std::string>> pattern_of(Cli& cli, const api::Address& address) {
  if (address.path.empty()) return std::optional<std::string>("/*");
  const std::string pattern = "/" + address.path;
  const auto glob = Glob::compile(pattern);
  if (!glob.ok() || glob->is_literal()) return std::optional<std::string>();
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  const auto there =
      server->get<api::FileInfo>("stat_file", repo_parameters(address),
                                 {{"ref", address.ref.to_string()}, {"path", address.path}});
  return there.ok() ? std::optional<std::string>() : std::optional<std::string>(pattern);
}

Status delete_matches(Cli& cli, const api::Address& address, const std::string& pattern,
                      const std::string& description) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  QANAT_ASSIGN_OR_RETURN(const auto matches,
                         server->list<api::List<api::FileInfo>>(
                             "glob_files", repo_parameters(address),
                             {{"ref", address.ref.to_string()}, {"pattern", pattern}}));
  if (matches.empty()) {
    return not_found(
        str_cat("nothing in ", address.repo, "@", address.ref.to_string(), " matches ", pattern),
        "`qanat list file` shows what is there");
  }
  return send_edits(cli, address, description, [&](api::FileStreamWriter& out) -> Status {
    std::string inside;  // the last directory that matched: what is in it goes with it
    for (const api::FileInfo& match : matches) {
      QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(match.path));
      if (!inside.empty() && path_is_within(path, inside)) continue;
      if (match.type == api::FileType::kDirectory) inside = path;
      QANAT_RETURN_IF_ERROR(out.remove(path));
    }
    return ok_status();
  });
}

void add_changing(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("copy", "file",
              "Copy a file or directory, also from another repo; no bytes are moved")
      .argument("SOURCE", a->address, "REPO[@REF]:PATH")
      .argument("DESTINATION", a->other,
                "REPO[@BRANCH-OR-COMMIT][:PATH]; without a PATH, or with one ending in /, the copy "
                "keeps its name")
      .option("-m,--message", a->description, "Description of the commit")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address source, cli.address(a->address));
        QANAT_ASSIGN_OR_RETURN(const api::Address destination, cli.address(a->other));
        if (source.project != destination.project) {
          return invalid_argument("a copy cannot cross projects", "get the file and put it");
        }
        QANAT_ASSIGN_OR_RETURN(const std::string from, parse_path(source.path));
        // As put: a directory takes the source's name.
        std::string to = destination.path;
        const bool directory = to.empty() || to.back() == '/';
        while (!to.empty() && to.back() == '/') to.pop_back();
        if (directory) to = join_path(to, path_name(from));
        return send_edits(cli, destination, a->description, [&](api::FileStreamWriter& out) {
          return out.copy(
              api::json_text(api::CopySource{source.repo, source.ref.to_string(), from}), to);
        });
      });
  cli.command("delete", "file",
              "Delete a file, a directory with all it holds, or what a pattern matches; one commit")
      .argument("REPO[@BRANCH-OR-COMMIT]:PATH", a->address,
                "The file, directory or pattern (quote it); / is all files")
      .option("-m,--message", a->description, "Description of the commit")
      .example("qanat delete file \"orders@master:/2016-*\"")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a->address));
        if (!address.has_path) {
          return invalid_argument("there is no path in the address", "write REPO@BRANCH:/PATH");
        }
        QANAT_RETURN_IF_ERROR(check_description(a->description));
        QANAT_ASSIGN_OR_RETURN(const auto several, pattern_of(cli, address));
        if (several) return delete_matches(cli, address, *several, a->description);
        Parameters parameters = repo_parameters(address);
        parameters["path"] = address.path;
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        Parameters query = {{"ref", address.ref.to_string()}};
        if (!a->description.empty()) query["description"] = a->description;
        return server->call("delete_file", parameters, query).status();
      });
}

}  // namespace

void add_file_commands(Cli& cli) {
  add_looking(cli);
  add_changing(cli);
  add_transfer_commands(cli);
}

}  // namespace qanat::cli
