// Planning and folding through the life of a pipeline: what runs, what is reused, and that the
// outcome never depends on how it was come by.
#include "qanat/pipeline/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pipeline/pipeline_world.h"
#include "qanat/base/random.h"

namespace qanat::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Hash kCode = sha256("code");

// Copies every input file to out/<input>/<path>.
RunResult copy(const Files& inputs) {
  RunResult result;
  for (const auto& [path, bytes] : inputs) result.output["out/" + path] = bytes;
  return result;
}

TEST(Planner, FirstJobRunsEverythingAndTheNextOnlyChanges) {
  PipelineWorld world(pfs("in", "/*"));
  auto job = world.run({world.tree({{"a", "1"}, {"b", "2"}, {"c", "3"}})}, kCode, copy);
  EXPECT_THAT(job.ran, ElementsAre("in:/a", "in:/b", "in:/c"));
  EXPECT_FALSE(job.plan.incremental);
  EXPECT_EQ(job.plan.counts, (PlanCounts{3, 3, 0, 0, 0}));
  EXPECT_EQ(job.outcome.counts, (FoldCounts{3, 3, 0, 0, 0, 0}));

  job = world.run({world.tree({{"a", "1"}, {"b", "new"}, {"d", "4"}})}, kCode, copy);
  EXPECT_THAT(job.ran, ElementsAre("in:/b", "in:/d"));
  EXPECT_TRUE(job.plan.incremental);
  EXPECT_EQ(job.plan.counts, (PlanCounts{3, 2, 0, 1, 1}));
  EXPECT_EQ(job.outcome.counts, (FoldCounts{3, 2, 1, 0, 0, 0}));
  EXPECT_EQ(read_tree(world.blobs, world.base_trees.content),
            (Files{{"out/in/a", "1"}, {"out/in/b", "new"}, {"out/in/d", "4"}}));
  const auto rows = rows_of(world.blobs, world.base_trees.table);
  EXPECT_EQ(rows[1].row.reason, DatumReason::kInputChanged);
  EXPECT_EQ(rows[1].row.changed_inputs, 1u);
  EXPECT_EQ(rows[2].row.reason, DatumReason::kNewDatum);
  EXPECT_EQ(rows[0].row.origin, job_name(1));
}

TEST(Planner, OldDataIsReusedByKey) {
  PipelineWorld world(pfs("in", "/*"));
  const InputRoots one = {world.tree({{"f", "one"}})};
  const InputRoots two = {world.tree({{"f", "two"}})};
  world.run(one, kCode, copy);
  const JobTrees first = world.base_trees;
  world.run(two, kCode, copy);
  const auto job = world.run(one, kCode, copy);
  EXPECT_THAT(job.ran, IsEmpty());
  EXPECT_EQ(job.plan.counts, (PlanCounts{1, 0, 1, 0, 0}));
  EXPECT_EQ(job.outcome.counts.skipped, 1u);
  EXPECT_EQ(world.base_trees.content, first.content);
  const auto row = rows_of(world.blobs, world.base_trees.table)[0].row;
  EXPECT_EQ(row.origin, job_name(1));
  EXPECT_EQ(outcome_in(row, job.id), DatumOutcomeInJob::kReused);
}

TEST(Planner, EmptyInputRemovesAllOutput) {
  PipelineWorld world(pfs("in", "/"));
  world.run({world.tree({{"f", "one"}})}, kCode, copy);
  const auto job = world.run({{}}, kCode, copy);
  EXPECT_EQ(job.plan.counts, (PlanCounts{0, 0, 0, 0, 1}));
  EXPECT_TRUE(job.outcome.succeeded());
  EXPECT_TRUE(world.base_trees.content.empty());
  EXPECT_TRUE(world.base_trees.owners.empty());
  EXPECT_TRUE(world.base_trees.table.empty());
}

