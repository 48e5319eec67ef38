#include "qanat/pipeline/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pipeline/pipeline_world.h"

namespace qanat::pipeline {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

RunResult copy(const Files& inputs) { return {inputs, DatumState::kSuccess, ""}; }

class ExplainTest : public ::testing::Test {
 protected:
  ExplainTest() {
    spec_.name = "p";
    spec_.transform.image = "image";
    spec_.transform.cmd = {"sh"};
    spec_.transform.stdin_lines = {"echo 1"};
  }

  // Runs a job, and explains the datum of in:/f by the records of it and of the base.
  Explanation run(const Files& files, PlanMode mode = PlanMode::kNormal,
                  const Program& program = copy) {
    request_ = {};
    request_.base_job = base_job_;
    request_.base_code = base_code_;
    request_.base_texts = base_texts_;
    const DatumTable before(world_.blobs, world_.base_trees.table);
    request_.base_row = must(before.find(kKey));
    request_.code = transform_components(spec_, "sha256:0123456789abcdef", reprocess_salt_);
    request_.texts = component_texts(spec_, "sha256:0123456789abcdef");
    const auto job = world_.run({world_.tree(files)}, transform_hash(request_.code), program, mode);
    request_.job = job.id;
    request_.row = must(DatumTable(world_.blobs, job.outcome.trees.table).find(kKey));
    if (job.outcome.succeeded()) {
      base_job_ = job.id;
      base_code_ = request_.code;
      base_texts_ = request_.texts;
    }
    return explain_datum(request_);
  }

  const std::string kKey = sort_key({{"in", "f", {}}});
  api::PipelineSpec spec_;
  std::string reprocess_salt_;
  PipelineWorld world_{pfs("in", "/*")};
  ExplainRequest request_;
  std::string base_job_;
  TransformComponents base_code_;
  std::map<std::string, std::string> base_texts_;
};

TEST_F(ExplainTest, FirstJob) {
  const Explanation why = run({{"f", "1"}});
  EXPECT_EQ(why.decision, "ran");
  EXPECT_EQ(why.compared_with, "");
  EXPECT_EQ(why.reasons[0].text, "ran: the datum in:/f is new, as all are in a first job");
  EXPECT_EQ(why.reasons.back().text, "it ended SUCCESS after 1 attempt, 1.2s in the user's code");
}

TEST_F(ExplainTest, InputChangedThenUnchangedThenBackToOldData) {
  run({{"f", "1"}});
  Explanation why = run({{"f", "2"}, {"g", "1"}});
  EXPECT_EQ(why.decision, "ran");
  EXPECT_EQ(why.compared_with, job_name(1));
  EXPECT_THAT(why.reasons[0].text, StartsWith("ran: input in:/f changed (sha256 "));
  EXPECT_EQ(why.reasons[0].what, "input");
  EXPECT_NE(why.reasons[0].before, why.reasons[0].now);
  EXPECT_THAT(why.reasons[0].text,
              HasSubstr(why.reasons[0].before + ".. -> " + why.reasons[0].now + ".."));

  why = run({{"f", "2"}, {"g", "other"}});
  EXPECT_EQ(why.decision, "skipped");
  EXPECT_EQ(why.reasons[0].text,
            "skipped: same inputs and code as in job " + job_name(2) + ", which ran it in 1.2s");

  why = run({{"f", "1"}});
  EXPECT_EQ(why.decision, "skipped");
  EXPECT_EQ(why.reasons[0].text,
            "skipped: same inputs and code as in job " + job_name(1) + ", which ran it in 1.2s");
  EXPECT_THAT(why.reasons[1].text, StartsWith("looked up, because input in:/f changed"));
}

TEST_F(ExplainTest, CodeChanged) {
  run({{"f", "1"}});
  spec_.transform.stdin_lines = {"echo 2"};
  spec_.transform.env["A"] = "b";
  const Explanation why = run({{"f", "1"}});
  EXPECT_EQ(why.decision, "ran");
  EXPECT_EQ(why.reasons[0].text,
            "ran: transform.env.A changed since job " + job_name(1) + " (none -> \"b\")");
  EXPECT_EQ(why.reasons[1].text,
            "transform.stdin changed since job " + job_name(1) + " (\"echo 1\" -> \"echo 2\")");
}

TEST_F(ExplainTest, FlagsAndEveryJob) {
  run({{"f", "1"}});
  spec_.transform.stdin_lines = {"echo 2"};
  Explanation why = run({{"f", "1"}}, PlanMode::kKeepResults);
  EXPECT_EQ(why.decision, "skipped");
  EXPECT_THAT(why.reasons[0].text,
              HasSubstr("--keep-results accepted the result of job " + job_name(1)));
  EXPECT_EQ(why.reasons[1].what, "transform.stdin");
  why = run({{"f", "1"}});
  EXPECT_EQ(why.decision, "skipped");
  EXPECT_THAT(why.reasons[1].text, HasSubstr("that was with other code"));

  reprocess_salt_ = "salt";
  why = run({{"f", "1"}}, PlanMode::kReprocess);
  EXPECT_EQ(why.decision, "ran");
  EXPECT_EQ(why.reasons[0].what, "reprocess");
  why = run({{"f", "1"}}, PlanMode::kEveryJob);
  EXPECT_EQ(why.decision, "ran");
  EXPECT_THAT(why.reasons[0].text, HasSubstr("reprocess_spec is every_job"));
}

TEST_F(ExplainTest, FailedRecoveredGoneAndPending) {
  Explanation why = run({{"f", "1"}}, PlanMode::kNormal, [](const Files&) {
    return RunResult{{}, DatumState::kRecovered, "exit code 1"};
  });
  EXPECT_THAT(why.reasons.back().text, HasSubstr("it ended RECOVERED after 1 attempt"));
  EXPECT_THAT(why.reasons.back().text, HasSubstr("exit code 1"));
  why = run({{"f", "1"}});
  EXPECT_EQ(why.reasons[0].text, "ran: job " + job_name(1) + " did not finish it (RECOVERED)");
  why = run({});
  EXPECT_EQ(why.decision, "gone");
  EXPECT_THAT(why.reasons[0].text, HasSubstr("had the datum in:/f"));
  why = run({});
  EXPECT_EQ(why.reasons[0].what, "unknown");

  ExplainRequest pending;
  pending.job = job_name(9);
  pending.row = DatumRow{};
  pending.row->inputs = {{"in", "f", {}}};
  pending.row->decided_in = job_name(9);
  why = explain_datum(pending);
  EXPECT_EQ(why.decision, "will run");
  EXPECT_THAT(why.reasons[0].text, StartsWith("will run: the datum in:/f is new"));

  JobRecord killed;
  killed.state = JobState::kKilled;
  killed.reason = "stopped by a user";
  pending.unrun = why_unrun(killed);
  why = explain_datum(pending);
  EXPECT_EQ(why.decision, "not run");
  EXPECT_EQ(why.reasons[0].text, "not run: the job ended as KILLED (stopped by a user)");
  EXPECT_THAT(why.reasons[1].text, StartsWith("it was to run: the datum in:/f is new"));
}

TEST_F(ExplainTest, LongTextsAreShortened) {
  spec_.transform.stdin_lines = {std::string(1000, 'x'), "line\nbreak"};
  const auto texts = component_texts(spec_, "");
  EXPECT_LT(texts.at("transform.stdin").size(), 130u);
  EXPECT_EQ(texts.at("transform.stdin").find('\n'), std::string::npos);
}

}  // namespace
}  // namespace qanat::pipeline
