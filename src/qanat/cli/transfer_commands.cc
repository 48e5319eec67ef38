// put file and get file.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>

#include "qanat/api/files.h"
#include "qanat/base/name.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"
#include "qanat/cli/download.h"
#include "qanat/cli/folder_walk.h"
#include "qanat/cli/put.h"
#include "qanat/cli/transfer.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string address;
  std::vector<std::string> sources;
  std::string list;
  std::string output;
  std::string description;
  std::string range;
  int64_t retry = 30;
  bool recursive = false;
  bool append = false;
  bool untar = false;
  bool force = false;
};

bool is_url(const std::string& text) { return text.find("://") != std::string::npos; }

// The last part of a local path or URL: the name of the file it becomes.
std::string source_name(std::string text) {
  if (is_url(text)) text = text.substr(0, text.find_first_of("?#"));
  while (!text.empty() && text.back() == '/') text.pop_back();
  return text.substr(text.rfind('/') + 1);
}

// A tar, as it is: the server takes it apart.
Status put_tar(Cli& cli, const api::Address& address, const std::string& source,
               const Arguments& a) {
  const bool from_stdin = source == "-";
  struct stat info{};
  if (!from_stdin && stat(source.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return failed_precondition(str_cat(source, " is a folder, not a tar"),
                               "Put it with -r, without --untar.");
  }
  const int fd = from_stdin ? STDIN_FILENO : open(source.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno_status(errno, source);
  const uint64_t total =
      fstat(fd, &info) == 0 && S_ISREG(info.st_mode) ? static_cast<uint64_t>(info.st_size) : 0;
  Progress progress(str_cat("put ", from_stdin ? "standard input" : source), total, cli.quiet());
  const auto send = [&]() -> Status {
    QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
    Parameters query = {{"ref", address.ref.to_string()}, {"path", address.path}};
    if (a.append) query["append"] = "true";
    if (!a.description.empty()) query["description"] = a.description;
    return server
        ->upload(
            "edit_files", {{"project", address.project}, {"repo", address.repo}}, query,
            [&](char* buffer, size_t size) -> Result<size_t> {
              const ssize_t got = read(fd, buffer, size);
              if (got < 0) return errno_status(errno, source);
              progress.add(static_cast<uint64_t>(got));
              return static_cast<size_t>(got);
            },
            "application/x-tar")
        .status();
  };
  Status status = send();
  if (!from_stdin) close(fd);
  return status;
}

Status put_url(Cli& cli, const api::Address& address, const std::string& url, const Arguments& a) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  Parameters query = {{"ref", address.ref.to_string()}};
  if (!a.description.empty()) query["description"] = a.description;
  return server
      ->send<api::CommitInfo>("put_url", {{"project", address.project}, {"repo", address.repo}},
                              api::PutUrlRequest{url, address.path, a.append, a.untar}, query)
      .status();
}

Status put_one(Cli& cli, api::Address address, const std::string& source, const Arguments& a,
               bool several) {
  // A destination that is a directory ("", or ending in /), or shared by several sources, takes the
  // source's name.
  const bool directory = address.path.empty() || address.path.back() == '/' || several;
  while (!address.path.empty() && address.path.back() == '/') address.path.pop_back();
  if (a.untar) {
    return is_url(source) ? put_url(cli, address, source, a) : put_tar(cli, address, source, a);
  }
  LocalPut put{address, source, false, a.append, a.description, a.retry * 1000};
  if (source == "-") {
    if (directory)
      return invalid_argument("what is read from standard input has no name",
                              "give it one in the address: REPO@BRANCH:/PATH");
    return put_local(cli, put);
  }
  if (is_url(source)) {
    if (directory) address.path = join_path(address.path, source_name(source));
    return put_url(cli, address, source, a);
  }
  struct stat info{};
  if (stat(source.c_str(), &info) != 0) return errno_status(errno, source);
  if (S_ISDIR(info.st_mode)) {
    if (!a.recursive)
      return failed_precondition(str_cat(source, " is a folder"),
                                 "Add -r to put everything in it.");
    put.folder = true;
    return put_local(cli, put);
  }
  if (directory) put.address.path = join_path(address.path, source_name(source));
  return put_local(cli, put);
}

Result<std::vector<std::string>> read_list(const std::string& file) {
  QANAT_ASSIGN_OR_RETURN(const std::string text, read_whole(file));
  std::vector<std::string> lines;
  for (const std::string_view line : split(text, '\n')) {
    if (!trim(line).empty()) lines.emplace_back(trim(line));
  }
  return lines;
}

// The folders among the sources side by side, in the order of their files' paths: what two of them
// (or a file and a folder) would put at one path. Memory: of the walks.
class SourcesMerge {
 public:
  SourcesMerge(const std::vector<std::string>& sources, bool recursive) {
    for (const std::string& source : sources) {
      struct stat info{};
      if (is_url(source) || source == "-" || stat(source.c_str(), &info) != 0 ||
          !S_ISDIR(info.st_mode)) {
        names_.emplace_back(source_name(source), source);
      } else {
        if (recursive) walks_.push_back({FolderWalk(source), {}});
      }
    }
    std::sort(names_.begin(), names_.end(), [](const auto& left, const auto& right) {
      return walk_order(left.first, right.first) < 0;
    });
  }

  Status check() {
    for (size_t i = 1; i < names_.size(); ++i) {
      if (names_[i - 1].first == names_[i].first)
        return twice(names_[i].first, names_[i - 1].second, names_[i].second);
    }
    if (walks_.empty() || walks_.size() + names_.size() < 2) return ok_status();
    for (Walk& walk : walks_) QANAT_RETURN_IF_ERROR(walk.advance());
    size_t name = 0;
    while (true) {
      Walk* first = nullptr;
      for (Walk& walk : walks_) {
        if (!walk.at) continue;
        if (first != nullptr && walk.at->path == first->at->path)
          return twice(walk.at->path, first->at->file, walk.at->file);
        if (first == nullptr || walk_order(walk.at->path, first->at->path) < 0) first = &walk;
      }
      if (first == nullptr) return ok_status();
      const std::string& path = first->at->path;
      while (name < names_.size() && walk_order(names_[name].first, path) < 0) ++name;
      if (name < names_.size() && names_[name].first == path)
        return twice(path, names_[name].second, first->at->file);
      QANAT_RETURN_IF_ERROR(first->advance());
    }
  }

 private:
  struct Walk {
    FolderWalk walk;
    std::optional<FolderWalk::Found> at;

    Status advance() {
      QANAT_ASSIGN_OR_RETURN(at, walk.next());
      return ok_status();
    }
  };

  static Status twice(const std::string& path, const std::string& one, const std::string& other) {
    return invalid_argument(
        str_cat(one, " and ", other, " would both be put as ", path, ", one over the other"),
        "Nothing was put. Put one of them elsewhere, by a command of its own.");
  }

  std::vector<std::pair<std::string, std::string>> names_;  // of files: in the repo, on disk
  std::vector<Walk> walks_;
};

Status put(Cli& cli, const Arguments& a) {
  QANAT_ASSIGN_OR_RETURN(api::Address address, cli.address(a.address));
  QANAT_RETURN_IF_ERROR(check_description(a.description));
  std::vector<std::string> sources = a.sources;
  if (!a.list.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto listed, read_list(a.list));
    sources.insert(sources.end(), listed.begin(), listed.end());
  }
  if (sources.empty())
    return invalid_argument("there is nothing to put",
                            "name files, folders or URLs with -f, or - for standard input");
  if (sources.size() == 1) return put_one(cli, address, sources[0], a, false);
  if (std::find(sources.begin(), sources.end(), "-") != sources.end() && !a.untar) {
    return invalid_argument(
        "standard input has no name, and cannot be one of several sources",
        "put it by a command of its own: qanat put file REPO@BRANCH:/PATH -f -");
  }
  // Appending several to one file is what -a may be for.
  if (!a.untar && !a.append) QANAT_RETURN_IF_ERROR(SourcesMerge(sources, a.recursive).check());
  // Several sources are one commit: into an open one, or one opened here.
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  const Parameters repo = {{"project", address.project}, {"repo", address.repo}};
  std::string opened;
  if (!address.ref.is_commit) {
    QANAT_ASSIGN_OR_RETURN(
        const auto branch_commit,
        server->send<api::CommitInfo>(
            "start_commit", repo,
            api::StartCommitRequest{address.ref.to_string(), "", a.description}));
    opened = branch_commit.id;
    QANAT_ASSIGN_OR_RETURN(address.ref, api::parse_ref(opened));
  }
  for (const std::string& source : sources) {
    Status status = put_one(cli, address, source, a, true);
    if (!status.ok()) {
      if (!opened.empty()) {
        (void)server->call("delete_commit",
                           {{"project", address.project}, {"repo", address.repo}, {"ref", opened}});
        return status.with_hint(str_cat(status.hint().empty() ? "" : status.hint() + "\n",
                                        "Nothing was put: the sources are one commit."));
      }
      return status;
    }
  }
  if (opened.empty()) return ok_status();
  return server
      ->send<api::CommitInfo>(
          "finish_commit", {{"project", address.project}, {"repo", address.repo}, {"ref", opened}},
          api::FinishCommitRequest{})
      .status();
}

