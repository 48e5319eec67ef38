// FsckJobs: the records of pipelines and jobs under fsck. They can be read, and what they name is
// there; what a job names is a root: while it runs its inputs, plan and journal, afterwards its
// datum table with outputs and logs, owner tree and content; the inputs of a pipeline's last
// successful job too, from which the next is planned. Jobs in the trash are roots as they were.
#pragma once

#include "qanat/content/fsck.h"
#include "qanat/meta/store.h"

namespace qanat::pipeline {

class FsckJobs : public content::FsckSource {
 public:
  // `store` outlives it.
  explicit FsckJobs(meta::Store& store) : store_(store) {}

  Result<uint64_t> check_records(
      const std::string& project,
      const std::function<Status(content::FsckProblem)>& report) override;
  Status visit_roots(const std::string& project,
                     const std::function<Status(const content::FsckRoot&)>& visit) override;
  Status visit_node(content::FsckUse use, const content::Blob& node, bool with_labels,
                    const content::FsckVisit& visit) override;

 private:
  meta::Store& store_;
};

}  // namespace qanat::pipeline
