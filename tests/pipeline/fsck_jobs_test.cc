#include "qanat/pipeline/fsck_jobs.h"

#include <gtest/gtest.h>

#include <set>

#include "content/content_disk.h"
#include "pipeline/pipeline_world.h"
#include "qanat/content/map_editor.h"
#include "qanat/content/owner_tree.h"
#include "qanat/pipeline/datum_table.h"
#include "qanat/pipeline/journal.h"
#include "qanat/pipeline/records.h"
#include "qanat/version/keys.h"
#include "qanat/version/records.h"
#include "version/damaged_objects.h"

namespace qanat::pipeline {
namespace {

class FsckJobsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(disk_.open()) << disk_.status.message();
    objects_ = std::make_unique<version::DamagedObjects>(*disk_.objects);
    content::ContentOptions options;
    options.now_ms = [this] { return disk_.clock.wall_ms(); };
    options.background = false;
    options.write_threads = 0;
    contents_ =
        content::ContentStores::create(disk_.meta.get(), objects_.get(), std::move(options));
    PipelineRecord pipeline;
    pipeline.output_branch = "master";
    put(pipeline_key("default", "clean"), encode(pipeline));
    SpecRecord spec;
    spec.transform_hash = std::string(64, '0');
    put(spec_key("default", "clean", 1), encode(spec));
    put("/v1/repo/default/clean", "{}");
  }
  void put(const std::string& key, const std::string& value) {
    ASSERT_TRUE(disk_.meta->commit(meta::Transaction().put(key, value)).ok());
  }

  std::set<std::string> touches(bool data) {
    FsckJobs jobs(*disk_.meta);
    content::FsckContext context;
    context.project = "default";
    context.meta = disk_.meta.get();
    context.objects = objects_.get();
    context.sources = {&jobs};
    context.file_system = &posix_file_system();
    context.scratch = folder_.scratch().directory;
    std::set<std::string> touches;
    content::FsckOptions fsck;
    fsck.data = data;
    fsck.on_problem = [&](const content::FsckProblem& problem) {
      touches.insert(problem.touches.begin(), problem.touches.end());
      if (problem.touches.empty()) touches.insert("nothing: " + problem.what);
      return ok_status();
    };
    const auto summary = content::fsck(context, fsck);
    EXPECT_TRUE(summary.ok()) << summary.status().message();
    return touches;
  }

  content::QuietLog quiet_;
  content::ContentDisk disk_;
  ScratchFolder folder_;
  std::unique_ptr<version::DamagedObjects> objects_;
  std::unique_ptr<content::ContentStores> contents_;
};

