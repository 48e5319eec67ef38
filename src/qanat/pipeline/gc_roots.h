// JobRoots: what jobs keep alive, for garbage collection.
//
// A job's record keeps what it names: while it runs, its inputs, plan and journal; afterwards its
// datum table (with outputs and logs), owner tree and content. The trees of the inputs are kept for
// jobs that run, and for the last successful job of each pipeline, from whose inputs the next plan
// is computed. Jobs in the trash, which have ended, keep their tables, owner trees and content.
// Results that may be reused are weak (result_index.h).
#pragma once

#include "qanat/base/clock.h"
#include "qanat/content/root_source.h"
#include "qanat/meta/store.h"

namespace qanat::pipeline {

class JobRoots : public content::RootSource {
 public:
  // They outlive it.
  JobRoots(meta::Store& store, Clock& clock) : store_(store), clock_(clock) {}

  Status prepare(std::string_view project, bool now) override;
  Status visit_roots(const Request& request,
                     const std::function<Status(const content::Holder&, const content::Reference&)>&
                         visit) override;
  Status visit_references(content::NodeUse use, const content::Blob& node,
                          const content::ReferenceVisitor& visit) override;
  Status visit_result(std::string_view value, const content::ReferenceVisitor& visit) override;

 private:
  meta::Store& store_;
  Clock& clock_;
};

}  // namespace qanat::pipeline