TEST(Planner, NewCodeRunsEverything) {
  PipelineWorld world(pfs("in", "/*"));
  const InputRoots roots = {world.tree({{"a", "1"}, {"b", "2"}})};
  world.run(roots, kCode, copy);
  auto job = world.run(roots, sha256("new code"), copy);
  EXPECT_EQ(job.ran.size(), 2u);
  EXPECT_EQ(rows_of(world.blobs, world.base_trees.table)[0].row.reason, DatumReason::kCodeChanged);
  job = world.run(roots, kCode, copy);  // and back
  EXPECT_EQ(job.plan.counts, (PlanCounts{2, 0, 2, 0, 0}));
}

TEST(Planner, ReprocessRunsEverythingOnce) {
  PipelineWorld world(pfs("in", "/*"));
  const Files files = {{"a", "1"}, {"b", "2"}};
  world.run({world.tree(files)}, kCode, copy);
  const Hash salted = sha256("salted");
  auto job = world.run({world.tree(files)}, salted, copy, PlanMode::kReprocess);
  EXPECT_EQ(job.ran.size(), 2u);
  EXPECT_EQ(rows_of(world.blobs, world.base_trees.table)[0].row.reason, DatumReason::kReprocess);
  job = world.run({world.tree({{"a", "1"}, {"b", "3"}})}, salted, copy, PlanMode::kReprocess);
  EXPECT_THAT(job.ran, ElementsAre("in:/b"));
  EXPECT_TRUE(job.plan.incremental);
}

TEST(Planner, KeepResultsAcceptsOldOnes) {
  PipelineWorld world(pfs("in", "/*"));
  world.run({world.tree({{"a", "1"}, {"b", "2"}})}, kCode, copy);
  const JobTrees before = world.base_trees;
  const Hash changed = sha256("new code");
  auto job =
      world.run({world.tree({{"a", "1"}, {"b", "3"}})}, changed, copy, PlanMode::kKeepResults);
  EXPECT_THAT(job.ran, ElementsAre("in:/b"));
  EXPECT_EQ(job.outcome.counts, (FoldCounts{2, 1, 1, 0, 0, 0}));
  const auto row = rows_of(world.blobs, world.base_trees.table)[0].row;
  EXPECT_EQ(row.reason, DatumReason::kKept);
  EXPECT_EQ(row.origin, job_name(1));
  EXPECT_EQ(row.result_key, result_key(changed, row.inputs));
  // Afterwards they count as results of the new code.
  job = world.run({world.tree({{"a", "1"}, {"b", "3"}})}, changed, copy);
  EXPECT_THAT(job.ran, IsEmpty());
  EXPECT_EQ(job.plan.counts.unchanged, 2u);
  EXPECT_NE(world.base_trees.content, before.content);
}

TEST(Planner, EveryJobNeverSkips) {
  PipelineWorld world(pfs("in", "/*"));
  world.run({world.tree({{"a", "1"}, {"b", "2"}})}, kCode, copy, PlanMode::kEveryJob);
  const auto job = world.run({world.tree({{"a", "1"}, {"b", "2"}, {"c", "3"}})}, kCode, copy,
                             PlanMode::kEveryJob);
  EXPECT_EQ(job.ran.size(), 3u);
  EXPECT_EQ(job.outcome.counts, (FoldCounts{3, 3, 0, 0, 0, 0}));
  const auto rows = rows_of(world.blobs, world.base_trees.table);
  EXPECT_EQ(rows[0].row.reason, DatumReason::kEveryJob);
  EXPECT_EQ(rows[2].row.reason, DatumReason::kNewDatum);
}

