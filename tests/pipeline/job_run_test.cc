// A running job by itself, over real storage, with the test as its workers and as its clock.
#include "qanat/pipeline/job_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>
#include <set>
#include <thread>

#include "pipeline/pipeline_world.h"
#include "qanat/base/log.h"
#include "qanat/content/file_writer.h"
#include "support/fault_file_system.h"
#include "version/bench.h"

namespace qanat::pipeline {
namespace {

using qanat::testing::FaultFileSystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Strings = std::vector<std::string>;

constexpr const char* kProject = "default";
constexpr const char* kPipeline = "p";
constexpr int64_t kWave = 7;

class JobRunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_level(LogLevel::kOff);
    spec_.datum_set_number = 1000;  // a worker gets what it asks for
    boot(std::make_unique<FaultFileSystem>());
  }
  void TearDown() override {
    run_.reset();
    bench_.reset();
    set_log_level(LogLevel::kInfo);
  }

  void boot(std::unique_ptr<FaultFileSystem> disk) {
    run_.reset();
    bench_.reset();
    disk_ = std::move(disk);
    bench_ = std::make_unique<version::Bench>(*disk_, "/data");
    ASSERT_TRUE(bench_->status.ok()) << bench_->status.to_string();
    services_.meta = &bench_->meta();
    services_.contents = &bench_->contents();
    services_.clock = &clock_;
    services_.scratch = {disk_.get(), "/data/tmp", 1 << 20};
  }
  content::ContentStore& content() { return *must(bench_->contents().project(kProject)); }

  // Plans a job with so many datums and puts its record into meta.
  void plan(int datums) {
    const auto writer = content().new_writer();
    content::EditBuffer edits(*disk_, "/data/tmp");
    for (int i = 0; i < datums; ++i) {
      const auto file = must(content::write_file(*writer, str_cat("input ", i)));
      must(edits.add(content::TreeEdit::put(str_cat("f", 10000 + i), file)));
    }
    const auto shape = must(InputShape::make(pfs("in", "/*")));
    PlanRequest request;
    request.job = job_name(1);
    request.pipeline = kPipeline;
    request.shape = &shape;
    request.roots = {must(edits.apply(*writer, {}))};
    NoResults nothing;
    const Plan plan = must(make_plan(*writer, request, nothing, services_.scratch));
    JobRecord record;
    record.id = request.job;
    record.wave = kWave;
    record.state = JobState::kRunning;
    record.started_ms = clock_.wall_ms();
    record.plan = plan.table.to_text();
    record.counts.to_run = datums;
    record.inputs = {{"in", "in", "master", job_name(9), kWave, ""}};
    must(writer->flush());
    meta::Transaction transaction;
    writer->add_to(&transaction);
    transaction.put(job_key(kProject, kPipeline, kWave), encode(record));
    const auto result = must(bench_->meta().commit(std::move(transaction)));
    ASSERT_TRUE(result.succeeded);
    writer->committed(result.revision);
  }
  JobRecord stored(int64_t* revision = nullptr) {
    const std::string key = job_key(kProject, kPipeline, kWave);
    const auto found = must(bench_->meta().get(key));
    if (revision != nullptr) *revision = found->mod_revision;
    return must(decode<JobRecord>(key, found->value));
  }
  // Opens the job as meta has it.
  void open(bool resumed = false) {
    int64_t revision = 0;
    JobRecord record = stored(&revision);
    run_ = must(JobRun::open(services_, kProject, kPipeline, spec_, std::move(record), revision, {},
                             resumed, [this] { ++idles_; }));
  }
  // The server is gone, and with it what was not synced; another one opens the job.
  void crash_and_open() {
    disk_->crash();
    auto after = disk_->reboot(0);
    boot(std::move(after));
    open(true);
  }

