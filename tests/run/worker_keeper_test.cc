#include "qanat/run/worker_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "qanat/base/string.h"

namespace qanat::run {
namespace {

using pipeline::WorkerEvent;
using pipeline::WorkerGroupId;
using pipeline::WorkerGroupSpec;

TEST(Backoff, DoublesUpToAMinuteAndForgets) {
  Backoff backoff;
  EXPECT_TRUE(backoff.may_start(0));
  backoff.failed(1000);
  EXPECT_FALSE(backoff.may_start(1249));
  EXPECT_TRUE(backoff.may_start(1250));
  backoff.failed(2000);
  EXPECT_EQ(backoff.wait_ms(2000), 500);
  for (int i = 0; i < 40; ++i) backoff.failed(5000);
  EXPECT_EQ(backoff.wait_ms(5000), 60'000);
  backoff.succeeded();
  EXPECT_TRUE(backoff.may_start(5000));
  EXPECT_EQ(backoff.failures(), 0);
}

// Workers in memory.
class FakeBackend : public WorkerBackend {
 public:
  Result<std::vector<ObservedWorker>> observe() override {
    MutexLock lock(mutex);
    if (!trouble.ok()) return trouble;
    return workers;
  }
  Status start(const WorkerGroupSpec& spec, const std::string& worker_id,
               const std::string& fingerprint, const std::string& credential) override {
    called();
    MutexLock lock(mutex);
    ++starts;
    EXPECT_EQ(credential, "secret of " + worker_id);
    if (!start_trouble.ok()) return start_trouble;
    workers.push_back({.group = spec.id,
                       .worker_id = worker_id,
                       .fingerprint = fingerprint,
                       .handle = worker_id,
                       .running = true});
    return ok_status();
  }
  WorkerEnd ended(const ObservedWorker&) override { return end; }
  Status remove(const ObservedWorker& worker) override {
    called();
    MutexLock lock(mutex);
    if (!remove_trouble.ok()) return remove_trouble;
    std::erase_if(workers, [&](const ObservedWorker& w) { return w.handle == worker.handle; });
    ++removes;
    return ok_status();
  }

  // Calls wait until so many are under way.
  void called() {
    MutexLock lock(mutex);
    most = std::max(most, ++under_way);
    changed.notify_all();
    while (under_way < together && most < together) changed.wait(mutex);
    --under_way;
  }

  Mutex mutex;
  CondVar changed;
  std::vector<ObservedWorker> workers;
  Status trouble;
  Status start_trouble;
  Status remove_trouble;
  int together = 0;
  int under_way = 0;
  int most = 0;
  WorkerEnd end{.exit_code = 1};
  int starts = 0;
  int removes = 0;
};

class Keeper : public ::testing::Test {
 protected:
  Keeper() {
    keeper.set_listener([this](const WorkerEvent& event) {
      MutexLock lock(backend.mutex);
      events.push_back(event);
    });
  }

  WorkerGroupSpec spec(int count) {
    WorkerGroupSpec spec;
    spec.id = {"default", "p", 1};
    spec.image = "busybox";
    spec.image_digest = "sha256:1";
    spec.count = count;
    spec.run_folder = "/data/run/p";
    spec.new_credential = [](const std::string& id) {
      return Result<std::string>("secret of " + id);
    };
    return spec;
  }

  FakeBackend backend;
  ManualClock clock;
  WorkerKeeper keeper{backend, clock};
  std::vector<WorkerEvent> events;
};

TEST_F(Keeper, StartsWhatIsWantedAndNoMore) {
  ASSERT_TRUE(keeper.ensure(spec(3)).ok());
  keeper.reconcile();
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 3u);
  EXPECT_EQ(backend.starts, 3);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].kind, WorkerEvent::Kind::kStarted);
}

TEST_F(Keeper, AdoptsWhatRunsAlready) {
  ObservedWorker old{.group = {"default", "p", 1},
                     .worker_id = "old",
                     .fingerprint = fingerprint_of(spec(1)),
                     .handle = "old",
                     .running = true};
  backend.workers.push_back(old);
  ASSERT_TRUE(keeper.ensure(spec(1)).ok());
  keeper.reconcile();
  EXPECT_EQ(backend.starts, 0);
  EXPECT_EQ(backend.removes, 0);
}