TEST(Planner, FailuresLeaveTheBaseAndSuccessesAreReused) {
  PipelineWorld world(pfs("in", "/*"));
  world.run({world.tree({{"a", "1"}, {"b", "2"}})}, kCode, copy);
  const JobTrees good = world.base_trees;
  const Program fragile = [](const Files& inputs) {
    RunResult result = copy(inputs);
    if (inputs.begin()->second == "bad") result = {{}, DatumState::kFailed, "exit code 1"};
    return result;
  };
  const InputRoots broken = {world.tree({{"a", "new"}, {"b", "bad"}, {"c", "3"}})};
  auto job = world.run(broken, kCode, fragile);
  EXPECT_FALSE(job.outcome.succeeded());
  EXPECT_EQ(job.outcome.counts, (FoldCounts{3, 2, 0, 1, 0, 0}));
  EXPECT_EQ(job.outcome.first_failure->row.message, "exit code 1");
  EXPECT_EQ(must(describe_sort_key(job.outcome.first_failure->sort_key)), "in:/b");
  EXPECT_EQ(job.outcome.trees.content, good.content);
  EXPECT_EQ(rows_of(world.blobs, job.outcome.trees.table)[1].row.state, DatumState::kFailed);
  EXPECT_EQ(world.base_trees, good);
  // Mended: only the failed datum runs; the others were done by the failed job.
  job = world.run({world.tree({{"a", "new"}, {"b", "ok"}, {"c", "3"}})}, kCode, fragile);
  EXPECT_THAT(job.ran, ElementsAre("in:/b"));
  EXPECT_EQ(job.plan.counts, (PlanCounts{3, 1, 2, 0, 0}));
}

TEST(Planner, RecoveredDatumsAreTriedAgain) {
  PipelineWorld world(pfs("in", "/*"));
  const InputRoots roots = {world.tree({{"a", "1"}, {"b", "2"}})};
  const Program recovers = [](const Files& inputs) {
    if (inputs.begin()->second == "2") return RunResult{{}, DatumState::kRecovered, "exit code 1"};
    return copy(inputs);
  };
  auto job = world.run(roots, kCode, recovers);
  EXPECT_TRUE(job.outcome.succeeded());
  EXPECT_EQ(job.outcome.counts, (FoldCounts{2, 1, 0, 0, 1, 0}));
  EXPECT_EQ(read_tree(world.blobs, world.base_trees.content), (Files{{"out/in/a", "1"}}));
  job = world.run(roots, kCode, copy);
  EXPECT_THAT(job.ran, ElementsAre("in:/b"));
  EXPECT_EQ(rows_of(world.blobs, world.base_trees.table)[1].row.reason, DatumReason::kNotDone);
  EXPECT_EQ(read_tree(world.blobs, world.base_trees.content),
            (Files{{"out/in/a", "1"}, {"out/in/b", "2"}}));
}

TEST(Planner, PendingCanBeResumed) {
  PipelineWorld world(pfs("in", "/*"));
  Files files;
  for (int i = 100; i < 150; ++i) files[std::to_string(i)] = "x";
  const Plan plan = world.plan(job_name(1), {world.tree(files)}, kCode, PlanMode::kNormal);
  std::vector<std::string> keys;
  std::string after;
  while (true) {  // three at a time
    size_t in_page = 0;
    const bool ended =
        must(visit_pending(world.blobs, {}, plan.table, after,
                           [&](std::string_view key, const DatumRow&) -> Result<bool> {
                             keys.emplace_back(key);
                             return ++in_page < 3;
                           }));
    if (ended) break;
    after = keys.back();
  }
  EXPECT_EQ(keys.size(), 50u);
  EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end()));
}

