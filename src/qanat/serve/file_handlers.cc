// Reading files: bytes, lists, globs, archives, diffs, history. Writing: edit_handlers.cc.

#include "qanat/api/address.h"
#include "qanat/api/error.h"
#include "qanat/api/file_stream.h"
#include "qanat/base/counters.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/content/ordered_reader.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/http_api.h"

namespace qanat::serve {
namespace {

constexpr uint64_t kMaxSearch = 10'000;

version::RepoName repo_of(const Call& call) { return {call.project(), call.path("repo")}; }
std::string ref_of(const Call& call) { return call.query_or("ref", api::kDefaultBranch); }

// ---- Reading ----

struct Source {
  version::CommitInfo commit;
  content::ContentStore* content = nullptr;
  content::Tree tree() const { return {content->blobs(), commit.record.root}; }
};

Result<Source> source_of(Call& call) {
  Source source;
  QANAT_ASSIGN_OR_RETURN(source.commit, call.state.versions->resolve(repo_of(call), ref_of(call)));
  QANAT_ASSIGN_OR_RETURN(source.content, call.state.contents->project(call.project()));
  return source;
}

Status missing(const Call& call, const Status& status) {
  return status.with_context(str_cat(call.path("repo"), "@", ref_of(call)));
}

// A file's bytes as the body of an answer, which begins with the first of them: what cannot be read
// at all is an error like any other.
class ToBody : public content::OrderedReader::Sink {
 public:
  ToBody(net::Response& response, int status, uint64_t length)
      : response_(response), status_(status), length_(length) {}
  Status start() { return response_.started() ? ok_status() : response_.start(status_, length_); }
  Status begin_file(std::string_view) override { return ok_status(); }
  Status data(std::string_view bytes) override {
    QANAT_RETURN_IF_ERROR(start());
    return response_.write(bytes);
  }
  Status end_file() override { return ok_status(); }

 private:
  net::Response& response_;
  const int status_;
  const uint64_t length_;
};

// Files as frames of a stream.
class ToArchive : public content::OrderedReader::Sink {
 public:
  explicit ToArchive(api::FileStreamWriter& out) : out_(out) {}
  Status begin_file(std::string_view path) override { return out_.begin_put(path, false); }
  Status data(std::string_view bytes) override { return out_.data(bytes); }
  Status end_file() override { return out_.end_put(); }

 private:
  api::FileStreamWriter& out_;
};

Status get_file(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const Source source, source_of(call));
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(call.path("path")));
  const auto entry = source.tree().stat(path);
  if (!entry.ok()) return missing(call, entry.status());
  if (entry->is_directory) {
    return failed_precondition(str_cat("/", path, " is a directory"), "get it with -r, or list it");
  }
  const content::FileRef& file = entry->file;
  const std::string tag = str_cat("\"", file.content_id().to_hex(), "\"");
  net::Headers& headers = call.response.headers();
  headers.set("Content-Type", "application/octet-stream");
  headers.set("ETag", tag);
  headers.set("Accept-Ranges", "bytes");
  headers.set("X-Content-Type-Options", "nosniff");
  headers.set("Qanat-Commit", source.commit.id);
  headers.set("Qanat-Revision", std::to_string(call.state.meta->current_revision()));
  if (call.request.head().headers.get("If-None-Match") == tag) return call.response.send(304, "");
  const net::ByteRange range =
      net::parse_range(call.request.head().headers.get("Range"), file.size);
  if (range.kind == net::ByteRange::Kind::kUnsatisfiable) {
    headers.set("Content-Range", str_cat("bytes */", file.size));
    const Status status = invalid_argument(
        str_cat("the range begins after the end of /", path, ", which has ", file.size, " bytes"));
    return call.response.send(416, api::error_json(status), "application/json");
  }
  const bool part = range.kind == net::ByteRange::Kind::kPart;
  const uint64_t first = part ? range.first : 0;
  const uint64_t length = part ? range.length : file.size;
  if (part) headers.set("Content-Range", net::content_range(range, file.size));
  ToBody sink(call.response, part ? 206 : 200, length);
  if (call.request.head().method != net::Method::kHead) {
    content::OrderedReader reader(source.content->blobs(), call.state.readers, sink);
    Status read = reader.add_range(path, file, first, length);
    if (read.ok()) read = reader.finish();
    if (!read.ok()) {
      if (!call.response.started()) {
        for (const std::string_view of_the_file : {"ETag", "Accept-Ranges", "Content-Range"}) {
          headers.remove(of_the_file);
        }
      }
      return read.with_context(str_cat(call.path("repo"), "@", source.commit.id, ":/", path));
    }
  }
  QANAT_RETURN_IF_ERROR(sink.start());
  return call.response.finish();
}