  Strings lease(const std::string& worker, size_t max = 0, size_t workers = 1) {
    Strings ids;
    for (const auto& datum : must(run_->lease(worker, max, workers)).datums)
      ids.push_back(datum.id);
    return ids;
  }
  static JobRun::Reported reported(const std::string& datum,
                                   DatumState state = DatumState::kSuccess) {
    JobRun::Reported reported;
    reported.datum = datum;
    reported.row.state = state;
    reported.row.attempts = 1;
    return reported;
  }
  Result<Strings> report(const Strings& datums, DatumState state = DatumState::kSuccess) {
    std::vector<JobRun::Reported> reports;
    for (const std::string& datum : datums) reports.push_back(reported(datum, state));
    return run_->report(std::move(reports), std::make_unique<ReportContent>(content()));
  }
  // What the journal says, by datum.
  std::map<std::string, DatumRow> journal() {
    std::map<std::string, DatumRow> rows;
    const JobRecord record = stored();
    if (record.journal.empty()) return rows;
    must(read_journal(content().blobs(), must(Hash::from_hex(record.journal)),
                      [&](const JournalEntry& entry) {
                        const std::string id = datum_id(entry.sort_key).to_hex();
                        EXPECT_FALSE(rows.contains(id)) << "twice in the journal";
                        rows[id] = must(decode_row(entry.row));
                        return ok_status();
                      }));
    return rows;
  }

  ManualClock clock_;
  std::unique_ptr<FaultFileSystem> disk_;
  std::unique_ptr<version::Bench> bench_;
  Services services_;
  api::PipelineSpec spec_;
  std::shared_ptr<JobRun> run_;
  std::atomic<int> idles_{0};
};

TEST_F(JobRunTest, TheWindowIsRefilledUntilEveryDatumWasHandedOutOnce) {
  constexpr int kDatums = static_cast<int>(JobRun::kWindow) + 300;
  plan(kDatums);
  open();
  std::set<std::string> seen;
  while (!run_->idle()) {
    const Strings batch = lease("w", JobRun::kMaxBatch);
    ASSERT_FALSE(batch.empty());
    for (const std::string& id : batch) EXPECT_TRUE(seen.insert(id).second);
    EXPECT_THAT(must(report(batch)), IsEmpty());
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(kDatums));
  EXPECT_EQ(idles_, 1);
  EXPECT_EQ(run_->record().counts.processed, kDatums);
  EXPECT_FALSE(run_->has_waiting());
  EXPECT_EQ(journal().size(), static_cast<size_t>(kDatums));
}

TEST_F(JobRunTest, TheFirstOfTwoReportsCounts) {
  plan(2);
  open();
  const Strings ids = lease("a", 2);
  EXPECT_THAT(must(report({ids[0], ids[0]})), ElementsAre(ids[0])) << "in one request";
  EXPECT_THAT(must(report({ids[0]}, DatumState::kFailed)), ElementsAre(ids[0]));
  EXPECT_EQ(journal().at(ids[0]).state, DatumState::kSuccess);
  EXPECT_EQ(stored().counts.processed, 1);
  EXPECT_EQ(stored().counts.failed, 0);
  EXPECT_THAT(must(report({"nobody"})), ElementsAre("nobody"));
}

TEST_F(JobRunTest, AReportWhoseAnswerWasLostIsNotTakenTwice) {
  plan(3);
  open();
  const Strings ids = lease("w", 2);
  must(report({ids[0]}));
  // Durable, and then the server died before it could say so; the worker sends it again.
  crash_and_open();
  EXPECT_THAT(run_->renew("w", ids), IsEmpty());
  EXPECT_THAT(must(report({ids[0]})), ElementsAre(ids[0]));
  EXPECT_THAT(must(report({ids[1]})), IsEmpty()) << "adopted, not run again";
  EXPECT_THAT(must(report(lease("v"))), IsEmpty());
  EXPECT_TRUE(run_->idle());
  EXPECT_EQ(stored().counts.processed, 3);
  EXPECT_EQ(journal().size(), 3u);
}