TEST(Planner, CostFollowsTheChange) {
  PipelineWorld world(pfs("in", "/*/*"));
  Files files;
  for (int i = 0; i < 5000; ++i) {
    files["d" + std::to_string(100 + i / 100) + "/f" + std::to_string(1000 + i)] =
        "v" + std::to_string(i);
  }
  const auto run = [&](const Program& program) {
    const content::TreeRoot root = world.tree(files);
    world.blobs.reset_counts();
    world.results.lookups = 0;
    return world.run({root}, kCode, program);
  };
  auto job = run(copy);
  EXPECT_EQ(job.ran.size(), 5000u);
  files["d120/f3050"] = "changed";
  job = run(copy);
  EXPECT_THAT(job.ran, ElementsAre("in:/d120/f3050"));
  EXPECT_EQ(world.results.lookups, 1u);
  // Two versions of three trees, each three or four nodes deep, gone through in planning, running
  // and folding.
  EXPECT_LE(world.blobs.nodes_read, 100u);
  EXPECT_LE(world.blobs.nodes_written, 30u);
  job = run(copy);  // nothing changed
  EXPECT_THAT(job.ran, IsEmpty());
  EXPECT_LE(world.blobs.nodes_read, 5u);
  EXPECT_EQ(world.blobs.nodes_written, 0u);
}

TEST(Planner, EveryDatumIsFoundByItsId) {
  PipelineWorld world(pfs("in", "/*"));
  Files files;
  for (int i = 0; i < 400; ++i) files[str_cat("f", 1000 + i)] = "v";
  const auto check = [&](const PipelineWorld::Job& job) {
    const DatumTable table(world.blobs, job.plan.table);
    EXPECT_EQ(job.plan.ids.totals.count, job.plan.table.totals.count);
    for (const KeyedRow& row : rows_of(world.blobs, job.plan.table)) {
      const auto found = must(table.find_by_id(datum_id(row.sort_key).to_hex(), job.plan.ids));
      ASSERT_TRUE(found);
      EXPECT_EQ(found->sort_key, row.sort_key);
    }
  };
  auto job = world.run({world.tree(files)}, kCode, copy);
  check(job);
  const std::string before = job.plan.ids.to_text();
  files["f1005"] = "changed";  // no other datums
  job = world.run({world.tree(files)}, kCode, copy);
  EXPECT_EQ(job.plan.ids.to_text(), before);
  files.erase("f1007");
  files["f9000"] = "new";
  const content::TreeRoot root = world.tree(files);
  world.blobs.reset_counts();
  job = world.run({root}, kCode, copy);
  EXPECT_LE(world.blobs.nodes_written, 30u);
  check(job);
  // All are looked at again, with other code.
  check(world.run({root}, sha256("other code"), copy));
}

// ---- The model: random histories against a run from the start.

// Writes files whose paths and number depend on the inputs, some of them shared by datums,
// deterministically.
RunResult entangled(const Files& inputs) {
  RunResult result;
  std::string all;
  for (const auto& [path, bytes] : inputs) all += path + "=" + bytes + ";";
  const Hash hash = sha256(all);
  const uint8_t first = hash.bytes[0];
  if (all.find("=bad") != std::string::npos) return {{}, DatumState::kFailed, "bad input"};
  if (all.find("=soso") != std::string::npos) return {{}, DatumState::kRecovered, "so so"};
  result.output["own/" + hash.to_hex().substr(0, 8)] = all;
  result.output["shared/" + std::string(1, static_cast<char>('a' + first % 4))] = all;
  if (first % 3 == 0) result.output["deep/x/y/" + std::to_string(first % 5)] = "";
  if (first % 7 == 0) return {};
  return result;
}

// The merged output, worked out the simple way.
Files expected_output(content::BlobReader& blobs, const std::vector<KeyedRow>& rows,
                      api::OutputMerge merge) {
  Files out;
  for (const KeyedRow& row : rows) {
    const RunResult result = entangled(read_inputs(blobs, row.row.inputs));
    if (result.state != DatumState::kSuccess) continue;
    for (const auto& [path, bytes] : result.output) {
      if (merge == api::OutputMerge::kConcat) {
        out[path] += bytes;
      } else {
        out[path] = bytes;
      }
    }
  }
  return out;
}

class PlanModel : public ::testing::TestWithParam<int> {};