TEST_F(Keeper, ReplacesWorkersOfAnotherSpec) {
  ASSERT_TRUE(keeper.ensure(spec(2)).ok());
  keeper.reconcile();
  WorkerGroupSpec changed = spec(2);
  changed.limits.memory_bytes = 1 << 20;
  ASSERT_TRUE(keeper.ensure(changed).ok());
  keeper.reconcile();
  EXPECT_EQ(backend.removes, 2);
  EXPECT_EQ(backend.workers.size(), 2u);
  EXPECT_EQ(backend.workers[0].fingerprint, fingerprint_of(changed));
}

TEST_F(Keeper, AGroupThatIsWantedAgainAtOnceGetsNewWorkers) {
  namespace fs = std::filesystem;
  std::string pattern = ::testing::TempDir() + "qanat-keeper-XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const fs::path folder = pattern;
  fs::create_directories(folder / "run");
  WorkerGroupSpec wanted = spec(1);
  wanted.run_folder = folder;
  ASSERT_TRUE(keeper.ensure(wanted).ok());
  keeper.reconcile();
  ASSERT_EQ(backend.workers.size(), 1u);
  const std::string first = backend.workers[0].worker_id;
  ASSERT_TRUE(keeper.ensure(wanted).ok());
  keeper.reconcile();
  EXPECT_EQ(backend.workers[0].worker_id, first);
  // Stopped and started between two looks: its way to the server has been taken away.
  ASSERT_TRUE(keeper.stop_group(wanted.id).ok());
  fs::rename(folder / "run", folder / "gone");  // kept, so that the new one has another number
  fs::create_directories(folder / "run");
  ASSERT_TRUE(keeper.ensure(wanted).ok());
  keeper.reconcile();
  ASSERT_EQ(backend.workers.size(), 1u);
  EXPECT_NE(backend.workers[0].worker_id, first);
  fs::remove_all(folder);
}

TEST_F(Keeper, StartsAndRemovesSideBySideButNotAllAtOnce) {
  ASSERT_TRUE(keeper.ensure(spec(20)).ok());
  keeper.reconcile();
  WorkerGroupSpec changed = spec(20);
  changed.limits.memory_bytes = 1 << 20;
  ASSERT_TRUE(keeper.ensure(changed).ok());
  backend.most = 0;
  backend.together = 6;  // hangs unless so many are under way at once
  keeper.reconcile();
  EXPECT_EQ(backend.most, 6);
  EXPECT_EQ(backend.removes, 20);
  EXPECT_EQ(backend.starts, 40);
  EXPECT_EQ(backend.workers.size(), 20u);
}

TEST_F(Keeper, AWorkerThatCannotBeRemovedHoldsUpNoOther) {
  ASSERT_TRUE(keeper.ensure(spec(2)).ok());
  keeper.reconcile();
  WorkerGroupSpec changed = spec(2);
  changed.limits.memory_bytes = 1 << 20;
  ASSERT_TRUE(keeper.ensure(changed).ok());
  backend.remove_trouble = unavailable("the engine is busy");
  EXPECT_LE(keeper.reconcile(), 2000);
  EXPECT_EQ(backend.starts, 4);
  backend.remove_trouble = ok_status();
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 2u);
  EXPECT_EQ(backend.starts, 4);
}

TEST_F(Keeper, ScalesBothWaysAndStops) {
  ASSERT_TRUE(keeper.ensure(spec(1)).ok());
  keeper.reconcile();
  ASSERT_TRUE(keeper.scale(spec(1).id, 4).ok());
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 4u);
  ASSERT_TRUE(keeper.scale(spec(1).id, 2).ok());
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 2u);
  ASSERT_TRUE(keeper.stop_group(spec(1).id).ok());
  keeper.reconcile();
  EXPECT_TRUE(backend.workers.empty());
  EXPECT_EQ(keeper.scale(spec(1).id, 1).code(), Code::kNotFound);
}

TEST_F(Keeper, LeavesUnknownWorkersUntilToldThatAllAreKnown) {
  backend.workers.push_back(
      {.group = {"default", "gone", 7}, .worker_id = "w", .handle = "w", .running = true});
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 1u);
  auto list = keeper.list();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 1u);
  EXPECT_FALSE((*list)[0].wanted);
  ASSERT_TRUE(keeper.stop_unwanted().ok());
  keeper.reconcile();
  EXPECT_TRUE(backend.workers.empty());
}