TEST_F(JobRunTest, WhatWasNotAcknowledgedIsRunAgainAfterACrash) {
  plan(2);
  open();
  const Strings ids = lease("w", 2);
  disk_->fail_with([](qanat::testing::Operation operation, const std::string&) -> Status {
    return operation == qanat::testing::Operation::kSync ? unavailable("the disk is gone")
                                                         : ok_status();
  });
  EXPECT_FALSE(report({ids[0]}).ok());
  crash_and_open();
  EXPECT_EQ(lease("v", 2).size(), 2u);
}

TEST_F(JobRunTest, ARecordThatChangedUnderItGivesTheRunUp) {
  plan(2);
  open();
  const Strings ids = lease("w", 2);
  // A transaction of a server before whose answer was lost, say.
  JobRecord record = stored();
  record.counts.restarts = 1;
  ASSERT_TRUE(must(bench_->meta().commit(meta::Transaction().put(
                       job_key(kProject, kPipeline, kWave), encode(record))))
                  .succeeded);
  EXPECT_EQ(report({ids[0]}).code(), Code::kUnavailable);
  ASSERT_TRUE(run_->cancelled());
  EXPECT_EQ(run_->cancelled()->reason, "") << "the run is over, the job is not";
  EXPECT_THAT(run_->renew("w", ids), IsEmpty()) << "the worker goes on";
  open(true);
  EXPECT_THAT(run_->renew("w", ids), IsEmpty());
  EXPECT_THAT(must(report(ids)), IsEmpty());
  EXPECT_EQ(stored().counts.processed, 2);
}

TEST_F(JobRunTest, ACancelledJobHandsOutNothingAndTakesNothing) {
  plan(3);
  open();
  const Strings ids = lease("w", 2);
  run_->cancel(JobState::kKilled, "first");
  run_->cancel(JobState::kKilled, "second");
  EXPECT_EQ(run_->cancelled()->reason, "first");
  EXPECT_EQ(idles_, 1);
  EXPECT_TRUE(run_->idle());
  EXPECT_THAT(lease("w"), IsEmpty());
  EXPECT_EQ(run_->renew("w", ids), ids) << "to be given up";
  EXPECT_EQ(must(report(ids)), ids);
  EXPECT_THAT(journal(), IsEmpty());
}

TEST_F(JobRunTest, AStopIsDurable) {
  plan(2);
  open();
  const Strings ids = lease("w", 1);
  must(run_->stop("enough"));
  EXPECT_EQ(stored().stopping, "enough");
  crash_and_open();
  ASSERT_TRUE(run_->cancelled());
  EXPECT_EQ(run_->cancelled()->state, JobState::kKilled);
  EXPECT_EQ(run_->cancelled()->reason, "enough");
  EXPECT_THAT(lease("w"), IsEmpty());
  EXPECT_EQ(run_->renew("w", ids), ids);
}

TEST_F(JobRunTest, AnEndedJobCannotBeStopped) {
  plan(1);
  open();
  JobRecord record = stored();
  record.state = JobState::kSuccess;
  must(bench_->meta().commit(
      meta::Transaction().put(job_key(kProject, kPipeline, kWave), encode(record))));
  EXPECT_EQ(run_->stop("late").code(), Code::kFailedPrecondition);
}