TEST_F(FsckJobsTest, WhatJobsNameIsCheckedAndNamed) {
  auto* content = must(contents_->project("default"));
  auto writer = content->new_writer();
  const std::string sort_key = std::string("in\0a\0", 5);
  DatumRow row;
  row.state = DatumState::kSuccess;
  row.log = must(content::write_file(*writer, "the log"));
  row.output = make_tree(*writer, {{"out/a.txt", "result"}}, folder_);
  content::MapEditor table(content::kPlainMap, *writer, {});
  must(table.put(sort_key, encode_row(row)));
  content::OwnerTreeEditor owners(*writer, {});
  must(owners.put("out/a.txt", sort_key, must(content::write_file(*writer, "result"))));
  DatumRow reported = row;
  reported.output = make_tree(*writer, {{"b.txt", "reported"}}, folder_);
  const Hash first =
      must(writer->add(content::BlobKind::kNode,
                       encode_journal_node(Hash(), {{sort_key, encode_row(reported)}})))
          .hash;
  const Hash second =
      must(writer->add(content::BlobKind::kNode, encode_journal_node(first, {}))).hash;
  JobRecord job;
  job.id = std::string(32, 'a');
  job.wave = 7;
  job.state = JobState::kSuccess;
  job.spec_version = 1;
  job.table = must(table.finish()).to_text();
  job.owners = must(owners.finish()).to_text();
  job.content = row.output.to_text();
  job.journal = second.to_hex();
  must(writer->flush());
  meta::Transaction transaction;
  writer->add_to(&transaction);
  transaction.put(job_key("default", "clean", 7), encode(job));
  const auto committed = must(disk_.meta->commit(std::move(transaction)));
  ASSERT_TRUE(committed.succeeded);
  writer->committed(committed.revision);

  EXPECT_EQ(touches(false), std::set<std::string>());
  EXPECT_EQ(touches(true), std::set<std::string>());

  // Each byte of the pack that matters to something is told of in the words of jobs.
  std::string pack;
  for (const std::string& key : disk_.object_keys()) pack = key;
  std::set<std::string> all;
  for (int64_t i = 8; i < *objects_->size(pack); ++i) {
    objects_->flip(pack, i);
    all.merge(touches(true));
  }
  objects_->repair();
  const std::string name = "job clean@" + job.id;
  const std::string datum = "datum " + datum_id(sort_key).to_hex().substr(0, 12);
  for (const std::string& touched :
       {name + ", datums, " + datum + ":/out/a.txt", name + ", datums, " + datum + ", log",
        name + ", owners of out/a.txt", name + ", content:/out/a.txt",
        name + ", journal, " + datum + ":/b.txt",
        name + ", journal, (all but the newest reports)"}) {
    EXPECT_TRUE(all.contains(touched)) << touched;
  }

  // The same in the trash.
  version::TrashRecord trash{.kind = "commit", .commit = job.id};
  put(version::trash_key("default", 1, "t"), version::encode(trash));
  const std::string item = version::trash_item_key("default", "t", job_key("default", "clean", 7));
  ASSERT_TRUE(
      disk_.meta
          ->commit(meta::Transaction().erase(job_key("default", "clean", 7)).put(item, encode(job)))
          .ok());
  EXPECT_EQ(touches(true), std::set<std::string>());
  objects_->lose(pack);
  EXPECT_TRUE(
      touches(false).contains("trash, commit " + job.id + ": " + name + ", content:/out/a.txt"));
  objects_->repair();
  put(job_key("default", "clean", 7), encode(job));

  ASSERT_TRUE(disk_.meta->commit(meta::Transaction().erase(spec_key("default", "clean", 1))).ok());
  EXPECT_EQ(touches(false), (std::set<std::string>{name, "pipeline clean"}));
}

// The next plan reads the inputs of the last successful job, those of the jobs before nobody does.
TEST_F(FsckJobsTest, TheInputsOfTheLastSuccessfulJobAreChecked) {
  auto* content = must(contents_->project("default"));
  auto writer = content->new_writer();
  JobRecord job;
  job.id = std::string(32, 'b');
  job.wave = 8;
  job.state = JobState::kSuccess;
  job.spec_version = 1;
  JobInput input;
  input.name = "in";
  input.repo = "in";
  input.branch = "master";
  input.root = make_tree(*writer, {{"a.txt", std::string(3000, 'x')}}, folder_).to_text();
  job.inputs.push_back(input);
  must(writer->flush());
  meta::Transaction transaction;
  writer->add_to(&transaction);
  transaction.put(job_key("default", "clean", 8), encode(job));
  const auto committed = must(disk_.meta->commit(std::move(transaction)));
  ASSERT_TRUE(committed.succeeded);
  writer->committed(committed.revision);

  objects_->lose(*disk_.object_keys().begin());
  // A pack that is lost is told of whatever needs it.
  for (const std::string& touched : touches(false)) EXPECT_TRUE(touched.starts_with("nothing: "));
  PipelineRecord pipeline;
  pipeline.output_branch = "master";
  pipeline.base_wave = 8;
  put(pipeline_key("default", "clean"), encode(pipeline));
  EXPECT_TRUE(touches(false).contains("job clean@" + job.id + ", input in:/a.txt"));
}

}  // namespace
}  // namespace qanat::pipeline
