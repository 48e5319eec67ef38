// Writing files: streams of edits, tars, single files, URLs, deletes. Each request is one commit,
// or goes into an open one; all of it or nothing.

#include <list>
#include <unordered_map>

#include "qanat/api/address.h"
#include "qanat/api/file_stream.h"
#include "qanat/base/name.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/connect/tar_reader.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/tree.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/ending_writer.h"
#include "qanat/serve/http_api.h"
#include "qanat/serve/upload_access.h"

namespace qanat::serve {
namespace {

constexpr size_t kPiece = 256 << 10;
// Named chunks are looked up so many at a time.
constexpr size_t kLookup = 2048;
// Files of a tar that a hard link after them may name: the last so many, with paths of so many
// bytes.
constexpr size_t kLinkable = 64u << 10;
constexpr size_t kLinkableBytes = 8u << 20;

version::RepoName repo_of(const Call& call) { return {call.project(), call.path("repo")}; }
std::string ref_of(const Call& call) { return call.query_or("ref", api::kDefaultBranch); }

// One request that changes files: bytes become stored files as they come, edits are gathered, and
// all of it is applied at once.
class Edit {
 public:
  static Result<std::unique_ptr<Edit>> begin(Call& call,
                                             content::ContentStore::WriterOptions options = {}) {
    // Refused before a body of any size is read, not after.
    QANAT_RETURN_IF_ERROR(check_description(call.query_or("description")));
    QANAT_ASSIGN_OR_RETURN(const auto repo, call.state.versions->inspect_repo(repo_of(call)));
    if (!repo.record.pipeline.empty()) {
      return failed_precondition(str_cat("repo ", repo.repo, " is the output of pipeline ",
                                         repo.record.pipeline, ": only that pipeline writes to it"),
                                 "put the file into one of the pipeline's input repos");
    }
    QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                           call.state.contents->project(call.project()));
    return std::unique_ptr<Edit>(new Edit(call, content, options));
  }

  // The edits may name chunks as this upload may; it ends with them.
  Status use_upload(std::string_view id) {
    QANAT_ASSIGN_OR_RETURN(upload_, open_upload(call_, id));
    if (upload_->upload.record.repo == call_.path("repo")) return ok_status();
    return failed_precondition(str_cat("upload ", id, " is for repo ", upload_->upload.record.repo),
                               "begin one for this repo");
  }

