// The contract of object::ObjectStore, for every implementation of it.
#include "qanat/object/object_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <thread>

#include "object/s3_fake.h"
#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/net/http_client.h"
#include "qanat/net/resolver.h"
#include "qanat/object/local_object_store.h"
#include "qanat/object/open_object_store.h"
#include "qanat/object/presigned_urls.h"
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

// Any store by its URL, in a prefix of its own.
struct UrlBench : Bench {
  explicit UrlBench(const std::string& text, Environment environment = process_environment())
      : url(*parse_store_url(text)) {
    str_append(url.prefix, "qanat-test-", random_id(), "/");
    OpenOptions options;
    options.client.resolver = net::system_resolver();
    options.environment = std::move(environment);
    options.remote.part_bytes = 5 << 20;
    opened = *open_object_store(url, options);
  }
  ~UrlBench() override {
    std::vector<std::string> keys;
    (void)opened->list("", [&](const ObjectInfo& info) {
      keys.push_back(info.key);
      return ok_status();
    });
    for (const std::string& key : keys) (void)opened->remove(key);
  }
  ObjectStore& store() override { return *opened; }
  StoreUrl url;
  std::unique_ptr<ObjectStore> opened;
};

struct FakeBench : Bench {
  FakeBench() {
    fake.set_page_size(2);
    const net::AwsKey key = fake.key();
    bench = std::make_unique<UrlBench>(fake.url(), [key](const std::string& name) -> std::string {
      if (name == "AWS_ACCESS_KEY_ID") return key.id;
      return name == "AWS_SECRET_ACCESS_KEY" ? key.secret : "";
    });
  }
  ObjectStore& store() override { return bench->store(); }
  S3Fake fake;
  std::unique_ptr<UrlBench> bench;
};

struct Member {
  std::string name;
  std::function<std::unique_ptr<Bench>()> make;
  bool knows_existing = true;  // finds out that a key has an object already
  bool presigns = true;
};

// The local folder, S3 in this process, and what the environment names:
// QANAT_TEST_STORES="Ceph=s3://bucket?endpoint=... Azurite=azure://...", with the variables that
// hold their keys. tests/e2e/object_stores_test.py starts such stores and sets it.
std::vector<Member> members() {
  std::vector<Member> all = {{"Local", [] { return std::make_unique<LocalBench>(); }, true, false},
                             {"S3Fake", [] { return std::make_unique<FakeBench>(); }}};
  const std::string asked = process_environment()("QANAT_TEST_STORES");
  for (std::string_view part : split(asked, ' ')) {
    const auto [name, url] = split_once(part, '=');
    if (url.empty()) continue;
    const StoreUrl::Kind kind = parse_store_url(url)->kind;
    all.push_back({std::string(name),
                   [text = std::string(url)] { return std::make_unique<UrlBench>(text); },
                   kind != StoreUrl::Kind::kGcs, kind != StoreUrl::Kind::kLocal});
  }
  return all;
}

std::vector<Member> members_that(bool Member::* can) {
  std::vector<Member> found;
  for (const Member& member : members()) {
    if (member.*can) found.push_back(member);
  }
  return found;
}

