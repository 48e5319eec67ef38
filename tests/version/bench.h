// Everything that Versions stands on, real, over one file system.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "qanat/base/clock.h"
#include "qanat/base/file_system.h"
#include "qanat/base/string.h"
#include "qanat/content/content_store.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"
#include "qanat/meta/sqlite_store.h"
#include "qanat/object/local_object_store.h"
#include "qanat/version/session.h"
#include "qanat/version/versions.h"

namespace qanat::version {

// The edits of one put, in order.
struct Change {
  enum class Kind { kPut, kAppend, kDelete };
  Kind kind = Kind::kPut;
  std::string path;
  std::string bytes;
};
inline Change put(std::string path, std::string bytes) {
  return {Change::Kind::kPut, std::move(path), std::move(bytes)};
}
inline Change append(std::string path, std::string bytes) {
  return {Change::Kind::kAppend, std::move(path), std::move(bytes)};
}
inline Change remove(std::string path) { return {Change::Kind::kDelete, std::move(path), ""}; }

// A server's storage in a folder. Opening may fail (a crashed disk): see `status`.
class Bench {
 public:
  // `files` and `clock` must outlive it.
  Bench(FileSystem& files, std::string folder, Clock& clock = real_clock())
      : files_(files), folder_(std::move(folder)), clock_(clock) {
    status = open();
  }

  Versions& versions() { return *versions_; }
  meta::SqliteStore& meta() { return *meta_; }
  content::ContentStores& contents() { return *contents_; }
  object::LocalObjectStore& objects() { return *objects_; }
  Session& session() { return *session_; }

  Result<Written> apply(const RepoName& repo, std::string_view ref,
                        const std::vector<Change>& changes) {
    QANAT_ASSIGN_OR_RETURN(auto* content, contents_->project(repo.project));
    auto writer = content->new_writer();
    std::vector<content::TreeEdit> edits;
    for (const Change& change : changes) {
      if (change.kind == Change::Kind::kDelete) {
        edits.push_back(content::TreeEdit::remove(change.path));
        continue;
      }
      QANAT_ASSIGN_OR_RETURN(auto file, content::write_file(*writer, change.bytes));
      edits.push_back(change.kind == Change::Kind::kPut
                          ? content::TreeEdit::put(change.path, file)
                          : content::TreeEdit::append(change.path, file));
    }
    return versions_->apply(repo, ref, *writer,
                            [&](const content::TreeRoot& base) -> Result<content::TreeRoot> {
                              content::EditBuffer buffer(files_, folder_ + "/tmp");
                              for (const auto& edit : edits)
                                QANAT_RETURN_IF_ERROR(buffer.add(edit));
                              return buffer.apply(*writer, base);
                            });
  }

  // All files of a commit, by path.
  Result<std::map<std::string, std::string>> files_of(const CommitInfo& commit) {
    QANAT_ASSIGN_OR_RETURN(auto* content, contents_->project(commit.project));
    std::map<std::string, std::string> all;
    content::Tree tree(content->blobs(), commit.record.root);
    auto walked =
        tree.walk("", [&](std::string_view path, const content::TreeEntry& entry) -> Result<bool> {
          content::FileReader reader(content->blobs(), entry.file);
          QANAT_ASSIGN_OR_RETURN(all[std::string(path)], reader.read_all(1 << 30));
          return true;
        });
    QANAT_RETURN_IF_ERROR(walked.status());
    return all;
  }

  Status status;

 private:
  Status open() {
    QANAT_RETURN_IF_ERROR(files_.make_directories(folder_ + "/tmp"));
    QANAT_ASSIGN_OR_RETURN(
        meta_, meta::SqliteStore::open(files_, clock_, folder_ + "/meta", {.reserve_bytes = 0}));
    QANAT_ASSIGN_OR_RETURN(objects_, object::LocalObjectStore::open(files_, folder_ + "/objects",
                                                                    {.reserve_bytes = 0}));
    QANAT_ASSIGN_OR_RETURN(session_, Session::start(*meta_, clock_, "test"));
    contents_ = content::ContentStores::create(meta_.get(), objects_.get(),
                                               {.pins = session_.get(),
                                                .now_ms = [this] { return clock_.wall_ms(); },
                                                .background = false});
    versions_ = std::make_unique<Versions>(
        *meta_, clock_, [this](std::string_view project) -> Result<content::BlobReader*> {
          QANAT_ASSIGN_OR_RETURN(auto* content, contents_->project(project));
          return &content->blobs();
        });
    return versions_->start();
  }

  FileSystem& files_;
  const std::string folder_;
  Clock& clock_;
  std::unique_ptr<meta::SqliteStore> meta_;
  std::unique_ptr<object::LocalObjectStore> objects_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<content::ContentStores> contents_;
  std::unique_ptr<Versions> versions_;
};

}  // namespace qanat::version
