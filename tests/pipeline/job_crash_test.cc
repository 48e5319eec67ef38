// A pipeline on a disk that loses what was not synced: crashes during creation, puts, plans,
// reports and folds. After each, a new server over what the disk kept ends every job; nothing
// acknowledged is lost, and the output is the input's copy, whole and once.
#include <gtest/gtest.h>

#include "pipeline/server_world.h"
#include "qanat/base/log.h"
#include "support/fault_file_system.h"
#include "support/seeds.h"

namespace qanat::pipeline {
namespace {

using qanat::testing::FaultFileSystem;
using version::put;
using version::remove;

const version::RepoName kIn{kProject, "in"};
const version::RepoName kCopy{kProject, "copy"};

constexpr const char* kSpec = R"({
  "pipeline": {"name": "copy"},
  "transform": {"image": "local", "cmd": ["cp"]},
  "input": {"pfs": {"repo": "in", "glob": "/*"}}
})";

struct QuietLog {
  QuietLog() { set_log_level(LogLevel::kOff); }
  ~QuietLog() { set_log_level(LogLevel::kInfo); }
};

// What was acknowledged: of each step, that it succeeded.
struct Acknowledged {
  int steps = 0;
  std::map<std::string, std::map<std::string, int>> ran;
};

constexpr int kSteps = 6;
Status run_step(ServerWorld& world, int step) {
  switch (step) {
    case 0:
      return world.bench.versions().create_repo(kIn, "").status();
    case 1:
      return world.bench
          .apply(kIn, "master", {put("a", "1"), put("b", std::string(3000, 'b')), put("c", "3")})
          .status();
    case 2:
      return world.create(kSpec);
    case 3:
    case 5:
      return world.work_until_ended();
    default:
      return world.bench
          .apply(kIn, "master", {put("a", "new"), remove("b"), put("d/e", "4"), put("f", "5")})
          .status();
  }
}

// Runs as far as the disk goes.
Acknowledged run(FaultFileSystem& disk, uint64_t crash_at) {
  Acknowledged acknowledged;
  if (crash_at > 0) disk.crash_at(crash_at);
  ServerWorld world(disk);
  if (!world.status.ok()) return acknowledged;
  world.stop = [&disk] { return disk.crashed(); };
  while (acknowledged.steps < kSteps) {
    const Status status = run_step(world, acknowledged.steps);
    if (!status.ok()) {
      EXPECT_TRUE(disk.crashed()) << "step " << acknowledged.steps << ": " << status.to_string();
      break;
    }
    ++acknowledged.steps;
  }
  acknowledged.ran = world.ran;
  return acknowledged;
}

void expect_recovers(FaultFileSystem& disk, const Acknowledged& before) {
  std::map<int64_t, std::string> ids;
  {
    ServerWorld world(disk);
    ASSERT_TRUE(world.status.ok()) << world.status.to_string();
    const Status integrity = world.bench.meta().check_integrity();
    ASSERT_TRUE(integrity.ok()) << integrity.to_string();
    // Whatever was not acknowledged is made again; then everything ends.
    for (int step = before.steps; step < kSteps; ++step) {
      const Status status = run_step(world, step);
      // It may have happened all the same.
      ASSERT_TRUE(status.ok() || status.code() == Code::kAlreadyExists)
          << "step " << step << ": " << status.to_string();
    }
    ASSERT_TRUE(world.work_until_ended().ok());

    // What was reported before and acknowledged is not run again.
    for (const auto& [job, datums] : world.ran) {
      for (const auto& [datum, times] : datums) {
        const auto job_before = before.ran.find(job);
        EXPECT_EQ(times, 1);
        EXPECT_FALSE(job_before != before.ran.end() && job_before->second.contains(datum))
            << "run twice";
      }
    }
    const auto jobs = world.jobs("copy");
    ASSERT_TRUE(jobs.ok()) << jobs.status().to_string();
    ASSERT_FALSE(jobs->empty());
    for (const JobRecord& job : *jobs) {
      EXPECT_EQ(job.state, JobState::kSuccess) << job.reason;
      EXPECT_TRUE(ids.emplace(job.wave, job.id).second);
      EXPECT_EQ(job.counts.failed, 0);
      EXPECT_EQ(job.counts.processed + job.counts.skipped, job.counts.total);
    }
    const auto in = world.bench.versions().resolve(kIn, "master");
    const auto copy = world.bench.versions().resolve(kCopy, "master");
    ASSERT_TRUE(in.ok() && copy.ok()) << in.status().to_string() << copy.status().to_string();
    EXPECT_EQ(copy->record.root.to_text(), in->record.root.to_text());
    const auto files = world.bench.files_of(*copy);
    ASSERT_TRUE(files.ok()) << files.status().to_string();
    EXPECT_EQ(*files, (std::map<std::string, std::string>{
                          {"a", "new"}, {"c", "3"}, {"d/e", "4"}, {"f", "5"}}));
  }
  // It stays so.
  ServerWorld again(disk);
  ASSERT_TRUE(again.status.ok()) << again.status.to_string();
  EXPECT_TRUE(again.all_ended());
  const auto jobs = again.jobs("copy");
  ASSERT_TRUE(jobs.ok());
  EXPECT_EQ(jobs->size(), ids.size());
}

TEST(JobCrash, SlowEveryJobEndsWhateverIsLost) {
  QuietLog quiet;
  FaultFileSystem whole;
  const Acknowledged all = run(whole, 0);
  ASSERT_EQ(all.steps, kSteps);
  const uint64_t operations = whole.operations();
  // About so many crash points, spread over the run; all of them if more is asked for.
  const uint64_t wanted = std::getenv("QANAT_SEEDS") != nullptr ? operations : 40;
  const uint64_t stride = std::max<uint64_t>(operations / wanted, 1);
  for (uint64_t n = 1; n <= operations + stride; n += stride) {
    FaultFileSystem disk;
    const Acknowledged acknowledged = run(disk, n);
    for (const uint64_t seed : qanat::testing::reboot_seeds(n, 2)) {
      SCOPED_TRACE(
          str_cat("crash at operation ", n, ", seed ", seed, ", steps ", acknowledged.steps));
      const auto after = disk.reboot(seed);
      expect_recovers(*after, acknowledged);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace qanat::pipeline
