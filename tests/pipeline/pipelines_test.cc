// Pipelines of a whole server: what becomes of them and their jobs when commits, repos and tokens
// go.
#include "qanat/pipeline/pipelines.h"

#include <gtest/gtest.h>

#include "pipeline/server_world.h"
#include "qanat/base/log.h"
#include "qanat/content/gc_collector.h"
#include "qanat/pipeline/commit_jobs.h"
#include "qanat/pipeline/gc_roots.h"
#include "qanat/version/commit_sets.h"
#include "qanat/version/gc_roots.h"
#include "qanat/version/keys.h"
#include "support/fault_file_system.h"

namespace qanat::pipeline {
namespace {

using qanat::testing::FaultFileSystem;
using version::CommitSets;
using version::put;
using version::remove;

using Files = std::map<std::string, std::string>;

const version::RepoName kIn{kProject, "in"};
const version::RepoName kCopy{kProject, "copy"};

std::string spec(const std::string& name, const std::string& repo,
                 const std::string& branch = "master") {
  return str_cat(
      R"({"pipeline": {"name": ")", name,
      R"("}, "transform": {"image": "local", "cmd": ["cp"]}, "input": {"pfs": {"repo": ")", repo,
      R"(", "branch": ")", branch, R"(", "glob": "/*"}}})");
}

class PipelinesTest : public ::testing::Test {
 protected:
  PipelinesTest() {
    set_log_level(LogLevel::kOff);
    start();
  }
  ~PipelinesTest() override { set_log_level(LogLevel::kInfo); }

  void start() {
    world_.reset();
    world_ = std::make_unique<ServerWorld>(disk_);
    EXPECT_TRUE(world_->status.ok()) << world_->status.to_string();
  }
  version::Versions& versions() { return world_->bench.versions(); }
  Pipelines& pipelines() { return *world_->pipelines; }

  void create_repo(const std::string& name) {
    const auto made = versions().create_repo({kProject, name}, "");
    ASSERT_TRUE(made.ok()) << made.status().to_string();
  }
  void create(const std::string& text) {
    const Status made = world_->create(text);
    ASSERT_TRUE(made.ok()) << made.to_string();
  }
  // Commits, and lets everything downstream end. Gives the commit's id.
  std::string commit(const std::string& repo, const std::vector<version::Change>& changes,
                     const std::string& branch = "master") {
    const auto made = world_->bench.apply({kProject, repo}, branch, changes);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    work();
    return made.ok() ? made->commit.id : "";
  }
  void work() {
    const Status worked = world_->work_until_ended();
    EXPECT_TRUE(worked.ok()) << worked.to_string();
  }
  Files files(const std::string& repo, const std::string& ref = "master") {
    const auto found = versions().resolve({kProject, repo}, ref);
    if (!found.ok()) return {{"error", found.status().message()}};
    const auto all = world_->bench.files_of(*found);
    return all.ok() ? *all : Files{{"error", all.status().message()}};
  }
  JobRecord last_job(const std::string& pipeline) {
    const auto jobs = world_->jobs(pipeline);
    EXPECT_TRUE(jobs.ok() && !jobs->empty());
    return jobs.ok() && !jobs->empty() ? jobs->back() : JobRecord{};
  }
  PipelineRecord record(const std::string& name) {
    const std::string key = pipeline_key(kProject, name);
    const auto found = world_->bench.meta().get(key);
    EXPECT_TRUE(found.ok() && *found);
    if (!found.ok() || !*found) return {};
    return decode<PipelineRecord>(key, (*found)->value).value_or(PipelineRecord{});
  }
  Result<std::vector<version::CommitInfo>> take_out(const std::string& id, CommitSets::How how,
                                                    bool recursive = false) {
    RemovedJobs jobs(world_->bench.meta(), versions());
    CommitSets sets(world_->bench.meta(), real_clock(), versions(), &jobs);
    return sets.remove({.id = id, .how = how, .recursive = recursive, .may = {}});
  }
  Status collect() {
    QANAT_ASSIGN_OR_RETURN(auto* content, world_->bench.contents().project(kProject));
    QANAT_RETURN_IF_ERROR(versions().empty_trash(kProject, true));
    version::VersionRoots commits(world_->bench.meta(), real_clock(), versions());
    JobRoots jobs(world_->bench.meta(), real_clock());
    content::GcContext context;
    context.meta = &world_->bench.meta();
    context.objects = &world_->bench.objects();
    context.content = content;
    context.pins = &world_->bench.session();
    context.clock = &real_clock();
    context.sources = {&commits, &jobs};
    context.scratch = {&posix_file_system(), ::testing::TempDir(), 1 << 20};
    content::GcOptions options;
    options.now = true;
    options.settle_ms = 0;
    options.min_live = 1.0;
    options.few_small_packs = 2;
    const auto collector = content::GcCollector::create(std::move(context), options);
    const int64_t deadline = real_clock().monotonic_ms() + 20'000;
    while (real_clock().monotonic_ms() < deadline) {
      QANAT_ASSIGN_OR_RETURN(const auto progress, collector->step());
      if (progress == content::GcCollector::Progress::kDone) return ok_status();
      if (progress == content::GcCollector::Progress::kWaiting) real_clock().sleep_for_ms(5);
    }
    return deadline_exceeded("the collection does not end");
  }

