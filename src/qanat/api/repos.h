// Bodies about projects, repos and branches.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/list.h"
#include "qanat/api/time.h"

namespace qanat::api {

struct ProjectInfo {
  std::string name;
  std::string description;
  Timestamp created;
};
template <class V>
void describe(V& v, ProjectInfo& t) {
  v.type("ProjectInfo", "A namespace of repos and pipelines.");
  v.required("name", t.name, "Its name.");
  v.optional("description", t.description, "Free text.");
  v.optional("created", t.created, "When it was created; not to be given when creating one.");
}

struct RepoInfo {
  std::string project;
  std::string name;
  std::string description;
  Timestamp created;
  std::string pipeline;
  std::vector<std::string> branches;
  int64_t size_bytes = 0;
  int64_t files = 0;
};
template <class V>
void describe(V& v, RepoInfo& t) {
  v.type("RepoInfo", "A named, versioned file tree.");
  v.optional("project", t.project, "Its project.");
  v.required("name", t.name, "Its name.");
  v.optional("description", t.description, "Free text.");
  v.required("created", t.created, "When it was created.");
  v.optional("pipeline", t.pipeline, "The pipeline whose output it is.");
  v.required("branches", t.branches, "Names of its branches.");
  v.required("size_bytes", t.size_bytes, "Bytes of the files at the head of master.");
  v.required("files", t.files, "Files at the head of master.");
}

struct CreateRepoRequest {
  std::string name;
  std::string description;
};
template <class V>
void describe(V& v, CreateRepoRequest& t) {
  v.type("CreateRepoRequest", "Creates a repo.");
  v.required("name", t.name, "Letters, digits, _ and -.");
  v.optional("description", t.description, "Free text.");
}

struct UpdateRepoRequest {
  std::string description;
};
template <class V>
void describe(V& v, UpdateRepoRequest& t) {
  v.type("UpdateRepoRequest", "Changes a repo.");
  v.required("description", t.description, "Free text.");
}

struct BranchRef {
  std::string repo;
  std::string branch;
};
template <class V>
void describe(V& v, BranchRef& t) {
  v.type("BranchRef", "A branch by its names.");
  v.required("repo", t.repo, "Its repo.");
  v.required("branch", t.branch, "Its name.");
}

struct BranchInfo {
  std::string project;
  std::string repo;
  std::string name;
  std::string head;
  std::string open_commit;
  std::vector<BranchRef> provenance;
  Timestamp created;
};
template <class V>
void describe(V& v, BranchInfo& t) {
  v.type("BranchInfo", "A movable name for a commit.");
  v.optional("project", t.project, "Its project.");
  v.required("repo", t.repo, "Its repo.");
  v.required("name", t.name, "Its name.");
  v.optional("head", t.head, "Id of the last finished commit; absent when there is none.");
  v.optional("open_commit", t.open_commit, "Id of the commit that is open on it.");
  v.optional("provenance", t.provenance, "The branches it is derived from.");
  v.optional("created", t.created, "When it was created.");
}

struct PutBranchRequest {
  std::optional<std::string> head;
  std::optional<std::vector<BranchRef>> provenance;
};
template <class V>
void describe(V& v, PutBranchRequest& t) {
  v.type("PutBranchRequest",
         "Creates a branch, moves its head (backward too), or changes what it is derived from.");
  v.optional("head", t.head, "A ref in this repo; \"\" takes the head away. Absent: as it is.");
  v.optional("provenance", t.provenance, "The branches it is derived from. Absent: as it is.");
}

}  // namespace qanat::api
