// The contract of object::ObjectStore, for every implementation of it.
#include "qanat/object/object_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/object/local_object_store.h"
#include "support/fault_file_system.h"
#include "support/seeds.h"

namespace qanat::object {
namespace {

using qanat::testing::FaultFileSystem;
using ::testing::ElementsAre;

struct Bench {
  virtual ~Bench() = default;
  virtual ObjectStore& store() = 0;
};

struct LocalBench : Bench {
  LocalBench() : folder(str_cat(::testing::TempDir(), "/qanat-objects-", random_id())) {
    auto opened = LocalObjectStore::open(posix_file_system(), folder);
    local = *std::move(opened);
  }
  ~LocalBench() override { std::filesystem::remove_all(folder); }
  ObjectStore& store() override { return *local; }
  std::string folder;
  std::unique_ptr<LocalObjectStore> local;
};

using MakeBench = std::unique_ptr<Bench> (*)();

class ObjectStoreTest : public ::testing::TestWithParam<MakeBench> {
 protected:
  ObjectStoreTest() : bench_(GetParam()()), store_(bench_->store()) {}

  std::vector<std::string> keys(std::string_view prefix) {
    std::vector<std::string> all;
    EXPECT_TRUE(store_
                    .list(prefix,
                          [&](const ObjectInfo& info) {
                            all.push_back(info.key);
                            return ok_status();
                          })
                    .ok());
    return all;
  }