  FaultFileSystem disk_;
  std::unique_ptr<ServerWorld> world_;
};

TEST_F(PipelinesTest, WhatIsBuiltOnADroppedCommitGoesBackWithIt) {
  create_repo("in");
  create(spec("copy", "in"));
  work();
  const std::string first = commit("in", {put("a", "1"), put("b", "2")});
  const std::string second = commit("in", {put("a", "one")});
  const std::string third = commit("in", {put("c", "3"), remove("b")});
  EXPECT_EQ(files("copy"), (Files{{"a", "one"}, {"c", "3"}}));
  const int64_t base = record("copy").base_wave;

  const auto gone = take_out(third, CommitSets::How::kDrop);
  ASSERT_TRUE(gone.ok()) << gone.status().to_string();
  EXPECT_EQ(gone->size(), 2U);  // in and copy
  EXPECT_EQ(files("in"), (Files{{"a", "one"}, {"b", "2"}}));
  EXPECT_EQ(files("copy"), (Files{{"a", "one"}, {"b", "2"}}));
  EXPECT_LT(record("copy").base_wave, base);
  EXPECT_EQ(last_job("copy").id, second);
  const Status collected = collect();
  ASSERT_TRUE(collected.ok()) << collected.to_string();

  // The next job builds on the one before, over a collection and a restart.
  start();
  const std::string fourth = commit("in", {put("d", "4")});
  EXPECT_EQ(files("copy"), (Files{{"a", "one"}, {"b", "2"}, {"d", "4"}}));
  EXPECT_EQ(last_job("copy").id, fourth);
  EXPECT_EQ(last_job("copy").counts.processed, 1);
  EXPECT_EQ(last_job("copy").counts.skipped, 2);
  EXPECT_EQ(files("copy", first), (Files{{"a", "1"}, {"b", "2"}}));
}

TEST_F(PipelinesTest, ASquashedCommitLeavesWhatIsBuiltOnIt) {
  create_repo("in");
  create(spec("copy", "in"));
  work();
  const std::string first = commit("in", {put("a", "1"), put("b", "2")});
  const std::string second = commit("in", {put("a", "one")});
  const std::string third = commit("in", {put("c", "3")});
  const auto gone = take_out(second, CommitSets::How::kSquash);
  ASSERT_TRUE(gone.ok()) << gone.status().to_string();
  EXPECT_EQ(gone->size(), 2U);
  const Status collected = collect();
  ASSERT_TRUE(collected.ok()) << collected.to_string();
  EXPECT_EQ(files("copy"), (Files{{"a", "one"}, {"b", "2"}, {"c", "3"}}));
  EXPECT_EQ(files("copy", "master^"), (Files{{"a", "1"}, {"b", "2"}}));
  // Results that only the squashed job had are still known: they are the newest job's, too.
  commit("in", {put("d", "4")});
  EXPECT_EQ(last_job("copy").counts.processed, 1);
  EXPECT_EQ(last_job("copy").counts.skipped, 3);
  EXPECT_EQ(files("copy"), (Files{{"a", "one"}, {"b", "2"}, {"c", "3"}, {"d", "4"}}));
}

