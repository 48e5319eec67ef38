// Versions: which versions exist. Repos, branches, commits and waves, kept in meta; their content
// is a root directory each, which content/ stores.
//
// One object serves all projects of a server. It holds no state that matters: every change is one
// meta transaction (or, for the deletion of a repo, a resumable row of them) that compares what it
// was computed from and is computed anew when it lost. Inside one process, locks a branch and a
// project wide keep that from happening often; between servers the compares alone decide.
//
// Waves (docs/architecture.md, "Versions and waves"). Whatever moves the head of a user's branch
// starts a wave in the same transaction. The number comes from `wave-next`, which each change of
// the DAG writes too: comparing it means that the members are those of the DAG at that moment.
//
// Commits of users: put_files-style edits come through apply(), or between start_commit() and
// finish_commit(). Commits of pipelines: output_transaction().
//
// Errors. kNotFound: a project, repo, branch or commit that is not there (the message names it).
// kFailedPrecondition: the state forbids it, with a hint how to get on. kConflict: lost every retry
// (contention from other servers). What fails changes nothing, unless said otherwise.
//
// Threads. Everything may be called from any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/content_writer.h"
#include "qanat/content/tree.h"
#include "qanat/meta/store.h"
#include "qanat/version/records.h"

namespace qanat::version {

// What pipeline/ tells about the DAG.
class DagView {
 public:
  virtual ~DagView() = default;
  // The pipelines that run when these branches' heads move: downstream through any number of
  // stages, in topological order, each once, without those that are stopped (nor what is reached
  // through them alone). Must know every transaction up to meta revision `revision`.
  virtual Result<std::vector<std::string>> downstream(std::string_view project,
                                                      const std::vector<BranchName>& changed,
                                                      int64_t revision) = 0;
};

// A page of a list. All pages of a list are of one revision; kGone when it was compacted meanwhile:
// list again.
struct PageRequest {
  int64_t limit = 100;
  std::string token;  // Page::next of the page before; "" for the first
};
template <class T>
struct Page {
  std::vector<T> items;
  std::string next;  // "" at the end
  int64_t revision = 0;
};

struct RepoInfo {
  std::string project;
  std::string repo;
  RepoRecord record;
};

struct BranchInfo {
  std::string project;
  BranchName name;
  BranchRecord record;
};

// What a write did. `revision` is that of its transaction: whoever has it sees the write.
struct Written {
  CommitInfo commit;
  std::optional<WaveInfo> wave;  // none when the commit stays open, or a head did not move
  int64_t revision = 0;
};
struct BranchWritten {
  BranchInfo branch;
  std::optional<WaveInfo> wave;
  int64_t revision = 0;
};

// A wave about to start: its record, the `head/` entries of `changed` and `wave-next` are written
// beside `with`, which holds the rest (branch records among it). Computed by a function that is
// called again whenever it lost a race.
struct WaveDraft {
  WaveCause cause = WaveCause::kPipeline;
  std::string id;  // "": a fresh one
  std::vector<HeadChange> changed;
  std::vector<std::string> members;
  meta::Transaction with;  // further compares and operations of the same transaction
  bool needs_wave = true;  // false: only `with`, but still fenced by wave-next (a pipeline was
                           // stopped or deleted)
};
using DraftWave = std::function<Result<WaveDraft>(int64_t revision)>;

// A pipeline's output of one wave.
struct OutputCommit {
  BranchName branch;
  std::string id;  // the wave's
  int64_t wave = 0;
  int64_t started_ms = 0;
  content::TreeRoot root;
  std::string error;  // "" for success. A failed commit moves no head
  std::string description;
  std::string pipeline;
  int64_t spec_version = 0;
  std::string image;
  std::vector<CommitInput> inputs;
};

// The commits that one was made from, and those made from it, each once; nearest first.
struct Provenance {
  std::vector<CommitInfo> upstream;
  std::vector<CommitInfo> downstream;
  bool more = false;  // cut at the limit
};

// One commit of the history of a path.
struct PathChange {
  enum class Kind { kAdded, kChanged, kDeleted };
  CommitInfo commit;
  Kind kind = Kind::kAdded;
  std::optional<content::TreeEntry> entry;  // as this commit has it; none when deleted
};
struct PathHistory {
  std::vector<PathChange> changes;
  int64_t searched = 0;  // commits looked at
  std::string next;      // the commit to go on from; "" at the end
};

class Versions {
 public:
  // Content's reader of a project, for what must look into trees. Must stay valid as long as this
  // object.
  using Readers = std::function<Result<content::BlobReader*>(std::string_view project)>;
  // The edit of a put: gives the new root of `base`, adding nodes to the writer it captured. Called
  // again when the head moved.
  using Edit = std::function<Result<content::TreeRoot>(const content::TreeRoot& base)>;