  std::unique_ptr<Bench> bench_;
  ObjectStore& store_;
};

TEST(CheckKeyTest, Rules) {
  for (const char* good : {"a", "packs/p/0f/ab-c_1.x=2", "A/b"}) EXPECT_TRUE(check_key(good).ok());
  for (const char* bad : {"", "/a", "a/", "a//b", "..", "a/../b", "a/.", "a b", "a\xc3\xa4"}) {
    EXPECT_EQ(check_key(bad).code(), Code::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(check_key(std::string(1025, 'k')).ok());
}

TEST_P(ObjectStoreTest, WrittenIsRead) {
  SeededRandom random(1);
  const std::string bytes = random.bytes(3'000'000);
  auto writer = store_.create("packs/p/0/a");
  ASSERT_TRUE(writer.ok()) << writer.status().to_string();
  for (size_t at = 0; at < bytes.size();) {
    size_t length = std::min<size_t>(random.below(500'000), bytes.size() - at);
    ASSERT_TRUE((*writer)->append(std::string_view(bytes).substr(at, length)).ok());
    at += length;
  }
  EXPECT_EQ((*writer)->size(), 3'000'000);
  ASSERT_TRUE((*writer)->finish().ok());
  writer->reset();
  EXPECT_EQ(*store_.size("packs/p/0/a"), 3'000'000);
  EXPECT_EQ(*store_.read("packs/p/0/a", 0, 3'000'000), bytes);
  EXPECT_EQ(*store_.read("packs/p/0/a", 999'999, 17), bytes.substr(999'999, 17));
  EXPECT_EQ(*store_.read("packs/p/0/a", 3'000'000, 0), "");
  EXPECT_EQ(store_.read("packs/p/0/a", 2'999'999, 2).code(), Code::kDataLoss);
}

TEST_P(ObjectStoreTest, EmptyObjects) {
  ASSERT_TRUE(store_.write("empty", "").ok());
  EXPECT_EQ(*store_.size("empty"), 0);
  EXPECT_EQ(*store_.read("empty", 0, 0), "");
}

TEST_P(ObjectStoreTest, KeysAreUsedOnce) {
  ASSERT_TRUE(store_.write("k/1", "one").ok());
  EXPECT_EQ(store_.create("k/1").code(), Code::kAlreadyExists);
  auto open = store_.create("k/2");
  EXPECT_EQ(store_.create("k/2").code(), Code::kAlreadyExists);
  EXPECT_EQ(*store_.read("k/1", 0, 3), "one");
}

TEST_P(ObjectStoreTest, AbsentObjects) {
  EXPECT_EQ(store_.read("no/such", 0, 1).code(), Code::kNotFound);
  EXPECT_EQ(store_.size("no/such").code(), Code::kNotFound);
  EXPECT_TRUE(store_.remove("no/such").ok());
  EXPECT_THAT(keys("no/"), ElementsAre());
  EXPECT_EQ(store_.read("../etc/passwd", 0, 1).code(), Code::kInvalidArgument);
  EXPECT_EQ(store_.create("a//b").code(), Code::kInvalidArgument);
}

TEST_P(ObjectStoreTest, GivenUpObjectsVanish) {
  {
    auto writer = store_.create("k/dropped");
    ASSERT_TRUE((*writer)->append(std::string(1'000'000, 'x')).ok());
  }
  auto writer = store_.create("k/aborted");
  ASSERT_TRUE((*writer)->append("x").ok());
  (*writer)->abort();
  EXPECT_THAT(keys(""), ElementsAre());
  EXPECT_TRUE(store_.write("k/aborted", "again").ok());
}

TEST_P(ObjectStoreTest, Lists) {
  for (const char* key : {"a/1", "a/2", "a/20", "a-b", "a/3/x", "b"}) {
    ASSERT_TRUE(store_.write(key, key).ok());
  }
  EXPECT_THAT(keys(""), ElementsAre("a-b", "a/1", "a/2", "a/20", "a/3/x", "b"));
  EXPECT_THAT(keys("a/"), ElementsAre("a/1", "a/2", "a/20", "a/3/x"));
  EXPECT_THAT(keys("a/2"), ElementsAre("a/2", "a/20"));
  EXPECT_THAT(keys("a"), ElementsAre("a-b", "a/1", "a/2", "a/20", "a/3/x"));
  EXPECT_EQ(store_.list("", [](const ObjectInfo&) { return cancelled("enough"); }).code(),
            Code::kCancelled);
  ASSERT_TRUE(store_.remove("a/2").ok());
  EXPECT_THAT(keys("a/2"), ElementsAre("a/20"));
}

TEST_P(ObjectStoreTest, ManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        std::string key = str_cat("shared/", i % 3, "/", t, "-", i);
        ASSERT_TRUE(store_.write(key, key).ok());
        EXPECT_EQ(*store_.read(key, 0, static_cast<int64_t>(key.size())), key);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(keys("shared/").size(), 160u);
}

INSTANTIATE_TEST_SUITE_P(Local, ObjectStoreTest,
                         ::testing::Values(MakeBench([]() -> std::unique_ptr<Bench> {
                           return std::make_unique<LocalBench>();
                         })),
                         [](const auto&) { return "Local"; });

TEST(LocalObjectStoreTest, TwoSyncsAnObject) {
  LocalBench bench;
  ASSERT_TRUE(bench.store().write("p/first", "x").ok());
  Counter& files = counter("qanat_object_file_syncs_total", "");
  Counter& folders = counter("qanat_object_directory_syncs_total", "");
  const uint64_t files_before = files.value(), folders_before = folders.value();
  ASSERT_TRUE(bench.store().write("p/second", std::string(5'000'000, 'x')).ok());
  EXPECT_EQ(files.value() - files_before, 1u);
  EXPECT_EQ(folders.value() - folders_before, 1u);
}

// Crashes at every operation: what was finished is there whole; the rest is absent or garbage that
// can be listed and removed.
TEST(LocalObjectStoreTest, EveryCrashPoint) {
  SeededRandom random(5);
  const std::string bytes = random.bytes(700'000);
  for (uint64_t n = 1;; ++n) {
    FaultFileSystem disk;
    disk.crash_at(n);
    int finished = -1;
    if (auto store = LocalObjectStore::open(disk, "/objects", {.reserve_bytes = 0}); store.ok()) {
      for (int i = 0; i < 6; ++i) {
        if (!(*store)->write(str_cat("packs/", i % 2, "/", i), bytes).ok()) break;
        finished = i;
      }
    }
    for (uint64_t seed : qanat::testing::reboot_seeds(n)) {
      SCOPED_TRACE(str_cat("crash at ", n, ", seed ", seed));
      auto after = disk.reboot(seed);
      auto store = LocalObjectStore::open(*after, "/objects", {.reserve_bytes = 0});
      ASSERT_TRUE(store.ok());
      for (int i = 0; i <= finished; ++i) {
        auto read = (*store)->read(str_cat("packs/", i % 2, "/", i), 0, 700'000);
        ASSERT_TRUE(read.ok()) << read.status().to_string();
        EXPECT_EQ(*read, bytes);
      }
      std::vector<std::string> garbage;
      ASSERT_TRUE((*store)
                      ->list("packs/",
                             [&](const ObjectInfo& info) {
                               if (parse_i64(split(info.key, '/')[2]).value_or(0) > finished) {
                                 garbage.push_back(info.key);
                               }
                               return ok_status();
                             })
                      .ok());
      EXPECT_LE(garbage.size(), 1u);
      for (const std::string& key : garbage) EXPECT_TRUE((*store)->remove(key).ok());
      EXPECT_TRUE((*store)->write("packs/0/new", "x").ok());
    }
    if (!disk.crashed()) {
      EXPECT_EQ(finished, 5);
      return;
    }
  }
}

TEST(LocalObjectStoreTest, AFullDisk) {
  FaultFileSystem disk;
  auto store =
      LocalObjectStore::open(disk, "/objects", {.reserve_bytes = 100'000, .reserve_fraction = 0});
  ASSERT_TRUE(store.ok());
  disk.set_capacity(1'000'000);
  const std::string bytes(300'000, 'x');
  ASSERT_TRUE((*store)->write("a", bytes).ok());
  ASSERT_TRUE((*store)->write("b", bytes).ok());
  ASSERT_TRUE((*store)->write("c", bytes).ok());
  Status refused = (*store)->write("d", bytes);
  EXPECT_EQ(refused.code(), Code::kResourceExhausted) << refused.to_string();
  EXPECT_FALSE(refused.hint().empty());
  EXPECT_EQ((*store)->size("d").code(), Code::kNotFound);
  EXPECT_EQ((*store)->read("a", 0, 300'000)->size(), 300'000u);
  ASSERT_TRUE((*store)->remove("a").ok());
  EXPECT_TRUE((*store)->write("d", bytes).ok());
}

}  // namespace
}  // namespace qanat::object