TEST_F(PipelinesTest, ADroppedFailureIsNoObstacle) {
  create_repo("in");
  create_repo("other");
  create(spec("copy", "in"));
  create(R"({"pipeline": {"name": "both"}, "transform": {"image": "local", "cmd": ["cp"]},
             "input": {"union": [{"pfs": {"repo": "copy", "glob": "/*"}},
                                 {"pfs": {"repo": "other", "glob": "/*"}}]}})");
  work();
  commit("in", {put("a", "1")});
  const std::string bad = commit("in", {put("b", "fail")});
  EXPECT_EQ(last_job("copy").state, JobState::kFailure);
  EXPECT_EQ(last_job("both").state, JobState::kUnrunnable);
  EXPECT_EQ(files("copy"), (Files{{"a", "1"}}));
  // Whoever reads the failed one cannot run, for another reason to run either.
  commit("other", {put("x", "2")});
  EXPECT_EQ(last_job("both").state, JobState::kUnrunnable);
  const auto gone = take_out(bad, CommitSets::How::kDrop);
  ASSERT_TRUE(gone.ok()) << gone.status().to_string();
  commit("other", {put("y", "3")});
  EXPECT_EQ(last_job("both").state, JobState::kSuccess) << last_job("both").reason;
}

TEST_F(PipelinesTest, OneWithWorkKeepsAllCommitsOfAChange) {
  create_repo("in");
  create_repo("more");
  create(R"({"pipeline": {"name": "busy"}, "transform": {"image": "local", "cmd": ["cp"]},
             "input": {"union": [{"pfs": {"repo": "in", "glob": "/*"}},
                                 {"pfs": {"repo": "more", "glob": "/*"}}]}})");
  create(spec("idle", "in"));
  work();
  commit("in", {put("a", "1")});
  const std::string second = commit("in", {put("a", "2")});
  commit("in", {put("a", "3")});
  ASSERT_TRUE(world_->bench.apply({kProject, "more"}, "master", {put("b", "1")}).ok());
  const auto refused = take_out(second, CommitSets::How::kSquash);
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("busy"), std::string::npos)
      << refused.status().to_string();
  for (const char* repo : {"in", "idle", "busy"})
    EXPECT_EQ(files(repo, second), (Files{{"a", "2"}}));
  work();
  const auto gone = take_out(second, CommitSets::How::kSquash);
  ASSERT_TRUE(gone.ok()) << gone.status().to_string();
  EXPECT_EQ(gone->size(), 3U);
}

TEST_F(PipelinesTest, OtherBranchesOfAPipelinesRepoWaitForNoJob) {
  create_repo("in");
  create(spec("copy", "in"));
  work();
  commit("in", {put("a", "1")});
  ASSERT_TRUE(versions().put_branch(kCopy, "good", {.head = "master", .provenance = {}}).ok());
  create(spec("reader", "copy", "good"));
  work();
  EXPECT_EQ(files("reader"), (Files{{"a", "1"}}));
  commit("in", {put("b", "fail")});
  EXPECT_EQ(last_job("copy").state, JobState::kFailure);
  // The branch stands where it was put, whatever becomes of the pipeline's own.
  ASSERT_TRUE(pipelines().stop_pipeline(kProject, "reader").ok());
  ASSERT_TRUE(pipelines().start_pipeline(kProject, "reader").ok());
  work();
  EXPECT_EQ(last_job("reader").state, JobState::kSuccess) << last_job("reader").reason;
}

TEST_F(PipelinesTest, WhatDerivesFromItsOutputKeepsAPipeline) {
  create_repo("in");
  create_repo("out");
  create(spec("copy", "in"));
  work();
  commit("in", {put("a", "1")});
  const std::vector<version::BranchName> sources = {{"copy", "master"}};
  ASSERT_TRUE(
      versions().put_branch({kProject, "out"}, "kept", {.head = {}, .provenance = sources}).ok());
  const Status refused = pipelines().delete_pipeline(kProject, "copy", false, false);
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_NE(refused.message().find("out@kept"), std::string::npos) << refused.to_string();
  // It is as it was.
  commit("in", {put("b", "2")});
  EXPECT_EQ(files("copy"), (Files{{"a", "1"}, {"b", "2"}}));
  ASSERT_TRUE(pipelines().delete_pipeline(kProject, "copy", false, true).ok());
}

TEST_F(PipelinesTest, TheOutputOfADeletedPipelineComesBackAsAUsersRepo) {
  create_repo("in");
  create(spec("copy", "in"));
  work();
  commit("in", {put("a", "1")});
  ASSERT_TRUE(pipelines().delete_pipeline(kProject, "copy", false, false).ok());
  EXPECT_EQ(versions().inspect_repo(kCopy).code(), Code::kNotFound);
  ASSERT_TRUE(versions().undelete_repo(kCopy).ok());
  ASSERT_TRUE(pipelines().release_if_orphan(kProject, "copy").ok());
  EXPECT_EQ(files("copy"), (Files{{"a", "1"}}));
  commit("copy", {put("b", "by a user")});
  EXPECT_EQ(files("copy"), (Files{{"a", "1"}, {"b", "by a user"}}));
  ASSERT_TRUE(versions().delete_repo(kCopy, false).ok());
  // The name is free again.
  create(spec("copy", "in"));
  work();
  EXPECT_EQ(files("copy"), (Files{{"a", "1"}}));
  ASSERT_TRUE(pipelines().release_if_orphan(kProject, "copy").ok());
  EXPECT_EQ(versions().inspect_repo(kCopy)->record.pipeline, "copy");
}