Status list_files(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const Source source, source_of(call));
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(call.query_or("path")));
  QANAT_ASSIGN_OR_RETURN(const auto page, call.page());
  const auto entry = source.tree().stat(path);
  if (!entry.ok()) return missing(call, entry.status());
  api::List<api::FileInfo> list;
  list.revision = call.state.meta->current_revision();
  if (!entry->is_directory) {
    list.items.push_back(show_file(path, *entry));
    return call.answer(list);
  }
  QANAT_ASSIGN_OR_RETURN(const auto entries,
                         source.tree().list(path, page.token, static_cast<size_t>(page.limit)));
  for (const content::NamedEntry& e : entries)
    list.items.push_back(show_file(join_path(path, e.name), e.entry));
  if (entries.size() == static_cast<size_t>(page.limit)) list.next = entries.back().name;
  return call.answer(list);
}

Status glob_files(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const Source source, source_of(call));
  QANAT_ASSIGN_OR_RETURN(const std::string pattern, call.required("pattern"));
  QANAT_ASSIGN_OR_RETURN(const Glob glob, Glob::compile(pattern));
  QANAT_ASSIGN_OR_RETURN(const auto page, call.page());
  api::List<api::FileInfo> list;
  list.revision = call.state.meta->current_revision();
  std::string last;
  QANAT_ASSIGN_OR_RETURN(
      const bool at_end,
      source.tree().glob(
          glob,
          [&](std::string_view path, const content::TreeEntry& entry) -> Result<bool> {
            if (list.items.size() == static_cast<size_t>(page.limit)) return false;
            list.items.push_back(show_file(path, entry));
            last = path;
            return true;
          },
          page.token));
  if (!at_end) list.next = last;
  return call.answer(list);
}

Status stat_file(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const Source source, source_of(call));
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(call.query_or("path")));
  const auto entry = source.tree().stat(path);
  if (!entry.ok()) return missing(call, entry.status());
  api::FileInfo info = show_file(path, *entry);
  info.commit = source.commit.id;
  return call.answer(info);
}

Status archive(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const Source source, source_of(call));
  const std::string pattern = call.query_or("pattern");
  const std::string wanted = pattern.empty() ? call.query_or("path") : pattern;
  const content::Tree tree = source.tree();
  api::ArchiveHead head;
  head.repo = call.path("repo");
  head.commit = source.commit.id;
  // A path if there is one, else a pattern.
  std::optional<content::TreeEntry> entry;
  const auto path = parse_path(wanted);
  if (path.ok() && pattern.empty()) {
    QANAT_ASSIGN_OR_RETURN(entry, tree.find(*path));
  }
  std::optional<Glob> glob;
  if (entry) {
    head.files = static_cast<int64_t>(entry->files());
    head.size_bytes = static_cast<int64_t>(entry->bytes());
  } else {
    QANAT_ASSIGN_OR_RETURN(glob, Glob::compile(wanted.starts_with('/') ? wanted : "/" + wanted));
    if (glob->is_literal() && pattern.empty())
      return missing(call, not_found(str_cat("/", wanted, " does not exist")));
    // A pattern that fits nothing is said before the answer has begun.
    QANAT_ASSIGN_OR_RETURN(
        const bool none,
        tree.glob(*glob, [](std::string_view, const content::TreeEntry&) -> Result<bool> {
          return false;
        }));
    if (none) return missing(call, not_found(str_cat("nothing matches ", glob->pattern())));
  }
  call.response.headers().set("Content-Type", std::string(api::kFileStreamType));
  QANAT_RETURN_IF_ERROR(call.response.start(200, std::nullopt));
  api::FileStreamWriter out([&call](std::string_view bytes) { return call.response.write(bytes); });
  ToArchive sink(out);
  content::OrderedReader reader(source.content->blobs(), call.state.readers, sink);
  auto send = [&](std::string_view file_path, const content::TreeEntry& file) -> Result<bool> {
    QANAT_RETURN_IF_ERROR(reader.add(file_path, file.file));
    return true;
  };
  auto send_all = [&]() -> Status {
    QANAT_RETURN_IF_ERROR(out.head(api::json_text(head)));
    if (entry) {
      if (!entry->is_directory) return send(*path, *entry).status();
      return tree.walk(*path, send).status();
    }
    std::string inside;  // the last directory that matched: what is in it has been sent
    return tree
        .glob(*glob,
              [&](std::string_view match, const content::TreeEntry& found) -> Result<bool> {
                if (!inside.empty() && path_is_within(match, inside)) return true;
                if (!found.is_directory) return send(match, found);
                inside = match;
                return tree.walk(match, send);
              })
        .status();
  };
  Status status = send_all();
  if (status.ok()) status = reader.finish();
  if (!status.ok()) {
    // Told in the stream, if the stream is between two files; else by its end without `end`.
    (void)out.error(status);
    return status;
  }
  QANAT_RETURN_IF_ERROR(out.finish());
  return call.response.finish();
}