  using Source = std::function<Result<size_t>(char* buffer, size_t size)>;
  Status put(const std::string& path, bool append, const Source& source) {
    return put_file(path, append, source).status();
  }
  Result<content::FileRef> put_file(const std::string& path, bool append, const Source& source) {
    QANAT_RETURN_IF_ERROR(check_path(path));
    QANAT_RETURN_IF_ERROR(put_named());
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const size_t got, source(buffer_.data(), buffer_.size()));
      if (got == 0) break;
      QANAT_RETURN_IF_ERROR(files_.append({buffer_.data(), got}));
    }
    QANAT_ASSIGN_OR_RETURN(const content::FileRef file, files_.finish());
    QANAT_RETURN_IF_ERROR(put_ref(path, append, file));
    return file;
  }
  Status put_ref(const std::string& path, bool append, const content::FileRef& file) {
    return edits_.add(append ? content::TreeEdit::append(path, file)
                             : content::TreeEdit::put(path, file));
  }

  // A file whose chunks the reader names.
  Status put_chunks(const std::string& path, bool append, api::FileStreamReader& in) {
    Named file{path, append, {}};
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const auto chunk, in.next_chunk());
      if (!chunk) break;
      file.chunks.push_back(*chunk);
      if (file.chunks.size() < kLookup) continue;
      // A long file: as it comes.
      QANAT_RETURN_IF_ERROR(put_named());
      QANAT_RETURN_IF_ERROR(append_chunks(file.chunks));
      file.chunks.clear();
    }
    if (files_.size() > 0) {
      QANAT_RETURN_IF_ERROR(append_chunks(file.chunks));
      QANAT_ASSIGN_OR_RETURN(const content::FileRef whole, files_.finish());
      return put_ref(path, append, whole);
    }
    named_chunks_ += file.chunks.size() + 1;
    named_.push_back(std::move(file));
    return named_chunks_ < kLookup ? ok_status() : put_named();
  }

  // A file that the branch holds at this path, by its content id.
  Status put_same(const std::string& path, const Hash& content_id) {
    QANAT_RETURN_IF_ERROR(put_named());
    if (!base_) {
      // By the time the edits are applied the branch may have moved on, and nothing else may hold
      // these files: an open commit keeps no history.
      QANAT_RETURN_IF_ERROR(writer_->rely_on_epoch());
      QANAT_ASSIGN_OR_RETURN(const auto commit, call_.state.versions->resolve_for_write(
                                                    repo_of(call_), ref_of(call_)));
      base_.emplace(content_->blobs(), commit ? commit->record.root : content::TreeRoot());
    }
    QANAT_ASSIGN_OR_RETURN(const auto entry, base_->find(path));
    if (entry && !entry->is_directory && entry->file.content_id() == content_id)
      return edits_.add(content::TreeEdit::put(path, entry->file));
    return conflict(str_cat("/", path, " on the branch is not what the request says it is"),
                    "send the file itself");
  }

  Status remove(const std::string& path) {
    QANAT_RETURN_IF_ERROR(put_named());
    return edits_.add(content::TreeEdit::remove(path));
  }

  Status copy(const api::CopySource& source, const std::string& path) {
    QANAT_RETURN_IF_ERROR(put_named());
    const std::string repo = source.repo.empty() ? call_.path("repo") : source.repo;
    if (!call_.caller().may_read(call_.project(), repo))
      return denied(call_.caller(), "reader:" + qualified(call_.project(), repo));
    // What is copied is read from here on, and the edit does not compare that its commit stays.
    QANAT_RETURN_IF_ERROR(writer_->rely_on_epoch());
    QANAT_ASSIGN_OR_RETURN(const auto commit,
                           call_.state.versions->resolve({call_.project(), repo}, source.ref));
    QANAT_ASSIGN_OR_RETURN(const std::string from, parse_path(source.path));
    QANAT_ASSIGN_OR_RETURN(const content::TreeEntry entry,
                           content::Tree(content_->blobs(), commit.record.root).stat(from));
    if (!entry.is_directory) return edits_.add(content::TreeEdit::put(path, entry.file));
    return edits_.add(content::TreeEdit::put_directory(path, entry.directory));
  }

  // All files of a tar, below `directory`.
  Status put_tar(const std::string& directory, bool append, const Source& source) {
    connect::TarReader tar(source);
    bool empty = true;
    const Source content = [&tar](char* buffer, size_t size) { return tar.read(buffer, size); };
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const auto entry, tar.next());
      if (!entry && empty) {
        return invalid_argument("there is nothing to put: the tar holds no files",
                                "Directories exist through their files.");
      }
      if (!entry) return ok_status();
      empty = false;
      const std::string path = join_path(directory, entry->path);
      content::FileRef file;
      if (entry->link.empty()) {
        QANAT_ASSIGN_OR_RETURN(file, put_file(path, append, content));
      } else {
        const auto found = linkable_.find(entry->link);
        if (found == linkable_.end()) {
          return invalid_argument(
              str_cat("tar: ", quoted(entry->path), " is a hard link to ", quoted(entry->link),
                      ", which is none of the files shortly before it"),
              "pack it with --hard-dereference");
        }
        file = found->second;
        QANAT_RETURN_IF_ERROR(put_ref(path, append, file));
      }
      remember_linkable(entry->path, file);
    }
  }

  // Applies what was gathered; answers with the commit.
  Status finish(const std::string& description) {
    QANAT_RETURN_IF_ERROR(put_named());
    if (edits_.size() == 0) return invalid_argument("the request holds no edits");
    QANAT_RETURN_IF_ERROR(check_description(description));
    std::optional<EndingWriter> ending;
    if (upload_) ending.emplace(*writer_, *call_.state.meta, upload_->upload);
    content::ContentWriter& writer = ending ? *ending : *writer_;
    // Applied again when the head moved meanwhile.
    QANAT_ASSIGN_OR_RETURN(const auto written, call_.state.versions->apply(
                                                   repo_of(call_), ref_of(call_), writer,
                                                   [this](const content::TreeRoot& base) {
                                                     return edits_.apply(*writer_, base);
                                                   },
                                                   description));
    const Status answered = call_.answer(show(written.commit));
    // Its record went with the edit. The rest is not worth a client's wait, and expires.
    if (upload_) (void)content::end_upload(*call_.state.meta, upload_->upload);
    return answered;
  }

 private:
  struct Named {
    std::string path;
    bool append;
    std::vector<api::ChunkName> chunks;
  };

  Edit(Call& call, content::ContentStore* content, content::ContentStore::WriterOptions options)
      : call_(call),
        content_(content),
        writer_(content->new_writer(options)),
        files_(*writer_),
        edits_(*call.state.scratch.file_system, call.state.scratch.directory,
               call.state.scratch.memory_budget) {}

  // The chunks as they are known here, each one relied on.
  Result<std::vector<content::KnownChunk>> look_up(const std::vector<api::ChunkName>& names) {
    if (!upload_) {
      return invalid_argument("the edits name chunks, but no upload",
                              "begin an upload, and name it: ?upload=ID");
    }
    std::vector<Hash> hashes;
    hashes.reserve(names.size());
    for (const api::ChunkName& name : names) hashes.push_back(name.hash);
    QANAT_ASSIGN_OR_RETURN(const auto found, writer_->find_chunks(hashes));
    std::vector<content::KnownChunk> known;
    known.reserve(names.size());
    for (size_t i = 0; i < names.size(); ++i) {
      if (!found[i] || !upload_->may_use(*found[i])) {
        // Which one is not said: whether a chunk is there is not for everyone to know.
        return conflict("content that the edits name is not there",
                        "ask what is there and send the rest again, then the edits");
      }
      if (found[i]->size != names[i].size) {
        return invalid_argument(str_cat("chunk ", names[i].hash.to_hex(), " has ", found[i]->size,
                                        " bytes, the edits say ", names[i].size));
      }
      writer_->rely_on(*found[i]);
      known.push_back(*found[i]);
    }
    return known;
  }

  Status append_known(const api::ChunkName& name, const content::KnownChunk& known) {
    return files_.append_chunk(name.size, name.hash, known.ends_in_cut);
  }

  Status append_chunks(const std::vector<api::ChunkName>& names) {
    QANAT_ASSIGN_OR_RETURN(const auto known, look_up(names));
    for (size_t i = 0; i < names.size(); ++i)
      QANAT_RETURN_IF_ERROR(append_known(names[i], known[i]));
    return ok_status();
  }

  // The files of which only names are known so far.
  Status put_named() {
    if (named_.empty()) return ok_status();
    std::vector<api::ChunkName> names;
    names.reserve(named_chunks_);
    for (const Named& file : named_)
      names.insert(names.end(), file.chunks.begin(), file.chunks.end());
    QANAT_ASSIGN_OR_RETURN(const auto known, look_up(names));
    size_t at = 0;
    for (const Named& file : named_) {
      for (const api::ChunkName& chunk : file.chunks)
        QANAT_RETURN_IF_ERROR(append_known(chunk, known[at++]));
      QANAT_ASSIGN_OR_RETURN(const content::FileRef whole, files_.finish());
      QANAT_RETURN_IF_ERROR(put_ref(file.path, file.append, whole));
    }
    named_.clear();
    named_chunks_ = 0;
    return ok_status();
  }

  void remember_linkable(const std::string& path, const content::FileRef& file) {
    const auto [place, added] = linkable_.insert_or_assign(path, file);
    if (!added) return;
    linkable_order_.push_back(&place->first);
    linkable_bytes_ += path.size();
    while (linkable_order_.size() > kLinkable || linkable_bytes_ > kLinkableBytes) {
      const std::string oldest = *linkable_order_.front();
      linkable_order_.pop_front();
      linkable_bytes_ -= oldest.size();
      linkable_.erase(oldest);
    }
  }

  Call& call_;
  content::ContentStore* content_;
  std::unique_ptr<content::ContentWriter> writer_;
  content::FileWriter files_;
  content::EditBuffer edits_;
  std::optional<UploadAccess> upload_;
  std::vector<Named> named_;
  size_t named_chunks_ = 0;
  std::optional<content::Tree> base_;  // what the branch holds, for `same` frames
  std::unordered_map<std::string, content::FileRef> linkable_;  // by path in the tar
  std::list<const std::string*> linkable_order_;                // its keys, oldest first
  size_t linkable_bytes_ = 0;                                   // of its keys
  std::vector<char> buffer_ = std::vector<char>(kPiece);
};