class ObjectStoreTest : public ::testing::TestWithParam<Member> {
 protected:
  ObjectStoreTest() : bench_(GetParam().make()), store_(bench_->store()) {}

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

// Of what not every store can.
class KeysUsedOnceTest : public ObjectStoreTest {};
class PresignedRequestsTest : public ObjectStoreTest {};

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

TEST_P(KeysUsedOnceTest, ASecondWriteIsRefused) {
  ASSERT_TRUE(store_.write("k/1", "one").ok());
  EXPECT_EQ(store_.write("k/1", "two").code(), Code::kAlreadyExists);
  EXPECT_EQ(*store_.read("k/1", 0, 3), "one");
  // Of two that write at the same time one succeeds, and what it wrote stays.
  auto first = store_.create("k/2");
  auto second = store_.create("k/2");
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE((*first)->append("first").ok());
  if (second.ok()) {
    ASSERT_TRUE((*second)->append("other").ok());
  } else {
    EXPECT_EQ(second.code(), Code::kAlreadyExists);
  }
  EXPECT_TRUE((*first)->finish().ok());
  if (second.ok()) {
    EXPECT_EQ((*second)->finish().code(), Code::kAlreadyExists);
    second->reset();
  }
  EXPECT_EQ(*store_.read("k/2", 0, 5), "first");
}

// In parts, where the store has them.
TEST_P(ObjectStoreTest, LargeObjects) {
  SeededRandom random(2);
  const std::string bytes = random.bytes(17'000'001);
  ASSERT_TRUE(store_.write("large/1", bytes).ok());
  EXPECT_EQ(*store_.size("large/1"), 17'000'001);
  EXPECT_EQ(*store_.read("large/1", 0, 17'000'001), bytes);
  EXPECT_EQ(*store_.read("large/1", 5 * 1024 * 1024 - 3, 7), bytes.substr(5 * 1024 * 1024 - 3, 7));
  EXPECT_EQ(*store_.read("large/1", 17'000'000, 1), bytes.substr(17'000'000));
  EXPECT_EQ(store_.read("large/1", 17'000'001, 1).code(), Code::kDataLoss);
  // Exactly two parts.
  ASSERT_TRUE(store_.write("large/2", std::string_view(bytes).substr(0, 10 << 20)).ok());
  EXPECT_EQ(*store_.size("large/2"), 10 << 20);
  {
    auto writer = store_.create("large/3");
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->append(bytes).ok());
  }
  EXPECT_EQ(store_.size("large/3").code(), Code::kNotFound);
  EXPECT_THAT(keys("large/"), ElementsAre("large/1", "large/2"));
}

TEST_P(ObjectStoreTest, ProbeLeavesNothing) {
  const Status status = probe_object_store(store_);
  EXPECT_TRUE(status.ok()) << status.to_string() << "; " << status.hint();
  EXPECT_THAT(keys(""), ElementsAre());
}

TEST_P(ObjectStoreTest, PresignsOrSaysThatItDoesNot) {
  EXPECT_EQ(store_.presigned_urls() != nullptr, GetParam().presigns);
}

// What a presigned request allows, and nothing else.
TEST_P(PresignedRequestsTest, AllowOneThing) {
  PresignedUrls* presigned = store_.presigned_urls();
  ASSERT_NE(presigned, nullptr);
  net::ClientOptions options;
  options.resolver = net::system_resolver();
  net::HttpClient client(options);
  const auto send = [&](const PresignedRequest& from, const std::string& body,
                        const std::string& range = "") {
    net::ClientRequest request;
    request.method = net::method_from_name(from.method);
    request.url = *net::Url::parse(from.url);
    for (const auto& [name, value] : from.headers) {
      if (name != "Content-Length") request.headers.set(name, value);
    }
    if (!range.empty()) request.headers.set("Range", range);
    request.body = body;
    auto answer = client.send(request);
    return std::pair((*answer)->status(), *(*answer)->read_all(1 << 20));
  };
  const std::string bytes = "0123456789";
  const auto write = presigned->presign_write("p/1", 10, std::chrono::seconds(60));
  ASSERT_TRUE(write.ok()) << write.status().to_string();
  if (presigned->limits_size()) {
    EXPECT_EQ(send(*write, bytes + "!").first, 403);
  }
  const auto written = send(*write, bytes);
  EXPECT_TRUE(written.first == 200 || written.first == 201) << written.first << written.second;
  EXPECT_EQ(*store_.read("p/1", 0, 10), bytes);

  const auto read = presigned->presign_read("p/1", 2, 5, std::chrono::seconds(60));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(send(*read, ""), std::pair(206, std::string("23456")));
  const int other = send(*read, "", "bytes=0-9").first;
  EXPECT_EQ(other, presigned->limits_range() ? 403 : 206);
  EXPECT_EQ(presigned->presign_read("p/1", 2, 0, std::chrono::seconds(60)).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(presigned->presign_read("p/1", 2, 1, std::chrono::hours(24 * 8)).code(),
            Code::kInvalidArgument);
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

std::string name_of(const ::testing::TestParamInfo<Member>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Stores, ObjectStoreTest, ::testing::ValuesIn(members()), name_of);
INSTANTIATE_TEST_SUITE_P(Stores, KeysUsedOnceTest,
                         ::testing::ValuesIn(members_that(&Member::knows_existing)), name_of);
INSTANTIATE_TEST_SUITE_P(Stores, PresignedRequestsTest,
                         ::testing::ValuesIn(members_that(&Member::presigns)), name_of);

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
