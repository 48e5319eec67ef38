// Bodies about files in commits. Bytes travel as such, or in a FileStream (file_stream.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "qanat/api/commits.h"
#include "qanat/api/describe.h"
#include "qanat/api/list.h"

namespace qanat::api {

enum class FileType { kFile, kDirectory };
inline std::vector<EnumValue> enum_values(FileType) { return {{0, "file"}, {1, "directory"}}; }

struct FileInfo {
  std::string path;
  FileType type = FileType::kFile;
  int64_t size_bytes = 0;
  int64_t files = 0;
  std::string hash;
  std::string commit;
};
template <class V>
void describe(V& v, FileInfo& t) {
  v.type("FileInfo", "A file or directory of a commit.");
  v.required("path", t.path, "With a leading slash; a directory's ends in a slash.");
  v.required("type", t.type, "file or directory.");
  v.required("size_bytes", t.size_bytes, "Bytes; of a directory: of all files in it.");
  v.optional("files", t.files, "Of a directory: files in it, at any depth.");
  v.optional("hash", t.hash, "Content id: equal content, equal hash, wherever it is.");
  v.optional("commit", t.commit, "The commit it was read from (in answers about one file).");
}

enum class DiffOp { kAdded, kDeleted, kChanged };
inline std::vector<EnumValue> enum_values(DiffOp) {
  return {{0, "added"}, {1, "deleted"}, {2, "changed"}};
}

struct FileDiff {
  std::string path;
  DiffOp op = DiffOp::kAdded;
  std::optional<FileInfo> before;
  std::optional<FileInfo> after;
};
template <class V>
void describe(V& v, FileDiff& t) {
  v.type("FileDiff", "A path that differs between two commits.");
  v.required("path", t.path, "With a leading slash.");
  v.required("op", t.op, "What happened to it.");
  v.optional("before", t.before, "As it was; absent when added.");
  v.optional("after", t.after, "As it is; absent when deleted.");
}

struct FileChange {
  CommitInfo commit;
  DiffOp op = DiffOp::kAdded;
  std::optional<FileInfo> file;
};
template <class V>
void describe(V& v, FileChange& t) {
  v.type("FileChange", "A commit that changed a path.");
  v.required("commit", t.commit, "The commit.");
  v.required("op", t.op, "What it did to the path.");
  v.optional("file", t.file, "As this commit has it; absent when deleted.");
}

// JSON of a `copy` frame in a stream of edits.
struct CopySource {
  std::string repo;
  std::string ref;
  std::string path;
};
template <class V>
void describe(V& v, CopySource& t) {
  v.type("CopySource", "Where a copied file or directory comes from.");
  v.optional("repo", t.repo,
             "Its repo, readable with the same token; default: the repo written to.");
  v.required("ref", t.ref, "The commit: a branch or an id.");
  v.required("path", t.path, "The file or directory in it.");
}

// JSON of the `head` frame of a stream of edits (optional).
struct EditsHead {
  std::string description;
};
template <class V>
void describe(V& v, EditsHead& t) {
  v.type("EditsHead", "About a stream of edits.");
  v.optional("description", t.description, "Description of the commit, if the edits make one.");
}

// JSON of the `head` frame of an archive.
struct ArchiveHead {
  std::string repo;
  std::string commit;
  int64_t files = 0;
  int64_t size_bytes = 0;
};
template <class V>
void describe(V& v, ArchiveHead& t) {
  v.type("ArchiveHead",
         "About an archive. Paths in it are whole paths in the commit, without a leading slash.");
  v.required("repo", t.repo, "The repo.");
  v.required("commit", t.commit, "Id of the commit it is read from.");
  v.optional("files", t.files, "Files in it, when known beforehand; 0 when not.");
  v.optional("size_bytes", t.size_bytes, "Bytes of them, when known beforehand.");
}

struct PutUrlRequest {
  std::string url;
  std::string path;
  bool append = false;
  bool untar = false;
};
template <class V>
void describe(V& v, PutUrlRequest& t) {
  v.type("PutUrlRequest",
         "Has the server fetch a file. Private, loopback and link-local addresses are refused "
         "unless the server allows them.");
  v.required("url", t.url, "http or https.");
  v.required("path", t.path, "Where it is put; with untar the directory, which may be the root.");
  v.optional("append", t.append, "Append to what is there.");
  v.optional("untar", t.untar, "It is a tar: put the files in it.");
}

struct BeginUploadRequest {
  std::string repo;
};
template <class V>
void describe(V& v, BeginUploadRequest& t) {
  v.type("BeginUploadRequest",
         "Begins an upload: chunks are sent first, any number of requests at a time, and then the "
         "edits that name them.");
  v.required("repo", t.repo, "The repo that the edits are for.");
}

struct UploadInfo {
  std::string id;
  std::string repo;
  int64_t expires_ms = 0;
};
template <class V>
void describe(V& v, UploadInfo& t) {
  v.type("UploadInfo", "An upload. What it wrote stays until it is ended or expires.");
  v.required("id", t.id, "Its id.");
  v.required("repo", t.repo, "The repo that the edits are for.");
  v.required("expires_ms", t.expires_ms,
             "How long after its last use it expires, in milliseconds.");
}

}  // namespace qanat::api
