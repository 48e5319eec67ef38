// The embedded store on a disk that loses what was not synced, and on one that is full or broken.
#include <gtest/gtest.h>

#include <thread>

#include "qanat/base/log.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/meta/sqlite_store.h"
#include "support/fault_file_system.h"
#include "support/seeds.h"

namespace qanat::meta {
namespace {

using qanat::testing::FaultFileSystem;
using DiskOperation = qanat::testing::Operation;

constexpr SqliteOptions kOptions{
    .history_ms = 0, .history_revisions = 3, .reserve_bytes = 0, .checkpoint_pages = 30};

std::unique_ptr<SqliteStore> open_store(FaultFileSystem& disk) {
  auto store = SqliteStore::open(disk, real_clock(), "/data/meta", kOptions);
  return store.ok() ? *std::move(store) : nullptr;
}

std::string value_of(int thread, int i) {
  return str_cat(thread, ".", i, ".", std::string(static_cast<size_t>(i * 37 % 900), 'x'));
}

// Transaction i of a thread puts its own key, replaces two shared by all of its transactions, and
// erases the key of transaction i - 2.
Transaction numbered(int thread, int i) {
  Transaction transaction;
  transaction.put(str_cat("own/", thread, "/", i), value_of(thread, i));
  transaction.put(str_cat("x/", thread), value_of(thread, i));
  transaction.put(str_cat("y/", thread), value_of(thread, i));
  if (i >= 2) transaction.erase(str_cat("own/", thread, "/", i - 2));
  return transaction;
}

// That the state of a thread's keys is that after transaction `i` exactly, for i = acknowledged or,
// as one more may have happened, acknowledged + 1. -1: none.
void expect_whole(SqliteStore& store, int thread, int acknowledged) {
  auto x = store.get(str_cat("x/", thread));
  auto y = store.get(str_cat("y/", thread));
  ASSERT_TRUE(x.ok() && y.ok()) << x.status().to_string();
  ASSERT_EQ(x->has_value(), y->has_value());
  int last = -1;
  if (x->has_value()) {
    EXPECT_EQ((*x)->value, (*y)->value);
    last = static_cast<int>(*parse_i64(split((*x)->value, '.')[1]));
    EXPECT_EQ((*x)->value, value_of(thread, last));
    EXPECT_EQ((*x)->version, last + 1);
  }
  EXPECT_GE(last, acknowledged) << "an acknowledged transaction is lost";
  EXPECT_LE(last, acknowledged + 1);
  auto own = store.range(KeyRange::prefix(str_cat("own/", thread, "/")));
  ASSERT_TRUE(own.ok());
  EXPECT_EQ(static_cast<int>(own->items.size()), std::min(last + 1, 2));
  for (const KeyValue& item : own->items) {
    int i = static_cast<int>(*parse_i64(split(item.key, '/')[2]));
    EXPECT_GE(i, last - 1);
    EXPECT_EQ(item.value, value_of(thread, i));
  }
}

void expect_sound(FaultFileSystem& disk, const std::vector<int>& acknowledged) {
  auto store = SqliteStore::open(disk, real_clock(), "/data/meta", kOptions);
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  Status integrity = (*store)->check_integrity();
  EXPECT_TRUE(integrity.ok()) << integrity.to_string();
  for (size_t thread = 0; thread < acknowledged.size(); ++thread) {
    expect_whole(**store, static_cast<int>(thread), acknowledged[thread]);
  }
  EXPECT_TRUE((*store)->commit(Transaction().put("after", "1")).ok());
}

class SqliteCrashTest : public ::testing::Test {
 protected:
  SqliteCrashTest() { set_log_level(LogLevel::kOff); }
  ~SqliteCrashTest() override { set_log_level(LogLevel::kInfo); }
};

TEST_F(SqliteCrashTest, SlowEveryCrashPoint) {
  for (uint64_t n = 1;; ++n) {
    FaultFileSystem disk;
    disk.crash_at(n);
    int acknowledged = -1;
    if (auto store = open_store(disk)) {
      for (int i = 0; i < 14; ++i) {
        auto result = store->commit(numbered(0, i));
        if (!result.ok()) break;
        acknowledged = i;
      }
    }
    for (uint64_t seed : qanat::testing::reboot_seeds(n)) {
      SCOPED_TRACE(str_cat("crash at ", n, ", seed ", seed));
      expect_sound(*disk.reboot(seed), {acknowledged});
      if (HasFatalFailure()) return;
    }
    if (!disk.crashed()) {
      EXPECT_EQ(acknowledged, 13);
      EXPECT_GT(n, 100u);
      return;
    }
  }
}

// Groups of transactions from several threads, crashes at random places, twice in a row.
TEST_F(SqliteCrashTest, GroupsAndCrashesInARow) {
  constexpr int kThreads = 4;
  SeededRandom random(3);
  for (int round = 0; round < 30; ++round) {
    auto disk = std::make_unique<FaultFileSystem>();
    std::vector<int> acknowledged(kThreads, -1);
    for (int life = 0; life < 2; ++life) {
      SCOPED_TRACE(str_cat("round ", round, ", life ", life));
      disk->crash_at(60 + random.below(200));
      if (auto store = open_store(*disk)) {
        std::vector<std::thread> threads;
        for (int thread = 0; thread < kThreads; ++thread) {
          threads.emplace_back([&, thread] {
            auto x = store->get(str_cat("x/", thread));
            if (!x.ok()) return;
            int& last = acknowledged[static_cast<size_t>(thread)];
            if (x->has_value()) last = static_cast<int>(*parse_i64(split((*x)->value, '.')[1]));
            while (store->commit(numbered(thread, last + 1)).ok()) ++last;
          });
        }
        for (auto& thread : threads) thread.join();
      }
      disk = disk->reboot(random.u64());
      expect_sound(*disk, acknowledged);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(SqliteCrashTest, AFullDiskRefusesWhole) {
  FaultFileSystem disk;
  auto store = open_store(disk);
  ASSERT_TRUE(store);
  disk.set_capacity(300 << 10);
  int i = 0;
  Status status;
  for (; i < 1000 && status.ok(); ++i) status = store->commit(numbered(0, i)).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
  EXPECT_FALSE(status.hint().empty());
  expect_whole(*store, 0, i - 2);
  EXPECT_TRUE(store->check_integrity().ok());
  // With room again, it goes on; nothing of the refused transaction is there.
  disk.set_capacity(10 << 20);
  EXPECT_TRUE(store->commit(numbered(0, i - 1)).ok());
  expect_whole(*store, 0, i - 1);
}

TEST_F(SqliteCrashTest, AFailedSyncEndsWriting) {
  FaultFileSystem disk;
  auto store = open_store(disk);
  ASSERT_TRUE(store && store->commit(numbered(0, 0)).ok());
  disk.fail_with([](DiskOperation operation, const std::string&) {
    return operation == DiskOperation::kSync ? internal_error("Input/output error") : ok_status();
  });
  Status status = store->commit(numbered(0, 1)).status();
  EXPECT_EQ(status.code(), Code::kUnavailable) << status.to_string();
  disk.fail_with({});
  EXPECT_EQ(store->commit(numbered(0, 2)).code(), Code::kUnavailable);
  EXPECT_TRUE(store->get("x/0").ok());
  store.reset();
  for (uint64_t seed : qanat::testing::reboot_seeds(0, 10)) expect_sound(*disk.reboot(seed), {0});
}

TEST_F(SqliteCrashTest, DamageIsFound) {
  FaultFileSystem disk;
  {
    auto store = open_store(disk);
    for (int i = 0; i < 60; ++i) ASSERT_TRUE(store->commit(numbered(0, i)).ok());
    ASSERT_TRUE(store->check_integrity().ok());
  }
  auto info = disk.stat("/data/meta/meta.db");
  ASSERT_TRUE(info.ok());
  ASSERT_GT(info->size, 4096u * 3);
  // The root page of table `item`: its page type.
  for (uint64_t page = 1; page * 4096 < info->size; ++page) {
    ASSERT_TRUE(disk.flip_bit("/data/meta/meta.db", page * 4096 * 8).ok());
  }
  auto store = SqliteStore::open(disk, real_clock(), "/data/meta", kOptions);
  EXPECT_FALSE(store.ok() && (*store)->check_integrity().ok());
}

// A store with acknowledged transactions 0..19 of which all are in the log, as a crash leaves it.
std::unique_ptr<FaultFileSystem> disk_with_log() {
  SqliteOptions options = kOptions;
  options.checkpoint_pages = 100'000;
  FaultFileSystem disk;
  auto store = SqliteStore::open(disk, real_clock(), "/data/meta", options);
  EXPECT_TRUE(store.ok());
  for (int i = 0; i < 20; ++i) EXPECT_TRUE((*store)->commit(numbered(0, i)).ok());
  disk.fail_with([](DiskOperation, const std::string&) { return internal_error("power cut"); });
  store->reset();
  disk.fail_with({});
  return disk.reboot(1);
}

constexpr char kLog[] = "/data/meta/meta.db-wal";
constexpr uint64_t kFrame = 4096 + 24;

// A bit that flips in the middle of the log takes acknowledged transactions with it: that is told,
// and never done in silence.
TEST_F(SqliteCrashTest, DamageInTheLogIsFound) {
  const uint64_t size = disk_with_log()->stat(kLog)->size;
  ASSERT_GT(size, 20 * kFrame);
  int refused = 0;
  int places = 0;
  for (uint64_t at = 0; at + 1 < size; at += at < 64 ? 1 : 997) {
    SCOPED_TRACE(str_cat("byte ", at, " of ", size));
    auto disk = disk_with_log();
    ASSERT_TRUE(disk->flip_bit(kLog, at * 8 + at % 8).ok());
    auto store = SqliteStore::open(*disk, real_clock(), "/data/meta", kOptions);
    ++places;
    if (store.ok()) {
      // Only what looks like a batch that was being written may go: the last one.
      expect_whole(**store, 0, 18);
      continue;
    }
    ++refused;
    EXPECT_EQ(store.code(), Code::kDataLoss) << store.status().to_string();
    // With leave it goes on without, also the next time.
    SqliteOptions accept = kOptions;
    accept.accept_damaged_log = true;
    store = SqliteStore::open(*disk, real_clock(), "/data/meta", accept);
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    EXPECT_TRUE((*store)->commit(Transaction().put("after", "1")).ok());
    store->reset();
    store = SqliteStore::open(*disk, real_clock(), "/data/meta", kOptions);
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    EXPECT_TRUE((*store)->check_integrity().ok());
  }
  EXPECT_GT(refused, places * 8 / 10);
}

TEST_F(SqliteCrashTest, ACleanStopLeavesOneFile) {
  FaultFileSystem disk;
  {
    auto store = open_store(disk);
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(store->commit(numbered(0, i)).ok());
  }
  EXPECT_FALSE(disk.exists(kLog));
  auto store = open_store(disk);
  expect_whole(*store, 0, 4);
}

}  // namespace
}  // namespace qanat::meta
