// Folding a job: from its plan and its datums' results to the new datum table, owner tree and
// content tree.
//
// 1. Results go into the plan's table. 2. Each row that differs from the base's takes its old
// output out of the owner tree and puts its new one in; a result reused by key counts as its
// own. 3. Every path touched is computed anew from all its writers, by output_merge, and put into
// the content tree. The cost follows the outputs that changed; memory is bounded by the scratch
// space's budget. The result is the same as that of a job that ran everything from the start.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/api/pipeline_spec.h"
#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/map_root.h"
#include "qanat/content/tree.h"
#include "qanat/pipeline/datum_table.h"
#include "qanat/pipeline/input.h"

namespace qanat::pipeline {

// The three trees a job leaves. All empty before the first job.
struct JobTrees {
  content::MapRoot table;
  content::MapRoot owners;
  content::TreeRoot content;

  friend bool operator==(const JobTrees&, const JobTrees&) = default;
};

struct FoldRequest {
  std::string job;  // its id
  JobTrees base;    // of the last successful job
  content::MapRoot plan;
  api::OutputMerge merge = api::OutputMerge::kError;
  // With which the base's content was made, if its spec said otherwise: the content is then
  // computed anew from all owners (output_merge is no part of the transform hash, so no datum runs
  // again).
  std::optional<api::OutputMerge> base_merge;
};

struct FoldCounts {
  uint64_t total = 0;
  uint64_t processed = 0;  // ran with success
  uint64_t skipped = 0;    // not run: unchanged, kept or reused
  uint64_t failed = 0;
  uint64_t recovered = 0;
  uint64_t pending = 0;  // without a result (the job was stopped)

  friend bool operator==(const FoldCounts&, const FoldCounts&) = default;
};

struct FoldOutcome {
  JobTrees trees;  // `table` always; the others are the base's if there is a problem or some datum
                   // failed or is pending
  FoldCounts counts;
  // Why the outputs cannot be one tree: two datums wrote one path, or a file where another wrote a
  // directory. Names both and the path.
  std::optional<Status> problem;
  // The first failed datum in order, if one failed.
  std::optional<KeyedRow> first_failure;

  bool succeeded() const { return !problem && counts.failed == 0 && counts.pending == 0; }
};

// One per job's end. Results come in any order; of several for a datum the first counts. One thread
// at a time.
class Folder {
 public:
  // `writer` outlives it; the caller flushes it.
  Folder(content::BlobWriter& writer, FoldRequest request, const Scratch& scratch);
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  // The report of a datum that the plan has as pending: state, origin, output, log and so on are
  // taken from `row`; inputs, result key, reason and decided_in are the plan's. Of a row that is
  // still pending (its job was killed) only the log is taken.
  Status add_result(std::string_view sort_key, const DatumRow& row);
  // Once. kInternal if a result is for a datum that the plan does not have as pending.
  Result<FoldOutcome> finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qanat::pipeline
