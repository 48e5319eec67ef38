#include "qanat/serve/tokens.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "qanat/meta/sqlite_store.h"

namespace qanat::serve {
namespace {

class NotedStream : public net::EventStream {
 public:
  Status send(const net::Event& event) override {
    MutexLock lock(mutex_);
    sent_ += event.data;
    return ok_status();
  }
  Status send_raw(std::string) override { return ok_status(); }
  void close() override { closed_ = true; }
  bool closed() const override { return closed_; }
  size_t queued_bytes() const override { return 0; }
  void on_closed(std::function<void()>) override {}
  std::string sent() {
    MutexLock lock(mutex_);
    return sent_;
  }

 private:
  Mutex mutex_;
  std::string sent_ GUARDED_BY(mutex_);
  std::atomic<bool> closed_{false};
};

class TokensTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/qanat-tokens-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    auto store = meta::SqliteStore::open(posix_file_system(), clock_, folder_ + "/meta");
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    store_ = *std::move(store);
    tokens_ = std::make_unique<Tokens>(*store_, clock_);
    auto root = tokens_->make_first("");
    ASSERT_TRUE(root.ok());
    root_ = *root;
  }
  void TearDown() override {
    tokens_.reset();
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::string make(const std::string& name, std::vector<std::string> scopes, int64_t expires = 0) {
    auto made = tokens_->create({name, std::move(scopes), {expires}}, "root");
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    return made.ok() ? made->token : "";
  }

  ManualClock clock_;
  std::string folder_;
  std::unique_ptr<meta::SqliteStore> store_;
  std::unique_ptr<Tokens> tokens_;
  std::string root_;
};

TEST_F(TokensTest, FirstTokenIsAdminAndIsMadeOnce) {
  auto caller = tokens_->authenticate(root_);
  ASSERT_TRUE(caller.ok());
  EXPECT_TRUE((*caller)->is_admin());
  // A second start finds its own secret again and makes no other.
  auto again = tokens_->make_first(root_);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, root_);
  EXPECT_EQ(tokens_->list()->size(), 1U);
}

TEST_F(TokensTest, ScopesGiveWhatTheySayAndNoMore) {
  const auto caller =
      *tokens_->authenticate(make("sales", {"reader:report", "writer:orders", "operator:clean"}));
  EXPECT_TRUE(caller->may_read("default", "report"));
  EXPECT_FALSE(caller->may_write("default", "report"));
  EXPECT_TRUE(caller->may_write("default", "orders"));
  EXPECT_TRUE(caller->may_read("default", "orders"));
  EXPECT_FALSE(caller->may_read("default", "raw"));
  EXPECT_FALSE(caller->may_read("other", "report"));
  EXPECT_TRUE(caller->may_operate("default", "clean"));
  EXPECT_FALSE(caller->may_operate("default", "report"));
  EXPECT_TRUE(caller->may_observe("default", "report"));
  EXPECT_FALSE(caller->may("default", "network-host"));
  EXPECT_FALSE(caller->is_admin());
}

TEST_F(TokensTest, StarStandsForAllNames) {
  const auto caller = *tokens_->authenticate(make("all", {"reader:*", "network-host"}));
  EXPECT_TRUE(caller->may_read("default", "anything"));
  EXPECT_FALSE(caller->may_write("default", "anything"));
  EXPECT_TRUE(caller->may("default", "network-host"));
}

TEST_F(TokensTest, UnknownMissingExpiredAndDeletedAreTold) {
  EXPECT_EQ(tokens_->authenticate("").code(), Code::kUnauthenticated);
  EXPECT_EQ(tokens_->authenticate("qanat_nonsense").code(), Code::kUnauthenticated);
  const std::string brief = make("brief", {"reader:a"}, clock_.wall_ms() + 1000);
  EXPECT_TRUE(tokens_->authenticate(brief).ok());
  clock_.advance_ms(2000);
  EXPECT_EQ(tokens_->authenticate(brief).code(), Code::kUnauthenticated);
  const std::string gone = make("gone", {"reader:a"});
  EXPECT_TRUE(tokens_->authenticate(gone).ok());
  EXPECT_TRUE(tokens_->remove("gone").ok());
  EXPECT_EQ(tokens_->authenticate(gone).code(), Code::kUnauthenticated);
}