// A stream that ends before its end is the sender's doing, and no loss of what is stored here.
Status of_sender(Status status) {
  if (status.code() != Code::kDataLoss) return status;
  return invalid_argument(status.message(), "nothing was changed; send it again");
}

Status edit_tar(Call& call, Edit& edit) {
  QANAT_ASSIGN_OR_RETURN(const bool append, call.query().get_bool("append"));
  QANAT_ASSIGN_OR_RETURN(const std::string directory, parse_path(call.query_or("path")));
  QANAT_RETURN_IF_ERROR(edit.put_tar(directory, append, [&call](char* buffer, size_t size) {
    return call.request.read(buffer, size);
  }));
  return edit.finish(call.query_or("description"));
}

Status edit_files(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto edit, Edit::begin(call));
  if (call.request.head().headers.get("Content-Type") == connect::kTarType)
    return edit_tar(call, *edit);
  if (const std::string upload = call.query_or("upload"); !upload.empty())
    QANAT_RETURN_IF_ERROR(edit->use_upload(upload));
  std::string description = call.query_or("description");
  api::FileStreamReader::Limits limits;
  limits.names = true;
  api::FileStreamReader in(
      [&call](char* buffer, size_t size) { return call.request.read(buffer, size); }, limits);
  const auto content = [&in](char* buffer, size_t size) -> Result<size_t> {
    auto got = in.read(buffer, size);
    if (!got.ok()) return of_sender(got.status());
    return got;
  };
  while (true) {
    const auto frame = in.next();
    if (!frame.ok()) return of_sender(frame.status());
    if (!*frame) break;
    switch ((*frame)->type) {
      case api::FrameType::kHead: {
        QANAT_ASSIGN_OR_RETURN(const auto head, api::parse_json<api::EditsHead>((*frame)->json));
        if (!head.description.empty()) description = head.description;
        break;
      }
      case api::FrameType::kPut:
        QANAT_RETURN_IF_ERROR(edit->put((*frame)->path, (*frame)->append, content));
        break;
      case api::FrameType::kChunks:
        QANAT_RETURN_IF_ERROR(of_sender(edit->put_chunks((*frame)->path, (*frame)->append, in)));
        break;
      case api::FrameType::kSame:
        QANAT_RETURN_IF_ERROR(edit->put_same((*frame)->path, (*frame)->content_id));
        break;
      case api::FrameType::kDelete:
        QANAT_RETURN_IF_ERROR(edit->remove((*frame)->path));
        break;
      case api::FrameType::kCopy: {
        QANAT_ASSIGN_OR_RETURN(const auto source, api::parse_json<api::CopySource>((*frame)->json));
        QANAT_RETURN_IF_ERROR(edit->copy(source, (*frame)->path));
        break;
      }
      default:
        return invalid_argument("a stream of edits holds only puts, deletes and copies");
    }
  }
  return edit->finish(description);
}

