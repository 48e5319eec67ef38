#include "qanat/pipeline/fold.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pipeline/pipeline_world.h"

namespace qanat::pipeline {
namespace {

using ::testing::HasSubstr;

const Hash kCode = sha256("code");

// The input file's text is the program: "path=bytes" pairs, divided by blanks.
RunResult scripted(const Files& inputs) {
  RunResult result;
  for (const auto& [name, script] : inputs) {
    for (const std::string_view line : split(script, ' ')) {
      const auto [path, bytes] = split_once(line, '=');
      if (!path.empty()) result.output[std::string(path)] = bytes;
    }
  }
  return result;
}

class FoldTest : public ::testing::Test {
 protected:
  PipelineWorld::Job run(const Files& scripts) {
    return world_.run({world_.tree(scripts)}, kCode, scripted);
  }
  Files output() { return read_tree(world_.blobs, world_.base_trees.content); }

  PipelineWorld world_{pfs("in", "/*")};
};

TEST_F(FoldTest, TwoWritersAreAnErrorThatNamesThem) {
  const auto job = run({{"a", "same=A"}, {"b", "same=B"}, {"c", "own=C"}});
  EXPECT_FALSE(job.outcome.succeeded());
  ASSERT_TRUE(job.outcome.problem);
  EXPECT_EQ(job.outcome.problem->code(), Code::kFailedPrecondition);
  EXPECT_EQ(job.outcome.problem->message(), "two datums wrote /same: in:/a and in:/b");
  EXPECT_THAT(job.outcome.problem->hint(), HasSubstr("output_merge"));
  EXPECT_EQ(job.outcome.counts.processed, 3u);
  EXPECT_EQ(job.outcome.trees.table.totals.count, 3u);
  EXPECT_TRUE(job.outcome.trees.content.empty());
  EXPECT_TRUE(world_.base_trees.table.empty());
}

TEST_F(FoldTest, ConcatInDatumOrder) {
  world_.merge = api::OutputMerge::kConcat;
  run({{"b", "same=B"}, {"a", "same=A"}, {"c", "same= other=x"}});
  EXPECT_EQ(output(), (Files{{"same", "AB"}, {"other", "x"}}));
  run({{"b", "same=B"}, {"a", "same=A"}, {"aa", "same=X"}, {"c", "other=x"}});
  EXPECT_EQ(output(), (Files{{"same", "AXB"}, {"other", "x"}}));
  run({{"b", "same=B"}});
  EXPECT_EQ(output(), (Files{{"same", "B"}}));
}

TEST_F(FoldTest, OverwriteTakesTheLastInDatumOrder) {
  world_.merge = api::OutputMerge::kOverwrite;
  run({{"a", "same=A"}, {"b", "same=B"}});
  EXPECT_EQ(output(), (Files{{"same", "B"}}));
  run({{"a", "same=A"}, {"b", "else=B"}});
  EXPECT_EQ(output(), (Files{{"same", "A"}, {"else", "B"}}));
}

TEST_F(FoldTest, AnotherMergeMakesTheContentAnewAndRunsNothing) {
  const Files scripts = {{"a", "same=A"}, {"b", "same=B own=1"}};
  world_.merge = api::OutputMerge::kConcat;
  run(scripts);
  EXPECT_EQ(output(), (Files{{"same", "AB"}, {"own", "1"}}));
  world_.base_merge = world_.merge;
  world_.merge = api::OutputMerge::kOverwrite;
  auto job = run(scripts);
  EXPECT_TRUE(job.ran.empty());
  EXPECT_EQ(output(), (Files{{"same", "B"}, {"own", "1"}}));
  world_.base_merge = world_.merge;
  world_.merge = api::OutputMerge::kError;
  job = run(scripts);
  ASSERT_TRUE(job.outcome.problem);
  EXPECT_EQ(job.outcome.problem->message(), "two datums wrote /same: in:/a and in:/b");
}

TEST_F(FoldTest, APathMayMoveFromOneDatumToAnother) {
  run({{"a", "f=1"}, {"b", "g=2"}});
  const auto job = run({{"a", "g=1"}, {"b", "f=2"}});
  EXPECT_TRUE(job.outcome.succeeded());
  EXPECT_EQ(output(), (Files{{"f", "2"}, {"g", "1"}}));
}

TEST_F(FoldTest, FileAndDirectoryClashNamesBoth) {
  auto job = run({{"a", "x=1"}, {"b", "x/y=2"}});
  ASSERT_TRUE(job.outcome.problem);
  EXPECT_EQ(job.outcome.problem->message(),
            "the datum in:/a wrote the file /x, and the datum in:/b wrote /x/y, for which /x must "
            "be a directory");
  // Against a base that has the file, and one that has the directory.
  run({{"a", "x=1 x-1=1 x.1=1"}});
  job = run({{"a", "x=1 x-1=1 x.1=1"}, {"b", "x/y/z=2"}});
  ASSERT_TRUE(job.outcome.problem);
  EXPECT_THAT(job.outcome.problem->message(),
              HasSubstr("wrote the file /x, and the datum in:/b wrote /x/y/z"));
  run({{"b", "x/y/z=2"}});
  EXPECT_EQ(output(), (Files{{"x/y/z", "2"}}));
  job = run({{"a", "x/y=1"}, {"b", "x/y/z=2"}});
  ASSERT_TRUE(job.outcome.problem);
  EXPECT_THAT(job.outcome.problem->message(), HasSubstr("wrote the file /x/y"));
  // No clash: only the beginning of the name is the same.
  job = run({{"a", "x/y-=1"}, {"b", "x/y/z=2"}});
  EXPECT_TRUE(job.outcome.succeeded());
}

TEST_F(FoldTest, AFileMayBecomeADirectoryAndTheReverse) {
  run({{"a", "x=1"}});
  EXPECT_TRUE(run({{"a", "x/y=1 x/z=2"}}).outcome.succeeded());
  EXPECT_EQ(output(), (Files{{"x/y", "1"}, {"x/z", "2"}}));
  EXPECT_TRUE(run({{"b", "x=3"}}).outcome.succeeded());
  EXPECT_EQ(output(), (Files{{"x", "3"}}));
}

TEST_F(FoldTest, FirstReportCounts) {
  const std::string job = job_name(1);
  const Plan plan = world_.plan(job, {world_.tree({{"a", "f=1"}})}, kCode, PlanMode::kNormal);
  Folder folder(world_.blobs, {job, {}, plan.table, api::OutputMerge::kError, {}},
                world_.folder().scratch());
  const KeyedRow planned = rows_of(world_.blobs, plan.table)[0];
  must(folder.add_result(planned.sort_key, world_.run_datum(job, planned.row, scripted)));
  DatumRow late = planned.row;
  late.state = DatumState::kFailed;
  late.origin = job;
  must(folder.add_result(planned.sort_key, late));
  const FoldOutcome outcome = must(folder.finish());
  EXPECT_TRUE(outcome.succeeded());
  EXPECT_EQ(read_tree(world_.blobs, outcome.trees.content), (Files{{"f", "1"}}));
}

TEST_F(FoldTest, MissingAndForeignResults) {
  const std::string job = job_name(1);
  const Plan plan =
      world_.plan(job, {world_.tree({{"a", "f=1"}, {"b", "g=1"}})}, kCode, PlanMode::kNormal);
  const auto rows = rows_of(world_.blobs, plan.table);
  {
    Folder folder(world_.blobs, {job, {}, plan.table, api::OutputMerge::kError, {}},
                  world_.folder().scratch());
    must(folder.add_result(rows[1].sort_key, world_.run_datum(job, rows[1].row, scripted)));
    const FoldOutcome outcome = must(folder.finish());
    EXPECT_FALSE(outcome.succeeded());
    EXPECT_EQ(outcome.counts, (FoldCounts{2, 1, 0, 0, 0, 1}));
  }
  Folder folder(world_.blobs, {job, {}, plan.table, api::OutputMerge::kError, {}},
                world_.folder().scratch());
  must(folder.add_result("stranger", world_.run_datum(job, rows[1].row, scripted)));
  EXPECT_EQ(folder.finish().code(), Code::kInternal);
}

TEST_F(FoldTest, ManyResultsInAnyOrderSpillToDisk) {
  world_.merge = api::OutputMerge::kConcat;
  Files scripts;
  for (int i = 0; i < 3000; ++i) {
    const std::string n = std::to_string(10000 + i);
    scripts[n] = "own/" + n + "=" + std::string(300, 'x') + " all=" + n;
  }
  const auto job = run(scripts);
  ASSERT_TRUE(job.outcome.succeeded());
  const Files files = output();
  EXPECT_EQ(files.size(), 3001u);
  EXPECT_EQ(files.at("all").size(), 15000u);
  EXPECT_TRUE(files.at("all").starts_with("100001000110002"));
}

}  // namespace
}  // namespace qanat::pipeline