TEST_F(TokensTest, ADeletedFirstTokenDoesNotComeBack) {
  make("other", {"admin"});
  ASSERT_TRUE(tokens_->remove("root").ok());
  // The next start finds its secret in the data folder.
  ASSERT_TRUE(tokens_->make_first(root_).ok());
  EXPECT_EQ(tokens_->authenticate(root_).code(), Code::kUnauthenticated);
  EXPECT_EQ(tokens_->list()->size(), 1U);
  EXPECT_FALSE(*tokens_->exists("root"));
  EXPECT_TRUE(*tokens_->exists("other"));
}

TEST_F(TokensTest, SomebodyIsLeftWhoCanMakeTokens) {
  make("brief", {"admin"}, clock_.wall_ms() + 1000);
  EXPECT_EQ(tokens_->remove("root").code(), Code::kFailedPrecondition);
  clock_.advance_ms(2000);
  EXPECT_EQ(tokens_->remove("root").code(), Code::kFailedPrecondition);
  EXPECT_TRUE(tokens_->remove("brief").ok());
  // Each is not the last, until the other goes.
  make("a", {"admin"});
  ASSERT_TRUE(tokens_->remove("root").ok());
  make("b", {"admin"});
  std::atomic<int> removed{0};
  std::vector<std::thread> threads;
  for (const char* name : {"a", "b"}) {
    threads.emplace_back([&, name] { removed += tokens_->remove(name).ok() ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(removed.load(), 1);
  EXPECT_EQ(tokens_->list()->size(), 1U);
}

TEST_F(TokensTest, StreamsEndWhenTheirTokenExpires) {
  const auto brief = *tokens_->authenticate(make("brief", {"reader:a"}, clock_.wall_ms() + 60'000));
  const auto later =
      *tokens_->authenticate(make("later", {"reader:a"}, clock_.wall_ms() + 3'600'000));
  const auto ends = std::make_shared<NotedStream>();
  const auto goes_on = std::make_shared<NotedStream>();
  const auto for_ever = std::make_shared<NotedStream>();
  tokens_->end_with_token(*brief, ends);
  tokens_->end_with_token(*later, goes_on);
  tokens_->end_with_token(**tokens_->authenticate(root_), for_ever);
  EXPECT_FALSE(ends->closed());
  clock_.advance_ms(60'000);
  const int64_t deadline = real_clock().monotonic_ms() + 20'000;
  while (!ends->closed() && real_clock().monotonic_ms() < deadline) real_clock().sleep_for_ms(5);
  EXPECT_TRUE(ends->closed());
  EXPECT_NE(ends->sent().find("expired"), std::string::npos) << ends->sent();
  EXPECT_FALSE(goes_on->closed());
  EXPECT_FALSE(for_ever->closed());
}

TEST_F(TokensTest, BadRequestsChangeNothing) {
  EXPECT_EQ(tokens_->create({"x", {"reader"}, {}}, "root").code(), Code::kInvalidArgument);
  EXPECT_EQ(tokens_->create({"x", {}, {}}, "root").code(), Code::kInvalidArgument);
  EXPECT_EQ(tokens_->create({"bad name", {"admin"}, {}}, "root").code(), Code::kInvalidArgument);
  EXPECT_EQ(tokens_->create({"root", {"admin"}, {}}, "root").code(), Code::kAlreadyExists);
  EXPECT_EQ(tokens_->remove("root").code(), Code::kFailedPrecondition);
  EXPECT_EQ(tokens_->remove("nobody").code(), Code::kNotFound);
  EXPECT_EQ(tokens_->list()->size(), 1U);
}

}  // namespace
}  // namespace qanat::serve