Status put_file(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const bool append, call.query().get_bool("append"));
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(call.path("path")));
  QANAT_ASSIGN_OR_RETURN(const auto edit, Edit::begin(call));
  QANAT_RETURN_IF_ERROR(edit->put(path, append, [&call](char* buffer, size_t size) {
    return call.request.read(buffer, size);
  }));
  return edit->finish(call.query_or("description"));
}

Status put_url(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::PutUrlRequest>());
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(body.path));
  if (path.empty() && !body.untar) return invalid_argument("there is no path to put it at");
  net::ClientRequest request;
  QANAT_ASSIGN_OR_RETURN(request.url, net::Url::parse(body.url));
  if (request.url.scheme != "http" && request.url.scheme != "https") {
    return invalid_argument(str_cat("URLs of scheme ", request.url.scheme, " cannot be fetched"),
                            "http and https can");
  }
  QANAT_ASSIGN_OR_RETURN(const auto edit, Edit::begin(call));
  request.max_redirects = 10;
  auto answer = call.state.fetcher->send(request);
  if (!answer.ok()) return answer.status().with_context(str_cat("fetching ", body.url));
  if (!(*answer)->ok())
    return failed_precondition(
        str_cat("fetching ", body.url, ": it answered with HTTP status ", (*answer)->status()));
  const auto content = [&answer](char* buffer, size_t size) {
    return (*answer)->read(buffer, size);
  };
  const Status put = body.untar ? edit->put_tar(path, body.append, content)
                                : edit->put(path, body.append, content);
  if (!put.ok()) return put.with_context(str_cat("fetching ", body.url));
  return edit->finish(call.query_or("description"));
}

Status delete_file(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const std::string path, parse_path(call.path("path")));
  const std::string ref = ref_of(call);
  // A delete of what is not there is most likely a mistake in the path.
  QANAT_ASSIGN_OR_RETURN(const auto commit,
                         call.state.versions->resolve_for_write(repo_of(call), ref));
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                         call.state.contents->project(call.project()));
  const auto entry =
      content::Tree(content->blobs(), commit ? commit->record.root : content::TreeRoot())
          .stat(path);
  if (!entry.ok()) return entry.status().with_context(str_cat(call.path("repo"), "@", ref));
  QANAT_ASSIGN_OR_RETURN(const auto edit, Edit::begin(call, {.may_use_reserve = true}));
  QANAT_RETURN_IF_ERROR(edit->remove(path));
  return edit->finish(call.query_or("description"));
}

}  // namespace

void add_edit_handlers(Handlers& handlers) {
  handlers["edit_files"] = edit_files;
  handlers["put_file"] = put_file;
  handlers["put_url"] = put_url;
  handlers["delete_file"] = delete_file;
}

}  // namespace qanat::serve