TEST_F(PipelinesTest, OneWhoseRepoIsBeingDeletedGetsANewRepo) {
  create_repo("in");
  create_repo("copy");
  commit("copy", {put("old", "1")});
  version::RepoRecord deleting = versions().inspect_repo(kCopy)->record;
  deleting.deleting = true;
  ASSERT_TRUE(world_->bench.meta()
                  .commit(meta::Transaction().put(version::repo_key(kProject, "copy"),
                                                  version::encode(deleting)))
                  .ok());
  create(spec("copy", "in"));
  work();
  commit("in", {put("a", "1")});
  EXPECT_EQ(files("copy"), (Files{{"a", "1"}}));
}

TEST_F(PipelinesTest, NoRightComesFromATokenThatIsGone) {
  create_repo("in");
  const std::string key = "/v1/token/of-a-test";
  auto& meta = world_->bench.meta();
  const auto everything = [](std::string_view) { return true; };
  const auto refused = pipelines().create(kProject, spec("copy", "in"), {"t", everything, key});
  EXPECT_EQ(refused.code(), Code::kPermissionDenied);
  EXPECT_EQ(pipelines().find(kProject, "copy"), nullptr);

  ASSERT_TRUE(meta.commit(meta::Transaction().put(key, "there")).ok());
  ASSERT_TRUE(pipelines().create(kProject, spec("copy", "in"), {"t", everything, key}).ok());
  work();
  EXPECT_TRUE(pipelines().withdraw_lost([](const std::string&) { return true; })->empty());
  EXPECT_FALSE(record("copy").stopped);
  const auto lost = pipelines().withdraw_lost([](const std::string& name) { return name != "t"; });
  ASSERT_TRUE(lost.ok());
  EXPECT_EQ(*lost, std::vector<std::string>{"copy"});
  EXPECT_TRUE(record("copy").stopped);
  EXPECT_EQ(pipelines().start_pipeline(kProject, "copy").code(), Code::kFailedPrecondition);

  // Stopped by a user before, it stays so, and does not say any more that it lacks rights.
  ASSERT_TRUE(pipelines().update(kProject, spec("copy", "in"), {}, {"u", everything}).ok());
  EXPECT_FALSE(record("copy").stopped);
  ASSERT_TRUE(pipelines().stop_pipeline(kProject, "copy").ok());
  ASSERT_TRUE(pipelines().withdraw("u").ok());
  EXPECT_NE(record("copy").reason.find("withdrawn"), std::string::npos);
  ASSERT_TRUE(pipelines().update(kProject, spec("copy", "in"), {}, {"v", everything}).ok());
  EXPECT_TRUE(record("copy").stopped);
  EXPECT_EQ(record("copy").reason.find("withdrawn"), std::string::npos) << record("copy").reason;
}

TEST_F(PipelinesTest, OneThatIsIdleDoesNotLookThroughAllWavesAgain) {
  create_repo("in");
  create(spec("copy", "in"));
  work();
  const int64_t before = record("copy").last_wave;
  for (int n = 0; n < 1010; ++n) {  // changes that are none of its
    const auto made = versions().start_wave(
        kProject, [](int64_t) -> Result<version::WaveDraft> { return version::WaveDraft{}; });
    ASSERT_TRUE(made.ok()) << made.status().to_string();
  }
  ASSERT_TRUE(pipelines().tell_waves(kProject).ok());
  const int64_t deadline = real_clock().monotonic_ms() + 10'000;
  while (record("copy").last_wave < before + 900 && real_clock().monotonic_ms() < deadline)
    real_clock().sleep_for_ms(5);
  EXPECT_GE(record("copy").last_wave, before + 900);
  commit("in", {put("a", "1")});
  EXPECT_EQ(files("copy"), (Files{{"a", "1"}}));
  start();
  EXPECT_TRUE(world_->all_ended());
  commit("in", {put("b", "2")});
  EXPECT_EQ(files("copy"), (Files{{"a", "1"}, {"b", "2"}}));
}

}  // namespace
}  // namespace qanat::pipeline
