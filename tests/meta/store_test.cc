// The contract of meta::Store, for every implementation of it.
#include "qanat/meta/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <thread>

#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/meta/sqlite_store.h"
#include "support/memory_meta.h"

namespace qanat::meta {
namespace {

using ::testing::ElementsAre;

// One implementation with everything it stands on.
class Bench {
 public:
  virtual ~Bench() = default;
  virtual Store& store() = 0;
  virtual void advance_ms(int64_t duration_ms) = 0;
  // Closes and opens again.
  virtual void restart() = 0;
};

class SqliteBench : public Bench {
 public:
  SqliteBench() : folder_(str_cat(::testing::TempDir(), "/qanat-meta-", random_id())) { restart(); }
  ~SqliteBench() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }
  Store& store() override { return *store_; }
  void advance_ms(int64_t duration_ms) override { clock_.advance_ms(duration_ms); }
  void restart() override {
    store_.reset();
    auto opened = SqliteStore::open(posix_file_system(), clock_, folder_,
                                    {.history_ms = 1'000,
                                     .history_revisions = 10,
                                     .checkpoint_pages = 50,
                                     .lease_poll_ms = 2,
                                     .sleep_gap_ms = 1'000'000});
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    store_ = *std::move(opened);
  }
  SqliteStore& sqlite() { return *store_; }

 private:
  ManualClock clock_;
  const std::string folder_;
  std::unique_ptr<SqliteStore> store_;
};

// What simulations use in a store's place.
class MemoryBench : public Bench {
 public:
  Store& store() override { return store_; }
  void advance_ms(int64_t duration_ms) override {
    clock_.advance_ms(duration_ms);
    store_.tick();
  }
  void restart() override {}

 private:
  ManualClock clock_;
  qanat::testing::MemoryMeta store_{clock_};
};

using MakeBench = std::unique_ptr<Bench> (*)();
template <class Made>
std::unique_ptr<Bench> make() {
  return std::make_unique<Made>();
}

class StoreTest : public ::testing::TestWithParam<MakeBench> {
 protected:
  StoreTest() : bench_(GetParam()()) {}
  Store& store() { return bench_->store(); }

  TransactionResult must_commit(Transaction transaction) {
    auto result = store().commit(std::move(transaction));
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return result.ok() ? *result : TransactionResult{};
  }
  int64_t put(std::string_view key, std::string value) {
    return must_commit(Transaction().put(key, std::move(value))).revision;
  }
  // "key=value" of a range.
  std::vector<std::string> items(const KeyRange& range, const RangeOptions& options = {}) {
    auto result = store().range(range, options);
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    std::vector<std::string> texts;
    if (!result.ok()) return texts;
    for (const KeyValue& item : result->items) texts.push_back(item.key + "=" + item.value);
    return texts;
  }

