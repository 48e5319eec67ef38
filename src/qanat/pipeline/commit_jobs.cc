#include "qanat/pipeline/commit_jobs.h"

#include <algorithm>
#include <set>

#include "qanat/base/string.h"
#include "qanat/pipeline/records.h"
#include "qanat/version/keys.h"

namespace qanat::pipeline {
namespace {

constexpr int64_t kWavesRead = 256;
constexpr size_t kMaxInputs = 24;  // that one transaction compares, beside what else it does

Status has_work(std::string_view pipeline, const std::string& id) {
  return failed_precondition(str_cat("pipeline ", pipeline, " has still to end its job ", id),
                             str_cat("wait for it: `qanat wait commit ", id,
                                     "`; or stop it: `qanat stop job ", pipeline, "@", id, "`"));
}

}  // namespace

// The next plan reads the inputs of the job it starts from. Those of jobs before the last one are
// kept by their commits alone: without them there is nothing to start from, and the next job is
// planned from scratch, with the results that are known.
Result<bool> RemovedJobs::inputs_stand(std::string_view project, std::string_view pipeline,
                                       int64_t wave, meta::Transaction& transaction) const {
  const std::string key = job_key(project, pipeline, wave);
  QANAT_ASSIGN_OR_RETURN(const auto item, store_.get(key));
  if (!item) return false;
  QANAT_ASSIGN_OR_RETURN(const auto job, decode<JobRecord>(key, item->value));
  std::set<std::string> commits;
  for (const JobInput& input : job.inputs) {
    if (input.commit.empty()) continue;
    const std::string commit = version::commit_key(project, input.repo, input.commit);
    QANAT_ASSIGN_OR_RETURN(const auto there, store_.get(commit));
    if (!there) return false;
    commits.insert(commit);
  }
  if (commits.size() > kMaxInputs) return false;
  for (const std::string& commit : commits) transaction.when(meta::key_present(commit));
  return true;
}

Status RemovedJobs::check_ended(std::string_view project, std::string_view pipeline,
                                const version::WaveInfo& wave) {
  const std::string key = pipeline_key(project, pipeline);
  QANAT_ASSIGN_OR_RETURN(const auto item, store_.get(key));
  if (!item) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const auto record, decode<PipelineRecord>(key, item->value));
  return record.last_wave >= wave.number ? ok_status() : has_work(pipeline, wave.record.id);
}

Status RemovedJobs::remove_job(std::string_view project, std::string_view pipeline, int64_t wave,
                               std::optional<int64_t> head_wave, std::string_view trash,
                               meta::Transaction& transaction) {
  const std::string key = pipeline_key(project, pipeline);
  QANAT_ASSIGN_OR_RETURN(const auto item, store_.get(key));
  if (!item) {
    transaction.when(meta::key_absent(key));
  } else {
    QANAT_ASSIGN_OR_RETURN(auto record, decode<PipelineRecord>(key, item->value));
    // A job that is planned or runs may build on this one. Waves that are there are all there are:
    // the transaction compares wave-next, and a job's end writes the pipeline's record.
    for (int64_t after = record.last_wave;;) {
      QANAT_ASSIGN_OR_RETURN(const auto waves, versions_.waves_after(project, after, kWavesRead));
      for (const version::WaveInfo& next : waves) {
        const auto& members = next.record.members;
        if (std::find(members.begin(), members.end(), pipeline) != members.end()) {
          return has_work(pipeline, next.record.id);
        }
        after = next.number;
      }
      if (static_cast<int64_t>(waves.size()) < kWavesRead) break;
    }
    transaction.when(meta::mod_revision_is(key, item->mod_revision));
    if (head_wave && record.base_wave == wave) {
      QANAT_ASSIGN_OR_RETURN(const bool stands,
                             inputs_stand(project, pipeline, *head_wave, transaction));
      record.base_wave = stands ? *head_wave : 0;
    }
    // Written in any case: a controller that ends a job compares it.
    transaction.put(key, encode(record));
  }
  const std::string job = job_key(project, pipeline, wave);
  QANAT_ASSIGN_OR_RETURN(const auto stored, store_.get(job));
  if (!stored) return ok_status();
  transaction.when(meta::mod_revision_is(job, stored->mod_revision)).erase(job);
  if (!trash.empty()) {
    transaction.put(version::trash_item_key(project, trash, job), stored->value);
  }
  return ok_status();
}

}  // namespace qanat::pipeline