TEST_F(Keeper, AWorkerThatDiesYoungIsReplacedWithGrowingDelays) {
  ASSERT_TRUE(keeper.ensure(spec(1)).ok());
  keeper.reconcile();
  backend.end = {.exit_code = 3, .reason = "cannot find my way"};
  for (int failures = 1; failures <= 4; ++failures) {
    backend.workers[0].running = false;
    events.clear();
    const std::int64_t wait_ms = keeper.reconcile();
    EXPECT_TRUE(backend.workers.empty());
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(events[0].kind, WorkerEvent::Kind::kExited);
    EXPECT_EQ(events[0].failures_in_a_row, failures);
    EXPECT_EQ(events[0].retry_in_ms, 250 << (failures - 1));
    EXPECT_THAT(events[0].reason, ::testing::HasSubstr("cannot find my way"));
    EXPECT_LE(wait_ms, 250 << (failures - 1));
    clock.advance_ms((250 << (failures - 1)) - 1);
    keeper.reconcile();
    EXPECT_TRUE(backend.workers.empty());
    clock.advance_ms(1);
    keeper.reconcile();
    ASSERT_EQ(backend.workers.size(), 1u);
  }
}

TEST_F(Keeper, AnEndIsToldAndCountedOnceThoughTheRemovalFails) {
  ASSERT_TRUE(keeper.ensure(spec(1)).ok());
  keeper.reconcile();
  backend.workers[0].running = false;
  backend.remove_trouble = unavailable("it cannot be removed");
  const auto exits = [&] {
    return std::count_if(events.begin(), events.end(),
                         [](const WorkerEvent& e) { return e.kind == WorkerEvent::Kind::kExited; });
  };
  keeper.reconcile();
  EXPECT_EQ(exits(), 1);
  clock.advance_ms(250);
  keeper.reconcile();
  keeper.reconcile();
  EXPECT_EQ(exits(), 1);
  EXPECT_EQ(backend.starts, 2);  // after the first delay, which has not grown
  ASSERT_EQ(backend.workers.size(), 2u);
  backend.remove_trouble = ok_status();
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 1u);
  // The next one's end is another.
  backend.workers[0].running = false;
  keeper.reconcile();
  EXPECT_EQ(exits(), 2);
}

TEST_F(Keeper, AHealthyLifeForgivesAndIsReplacedAtOnce) {
  ASSERT_TRUE(keeper.ensure(spec(1)).ok());
  keeper.reconcile();
  keeper.reconcile();
  clock.advance_ms(30'000);
  backend.workers[0].running = false;
  backend.end = {.exit_code = 137, .oom = true};
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 1u);
  EXPECT_TRUE(backend.workers[0].running);
  auto exited = std::find_if(events.begin(), events.end(), [](const WorkerEvent& e) {
    return e.kind == WorkerEvent::Kind::kExited;
  });
  ASSERT_NE(exited, events.end());
  EXPECT_TRUE(exited->oom);
  EXPECT_THAT(exited->reason, ::testing::HasSubstr("resource_limits.memory"));
  EXPECT_EQ(exited->retry_in_ms, 0);
}

TEST_F(Keeper, AFailedStartIsToldOnceAPassAndTriedAgain) {
  backend.start_trouble = unavailable("no room", "make some");
  ASSERT_TRUE(keeper.ensure(spec(8)).ok());
  keeper.reconcile();
  EXPECT_LE(backend.starts, 6);  // those that were under way when the first one failed
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events[0].kind, WorkerEvent::Kind::kFailed);
  EXPECT_THAT(events[0].reason, ::testing::HasSubstr("make some"));
  EXPECT_EQ(events[0].failures_in_a_row, 1);
  backend.start_trouble = ok_status();
  clock.advance_ms(250);
  keeper.reconcile();
  keeper.reconcile();
  clock.advance_ms(60'000);
  keeper.reconcile();
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 8u);
}

TEST_F(Keeper, AnEngineThatIsAwayIsTold) {
  backend.trouble = unavailable("no engine answers", "start it");
  ASSERT_TRUE(keeper.ensure(spec(1)).ok());
  EXPECT_GT(keeper.reconcile(), 0);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_THAT(events[0].reason, ::testing::HasSubstr("start it"));
  backend.trouble = ok_status();
  keeper.reconcile();
  EXPECT_EQ(backend.workers.size(), 1u);
}

}  // namespace
}  // namespace qanat::run
