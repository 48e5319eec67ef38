// JobTable: a job's datums as they are now: its datum table if it has ended, else its plan with
// what its journal and its leases say.
//
// For showing. Of a running job the journal's rows are held in memory, at most kMaxJournalRows of
// them (the newest); those beyond show as waiting. One thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/jobs.h"
#include "qanat/pipeline/datum_table.h"
#include "qanat/pipeline/job_run.h"
#include "qanat/pipeline/records.h"
#include "qanat/serve/state.h"
#include "qanat/serve/tokens.h"

namespace qanat::serve {

// Datums and logs show what a job's inputs hold: to those who operate the pipeline, and to readers
// of its output who may read the inputs, too. kPermissionDenied names what is missing.
Status check_may_look_inside(const Caller& caller, const std::string& project,
                             const std::string& pipeline,
                             const std::vector<pipeline::JobInput>& inputs);

class JobTable {
 public:
  static constexpr size_t kMaxJournalRows = 100'000;

  // kNotFound; kFailedPrecondition while the job waits for its inputs and has no datums yet.
  static Result<JobTable> open(State& state, const std::string& project,
                               const std::string& pipeline, const std::string& job);

  const pipeline::JobRecord& job() const { return record_; }
  content::BlobReader& reader() const { return *reader_; }
  // In order, those above the sort key `after`.
  Result<bool> visit(std::string_view after,
                     const std::function<Result<bool>(std::string_view sort_key,
                                                      const pipeline::DatumRow& row)>& visit) const;
  // By id, or a beginning of it.
  Result<pipeline::KeyedRow> find(const std::string& id) const;
  api::DatumInfo show(std::string_view sort_key, const pipeline::DatumRow& row) const;

 private:
  JobTable() = default;

  std::string name_;  // pipeline@job
  pipeline::JobRecord record_;
  content::BlobReader* reader_ = nullptr;
  content::MapRoot root_;
  std::map<std::string, pipeline::DatumRow, std::less<>> reported_;
  std::map<std::string, std::string> running_;  // datum id -> worker
};

}  // namespace qanat::serve
