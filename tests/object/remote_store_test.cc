// The S3 client against a store that misbehaves: what was acknowledged is there with the right
// bytes, what is read is right, and everything ends within its deadline.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "object/s3_fake.h"
#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/object/open_object_store.h"
#include "support/seeds.h"

namespace qanat::object {
namespace {

using Fault = S3Fake::Fault;
using std::chrono::milliseconds;
using std::chrono::seconds;
using SteadyClock = std::chrono::steady_clock;
using ::testing::HasSubstr;
using ::testing::Not;

class RemoteStoreTest : public ::testing::Test {
 protected:
  RemoteStoreTest() {
    options_.environment = [this](const std::string& name) {
      auto found = environment_.find(name);
      return found == environment_.end() ? std::string() : found->second;
    };
    options_.retry.first_wait = milliseconds(1);
    options_.retry.longest_wait = milliseconds(20);
    options_.retry.idle_timeout = seconds(5);
    options_.remote.part_bytes = 5 << 20;
    environment_["AWS_ACCESS_KEY_ID"] = fake_.key().id;
    environment_["AWS_SECRET_ACCESS_KEY"] = fake_.key().secret;
  }

  std::unique_ptr<ObjectStore> open(const std::string& url = "") {
    auto store = open_object_store(url.empty() ? fake_.url("pre/fix") : url, options_);
    EXPECT_TRUE(store.ok()) << store.status().to_string();
    return *std::move(store);
  }

  // Every request of that method (and query, if given) has this fault, the first `count` times.
  void fail(Fault fault, net::Method method, int count, std::string_view query = "") {
    auto left = std::make_shared<std::atomic<int>>(count);
    fake_.set_fault([=, text = std::string(query)](const net::RequestHead& head) {
      if (head.method != method || head.query_text.find(text) == std::string::npos) {
        return Fault::kNone;
      }
      return left->fetch_sub(1) > 0 ? fault : Fault::kNone;
    });
  }

