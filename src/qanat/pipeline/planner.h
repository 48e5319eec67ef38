// Planning a job: which datums it has, which results it takes over, and which must run.
//
// A plan is the base job's datum table, edited: rows of vanished datums go, rows of new and changed
// ones are looked up by result key and else written as pending; all other rows stay, node for node.
// With the same code and input shape as the base, only the input trees' differences are looked at,
// so the cost follows the change. Otherwise (new code, another input, a base with recovered datums,
// every_job, --reprocess) all datums are enumerated beside the base table.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/map_root.h"
#include "qanat/pipeline/datum_table.h"
#include "qanat/pipeline/input.h"
#include "qanat/pipeline/result_index.h"

namespace qanat::pipeline {

// What the spec version in force asks for; the same for all its jobs.
enum class PlanMode {
  kNormal,     // results are reused by key
  kReprocess,  // made by update --reprocess: its salt is in the transform hash, and reasons say so
  kKeepResults,  // made by update --keep-results: results of other code are accepted for unchanged
                 // inputs
  kEveryJob,     // reprocess_spec: every_job: nothing is ever reused
};

// The last successful job of the pipeline.
struct PlanBase {
  content::MapRoot table;
  content::MapRoot ids;               // of the table; empty: it has none, and all are made anew
  InputRoots roots;                   // its inputs
  const InputShape* shape = nullptr;  // of its spec; borrowed
  Hash transform;
  bool has_recovered = false;  // some of its datums are RECOVERED, to be tried again
};

struct PlanRequest {
  std::string job;                    // its id
  std::string pipeline;               // results of this pipeline have no origin_pipeline
  const InputShape* shape = nullptr;  // borrowed
  InputRoots roots;
  Hash transform;
  PlanMode mode = PlanMode::kNormal;
  std::optional<PlanBase> base;
};

struct PlanCounts {
  uint64_t total = 0;      // datums of the job
  uint64_t pending = 0;    // to run
  uint64_t reused = 0;     // found by key
  uint64_t unchanged = 0;  // taken over from the base, --keep-results included
  uint64_t removed = 0;    // datums of the base that are gone

  friend bool operator==(const PlanCounts&, const PlanCounts&) = default;
};

struct Plan {
  content::MapRoot table;
  // Map of the datums' ids (32 bytes) to their sort keys, so that a datum is found by its id. It
  // changes with datums that come and go only, not with their inputs.
  content::MapRoot ids;
  PlanCounts counts;
  bool incremental = false;  // only differences were looked at
};

// Writes the table through `writer` (the caller flushes). Deterministic. Errors: kDataLoss from
// damaged content, those of the index and the disk; nothing is changed by a plan that fails.
Result<Plan> make_plan(content::BlobWriter& writer, const PlanRequest& request,
                       ResultIndex& results, const Scratch& scratch);

// The pending rows of `plan` in order, those above `after`. Everything pending differs from the
// base, so cost follows that.
Result<bool> visit_pending(
    content::BlobReader& reader, const content::MapRoot& base_table,
    const content::MapRoot& plan_table, std::string_view after,
    const std::function<Result<bool>(std::string_view sort_key, const DatumRow& row)>& visit);

}  // namespace qanat::pipeline