  // All must outlive this object. `dag` may be nullptr: no pipelines.
  Versions(meta::Store& store, Clock& clock, Readers readers, DagView* dag = nullptr);
  ~Versions();

  // For wiring: pipeline/ is made after this object. Before the first write.
  void set_dag(DagView* dag);
  // Makes the project `default` if there is none, and goes on with deletions that a crash cut
  // short. Call once at start.
  Status start();

  // --- Projects and repos ---
  Status create_project(std::string_view project, std::string description);
  Result<RepoInfo> create_repo(const RepoName& name, std::string description);
  Status update_repo(const RepoName& name, std::string description);
  Result<RepoInfo> inspect_repo(const RepoName& name) const;
  Result<Page<RepoInfo>> list_repos(std::string_view project, const PageRequest& page) const;
  // The branches of other repos that derive from one of its branches, as "repo@branch".
  Result<std::vector<std::string>> derived_from(const RepoName& name) const;
  // Refused when a branch of another repo derives from one of its branches, unless `force`; and
  // when it is a pipeline's, unless `owner` names that pipeline. Marks the repo, then removes in
  // bounded steps; a crash in between leaves it gone for every reader, and start() does the rest.
  // `keep`: into the trash, whence undelete_repo brings it back while its grace lasts.
  Status delete_repo(const RepoName& name, bool force, std::string_view owner = {},
                     bool keep = true);

  // A pipeline's repo becomes a user's: for a deleted pipeline whose output is kept. OK if it is
  // not this pipeline's (any more).
  Status release_repo(const RepoName& name, std::string_view owner);

  // --- Branches ---
  struct BranchUpdate {
    std::optional<std::string> head;  // a ref (see resolve); "" takes the head away
    std::optional<std::vector<BranchName>> provenance;
  };
  // Creates or updates. A head that moves starts a wave. Refused on a pipeline's output branch and,
  // for the head, while a commit is open on the branch.
  Result<BranchWritten> put_branch(const RepoName& repo, std::string_view branch,
                                   const BranchUpdate& update);
  Result<BranchInfo> inspect_branch(const RepoName& repo, std::string_view branch) const;
  Result<Page<BranchInfo>> list_branches(const RepoName& repo, const PageRequest& page) const;
  // The commits stay. Refused when another branch derives from it, unless `force`. Gone at once;
  // its history then follows in bounded steps, and start(), or whoever makes a branch of this name,
  // does what a crash or an error has left of that.
  Status delete_branch(const RepoName& repo, std::string_view branch, bool force,
                       std::string_view owner = {}, bool keep = true);

  // --- Trash ---
  // How long what is deleted from now on can be brought back. Default: a day, in which a mistake is
  // noticed, and after which the space of what was meant to go is free.
  static constexpr int64_t kDefaultTrashGraceMs = 24 * 60 * 60 * 1000;
  void set_trash_grace_ms(int64_t grace_ms);
  // Newest first.
  Result<std::vector<TrashInfo>> list_trash(std::string_view project) const;
  // The newest of that name. kNotFound if it is not (any more) in the trash; kAlreadyExists if
  // there is one of that name again. Branches of a repo come back with it.
  Status undelete_repo(const RepoName& name);
  Status undelete_branch(const RepoName& repo, std::string_view branch);
  // Removes what is in the trash beyond its grace; `now`: all of it. What is left of an error is
  // done the next time.
  Status empty_trash(std::string_view project, bool now);

  // --- Commits ---
  struct CommitStart {
    std::string branch = "master";  // created when missing; "" for a detached commit
    std::string parent;             // a ref; "" is the branch's head. Else the head must be it
    std::string description;
  };
  // Refused while the branch has an open commit.
  Result<Written> start_commit(const RepoName& repo, const CommitStart& start);
  // `ref` is the id of the open commit, or the branch it is on. A description given here replaces
  // the first.
  Result<Written> finish_commit(const RepoName& repo, std::string_view ref,
                                std::string_view description = {});
  // Throws an open commit away, with what was put into it; its branch is free for the next one.
  // kFailedPrecondition for a finished one.
  Status discard_commit(const RepoName& repo, std::string_view ref);
  // Refs as in api/address.h: a branch (its head: the last finished commit) or an id, then `^n` (so
  // many commits back) or `.n` (the n-th commit from the start). kNotFound also when the ancestry
  // ends before, or the branch has no commit.
  Result<CommitInfo> resolve(const RepoName& repo, std::string_view ref) const;
  // The commit to which a write to `ref` goes: the open commit of a branch, else its head; none if
  // it has neither.
  Result<std::optional<CommitInfo>> resolve_for_write(const RepoName& repo,
                                                      std::string_view ref) const;