  std::unique_ptr<Bench> bench_;
};

// What only stores with a disk and threads of their own do: restart, forget history, serve several
// threads.
class ServedStoreTest : public StoreTest {};

// Collects what a watch tells; other threads may wait for it.
class Collector {
 public:
  WatchCallback callback() {
    return [this](const WatchBatch& batch) {
      MutexLock lock(mutex_);
      if (!batch.status.ok()) end_ = batch.status;
      for (const Event& event : batch.events) {
        texts_.push_back(str_cat(event.item.mod_revision, " ", event.item.key,
                                 event.deleted ? " gone" : "=" + event.item.value));
      }
      changed_.notify_all();
    };
  }
  std::vector<std::string> wait_for(size_t count) {
    MutexLock lock(mutex_);
    while (texts_.size() < count && end_.ok()) {
      if (!changed_.wait_for_ms(mutex_, 10'000)) break;
    }
    return texts_;
  }
  Status wait_for_end() {
    MutexLock lock(mutex_);
    while (end_.ok()) {
      if (!changed_.wait_for_ms(mutex_, 10'000)) break;
    }
    return end_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> texts_ GUARDED_BY(mutex_);
  Status end_ GUARDED_BY(mutex_);
};

TEST(KeysTest, PrefixEnd) {
  EXPECT_EQ(prefix_end("a/"), "a0");
  EXPECT_EQ(prefix_end("a\xff\xff"), "b");
  EXPECT_EQ(prefix_end("\xff"), "");
  EXPECT_EQ(prefix_end(""), "");
  EXPECT_TRUE(KeyRange::prefix("a/").contains("a/b"));
  EXPECT_FALSE(KeyRange::prefix("a/").contains("a"));
  EXPECT_FALSE(KeyRange::prefix("a/").contains("a0"));
  EXPECT_TRUE(KeyRange::prefix("").contains("\xff\xff"));
  EXPECT_TRUE(KeyRange::single("a").contains("a"));
  EXPECT_FALSE(KeyRange::single("a").contains("aa"));
}

TEST_P(StoreTest, RevisionsAndVersions) {
  const int64_t start = store().current_revision();
  EXPECT_EQ(put("k", "1"), start + 1);
  EXPECT_EQ(put("k", "2"), start + 2);
  auto item = store().get("k");
  ASSERT_TRUE(item.ok() && item->has_value());
  EXPECT_EQ((*item)->value, "2");
  EXPECT_EQ((*item)->create_revision, start + 1);
  EXPECT_EQ((*item)->mod_revision, start + 2);
  EXPECT_EQ((*item)->version, 2);

  EXPECT_EQ(must_commit(Transaction().erase("k")).revision, start + 3);
  EXPECT_FALSE((*store().get("k")).has_value());
  put("k", "3");
  EXPECT_EQ((*store().get("k"))->version, 1);
  EXPECT_EQ((*store().get("k"))->create_revision, start + 4);

  // Nothing changed, no revision used.
  EXPECT_EQ(must_commit(Transaction().erase("absent")).revision, start + 4);
  EXPECT_EQ(store().current_revision(), start + 4);
}

TEST_P(StoreTest, ValuesAreBytes) {
  std::string value("\0\xff binary \0", 11);
  put("\xff\x01", value);
  put("empty", "");
  EXPECT_EQ((*store().get("\xff\x01"))->value, value);
  EXPECT_EQ((*store().get("empty"))->value, "");
  std::string large(1'500'000, 'x');
  put("large", large);
  EXPECT_EQ((*store().get("large"))->value, large);
}

TEST_P(StoreTest, Ranges) {
  for (const char* key : {"a", "b/1", "b/2", "b/3", "c"}) put(key, "v");
  EXPECT_THAT(items(KeyRange::prefix("b/")), ElementsAre("b/1=v", "b/2=v", "b/3=v"));
  EXPECT_THAT(items(KeyRange::between("b/2", "")), ElementsAre("b/2=v", "b/3=v", "c=v"));
  EXPECT_THAT(items(KeyRange::between("", "b/2")), ElementsAre("a=v", "b/1=v"));
  EXPECT_THAT(items(KeyRange::prefix("b/"), {.descending = true, .keys_only = true}),
              ElementsAre("b/3=", "b/2=", "b/1="));
  auto page = store().range(KeyRange::prefix("b/"), {.limit = 2, .count = true});
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->items.size(), 2u);
  EXPECT_TRUE(page->more);
  EXPECT_EQ(page->count, 3);
  EXPECT_EQ(page->revision, store().current_revision());
  page = store().range(KeyRange::between(key_after("b/2"), prefix_end("b/")), {.limit = 2});
  EXPECT_EQ(page->items.size(), 1u);
  EXPECT_FALSE(page->more);
}

TEST_P(StoreTest, OldRevisions) {
  put("a", "1");
  const int64_t before = put("b", "1");
  put("a", "2");
  must_commit(Transaction().erase("b").put("c", "1"));
  const int64_t after = put("b", "2");
  EXPECT_THAT(items(KeyRange::prefix(""), {.revision = before}), ElementsAre("a=1", "b=1"));
  EXPECT_THAT(items(KeyRange::prefix(""), {.limit = 1, .revision = before, .descending = true}),
              ElementsAre("b=1"));
  EXPECT_THAT(items(KeyRange::prefix(""), {.revision = before + 2}), ElementsAre("a=2", "c=1"));
  EXPECT_THAT(items(KeyRange::prefix(""), {.revision = after}), ElementsAre("a=2", "b=2", "c=1"));
  auto counted = store().range(KeyRange::prefix(""), {.revision = before, .count = true});
  EXPECT_EQ(counted->count, 2);
  EXPECT_EQ(counted->revision, before);
  EXPECT_EQ(store().range(KeyRange::prefix(""), {.revision = after + 1}).code(),
            Code::kInvalidArgument);
}

TEST_P(StoreTest, Compares) {
  const int64_t created = put("k", "1");
  auto holds_now = [&](Compare compare) {
    return must_commit(Transaction().when(std::move(compare))).succeeded;
  };
  EXPECT_TRUE(holds_now(key_present("k")));
  EXPECT_FALSE(holds_now(key_absent("k")));
  EXPECT_TRUE(holds_now(key_absent("other")));
  EXPECT_TRUE(holds_now(mod_revision_is("k", created)));
  EXPECT_TRUE(holds_now(create_revision_is("k", created)));
  EXPECT_TRUE(holds_now(value_is("k", "1")));
  EXPECT_FALSE(holds_now(value_is("k", "2")));
  EXPECT_FALSE(holds_now(value_is("other", "")));
  EXPECT_TRUE(holds_now({.key = "other",
                         .target = Compare::Target::kValue,
                         .relation = Compare::Relation::kNotEqual,
                         .value = "x"}));
  EXPECT_TRUE(holds_now({.key = "k",
                         .target = Compare::Target::kVersion,
                         .relation = Compare::Relation::kLess,
                         .number = 2}));
  put("k", "2");
  EXPECT_FALSE(holds_now(mod_revision_is("k", created)));
  EXPECT_TRUE(holds_now(create_revision_is("k", created)));
}

TEST_P(StoreTest, TransactionsBranchAndSeeThemselves) {
  put("a", "1");
  Transaction transaction;
  transaction.when(value_is("a", "1")).put("b", "2").add(get_range(KeyRange::prefix("")));
  transaction.add(erase("a")).add(get("a")).or_else(meta::put("c", "3"));
  TransactionResult result = must_commit(transaction);
  EXPECT_TRUE(result.succeeded);
  ASSERT_EQ(result.results.size(), 4u);
  EXPECT_EQ(result.results[1].range.items.size(), 2u);
  EXPECT_EQ(result.results[2].deleted, 1);
  EXPECT_TRUE(result.results[3].range.items.empty());
  result = must_commit(transaction);
  EXPECT_FALSE(result.succeeded);
  EXPECT_THAT(items(KeyRange::prefix("")), ElementsAre("b=2", "c=3"));
  EXPECT_EQ((*store().get("c"))->mod_revision, result.revision);
}

TEST_P(StoreTest, LimitsAreKept) {
  Transaction many;
  for (int i = 0; i < 65; ++i) many.put(str_cat("k", i), "v");
  EXPECT_EQ(store().commit(many).code(), Code::kInvalidArgument);
  many.then.pop_back();
  EXPECT_TRUE(store().commit(many).ok());
  EXPECT_EQ(store().commit(Transaction().put("", "v")).code(), Code::kInvalidArgument);
  EXPECT_EQ(store().commit(Transaction().put(std::string("a\0b", 3), "v")).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(store().commit(Transaction().put(std::string(2049, 'k'), "v")).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(store().commit(Transaction().put("k", std::string(1600 << 10, 'v'))).code(),
            Code::kTooLarge);
  EXPECT_EQ(store().commit(Transaction().put("k", "1").put("k", "2")).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(
      store().commit(Transaction().put("k/1", "1").add(erase_range(KeyRange::prefix("k/")))).code(),
      Code::kInvalidArgument);
  EXPECT_EQ(store().commit(Transaction().put("k", "1", 12345)).code(), Code::kNotFound);
}

TEST_P(ServedStoreTest, SurvivesRestart) {
  put("a", "1");
  const int64_t revision = put("b", "2");
  put("a", "3");
  bench_->restart();
  EXPECT_THAT(items(KeyRange::prefix("")), ElementsAre("a=3", "b=2"));
  EXPECT_THAT(items(KeyRange::prefix(""), {.revision = revision}), ElementsAre("a=1", "b=2"));
  EXPECT_EQ(store().current_revision(), revision + 1);
}

TEST_P(StoreTest, WatchesTellThePastAndThePresent) {
  const int64_t first = put("w/a", "1");
  put("other", "x");
  must_commit(Transaction().erase("w/a").put("w/b", "2"));
  Collector past, present;
  auto from_first = store().watch(KeyRange::prefix("w/"), first, past.callback());
  auto from_now = store().watch(KeyRange::prefix("w/"), 0, present.callback());
  ASSERT_TRUE(from_first.ok() && from_now.ok());
  must_commit(Transaction().put("w/b", "3").put("w/c", "4"));
  EXPECT_THAT(past.wait_for(5),
              ElementsAre(str_cat(first, " w/a=1"), str_cat(first + 2, " w/a gone"),
                          str_cat(first + 2, " w/b=2"), str_cat(first + 3, " w/b=3"),
                          str_cat(first + 3, " w/c=4")));
  EXPECT_THAT(present.wait_for(2),
              ElementsAre(str_cat(first + 3, " w/b=3"), str_cat(first + 3, " w/c=4")));
}

TEST_P(StoreTest, WatchesTellReplacedValues) {
  const int64_t first = put("k", "1");
  put("k", "2");
  must_commit(Transaction().erase("k"));
  put("k", "3");
  Collector collector;
  auto watch = store().watch(KeyRange::single("k"), first, collector.callback());
  ASSERT_TRUE(watch.ok());
  EXPECT_THAT(collector.wait_for(4),
              ElementsAre(str_cat(first, " k=1"), str_cat(first + 1, " k=2"),
                          str_cat(first + 2, " k gone"), str_cat(first + 3, " k=3")));
}

TEST_P(StoreTest, WatchCanEndItself) {
  std::unique_ptr<Watch> watch;
  std::promise<void> set;
  std::atomic<int> calls = 0;
  std::promise<void> ended;
  auto made = store().watch(KeyRange::prefix(""), 0, [&](const WatchBatch&) {
    set.get_future().wait();
    ++calls;
    watch.reset();
    ended.set_value();
  });
  watch = *std::move(made);
  set.set_value();
  put("a", "1");
  ended.get_future().wait();
  put("a", "2");
  put("a", "3");
  EXPECT_EQ(calls, 1);
}

TEST_P(ServedStoreTest, CompactionIsGone) {
  const int64_t first = put("k", "0");
  Collector slow;
  for (int i = 1; i <= 30; ++i) {
    put("k", std::to_string(i));
    bench_->advance_ms(1'100);
  }
  EXPECT_EQ(store().range(KeyRange::single("k"), {.revision = first}).code(), Code::kGone);
  EXPECT_EQ(store().watch(KeyRange::single("k"), first, slow.callback()).code(), Code::kGone);
  const int64_t recent = store().current_revision() - 5;
  EXPECT_THAT(items(KeyRange::single("k"), {.revision = recent}), ElementsAre("k=25"));
  EXPECT_TRUE(store().watch(KeyRange::single("k"), recent, slow.callback()).ok());
}

TEST_P(StoreTest, LeasesEndWithTheirKeys) {
  auto lease = store().grant_lease(1'000);
  auto other = store().grant_lease(5'000);
  ASSERT_TRUE(lease.ok() && other.ok());
  must_commit(Transaction().put("l/a", "1", *lease).put("l/b", "1", *lease));
  must_commit(Transaction().put("l/c", "1", *other).put("l/d", "1"));
  must_commit(Transaction().put("l/b", "2"));  // detached
  bench_->advance_ms(900);
  ASSERT_TRUE(store().keep_alive(*lease).ok());
  bench_->advance_ms(900);
  EXPECT_TRUE(store().lease_info(*lease).ok());
  EXPECT_TRUE((*store().get("l/a")).has_value());

  Collector collector;
  auto watch = store().watch(KeyRange::prefix("l/"), 0, collector.callback());
  bench_->advance_ms(200);
  EXPECT_EQ(collector.wait_for(1).size(), 1u);
  EXPECT_THAT(items(KeyRange::prefix("l/")), ElementsAre("l/b=2", "l/c=1", "l/d=1"));
  EXPECT_EQ(store().keep_alive(*lease).code(), Code::kNotFound);
  EXPECT_EQ(store().commit(Transaction().put("x", "1", *lease)).code(), Code::kNotFound);

  ASSERT_TRUE(store().revoke_lease(*other).ok());
  EXPECT_EQ(store().revoke_lease(*other).code(), Code::kNotFound);
  EXPECT_THAT(items(KeyRange::prefix("l/")), ElementsAre("l/b=2", "l/d=1"));
}

TEST_P(ServedStoreTest, LeasesOutliveARestart) {
  auto lease = store().grant_lease(1'000);
  must_commit(Transaction().put("a", "1", *lease));
  bench_->advance_ms(900);
  bench_->restart();
  EXPECT_EQ(store().lease_info(*lease)->remaining_ms, 1'000);
  EXPECT_NE(*store().grant_lease(1'000), *lease);
  ASSERT_TRUE(store().revoke_lease(*lease).ok());
  EXPECT_THAT(items(KeyRange::prefix("")), ElementsAre());
}

TEST_P(ServedStoreTest, WaitRevision) {
  using std::chrono::milliseconds;
  const int64_t now = store().current_revision();
  EXPECT_TRUE(store().wait_revision(now, milliseconds(0)).ok());
  EXPECT_EQ(store().wait_revision(now + 1, milliseconds(1)).code(), Code::kDeadlineExceeded);
  auto waiting = std::async(std::launch::async,
                            [&] { return store().wait_revision(now + 1, milliseconds(10'000)); });
  put("k", "v");
  EXPECT_TRUE(waiting.get().ok());
}

// Threads increment counters by compare-and-swap while others watch and read: nothing is lost, and
// every snapshot is of one moment.
TEST_P(ServedStoreTest, ConcurrentIncrements) {
  constexpr int kThreads = 8, kRounds = 40;
  must_commit(Transaction().put("x", "0").put("y", "0"));
  Collector collector;
  auto watch = store().watch(KeyRange::prefix(""), 0, collector.callback());
  std::atomic<bool> reading = true;
  std::thread reader([&] {
    while (reading) {
      auto both = store().range(KeyRange::prefix(""));
      ASSERT_TRUE(both.ok());
      EXPECT_EQ(both->items[0].value, both->items[1].value);
    }
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int done = 0; done < kRounds;) {
        auto x = store().get("x");
        ASSERT_TRUE(x.ok());
        std::string next = std::to_string(*parse_i64((*x)->value) + 1);
        auto result = store().commit(Transaction()
                                         .when(mod_revision_is("x", (*x)->mod_revision))
                                         .put("x", next)
                                         .put("y", next));
        ASSERT_TRUE(result.ok());
        done += result->succeeded;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  reading = false;
  reader.join();
  EXPECT_EQ((*store().get("x"))->value, std::to_string(kThreads * kRounds));
  auto events = collector.wait_for(2 * kThreads * kRounds);
  ASSERT_EQ(events.size(), 2u * kThreads * kRounds);
  for (int i = 1; i <= kThreads * kRounds; ++i) {
    EXPECT_TRUE(events[2 * i - 2].ends_with(str_cat(" x=", i))) << events[2 * i - 2];
  }
}

// Random transactions against a plain map.
TEST_P(StoreTest, AgreesWithAMap) {
  SeededRandom random(7);
  std::map<std::string, std::string> model;
  std::map<int64_t, std::map<std::string, std::string>> history;
  for (int round = 0; round < 300; ++round) {
    Transaction transaction;
    const bool succeed = random.below(4) != 0;
    transaction.when(succeed ? key_absent("never") : key_present("never"));
    auto changed = model;
    for (uint64_t i = 0, n = 1 + random.below(4); i < n; ++i) {
      std::string key = str_cat("k", i, random.below(8));
      if (random.below(3) != 0) {
        std::string value = str_cat("v", round, ".", i);
        transaction.put(key, value);
        changed[key] = value;
      } else {
        transaction.erase(key);
        changed.erase(key);
      }
    }
    TransactionResult result = must_commit(transaction);
    EXPECT_EQ(result.succeeded, succeed);
    if (succeed) model = changed;
    history[result.revision] = model;
    if (round % 100 == 50) bench_->restart();
  }
  for (const auto& [revision, expected] : history) {
    std::vector<std::string> texts;
    for (const auto& [key, value] : expected) texts.push_back(key + "=" + value);
    EXPECT_EQ(items(KeyRange::prefix("k"), {.revision = revision}), texts);
  }
}

INSTANTIATE_TEST_SUITE_P(Sqlite, StoreTest, ::testing::Values(MakeBench(make<SqliteBench>)));
INSTANTIATE_TEST_SUITE_P(Memory, StoreTest, ::testing::Values(MakeBench(make<MemoryBench>)));
INSTANTIATE_TEST_SUITE_P(Sqlite, ServedStoreTest, ::testing::Values(MakeBench(make<SqliteBench>)));

TEST(SqliteStoreTest, OneProcessAtATime) {
  std::string folder = str_cat(::testing::TempDir(), "/qanat-meta-", random_id());
  auto first = SqliteStore::open(posix_file_system(), real_clock(), folder);
  ASSERT_TRUE(first.ok()) << first.status().to_string();
  EXPECT_EQ(SqliteStore::open(posix_file_system(), real_clock(), folder).code(),
            Code::kFailedPrecondition);
  first->reset();
  EXPECT_TRUE(SqliteStore::open(posix_file_system(), real_clock(), folder).ok());
  std::filesystem::remove_all(folder);
}

TEST(SqliteStoreTest, OneSyncACommitAndIntegrity) {
  SqliteBench bench;
  Counter& syncs = counter("qanat_meta_log_syncs_total", "");
  (void)bench.store().commit(Transaction().put("a", "1"));
  const uint64_t before = syncs.value();
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(bench.store().commit(Transaction().put(str_cat("k", i % 20), "1")).ok());
  }
  EXPECT_EQ(syncs.value() - before, 200u);
  EXPECT_TRUE(bench.store().range(KeyRange::prefix("")).ok());
  EXPECT_EQ(syncs.value() - before, 200u);
  EXPECT_TRUE(bench.sqlite().check_integrity().ok());
}

TEST(SqliteStoreTest, TheReserveIsKept) {
  std::string folder = str_cat(::testing::TempDir(), "/qanat-meta-", random_id());
  {
    auto store = SqliteStore::open(posix_file_system(), real_clock(), folder);
    ASSERT_TRUE((*store)->commit(Transaction().put("a", "1").put("b", "1")).ok());
  }
  // More is to be kept than any disk has: full, from the first moment.
  auto store = SqliteStore::open(posix_file_system(), real_clock(), folder,
                                 {.reserve_bytes = uint64_t{1} << 60});
  ASSERT_TRUE(store.ok());
  auto refused = (*store)->commit(Transaction().put("a", "2"));
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  EXPECT_FALSE(refused.status().hint().empty());
  EXPECT_EQ((*(*store)->get("a"))->value, "1");
  EXPECT_TRUE((*store)->commit(Transaction().erase("a")).ok());
  Transaction last;
  last.may_use_reserve = true;
  EXPECT_TRUE((*store)->commit(last.put("b", "2")).ok());
  EXPECT_EQ((*(*store)->get("b"))->value, "2");
  store->reset();
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace qanat::meta
