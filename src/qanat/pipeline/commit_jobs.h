// Jobs of output commits that are squashed or dropped; see version/commit_sets.h.
#pragma once

#include "qanat/meta/store.h"
#include "qanat/version/commit_sets.h"

namespace qanat::pipeline {

class RemovedJobs : public version::CommitJobs {
 public:
  // They outlive it.
  RemovedJobs(meta::Store& store, version::Versions& versions)
      : store_(store), versions_(versions) {}
  Status check_ended(std::string_view project, std::string_view pipeline,
                     const version::WaveInfo& wave) override;
  Status remove_job(std::string_view project, std::string_view pipeline, int64_t wave,
                    std::optional<int64_t> head_wave, std::string_view trash,
                    meta::Transaction& transaction) override;

 private:
  // Whether a job's inputs are there to plan from; adds compares that they stay so.
  Result<bool> inputs_stand(std::string_view project, std::string_view pipeline, int64_t wave,
                            meta::Transaction& transaction) const;

  meta::Store& store_;
  version::Versions& versions_;
};

}  // namespace qanat::pipeline