TEST_P(PlanModel, IncrementalEqualsFromScratch) {
  SeededRandom random(static_cast<uint64_t>(GetParam()) + 1);
  const std::vector<api::Input> shapes = {
      pfs("a", "/*"),
      pfs("a", "/*/*"),
      cross({pfs("a", "/*"), pfs("b", "/*")}),
      union_of({pfs("a", "/*", "x"), pfs("b", "/*", "x")}),
      cross({pfs("a", "/"), union_of({pfs("b", "/*"), pfs("c", "/*/*")})}),
  };
  const api::Input& input = shapes[static_cast<size_t>(GetParam()) % shapes.size()];
  const api::OutputMerge merge =
      random.below(2) == 0 ? api::OutputMerge::kConcat : api::OutputMerge::kOverwrite;
  PipelineWorld world(input);
  world.merge = merge;
  world.use_results = random.below(4) != 0;
  std::vector<Files> repos(world.shape().arms().size());
  int code = 0;
  int succeeded = 0;
  for (int step = 0; step < 25; ++step) {
    for (Files& files : repos) {
      for (auto& [path, bytes] : files) {
        if (bytes == "bad") bytes = "mended";
      }
      for (uint64_t edits = random.below(4); edits > 0; --edits) {
        const std::string path = std::string(1, static_cast<char>('p' + random.below(4))) + "/" +
                                 std::string(1, static_cast<char>('p' + random.below(4)));
        const uint64_t what = random.below(20);
        if (what < 5) {
          files.erase(path);
        } else {
          files[path] = what == 5 && random.below(2) == 0 ? "bad"
                        : what == 6                       ? "soso"
                                                          : std::to_string(random.below(4));
        }
      }
    }
    PlanMode mode = PlanMode::kNormal;
    if (random.below(8) == 0) ++code;
    if (random.below(10) == 0) mode = PlanMode::kEveryJob;
    const Hash transform = sha256(std::to_string(code));
    InputRoots roots;
    for (const Files& files : repos) roots.push_back(world.tree(files));
    const auto job = world.run(roots, transform, entangled, mode);
    ASSERT_FALSE(job.outcome.problem) << job.outcome.problem->message();

    PipelineWorld fresh(input);
    fresh.merge = merge;
    fresh.use_results = false;
    InputRoots fresh_roots;
    for (const Files& files : repos) fresh_roots.push_back(fresh.tree(files));
    ASSERT_EQ(roots, fresh_roots);
    const auto again = fresh.run(fresh_roots, transform, entangled);
    ASSERT_EQ(job.outcome.succeeded(), again.outcome.succeeded());
    const auto rows = rows_of(world.blobs, job.outcome.trees.table);
    const auto fresh_rows = rows_of(fresh.blobs, again.outcome.trees.table);
    ASSERT_EQ(rows.size(), fresh_rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(rows[i].sort_key, fresh_rows[i].sort_key);
      EXPECT_EQ(rows[i].row.inputs, fresh_rows[i].row.inputs);
      EXPECT_EQ(rows[i].row.result_key, fresh_rows[i].row.result_key);
      EXPECT_EQ(rows[i].row.state, fresh_rows[i].row.state);
      EXPECT_EQ(rows[i].row.output, fresh_rows[i].row.output);
    }
    const FoldCounts& counts = job.outcome.counts;
    EXPECT_EQ(counts.processed + counts.skipped + counts.failed + counts.recovered, counts.total);
    if (!job.outcome.succeeded()) continue;
    ++succeeded;
    ASSERT_EQ(job.outcome.trees.owners, again.outcome.trees.owners);
    ASSERT_EQ(job.outcome.trees.content, again.outcome.trees.content);
    const Files expected = expected_output(world.blobs, rows, merge);
    ASSERT_EQ(read_tree(world.blobs, job.outcome.trees.content), expected);
    ASSERT_EQ(world.tree(expected), job.outcome.trees.content);
  }
  EXPECT_GT(succeeded, 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, PlanModel, ::testing::Range(0, 20));

}  // namespace
}  // namespace qanat::pipeline
