// Taking finished commits out of history: `squash` and `drop`.
//
// Both work on all the commits that one change caused (those of one id), as in Pachyderm 2.x:
//   squash  takes out commits that are no branch's head; what they held is in their children
//   anyway,
//           whose parent becomes the squashed commit's parent;
//   drop    takes out commits that have no children; branches whose head they were go back to the
//           commit before.
// Both refuse when a commit of another change was made from one of these, unless `recursive`: then
// those go too. A pipeline's job goes with its output commit; its last successful job is then that
// of the commit before.
//
// What goes lies in the trash while its grace lasts. Each repo's part is one transaction,
// downstream first; a crash in between leaves the upstream commits, which the same command then
// takes out.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/meta/store.h"
#include "qanat/version/versions.h"

namespace qanat::version {

// What pipeline/ does about the job of an output commit that goes.
class CommitJobs {
 public:
  virtual ~CommitJobs() = default;
  // kFailedPrecondition while the pipeline has still to end its job of this wave, one of its
  // members.
  virtual Status check_ended(std::string_view project, std::string_view pipeline,
                             const WaveInfo& wave) = 0;
  // Adds to the transaction what takes the job away (into the trash `trash`, unless that is "") and
  // compares that its pipeline works on nothing. `head_wave`: the wave of the output branch's head
  // afterwards, if that moves. kFailedPrecondition while the pipeline has work.
  virtual Status remove_job(std::string_view project, std::string_view pipeline, int64_t wave,
                            std::optional<int64_t> head_wave, std::string_view trash,
                            meta::Transaction& transaction) = 0;
};

class CommitSets {
 public:
  // All outlive it; `jobs` may be null: no pipelines.
  CommitSets(meta::Store& store, Clock& clock, Versions& versions, CommitJobs* jobs)
      : store_(store), clock_(clock), versions_(versions), jobs_(jobs) {}

  enum class How { kSquash, kDrop };
  struct Request {
    std::string project = "default";
    std::string id;    // of the commits
    std::string repo;  // where to look for a commit that started no wave; may be ""
    How how = How::kSquash;
    bool recursive = false;
    int64_t trash_grace_ms = Versions::kDefaultTrashGraceMs;  // 0: not into the trash
    // Whether whoever asks may take this one out; null: yes. Asked before anything is changed.
    std::function<Status(const CommitInfo&)> may;
  };
  // Gives the commits that went. Nothing is changed by kNotFound and kFailedPrecondition, which say
  // what is in the way.
  Result<std::vector<CommitInfo>> remove(const Request& request);

  // Brings commits back out of the trash, with their jobs: they can be reached by their id again,
  // and a branch may be made of them; the ancestry of other commits stays as it is. One whose repo
  // is gone stays in the trash. kNotFound: not there (any more). Gives how many.
  Result<int64_t> undelete(std::string_view project, std::string_view id);

 private:
  Result<std::vector<CommitInfo>> find_set(const std::string& project, const std::string& id,
                                           const std::string& repo) const;
  Status check(const Request& request, const std::vector<CommitInfo>& going) const;
  // What a change caused is known, and goes with it, when all its jobs have ended.
  Status check_ended(const std::string& project, const std::vector<CommitInfo>& going) const;
  Status remove_one(const Request& request, const std::string& trash, const CommitInfo& commit);

  meta::Store& store_;
  Clock& clock_;
  Versions& versions_;
  CommitJobs* jobs_;
};

// Present once a commit of the repo was taken out: then depths have gaps, and ancestors are counted
// one by one.
std::string thinned_key(std::string_view project, std::string_view repo);

}  // namespace qanat::version
