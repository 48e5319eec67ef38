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
  Status remove_job(std::string_view project, std::string_view pipeline, int64_t wave,
                    std::optional<int64_t> head_wave, std::string_view trash,
                    meta::Transaction& transaction) override;

 private:
  meta::Store& store_;
  version::Versions& versions_;
};

}  // namespace qanat::pipeline
