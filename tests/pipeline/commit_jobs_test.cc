#include "qanat/pipeline/commit_jobs.h"

#include <gtest/gtest.h>

#include <set>

#include "content/content_disk.h"
#include "pipeline/pipeline_world.h"
#include "qanat/pipeline/gc_roots.h"
#include "qanat/pipeline/records.h"
#include "qanat/version/keys.h"
#include "qanat/version/records.h"
#include "support/memory_meta.h"

namespace qanat::pipeline {
namespace {

const std::string kProject = "default";

class CommitJobsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(versions_.start().ok());
    PipelineRecord pipeline;
    pipeline.output_branch = "master";
    pipeline.base_wave = 2;
    pipeline.last_wave = 2;
    put(pipeline_key(kProject, "clean"), encode(pipeline));
    for (const int64_t wave : {1, 2}) {
      JobRecord job;
      job.id = std::string(32, static_cast<char>('0' + wave));
      job.wave = wave;
      job.state = JobState::kSuccess;
      JobInput input;
      input.name = "in";
      input.repo = "in";
      input.branch = "master";
      input.commit = job.id;
      input.wave = wave;
      content::MapRoot root;
      root.hash = chunk::name_blob(content::BlobKind::kNode, job.id).hash;
      root.totals.count = 1;
      input.root = root.to_text();
      roots_.push_back(root.hash);
      job.inputs.push_back(input);
      put(job_key(kProject, "clean", wave), encode(job));
    }
  }
  void put(const std::string& key, const std::string& value) {
    ASSERT_TRUE(meta_.commit(meta::Transaction().put(key, value)).ok());
  }

  // The pipeline's base after its last job was dropped.
  int64_t base_after_drop(const std::string& trash) {
    RemovedJobs jobs(meta_, versions_);
    meta::Transaction transaction;
    must(jobs.remove_job(kProject, "clean", 2, 1, trash, transaction));
    EXPECT_TRUE(must(meta_.commit(std::move(transaction))).succeeded);
    const std::string key = pipeline_key(kProject, "clean");
    return must(decode<PipelineRecord>(key, must(meta_.get(key))->value)).base_wave;
  }

  content::QuietLog quiet_;
  ManualClock clock_;
  qanat::testing::MemoryMeta meta_{clock_};
  version::Versions versions_{meta_, clock_, [](std::string_view) -> Result<content::BlobReader*> {
                                return internal_error("nothing is read");
                              }};
  std::vector<Hash> roots_;
};

TEST_F(CommitJobsTest, TheNextJobStartsFromTheOneBefore) {
  put(version::commit_key(kProject, "in", std::string(32, '1')), "{}");
  EXPECT_EQ(base_after_drop(""), 1);
}

// Else collections and plans would look for trees that nothing has kept.
TEST_F(CommitJobsTest, OrFromScratchIfItsInputsAreGone) { EXPECT_EQ(base_after_drop(""), 0); }

TEST_F(CommitJobsTest, JobsInTheTrashDoNotKeepWhatTheyHaveRead) {
  put(version::trash_key(kProject, 1, "t"),
      version::encode(version::TrashRecord{.kind = "commit", .commit = std::string(32, '2')}));
  base_after_drop("t");
  JobRoots roots(meta_, clock_);
  const auto named = [&](content::RootRank rank) {
    content::RootSource::Request request;
    request.project = kProject;
    request.rank = rank;
    std::set<Hash> hashes;
    must(roots.visit_roots(request, [&](const content::Holder&, const content::Reference& at) {
      hashes.insert(at.ref.hash);
      return ok_status();
    }));
    return hashes;
  };
  EXPECT_EQ(named(content::RootRank::kTrash), std::set<Hash>());
  EXPECT_EQ(named(content::RootRank::kJobs), std::set<Hash>());
}

}  // namespace
}  // namespace qanat::pipeline