TEST_F(JobRunTest, JobTimeoutCountsFromTheJobsStartAcrossRestarts) {
  spec_.job_timeout_ms = 10'000;
  plan(2);
  open();
  clock_.advance_ms(9'000);
  run_->tick();
  EXPECT_FALSE(run_->cancelled());
  crash_and_open();
  clock_.advance_ms(1'000);
  EXPECT_FALSE(run_->tick());
  ASSERT_TRUE(run_->cancelled());
  EXPECT_THAT(run_->cancelled()->reason, ::testing::HasSubstr("job_timeout"));
}

TEST_F(JobRunTest, AnExpiredLeaseGoesToAnotherWorkerAndALateReportStillCounts) {
  plan(1);
  open();
  const Strings ids = lease("slow", 1);
  clock_.advance_ms(JobRun::kLeaseTtlMs - 1);
  EXPECT_FALSE(run_->tick());
  EXPECT_THAT(run_->renew("slow", ids), IsEmpty());
  clock_.advance_ms(JobRun::kLeaseTtlMs);
  EXPECT_TRUE(run_->tick()) << "a datum waits again";
  EXPECT_EQ(lease("quick", 1), ids);
  EXPECT_EQ(run_->renew("slow", ids), ids) << "told to give it up";
  // It was done all the same; its result is as good, and the other's is not needed any more.
  EXPECT_THAT(must(report(ids)), IsEmpty());
  EXPECT_TRUE(run_->idle());
  EXPECT_EQ(must(report(ids)), ids);
  EXPECT_EQ(stored().counts.processed, 1);
  EXPECT_EQ(run_->record().counts.restarts, 1);
}

TEST_F(JobRunTest, ALateReportOfADatumThatWaitsAgainTakesItOffTheQueue) {
  plan(1);
  open();
  const Strings ids = lease("slow", 1);
  clock_.advance_ms(JobRun::kLeaseTtlMs);
  run_->tick();
  EXPECT_THAT(must(report(ids)), IsEmpty());
  EXPECT_THAT(lease("quick"), IsEmpty());
  EXPECT_TRUE(run_->idle());
}

TEST_F(JobRunTest, ADatumThatKillsItsWorkersOfMemoryFailsAfterItsTries) {
  spec_.datum_tries = 2;
  plan(2);
  open();
  // With others in hand it is not known which one it was.
  EXPECT_EQ(lease("w0", 2).size(), 2u);
  must(run_->worker_lost("w0", true, "over memory"));
  EXPECT_THAT(journal(), IsEmpty());
  const Strings first = lease("w1");
  ASSERT_EQ(first.size(), 1u) << "alone, after it had a worker that was lost";
  must(run_->worker_lost("w1", true, "over memory"));
  EXPECT_EQ(lease("w2"), first);
  must(run_->worker_lost("w2", true, "over memory"));
  const auto rows = journal();
  ASSERT_TRUE(rows.contains(first[0]));
  EXPECT_EQ(rows.at(first[0]).state, DatumState::kFailed);
  EXPECT_EQ(rows.at(first[0]).message, "over memory");
  EXPECT_EQ(rows.at(first[0]).attempts, 2u);
  const Strings other = lease("w3");
  must(run_->worker_lost("w3", false, "lost machine"));
  must(run_->worker_lost("w3", false, "lost machine"));
  EXPECT_EQ(lease("w4"), other) << "a lost machine is no try";
}

// A worker asks for more while its last datum runs: whatever it asks, one that may have killed a
// worker is alone with it.
TEST_F(JobRunTest, AWorkerThatAsksAheadDoesNotHideWhichDatumKillsIt) {
  spec_.datum_tries = 2;
  plan(2);
  open();
  for (int worker = 0; worker < 8 && journal().empty(); ++worker) {
    const std::string name = str_cat("w", worker);
    Strings held = lease(name, 1);
    for (const std::string& more : lease(name, 1)) held.push_back(more);
    ASSERT_FALSE(held.empty());
    EXPECT_LE(held.size(), worker == 0 ? 2u : 1u);
    must(run_->worker_lost(name, true, "over memory"));
  }
  EXPECT_EQ(journal().size(), 1u);
}

TEST_F(JobRunTest, AReportToARunThatIsOpenedAgainIsToComeAgain) {
  plan(1);
  open();
  const Strings ids = lease("w");
  run_->cancel(JobState::kKilled, "");
  EXPECT_EQ(report(ids).code(), Code::kUnavailable);
}

TEST_F(JobRunTest, WhatAWorkerCouldNotBeToldIsLeasedAgainAsIfNew) {
  plan(3);
  open();
  const auto leased = must(run_->lease("w", 2, 1));
  run_->take_back("w", leased);
  EXPECT_EQ(lease("v", 3).size(), 3u);
  EXPECT_EQ(run_->record().counts.restarts, 0);
}

TEST_F(JobRunTest, OutputsOfManyReportsAreWholeWhateverTheirSize) {
  plan(3);
  open();
  const Strings ids = lease("w", 3);
  // Small, more than is kept in memory, and many packs.
  const std::map<std::string, size_t> sizes = {
      {ids[0], 10}, {ids[1], 3u << 20}, {ids[2], 40u << 20}};
  for (const auto& [id, size] : sizes) {
    auto stored = std::make_unique<ReportContent>(content());
    std::string bytes(size, '\0');
    std::mt19937_64 random(size);
    for (size_t i = 0; i + 8 <= size; i += 8) {
      const uint64_t word = random();
      std::memcpy(bytes.data() + i, &word, 8);
    }
    content::EditBuffer edits(*disk_, "/data/tmp");
    must(edits.add(content::TreeEdit::put("out", must(content::write_file(*stored, bytes)))));
    JobRun::Reported report = reported(id);
    report.row.output = must(edits.apply(*stored, {}));
    std::vector<JobRun::Reported> reports;
    reports.push_back(report);
    EXPECT_THAT(must(run_->report(std::move(reports), std::move(stored))), IsEmpty());
  }
  disk_->crash();
  boot(disk_->reboot(0));
  for (const auto& [id, row] : journal()) {
    const content::Tree tree(content().blobs(), row.output);
    must(tree.walk("", [&](std::string_view, const content::TreeEntry& entry) -> Result<bool> {
      EXPECT_EQ(entry.file.size, sizes.at(id));
      EXPECT_EQ(read_all(content().blobs(), entry.file).size(), sizes.at(id));
      return true;
    }));
  }
}

// The bar of gathering: many workers at once cost few fsyncs, and none of their threads waits.
TEST_F(JobRunTest, AHundredWorkersShareTheirFsyncs) {
  constexpr int kWorkers = 100;
  plan(kWorkers);
  Later later(clock_, 1);
  services_.later = &later;
  open();
  std::vector<Strings> held;
  for (int w = 0; w < kWorkers; ++w) held.push_back(lease(str_cat("w", w), 1));
  std::atomic<int> syncs{0};
  disk_->fail_with([&](qanat::testing::Operation operation, const std::string&) -> Status {
    using qanat::testing::Operation;
    if (operation == Operation::kSync || operation == Operation::kSyncDirectory) ++syncs;
    return ok_status();
  });
  std::atomic<int> answered{0};
  for (const Strings& ids : held) {
    auto stored = std::make_unique<ReportContent>(content());
    content::EditBuffer edits(*disk_, "/data/tmp");
    must(edits.add(content::TreeEdit::put("out", must(content::write_file(*stored, ids[0])))));
    JobRun::Reported report = reported(ids[0]);
    report.row.output = must(edits.apply(*stored, {}));
    std::vector<JobRun::Reported> reports;
    reports.push_back(report);
    run_->report(std::move(reports), std::move(stored), [&](const Result<Strings>& unknown) {
      EXPECT_TRUE(unknown.ok() && unknown->empty());
      ++answered;
    });
  }
  // The first went at once, the others together: when the last one's report is in, or 50 ms later.
  clock_.advance_ms(JobRun::kGatherMs);
  while (answered < kWorkers) std::this_thread::yield();
  EXPECT_LE(syncs, 8) << "two groups: a pack's file and folder, and a transaction, each";
  disk_->fail_with({});
  EXPECT_TRUE(run_->idle());
  EXPECT_EQ(journal().size(), static_cast<size_t>(kWorkers));
  EXPECT_EQ(idles_, 1);
}

}  // namespace
}  // namespace qanat::pipeline
