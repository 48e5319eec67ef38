// Why a datum ran or was skipped, said from records: its row in this job's table, its row in the
// base job's table, and what both jobs' code was made of. Pure; nothing is guessed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qanat/api/jobs.h"
#include "qanat/pipeline/datum_table.h"
#include "qanat/pipeline/records.h"
#include "qanat/pipeline/transform_hash.h"

namespace qanat::pipeline {

struct ExplainRequest {
  std::string job;              // the job asked about
  std::optional<DatumRow> row;  // in its table (its plan while it runs); none: it has no such datum
  std::string unrun;            // why_unrun(job), if it has ended: a pending row will not run
  TransformComponents code;     // of its spec version
  std::string base_job;         // the job it was planned against; "" if there was none
  std::optional<DatumRow> base_row;
  TransformComponents base_code;
  // Images and values that changed components can be shown with, where the caller knows them:
  // component -> text.
  std::map<std::string, std::string> texts;
  std::map<std::string, std::string> base_texts;
};

struct Explanation {
  std::string decision;  // "ran", "skipped", "will run", "not run", "gone"
  std::string compared_with;
  std::vector<api::DatumReason> reasons;  // the first is the answer, the others are details
};

Explanation explain_datum(const ExplainRequest& request);

// Why what is pending in a job that has ended was not run.
std::string why_unrun(const JobRecord& job);

// Values of a spec's components as short texts, for ExplainRequest::texts.
std::map<std::string, std::string> component_texts(const api::PipelineSpec& spec,
                                                   std::string_view image_digest);

}  // namespace qanat::pipeline
