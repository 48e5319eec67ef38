// What meta holds about versions, as structs, and their stored form: JSON objects with a format
// version in "v". Where each lies is in keys.h.
//
// Decoding is strict: a record that cannot be understood is kDataLoss naming the key, never half a
// record.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/content/tree.h"

namespace qanat::version {

// Times are milliseconds since 1970; 0 is "not yet".

struct RepoName {
  std::string project = "default";
  std::string repo;
  auto operator<=>(const RepoName&) const = default;
};

// A branch, inside a project.
struct BranchName {
  std::string repo;
  std::string branch = "master";
  auto operator<=>(const BranchName&) const = default;
  std::string to_string() const;  // "repo@branch"
};

struct ProjectRecord {
  int64_t created_ms = 0;
  std::string description;
};

struct RepoRecord {
  int64_t created_ms = 0;
  std::string description;
  std::string pipeline;    // whose output it is; "" for a user's repo. Users cannot write to a
                           // pipeline's repo
  bool deleting = false;   // its deletion began; it is as good as gone
  std::string trash;       // while deleting: the id of the trash record that it moves to; "": none
  bool restoring = false;  // while deleting: it moves back from there
};

struct BranchRecord {
  std::string head;                    // the last finished commit; "" when there is none
  int64_t head_wave = 0;               // the wave that moved the head here
  std::string open;                    // the open commit started on it; "" when there is none
  std::string pipeline;                // whose output it is: only that pipeline moves its head
  std::vector<BranchName> provenance;  // direct: what it is derived from
  int64_t created_ms = 0;
};

enum class CommitOrigin { kUser, kPipeline };

// A commit that a pipeline's output commit was computed from.
struct CommitInput {
  std::string name;  // of the pipeline's input
  std::string repo;
  std::string branch;
  std::string commit;  // "" when the branch had none
  int64_t wave = 0;    // the wave whose commit this is
};

struct CommitRecord {
  CommitOrigin origin = CommitOrigin::kUser;
  std::string branch;  // that it was made on; "" for a detached one
  std::string parent;  // "" for the first
  int64_t depth = 1;   // commits from the first to this one, both counted
  std::string jump;  // an ancestor further away, which makes ancestry logarithmic (see ancestry.h)
  int64_t wave = 0;  // of its finishing; 0 while open
  int64_t started_ms = 0;
  int64_t finished_ms = 0;  // 0 while open
  std::string description;
  content::TreeRoot root;
  std::string error;  // why it failed: such a commit is no branch's head
  // Provenance; only with origin kPipeline.
  std::string pipeline;
  int64_t spec_version = 0;
  std::string image;  // config digest
  std::vector<CommitInput> inputs;

  bool finished() const { return finished_ms != 0; }
};

// A commit with its name.
struct CommitInfo {
  std::string project;
  std::string repo;
  std::string id;
  CommitRecord record;
  int64_t mod_revision = 0;  // of the record
};

enum class WaveCause { kCommit, kHeadMoved, kPipeline };

struct HeadChange {
  BranchName branch;
  std::string commit;
};

struct WaveRecord {
  std::string id;  // shared by all its commits and jobs
  WaveCause cause = WaveCause::kCommit;
  std::vector<HeadChange> changed;
  std::vector<std::string> members;  // pipelines that run in it, in topological order
  int64_t created_ms = 0;
};

struct WaveInfo {
  int64_t number = 0;
  WaveRecord record;
  int64_t revision = 0;  // of the transaction that started it
};

// What a head was from a wave on.
struct HeadEntry {
  int64_t wave = 0;
  std::string commit;
};

// What was deleted and can still be brought back. Its parts lie beside it, under the keys they had
// (see trash_items_prefix).
struct TrashRecord {
  std::string kind;    // "repo", "branch" or "commit"
  std::string repo;    // of a repo or branch
  std::string branch;  // of a branch
  std::string commit;  // id of the commits
  int64_t deleted_ms = 0;
  int64_t expires_ms = 0;  // from then on collection may remove it
  // "moving": its parts are on their way here; "whole"; "restoring": on their way back; "erasing":
  // it does not stay here, its parts are being erased. Only what is whole is removed or restored
  // anew.
  std::string state = "whole";
  int64_t before_wave = 0;  // of a branch: all that its heads were lies before this wave
  std::string how;          // of commits: "squash" or "drop"
  // Of squashed commits: those whose parent they were, as "repo@id".
  std::vector<std::string> children;
};

// A record of the trash with its name.
struct TrashInfo {
  std::string id;
  TrashRecord record;
  int64_t mod_revision = 0;
};

struct SessionRecord {
  std::string server;  // host and process, for a person
  int64_t started_ms = 0;
  // Project -> the lowest epoch in which a living writer of this server may have begun. A project
  // that is not in it has no writer here.
  std::map<std::string, int64_t> epochs;
};

std::string encode(const ProjectRecord& record);
std::string encode(const RepoRecord& record);
std::string encode(const BranchRecord& record);
std::string encode(const CommitRecord& record);
std::string encode(const WaveRecord& record);
std::string encode(const HeadEntry& entry);  // without the wave, which is in the key
std::string encode(const SessionRecord& record);
std::string encode(const TrashRecord& record);

// decode<RepoRecord>(key, value): for the types above. `key` is for the error.
template <class Record>
Result<Record> decode(std::string_view key, std::string_view value);

}  // namespace qanat::version