  struct CommitList {
    std::string ref;   // from this commit back along its parents; "" is all commits of the repo by
                       // start, failed and open ones too
    std::string from;  // with `ref`: stop before this ref
  };
  // Newest first.
  Result<Page<CommitInfo>> list_commits(const RepoName& repo, const CommitList& list,
                                        const PageRequest& page) const;

  // The put path. `ref` is a branch (created when missing) or the id of an open commit. Without an
  // open commit the edit of the head's tree becomes one finished commit and starts a wave; else it
  // goes into the open commit. `writer` holds what the edit refers to: it is flushed, and
  // registered in the transaction that makes the root visible.
  Result<Written> apply(const RepoName& repo, std::string_view ref, content::ContentWriter& writer,
                        const Edit& edit, std::string_view description = {});

  // --- Waves ---
  Result<WaveInfo> start_wave(std::string_view project, const DraftWave& draft);
  Result<WaveInfo> inspect_wave(std::string_view project, std::string_view id) const;
  Result<WaveInfo> inspect_wave(std::string_view project, int64_t number) const;
  Result<Page<WaveInfo>> list_waves(std::string_view project,
                                    const PageRequest& page) const;  // newest first
  // Ascending, beginning after number `after`.
  Result<std::vector<WaveInfo>> waves_after(std::string_view project, int64_t after,
                                            int64_t limit) const;
  Result<int64_t> last_wave(std::string_view project) const;  // 0: none yet
  // The newest head with a wave <= `wave`; nothing if the branch had none then.
  Result<std::optional<HeadEntry>> head_at_wave(const RepoName& repo, std::string_view branch,
                                                int64_t wave) const;
  // All commits of a wave that exist by now: of the changed repos and of its members.
  Result<std::vector<CommitInfo>> commits_of_wave(std::string_view project,
                                                  const WaveInfo& wave) const;

  // --- For pipelines ---
  // Ends the deletion or restoration of a repo, or of this branch of it, if one has begun. Not from
  // within a draft.
  Status settle_output(std::string_view project, const BranchName& branch);
  // What creates the output repo and branch of a pipeline or updates the branch's provenance: for
  // WaveDraft::with. Refused when the repo exists and is not this pipeline's; kConflict while one
  // of them is being deleted or restored: settle_output() beforehand.
  Result<meta::Transaction> output_branch_transaction(
      std::string_view project, const BranchName& branch, std::string_view pipeline,
      const std::vector<BranchName>& provenance) const;
  // What writes an output commit: compares that its branch is as read, puts the commit and, on
  // success, the head. The caller adds its own operations, commits, and computes anew when the
  // compares fail. kFailedPrecondition: the head is at this wave or a later one.
  Result<meta::Transaction> output_transaction(std::string_view project,
                                               const OutputCommit& output) const;

  // --- Looking back ---
  Result<Provenance> provenance(const RepoName& repo, std::string_view ref,
                                int64_t limit = 1000) const;
  // What was made from these commits, each once, by waves, whatever its number: until `visit` gives
  // false. `from`: an input of it that is one of these or was visited.
  Status visit_downstream(
      std::string_view project, const std::vector<CommitInfo>& starts,
      const std::function<Result<bool>(CommitInfo made, const CommitInput& from)>& visit) const;
  // The commits whose parent it is, as far as a branch reaches them.
  Result<std::vector<CommitInfo>> children(const RepoName& repo, const CommitInfo& commit) const;
  struct HistoryRequest {
    int64_t limit = 100;            // changes
    int64_t search_limit = 10'000;  // commits looked at
  };
  // Commits in which the entry at `path` changed, newest first, from `ref` back.
  Result<PathHistory> history(const RepoName& repo, std::string_view ref, std::string_view path,
                              const HistoryRequest& request) const;

  // --- Being told ---
  // See meta::Store::watch for the rules of callbacks and of `from_revision`; items that cannot be
  // decoded end the watch with kDataLoss.
  using OnWaves = std::function<void(const Status& status, int64_t revision,
                                     const std::vector<WaveInfo>& waves)>;
  using OnCommits = std::function<void(const Status& status, int64_t revision,
                                       const std::vector<CommitInfo>& commits)>;
  Result<std::unique_ptr<meta::Watch>> watch_waves(std::string_view project, int64_t from_revision,
                                                   OnWaves on_waves) const;
  // Commits started, changed or finished, of one repo or ("") all of the project.
  Result<std::unique_ptr<meta::Watch>> watch_commits(const RepoName& repo, int64_t from_revision,
                                                     OnCommits on_commits) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qanat::version
