// What tests of planning and folding share: trees from maps, a scratch folder, an index of results
// in memory, and a "user program" that runs in the test.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "content/memory_blobs.h"
#include "qanat/base/file_system.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/tree.h"
#include "qanat/pipeline/fold.h"
#include "qanat/pipeline/planner.h"
#include "qanat/pipeline/transform_hash.h"

namespace qanat::pipeline {

using content::MemoryBlobs;
using content::must;

// Path (without leading slash) -> bytes.
using Files = std::map<std::string, std::string>;

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "qanat-pipeline-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  Scratch scratch() const { return {&posix_file_system(), path_, 1 << 20}; }

 private:
  std::string path_;
};

inline content::TreeRoot make_tree(content::BlobWriter& blobs, const Files& files,
                                   const ScratchFolder& folder) {
  content::EditBuffer edits(posix_file_system(), folder.scratch().directory);
  for (const auto& [path, bytes] : files) {
    must(edits.add(content::TreeEdit::put(path, must(content::write_file(blobs, bytes)))));
  }
  return must(edits.apply(blobs, {}));
}

inline std::string read_all(content::BlobReader& blobs, const content::FileRef& file) {
  return must(content::FileReader(blobs, file).read_all(file.size));
}

inline Files read_tree(content::BlobReader& blobs, const content::TreeRoot& root) {
  Files out;
  must(content::Tree(blobs, root)
           .walk("", [&](std::string_view path, const content::TreeEntry& entry) -> Result<bool> {
             out[std::string(path)] = read_all(blobs, entry.file);
             return true;
           }));
  return out;
}

// What a datum's inputs hold: "<input>/<path>" -> bytes.
inline Files read_inputs(content::BlobReader& blobs, const std::vector<DatumInput>& inputs) {
  Files out;
  for (const DatumInput& input : inputs) {
    const std::string top = join_path(input.name, input.path);
    if (!input.entry.is_directory) {
      out[top] = read_all(blobs, input.entry.file);
      continue;
    }
    for (auto& [path, bytes] : read_tree(blobs, input.entry.directory))
      out[join_path(top, path)] = bytes;
  }
  return out;
}

class MemoryResults : public ResultIndex {
 public:
  Result<std::vector<std::optional<DatumRow>>> find(std::span<const Hash> keys) override {
    lookups += keys.size();
    std::vector<std::optional<DatumRow>> rows(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      const auto found = entries.find(std::string(keys[i].view()));
      if (found == entries.end()) continue;
      QANAT_ASSIGN_OR_RETURN(rows[i], decode_row(found->second));
    }
    return rows;
  }
  void add(const DatumRow& row, std::string_view pipeline) {
    if (auto entry = result_entry(row, pipeline)) entries.insert(*entry);
  }

  std::map<std::string, std::string> entries;
  uint64_t lookups = 0;
};

// What a run of user code gives: output files, or a failure.
struct RunResult {
  Files output;
  DatumState state = DatumState::kSuccess;
  std::string message;
};
using Program = std::function<RunResult(const Files& inputs)>;

inline std::string job_name(int number) {
  std::string digits = std::to_string(number);
  return std::string(32 - digits.size(), '0') + digits;
}

inline std::vector<KeyedRow> rows_of(content::BlobReader& blobs, const content::MapRoot& table) {
  return must(DatumTable(blobs, table).page(0, 1000000));
}

// One pipeline through its jobs, as the controller drives it.
class PipelineWorld {
 public:
  explicit PipelineWorld(const api::Input& input) : shape_(must(InputShape::make(input))) {}

  struct Job {
    std::string id;
    Plan plan;
    FoldOutcome outcome;
    std::vector<std::string> ran;  // datums, as described
  };

  // Plans, runs and folds. A successful job becomes the base of the next.
  Job run(const InputRoots& roots, const Hash& transform, const Program& program,
          PlanMode mode = PlanMode::kNormal) {
    Job job;
    job.id = job_name(++jobs_);
    job.plan = plan(job.id, roots, transform, mode);
    FoldRequest fold{job.id, base_trees, job.plan.table, merge, base_merge};
    Folder folder(blobs, fold, folder_.scratch());
    must(visit_pending(blobs, base_trees.table, job.plan.table, {},
                       [&](std::string_view key, const DatumRow& planned) -> Result<bool> {
                         job.ran.push_back(must(describe_sort_key(key)));
                         DatumRow row = run_datum(job.id, planned, program);
                         if (use_results) results.add(row, "p");
                         must(folder.add_result(key, row));
                         return true;
                       }));
    job.outcome = must(folder.finish());
    if (job.outcome.succeeded()) become_base(job, roots, transform);
    return job;
  }

  Plan plan(const std::string& job, const InputRoots& roots, const Hash& transform, PlanMode mode) {
    PlanRequest request{job, "p", &shape_, roots, transform, mode, base_};
    NoResults nothing;
    ResultIndex& index = use_results ? static_cast<ResultIndex&>(results) : nothing;
    return must(make_plan(blobs, request, index, folder_.scratch()));
  }

  DatumRow run_datum(const std::string& job, const DatumRow& planned, const Program& program) {
    DatumRow row = planned;
    RunResult result = program(read_inputs(blobs, planned.inputs));
    row.state = result.state;
    row.origin = job;
    row.attempts = 1;
    row.message = result.message;
    row.timings.process_ms = 1200;
    if (row.state == DatumState::kSuccess) row.output = make_tree(blobs, result.output, folder_);
    return row;
  }

  content::TreeRoot tree(const Files& files) { return make_tree(blobs, files, folder_); }
  const InputShape& shape() const { return shape_; }
  const ScratchFolder& folder() const { return folder_; }

  MemoryBlobs blobs;
  MemoryResults results;
  bool use_results = true;
  api::OutputMerge merge = api::OutputMerge::kError;
  std::optional<api::OutputMerge> base_merge;
  JobTrees base_trees;

 private:
  void become_base(const Job& job, const InputRoots& roots, const Hash& transform) {
    base_trees = job.outcome.trees;
    base_ = PlanBase{base_trees.table, job.plan.ids, roots,
                     &shape_,          transform,    job.outcome.counts.recovered > 0};
  }

  ScratchFolder folder_;
  InputShape shape_;
  std::optional<PlanBase> base_;
  int jobs_ = 0;
};

inline api::Input pfs(const std::string& repo, const std::string& glob,
                      const std::string& name = {}) {
  api::Input input;
  input.pfs = {name.empty() ? repo : name, repo, "master", glob};
  return input;
}
inline api::Input cross(std::vector<api::Input> arms) {
  api::Input input;
  input.kind = api::Input::Kind::kCross;
  input.arms = std::move(arms);
  return input;
}
inline api::Input union_of(std::vector<api::Input> arms) {
  api::Input input;
  input.kind = api::Input::Kind::kUnion;
  input.arms = std::move(arms);
  return input;
}

}  // namespace qanat::pipeline