Status get(Cli& cli, const Arguments& a) {
  QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.address(a.address));
  if (!a.recursive) return get_file(cli, address, a.range, a.output);
  if (!a.range.empty()) {
    return invalid_argument(
        "--range is of one file, and goes without -r",
        "get the file itself: qanat get file REPO@REF:/PATH --range FIRST-LAST");
  }
  std::string folder = a.output;
  if (folder.empty())
    folder = address.path.empty() ? address.repo : std::string(path_name(address.path));
  return get_folder(cli, address, folder);
}

}  // namespace

void add_transfer_commands(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("put", "file",
              "Put files, folders, standard input or URLs into a repo: one commit, unless into an "
              "open one")
      .argument("REPO[@BRANCH-OR-COMMIT][:PATH]", a->address,
                "Where; a PATH ending in / is a directory")
      .option("-f,--file", a->sources,
              "A file, a folder (with -r), a URL, or - for standard input; may be repeated")
      .option("-i,--input-file", a->list, "A file with sources, a line each; - for standard input")
      .flag("-r,--recursive", a->recursive, "Put folders with all they hold")
      .flag("-a,--append", a->append, "Append to files that are there instead of replacing them")
      .flag("--untar", a->untar, "The sources are tars (not compressed): put the files in them")
      .option("-m,--message", a->description, "Description of the commit")
      .option("--retry", a->retry,
              "Seconds to wait for a server that stops answering in the middle (30)")
      .example("qanat put file orders@master:/2017-03.csv -f 2017-03.csv")
      .example("qanat put file -r images@master:/ -f ./photos")
      .example("zstd -dc dump.tar.zst | qanat put file --untar dumps@master:/2017 -f -")
      .run([&cli, a] { return put(cli, *a); });
  cli.command("get", "file", "Get a file's bytes, or with -r a directory")
      .argument("REPO[@REF]:PATH", a->address, "The file or directory; with -r a pattern too")
      .option("-o,--output", a->output,
              "Where to; default: standard output, with -r a folder of the same name")
      .flag("-r,--recursive", a->recursive, "All files at and under the path")
      .option("--range", a->range,
              "Bytes FIRST-LAST, FIRST- or -LENGTH (the last so many) of a file; not with -r")
      .example("qanat get file report@master:/forecast.csv")
      .run([&cli, a] { return get(cli, *a); });
}

}  // namespace qanat::cli