  std::map<std::string, std::string> environment_;
  OpenOptions options_;
  S3Fake fake_;
};

// A write that is acknowledged left exactly these bytes, whatever went wrong once on the way.
TEST_F(RemoteStoreTest, AWriteSurvivesEachFault) {
  auto store = open();
  SeededRandom random(3);
  int number = 0;
  for (const Fault fault :
       {Fault::kCutRequest, Fault::kLostBefore, Fault::kLostAfter, Fault::kErrorBefore,
        Fault::kErrorAfter, Fault::kSlowDown, Fault::kWrongTag}) {
    for (const int times : {1, 3}) {
      SCOPED_TRACE(str_cat("fault ", static_cast<int>(fault), ", ", times, " times"));
      const std::string key = str_cat("k/", ++number);
      const std::string bytes = random.bytes(100'000);
      fail(fault, net::Method::kPut, times);
      const Status status = store->write(key, bytes);
      EXPECT_TRUE(status.ok()) << status.to_string();
      EXPECT_EQ(fake_.objects()[str_cat("pre/fix/", key)], bytes);
    }
  }
  // Empty objects too: nothing is sent twice without it being known.
  fail(Fault::kLostAfter, net::Method::kPut, 1);
  EXPECT_TRUE(store->write("empty", "").ok());
}

TEST_F(RemoteStoreTest, ALargeWriteSurvivesEachFault) {
  auto store = open();
  SeededRandom random(4);
  const std::string bytes = random.bytes(12'000'000);
  struct Case {
    Fault fault;
    net::Method method;
    const char* query;
  };
  int number = 0;
  for (const Case& c :
       std::initializer_list<Case>{{Fault::kLostAfter, net::Method::kPost, "uploads"},
                                   {Fault::kErrorAfter, net::Method::kPost, "uploads"},
                                   {Fault::kCutAnswer, net::Method::kPost, "uploads"},
                                   {Fault::kCutRequest, net::Method::kPut, "partNumber"},
                                   {Fault::kLostAfter, net::Method::kPut, "partNumber=2"},
                                   {Fault::kWrongTag, net::Method::kPut, "partNumber"},
                                   {Fault::kSlowDown, net::Method::kPut, "partNumber"},
                                   {Fault::kLostBefore, net::Method::kPost, "uploadId"},
                                   {Fault::kLostAfter, net::Method::kPost, "uploadId"},
                                   {Fault::kErrorAfter, net::Method::kPost, "uploadId"},
                                   {Fault::kErrorInside, net::Method::kPost, "uploadId"},
                                   {Fault::kCutAnswer, net::Method::kPost, "uploadId"}}) {
    SCOPED_TRACE(str_cat("fault ", static_cast<int>(c.fault), " at ", c.query));
    const std::string key = str_cat("large/", ++number);
    fail(c.fault, c.method, 2, c.query);
    const Status status = store->write(key, bytes);
    ASSERT_TRUE(status.ok()) << status.to_string();
    EXPECT_EQ(fake_.objects()[str_cat("pre/fix/", key)], bytes);
    fake_.set_fault({});
    ASSERT_TRUE(store->remove(key).ok());
  }
}

TEST_F(RemoteStoreTest, AReadSurvivesEachFault) {
  auto store = open();
  SeededRandom random(5);
  const std::string bytes = random.bytes(300'000);
  ASSERT_TRUE(store->write("k", bytes).ok());
  for (const Fault fault : {Fault::kLostBefore, Fault::kLostAfter, Fault::kErrorBefore,
                            Fault::kSlowDown, Fault::kCutAnswer}) {
    fail(fault, net::Method::kGet, 2);
    const auto part = store->read("k", 1000, 200'000);
    ASSERT_TRUE(part.ok()) << part.status().to_string();
    EXPECT_EQ(*part, bytes.substr(1000, 200'000));
    fail(fault, net::Method::kHead, 2);
    EXPECT_EQ(*store->size("k"), 300'000);
    fail(fault, net::Method::kDelete, 2);
    EXPECT_TRUE(store->remove("gone").ok());
    fail(fault, net::Method::kGet, 2, "list-type");
    EXPECT_TRUE(store->list("", [](const ObjectInfo&) { return ok_status(); }).ok());
  }
  // A whole object is checked here; a part of one is for its reader to check.
  fail(Fault::kFlippedBit, net::Method::kGet, 2);
  EXPECT_EQ(*store->read("k", 0, 300'000), bytes);
  fail(Fault::kFlippedBit, net::Method::kGet, 1'000'000);
  EXPECT_EQ(store->read("k", 0, 300'000).code(), Code::kDataLoss);
}

TEST_F(RemoteStoreTest, WhatTheStoreDamagesIsNotAcknowledged) {
  auto store = open();
  fail(Fault::kDamaged, net::Method::kPut, 1);
  const Status status = store->write("k", std::string(1000, 'x'));
  EXPECT_EQ(status.code(), Code::kDataLoss) << status.to_string();
  EXPECT_TRUE(fake_.objects().empty());  // and is taken away
}

TEST_F(RemoteStoreTest, AnotherWritersObjectStaysAndIsNotTakenForOurs) {
  auto first = open();
  auto second = open();
  ASSERT_TRUE(first->write("k", "one").ok());
  fail(Fault::kErrorBefore, net::Method::kPut, 1);  // so that the client is not sure
  EXPECT_EQ(second->write("k", "two").code(), Code::kAlreadyExists);
  EXPECT_EQ(*first->read("k", 0, 3), "one");
  fake_.set_fault({});
  const std::string large(6 << 20, 'l');
  EXPECT_EQ(second->write("k", large).code(), Code::kAlreadyExists);
  EXPECT_EQ(fake_.uploads(), 0u);
  EXPECT_EQ(*first->read("k", 0, 3), "one");
}

// Some refusals of the end of an upload come after its 200: then, too, they are what they are.
TEST_F(RemoteStoreTest, ARefusalBehindA200IsUnderstood) {
  fake_.set_late_refusals(true);
  auto store = open();
  const std::string large(6 << 20, 'l');
  fail(Fault::kLostAfter, net::Method::kPost, 1, "uploadId");  // then NoSuchUpload
  const Status status = store->write("k", large);
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(fake_.objects()["pre/fix/k"], large);
  const uint64_t before = fake_.requests();
  EXPECT_EQ(store->write("k", large).code(), Code::kAlreadyExists);
  EXPECT_EQ(fake_.requests() - before, 5u);  // begin, two parts, complete, abort
  EXPECT_EQ(fake_.uploads(), 0u);
}

// A key that may put, get and delete is enough, though to it the store says 403 of what is absent.
TEST_F(RemoteStoreTest, TheRightToListIsNotNeeded) {
  for (const bool may_list : {false, true}) {  // true: only below a prefix
    SCOPED_TRACE(may_list);
    fake_.set_rights({.list = may_list, .tells_absent = false});
    auto store = open();
    if (!may_list) {
      EXPECT_EQ(store->size("absent").code(),
                Code::kFailedPrecondition);  // perhaps it may not read
    }
    const Status probed = probe_object_store(*store);
    EXPECT_TRUE(probed.ok()) << probed.to_string();
    EXPECT_EQ(store->size("absent").code(), Code::kNotFound);
    EXPECT_EQ(store->read("absent", 0, 1).code(), Code::kNotFound);
    EXPECT_TRUE(store->remove("absent").ok());
    ASSERT_TRUE(store->write("k", "bytes").ok());
    EXPECT_EQ(store->write("k", "other").code(), Code::kAlreadyExists);
    EXPECT_EQ(*store->read("k", 0, 5), "bytes");
    EXPECT_EQ(store->list("", [](const ObjectInfo&) { return ok_status(); }).code(),
              may_list ? Code::kOk : Code::kPermissionDenied);
    ASSERT_TRUE(store->remove("k").ok());
  }
}

// What may not be read is not taken for absent.
TEST_F(RemoteStoreTest, AKeyThatMayNotReadIsRefused) {
  fake_.set_rights({.read = false});
  const Status status = probe_object_store(*open());
  EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.to_string();
  EXPECT_THAT(status.hint(), HasSubstr("get"));
  ASSERT_TRUE(open()->write("k", "x").ok());
  EXPECT_EQ(open()->size("k").code(), Code::kFailedPrecondition);
}

TEST_F(RemoteStoreTest, AStoreWithoutChecksumsSaysWhatToDo) {
  fake_.set_checksums(false);
  const Status status = probe_object_store(*open());
  EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.to_string();
  EXPECT_THAT(status.hint(), HasSubstr("checksum=md5"));
  const std::string url = fake_.url("", "&checksum=md5");
  EXPECT_TRUE(probe_object_store(*open(url)).ok());
  EXPECT_TRUE(open(url)->write("large", std::string(6 << 20, 'x')).ok());
}

// Those that were under way when the store was found not to know conditions, too.
TEST_F(RemoteStoreTest, ManyFirstWritesToAStoreWithoutConditions) {
  fake_.set_conditional(false);
  auto store = open();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&store, i] {
      const Status status = store->write(str_cat("k", i), "x");
      EXPECT_TRUE(status.ok()) << status.to_string();
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(RemoteStoreTest, AStoreWithoutConditionsIsWrittenWithoutThem) {
  fake_.set_conditional(false);
  auto store = open();
  ASSERT_TRUE(store->write("a", "1").ok());
  const uint64_t before = fake_.requests();
  ASSERT_TRUE(store->write("b", "2").ok());
  EXPECT_EQ(fake_.requests() - before, 1u);
}

TEST_F(RemoteStoreTest, SmallWritesAreOneRequestAndSoAreReads) {
  auto store = open();
  uint64_t before = fake_.requests();
  ASSERT_TRUE(store->write("a", std::string(5 << 20, 'a')).ok());
  EXPECT_EQ(fake_.requests() - before, 1u);
  before = fake_.requests();
  ASSERT_TRUE(store->read("a", 5, 10).ok());
  EXPECT_EQ(fake_.requests() - before, 1u);
  before = fake_.requests();
  ASSERT_TRUE(store->write("b", std::string((10 << 20) + 1, 'b')).ok());
  EXPECT_EQ(fake_.requests() - before, 5u);  // begin, three parts, complete
}

TEST_F(RemoteStoreTest, WhatIsGivenUpLeavesNothing) {
  auto store = open();
  {
    auto writer = *store->create("k");
    ASSERT_TRUE(writer->append(std::string(11 << 20, 'x')).ok());
    EXPECT_EQ(fake_.uploads(), 1u);
  }
  EXPECT_EQ(fake_.uploads(), 0u);
  fail(Fault::kErrorBefore, net::Method::kPut, 1'000'000, "partNumber");
  EXPECT_EQ(store->write("k", std::string(11 << 20, 'x')).code(), Code::kUnavailable);
  EXPECT_EQ(fake_.uploads(), 0u);
  // Written, but the answer is lost, and so are the store's next ones.
  auto puts = std::make_shared<std::atomic<int>>(0);
  fake_.set_fault([puts](const net::RequestHead& head) {
    if (head.method != net::Method::kPut) return Fault::kNone;
    return puts->fetch_add(1) == 0 ? Fault::kLostAfter : Fault::kLostBefore;
  });
  EXPECT_EQ(store->write("k", "x").code(), Code::kUnavailable);
  EXPECT_TRUE(fake_.objects().empty());
}

// A storm of refusals ends when its time is over, and lowers the number of requests meanwhile.
TEST_F(RemoteStoreTest, AStormOf503EndsInTime) {
  options_.retry.deadline = milliseconds(1500);
  options_.retry.max_attempts = 1000;
  options_.retry.slowest = int64_t{1} << 40;
  auto store = open();
  fail(Fault::kSlowDown, net::Method::kPut, INT_MAX);
  const auto start = SteadyClock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&store, i] {
      const Status status = store->write(str_cat("k", i), "x");
      EXPECT_TRUE(status.code() == Code::kUnavailable || status.code() == Code::kDeadlineExceeded)
          << status.to_string();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LT(SteadyClock::now() - start, seconds(5));
}

TEST_F(RemoteStoreTest, RetryAfterIsHonoured) {
  auto store = open();
  fake_.set_retry_after("1");
  fail(Fault::kSlowDown, net::Method::kPut, 1);
  auto start = SteadyClock::now();
  EXPECT_TRUE(store->write("k", "x").ok());
  EXPECT_GE(SteadyClock::now() - start, milliseconds(990));
  // More than there is time for: said at once.
  fake_.set_retry_after("3600");
  fail(Fault::kSlowDown, net::Method::kPut, 1);
  start = SteadyClock::now();
  const Status status = store->write("k2", "x");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("asks to wait"));
  EXPECT_LT(SteadyClock::now() - start, seconds(5));
}

TEST_F(RemoteStoreTest, AStoreThatIsNotThereIsUnavailable) {
  options_.retry.max_attempts = 3;
  auto store = open("s3://bucket?endpoint=http://127.0.0.1:1");
  EXPECT_EQ(store->write("k", "x").code(), Code::kUnavailable);
  EXPECT_EQ(store->read("k", 0, 1).code(), Code::kUnavailable);
}

// What cannot succeed is tried once, and said with what to do.
TEST_F(RemoteStoreTest, RefusalsSayWhatToDo) {
  const auto probe = [&](const std::string& url) {
    const uint64_t before = fake_.requests();
    const Status status = probe_object_store(*open(url));
    EXPECT_EQ(fake_.requests() - before, 1u) << status.to_string();
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.to_string();
    EXPECT_FALSE(status.hint().empty());
    EXPECT_THAT(status.to_string(), Not(HasSubstr(fake_.key().secret)));
    return status;
  };
  Status status = probe(replace_all(fake_.url(), "the-bucket", "no-bucket"));
  EXPECT_THAT(status.message(), HasSubstr("NoSuchBucket"));
  EXPECT_THAT(status.hint(), HasSubstr("create the bucket no-bucket"));
  status = open(replace_all(fake_.url(), "the-bucket", "no-bucket"))->size("k").status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.to_string();
  status = probe(replace_all(fake_.url(), "eu-test-1", "us-west-9"));
  EXPECT_THAT(status.message(), HasSubstr("the bucket is in region eu-test-1, not in us-west-9"));
  environment_["AWS_SECRET_ACCESS_KEY"] = "wrong";
  status = probe(fake_.url());
  EXPECT_THAT(status.message(), HasSubstr("SignatureDoesNotMatch"));
  environment_["AWS_ACCESS_KEY_ID"] = "NOBODY";
  status = probe(fake_.url());
  EXPECT_THAT(status.hint(), HasSubstr("AWS_ACCESS_KEY_ID"));
  environment_["AWS_ACCESS_KEY_ID"] = fake_.key().id;
  environment_["AWS_SECRET_ACCESS_KEY"] = fake_.key().secret;
  ManualClock late(real_clock().wall_ms() - 3'600'000);
  options_.clock = &late;
  status = probe(fake_.url());
  EXPECT_THAT(status.message(), HasSubstr("RequestTimeTooSkewed"));
  EXPECT_THAT(status.message(), HasSubstr("behind the store's"));
  options_.clock = &real_clock();
  environment_.clear();
  const auto none = open_object_store(fake_.url(), options_);
  EXPECT_EQ(none.code(), Code::kFailedPrecondition);
  EXPECT_THAT(none.status().hint(), HasSubstr("set both variables"));
}

TEST_F(RemoteStoreTest, AFullQuotaIsExhaustionAndReadingGoesOn) {
  auto store = open();
  ASSERT_TRUE(store->write("a", "0123456789").ok());
  fake_.set_quota(15);
  const Status status = store->write("b", "0123456789");
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_FALSE(status.hint().empty());
  EXPECT_EQ(*store->read("a", 0, 10), "0123456789");
  EXPECT_TRUE(store->remove("a").ok());
  EXPECT_TRUE(store->write("b", "0123456789").ok());
}

// Short-lived keys in a file that something else renews.
TEST_F(RemoteStoreTest, KeysAreReadAgainWhenTheyExpire) {
  const std::string folder = str_cat(::testing::TempDir(), "/qanat-keys-", random_id());
  std::filesystem::create_directories(folder);
  const auto write_keys = [&](const std::string& token) {
    std::ofstream(folder + "/new") << "[default]\naws_access_key_id = " << fake_.key().id
                                   << "\naws_secret_access_key = " << fake_.key().secret
                                   << "\naws_session_token = " << token << "\n";
    std::filesystem::rename(folder + "/new", folder + "/credentials");
  };
  environment_ = {{"AWS_SHARED_CREDENTIALS_FILE", folder + "/credentials"}};
  write_keys("first");
  fake_.set_key({fake_.key().id, fake_.key().secret, "first"});
  auto store = open();
  ASSERT_TRUE(store->write("a", "1").ok());
  fake_.set_key({fake_.key().id, fake_.key().secret, "second"});
  write_keys("second");
  EXPECT_TRUE(store->write("b", "2").ok());
  fake_.set_key({fake_.key().id, fake_.key().secret, "third"});
  const Status status = store->write("c", "3");
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.to_string(), HasSubstr("ExpiredToken"));
  EXPECT_THAT(status.to_string(), Not(HasSubstr("second")));
  write_keys("third");
  EXPECT_EQ(*store->size("b"), 1);  // HEAD answers have no code to go by
  EXPECT_TRUE(store->write("c", "3").ok());
  std::filesystem::remove_all(folder);
}

// A server that stops does not wait for a store that does not answer.
TEST_F(RemoteStoreTest, CancelEndsWhatWaits) {
  auto store = open();
  auto writer = *store->create("large");
  fail(Fault::kSlowDown, net::Method::kPut, INT_MAX);
  fake_.set_retry_after("30");
  ASSERT_TRUE(writer->append(std::string(6 << 20, 'x')).ok());
  std::thread waiting([&] { EXPECT_EQ(store->write("k", "x").code(), Code::kCancelled); });
  const auto start = SteadyClock::now();
  store->cancel();
  waiting.join();
  EXPECT_EQ(writer->finish().code(), Code::kCancelled);
  EXPECT_EQ(store->read("k", 0, 1).code(), Code::kCancelled);
  EXPECT_LT(SteadyClock::now() - start, seconds(5));
}

TEST_F(RemoteStoreTest, AmazonsHosts) {
  for (const auto& [region, host] :
       std::map<std::string, std::string>{{"eu-central-1", "at s3.eu-central-1.amazonaws.com"},
                                          {"us-gov-west-1", "at s3.us-gov-west-1.amazonaws.com"},
                                          {"cn-north-1", "at s3.cn-north-1.amazonaws.com.cn"}}) {
    const std::string shown = open(str_cat("s3://bucket?region=", region))->describe();
    EXPECT_TRUE(shown.ends_with(host)) << shown;
  }
}

TEST_F(RemoteStoreTest, NoMoreRequestsThanAllowed) {
  options_.retry.max_requests = 3;
  auto store = open();
  std::vector<std::thread> threads;
  for (int i = 0; i < 12; ++i) {
    threads.emplace_back([&store, i] {
      for (int j = 0; j < 10; ++j) EXPECT_TRUE(store->write(str_cat("k", i, "/", j), "x").ok());
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(fake_.most_at_once(), 3);
  EXPECT_EQ(fake_.objects().size(), 120u);
}

// Anything may happen to any request. What was acknowledged is there, whole and right.
TEST_F(RemoteStoreTest, Chaos) {
  for (uint64_t seed = 0; seed < qanat::testing::seed_count(3); ++seed) {
    SCOPED_TRACE(str_cat("seed ", seed));
    S3Fake fake;
    fake.set_page_size(7);
    options_.retry.max_attempts = 6;
    auto store = open(fake.url(""));
    auto dice = std::make_shared<SeededRandom>(seed);
    auto lock = std::make_shared<Mutex>();
    fake.set_fault([dice, lock](const net::RequestHead&) {
      MutexLock held(*lock);
      if (dice->below(100) >= 35) return Fault::kNone;
      constexpr Fault kFaults[] = {Fault::kCutRequest,  Fault::kLostBefore, Fault::kLostAfter,
                                   Fault::kErrorBefore, Fault::kErrorAfter, Fault::kSlowDown,
                                   Fault::kCutAnswer,   Fault::kWrongTag};
      return kFaults[dice->below(std::size(kFaults))];
    });
    Mutex mutex;
    std::map<std::string, std::string> acknowledged;
    int failed = 0;
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        SeededRandom random(seed * 100 + t);
        for (int i = 0; i < 25; ++i) {
          const std::string key = str_cat("t", t, "/", i);
          const bool large = i % 12 == 11;
          const std::string bytes = random.bytes(large ? 5'500'000 : random.below(50'000));
          const Status status = store->write(key, bytes);
          EXPECT_NE(status.code(), Code::kAlreadyExists) << status.to_string();
          {
            MutexLock held(mutex);
            if (status.ok()) {
              acknowledged[key] = bytes;
            } else {
              ++failed;
            }
          }
          if (!status.ok() || bytes.empty()) continue;
          const auto from = static_cast<int64_t>(random.below(bytes.size()));
          const auto read = store->read(key, from, static_cast<int64_t>(bytes.size()) - from);
          if (read.ok()) {
            EXPECT_EQ(*read, bytes.substr(static_cast<size_t>(from)));
          }
        }
      });
    }
    for (auto& thread : threads) thread.join();
    fake.set_fault({});
    for (const auto& [key, bytes] : acknowledged) {
      const auto read = store->read(key, 0, static_cast<int64_t>(bytes.size()));
      ASSERT_TRUE(read.ok()) << key << read.status().to_string();
      EXPECT_EQ(*read, bytes);
    }
    EXPECT_GT(acknowledged.size(), 80u);
    EXPECT_EQ(acknowledged.size() + static_cast<size_t>(failed), 100u);
  }
}

}  // namespace
}  // namespace qanat::object
