// Bodies about commits, provenance and waves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/list.h"
#include "qanat/api/time.h"

namespace qanat::api {

enum class CommitState { kOpen, kFinished, kFailed };
inline std::vector<EnumValue> enum_values(CommitState) {
  return {{0, "open"}, {1, "finished"}, {2, "failed"}};
}

enum class CommitKind { kUser, kAuto };
inline std::vector<EnumValue> enum_values(CommitKind) { return {{0, "user"}, {1, "auto"}}; }

// A commit by its names.
struct CommitRef {
  std::string repo;
  std::string branch;
  std::string commit;
};
template <class V>
void describe(V& v, CommitRef& t) {
  v.type("CommitRef", "A commit by its names.");
  v.required("repo", t.repo, "Its repo.");
  v.optional("branch", t.branch, "The branch it was found on.");
  v.required("commit", t.commit, "Its id: 32 hex digits.");
}

struct CommitInfo {
  std::string project;
  std::string repo;
  std::string branch;
  std::string id;
  std::string parent;
  std::vector<std::string> children;
  CommitState state = CommitState::kOpen;
  CommitKind kind = CommitKind::kUser;
  std::string error;
  std::string description;
  Timestamp started;
  Timestamp finished;
  std::string root;
  int64_t files = 0;
  int64_t size_bytes = 0;
  std::vector<CommitRef> provenance;
  std::string pipeline;
  int64_t pipeline_version = 0;
  std::string image_digest;
  int64_t wave = 0;
};
template <class V>
void describe(V& v, CommitInfo& t) {
  v.type("CommitInfo", "A snapshot of a repo.");
  v.optional("project", t.project, "Its project.");
  v.required("repo", t.repo, "Its repo.");
  v.optional("branch", t.branch, "The branch it was made on; absent for a detached commit.");
  v.required("id", t.id, "32 hex digits; shared by all commits and jobs of its wave.");
  v.optional("parent", t.parent, "The commit it follows.");
  v.optional("children", t.children, "Commits that follow it (in answers about one commit).");
  v.required("state", t.state, "open: still written; failed: its job failed, no head shows it.");
  v.required("kind", t.kind, "user: made by a client; auto: made by a pipeline.");
  v.optional("error", t.error, "Why it failed.");
  v.optional("description", t.description, "Free text.");
  v.required("started", t.started, "When it was started.");
  v.optional("finished", t.finished, "When it was finished; absent while open.");
  v.optional("root", t.root, "Hash of its root directory: equal files give equal roots.");
  v.required("files", t.files, "Files in it.");
  v.required("size_bytes", t.size_bytes, "Bytes of its files.");
  v.optional("provenance", t.provenance, "The commits it was made from directly.");
  v.optional("pipeline", t.pipeline, "The pipeline that made it.");
  v.optional("pipeline_version", t.pipeline_version, "Version of that pipeline's spec.");
  v.optional("image_digest", t.image_digest, "Config digest of the image that made it.");
  v.optional("wave", t.wave, "Number of the wave it started or belongs to.");
}

struct StartCommitRequest {
  std::string branch = "master";
  std::string parent;
  std::string description;
};
template <class V>
void describe(V& v, StartCommitRequest& t) {
  v.type("StartCommitRequest", "Opens a commit.");
  v.optional("branch", t.branch,
             "Created when missing; \"\" for a detached commit. Default: master.");
  v.optional("parent", t.parent, "A ref; default: the branch's head.");
  v.optional("description", t.description, "Free text.");
}

struct FinishCommitRequest {
  std::string description;
};
template <class V>
void describe(V& v, FinishCommitRequest& t) {
  v.type("FinishCommitRequest", "Closes a commit; pipelines downstream start.");
  v.optional("description", t.description, "Replaces the one given at the start.");
}

struct ProvenanceInfo {
  CommitInfo commit;
  std::vector<CommitInfo> upstream;
  std::vector<CommitInfo> downstream;
  bool more = false;
};
template <class V>
void describe(V& v, ProvenanceInfo& t) {
  v.type("ProvenanceInfo", "What a commit was made from, and what was made from it.");
  v.required("commit", t.commit,
             "The commit asked about, with the spec version and image that made it.");
  v.required("upstream", t.upstream,
             "The commits it was made from, directly or not; nearest first.");
  v.required("downstream", t.downstream,
             "The commits made from it, directly or not; nearest first.");
  v.optional("more", t.more, "There are more than are listed.");
}

}  // namespace qanat::api
