// Puts and commits on a disk that loses what was not synced: crashes at every operation.
#include <gtest/gtest.h>

#include "qanat/base/log.h"
#include "support/fault_file_system.h"
#include "support/seeds.h"
#include "version/bench.h"

namespace qanat::version {
namespace {

using qanat::testing::FaultFileSystem;
using Files = std::map<std::string, std::string>;

const RepoName kRepo{"default", "orders"};

std::string bytes_of(int step) {
  return std::string(static_cast<size_t>(2'000 + step), 'a' + step);
}

// One step of the run; each leaves the branch's files as `expected(step)`.
Status run_step(Bench& bench, int step) {
  Versions& versions = bench.versions();
  if (step == 0) return versions.create_repo(kRepo, "").status();
  if (step == 4) {  // an open commit with two puts, finished
    QANAT_ASSIGN_OR_RETURN(auto open, versions.start_commit(kRepo, {}));
    QANAT_RETURN_IF_ERROR(bench.apply(kRepo, open.commit.id, {put("a", bytes_of(4))}).status());
    QANAT_RETURN_IF_ERROR(bench.apply(kRepo, "master", {put("b/4", bytes_of(4))}).status());
    return versions.finish_commit(kRepo, "master").status();
  }
  return bench
      .apply(kRepo, "master", {put("a", bytes_of(step)), put(str_cat("b/", step), bytes_of(step))})
      .status();
}
constexpr int kSteps = 6;

Files expected(int step) {
  Files files;
  if (step < 1) return files;
  files["a"] = bytes_of(step);
  for (int i = 1; i <= step; ++i) files[str_cat("b/", i)] = bytes_of(i);
  return files;
}

// Everything of the acknowledged steps is there; of the next one, all or nothing.
void expect_whole(FaultFileSystem& disk, int acknowledged) {
  Bench bench(disk, "/data");
  ASSERT_TRUE(bench.status.ok()) << bench.status.to_string();
  Status integrity = bench.meta().check_integrity();
  EXPECT_TRUE(integrity.ok()) << integrity.to_string();
  auto repo = bench.versions().inspect_repo(kRepo);
  if (acknowledged < 0 && repo.code() == Code::kNotFound) return;
  ASSERT_TRUE(repo.ok()) << repo.status().to_string();
  auto head = bench.versions().resolve(kRepo, "master");
  int step = 0;
  if (head.ok()) {
    auto files = bench.files_of(*head);
    ASSERT_TRUE(files.ok()) << files.status().to_string();
    step = static_cast<int>(files->size()) - 1;
    EXPECT_EQ(*files, expected(step));
    EXPECT_EQ(head->record.depth, step);
    EXPECT_EQ(*bench.versions().last_wave("default"), step);
    auto wave = bench.versions().inspect_wave("default", head->id);
    ASSERT_TRUE(wave.ok()) << wave.status().to_string();
    EXPECT_EQ((*bench.versions().head_at_wave(kRepo, "master", wave->number))->commit, head->id);
  } else {
    ASSERT_EQ(head.code(), Code::kNotFound) << head.status().to_string();
  }
  EXPECT_GE(step, acknowledged) << "an acknowledged commit is lost";
  EXPECT_LE(step, acknowledged + 1);
  // It goes on.
  auto branch = bench.versions().inspect_branch(kRepo, "master");
  if (branch.ok() && !branch->record.open.empty()) {
    EXPECT_TRUE(bench.versions().finish_commit(kRepo, "master").ok());
  }
  auto written = bench.apply(kRepo, "master", {put("after", "1")});
  EXPECT_TRUE(written.ok()) << written.status().to_string();
}

TEST(VersionsCrashTest, SlowEveryCrashPoint) {
  set_log_level(LogLevel::kOff);
  for (uint64_t n = 1;; ++n) {
    FaultFileSystem disk;
    disk.crash_at(n);
    int acknowledged = -1;
    {
      Bench bench(disk, "/data");
      for (int step = 0; bench.status.ok() && step < kSteps; ++step) {
        if (!run_step(bench, step).ok()) break;
        acknowledged = step;
      }
    }
    const bool crashed = disk.crashed();
    for (uint64_t seed : qanat::testing::reboot_seeds(n, 3)) {
      SCOPED_TRACE(str_cat("crash at ", n, ", seed ", seed));
      expect_whole(*disk.reboot(seed), acknowledged);
      if (::testing::Test::HasFailure()) return;
    }
    if (!crashed) {
      EXPECT_EQ(acknowledged, kSteps - 1);
      break;
    }
  }
  set_log_level(LogLevel::kInfo);
}

// A full disk: the put is refused with a clear word and changes nothing; deleting makes room.
TEST(VersionsCrashTest, AFullDisk) {
  set_log_level(LogLevel::kOff);
  FaultFileSystem disk;
  Bench bench(disk, "/data");
  ASSERT_TRUE(bench.status.ok());
  ASSERT_TRUE(run_step(bench, 0).ok());
  ASSERT_TRUE(run_step(bench, 1).ok());
  disk.set_capacity(1'500'000);
  Status status;
  int puts = 0;
  std::string noise(100'000, 'x');
  for (; status.ok() && puts < 100; ++puts) {
    for (char& c : noise) c = static_cast<char>(c * 31 + puts + (&c - noise.data()) * 7);
    status = bench.apply(kRepo, "master", {put(str_cat("big/", puts), noise)}).status();
  }
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
  EXPECT_FALSE(status.hint().empty());
  auto head = bench.versions().resolve(kRepo, "master");
  ASSERT_TRUE(head.ok());
  EXPECT_EQ(bench.files_of(*head)->size(), static_cast<size_t>(puts - 1 + 2));
  disk.set_capacity(20'000'000);
  EXPECT_TRUE(bench.apply(kRepo, "master", {put("more", noise)}).ok());
  set_log_level(LogLevel::kInfo);
}

}  // namespace
}  // namespace qanat::version