Status diff_files(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const Source source, source_of(call));
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(call.query_or("path")));
  QANAT_ASSIGN_OR_RETURN(const auto page, call.page());
  content::TreeRoot base;
  const std::string base_ref = call.query_or("base");
  if (base_ref.empty()) {
    if (!source.commit.record.parent.empty()) {
      QANAT_ASSIGN_OR_RETURN(const auto parent, call.state.versions->resolve(
                                                    repo_of(call), source.commit.record.parent));
      base = parent.record.root;
    }
  } else {
    const std::string base_repo = call.query_or("base_repo", call.path("repo"));
    if (!call.caller().may_read(call.project(), base_repo))
      return denied(call.caller(), "reader:" + qualified(call.project(), base_repo));
    QANAT_ASSIGN_OR_RETURN(const auto commit,
                           call.state.versions->resolve({call.project(), base_repo}, base_ref));
    base = commit.record.root;
  }
  if (!path.empty() && page.token.empty()) {
    // A path that neither has is most likely a mistake in it.
    QANAT_ASSIGN_OR_RETURN(const auto after, source.tree().find(path));
    QANAT_ASSIGN_OR_RETURN(const auto before,
                           content::Tree(source.content->blobs(), base).find(path));
    if (!after && !before) {
      return not_found(str_cat("/", path, " is in neither of the commits that are compared"),
                       "`qanat list file` shows what is there");
    }
  }
  api::List<api::FileDiff> list;
  list.revision = call.state.meta->current_revision();
  std::string last;
  QANAT_ASSIGN_OR_RETURN(const bool at_end,
                         content::diff_trees(
                             source.content->blobs(), base, source.commit.record.root, path,
                             [&](const content::TreeDifference& d) -> Result<bool> {
                               if (list.items.size() == static_cast<size_t>(page.limit))
                                 return false;
                               api::FileDiff diff;
                               diff.path = show_path(d.path, false);
                               diff.op = !d.before  ? api::DiffOp::kAdded
                                         : !d.after ? api::DiffOp::kDeleted
                                                    : api::DiffOp::kChanged;
                               if (d.before) diff.before = show_file(d.path, *d.before);
                               if (d.after) diff.after = show_file(d.path, *d.after);
                               list.items.push_back(std::move(diff));
                               last = d.path;
                               return true;
                             },
                             page.token));
  if (!at_end) list.next = last;
  return call.answer(list);
}

Status file_history(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(call.query_or("path")));
  QANAT_ASSIGN_OR_RETURN(const auto page, call.page());
  const std::string from = page.token.empty() ? ref_of(call) : page.token;
  QANAT_ASSIGN_OR_RETURN(
      const auto history,
      call.state.versions->history(repo_of(call), from, path, {page.limit, kMaxSearch}));
  api::List<api::FileChange> list;
  list.revision = call.state.meta->current_revision();
  list.next = history.next;
  for (const version::PathChange& change : history.changes) {
    api::FileChange shown;
    shown.commit = show(change.commit);
    shown.op = change.kind == version::PathChange::Kind::kAdded     ? api::DiffOp::kAdded
               : change.kind == version::PathChange::Kind::kDeleted ? api::DiffOp::kDeleted
                                                                    : api::DiffOp::kChanged;
    if (change.entry) shown.file = show_file(path, *change.entry);
    list.items.push_back(std::move(shown));
  }
  return call.answer(list);
}

}  // namespace

void add_file_handlers(Handlers& handlers) {
  handlers["get_file"] = get_file;
  handlers["list_files"] = list_files;
  handlers["glob_files"] = glob_files;
  handlers["stat_file"] = stat_file;
  handlers["archive"] = archive;
  handlers["diff_files"] = diff_files;
  handlers["file_history"] = file_history;
}

}  // namespace qanat::serve
