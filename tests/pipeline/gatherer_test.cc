#include "qanat/pipeline/gatherer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace qanat::pipeline {
namespace {

using ::testing::ElementsAre;
using Groups = std::vector<std::vector<int>>;

// Notes the groups; handling one can be made to wait at a gate.
class Handler {
 public:
  Gatherer<int>::Options options() {
    Gatherer<int>::Options options;
    options.handle = [this](std::vector<int> group) {
      MutexLock lock(mutex_);
      EXPECT_FALSE(std::exchange(handling_, true)) << "two groups at a time";
      groups_.push_back(std::move(group));
      changed_.notify_all();
      while (closed_) changed_.wait(mutex_);
      handling_ = false;
    };
    return options;
  }
  void close() {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  void open() {
    MutexLock lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  // Waits until there are so many.
  Groups groups(size_t count) {
    MutexLock lock(mutex_);
    while (groups_.size() < count) changed_.wait(mutex_);
    return groups_;
  }
  size_t count() {
    MutexLock lock(mutex_);
    return groups_.size();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool closed_ GUARDED_BY(mutex_) = false;
  bool handling_ GUARDED_BY(mutex_) = false;
  Groups groups_ GUARDED_BY(mutex_);
};

TEST(Gatherer, AnIdleOneHandlesAtOnceOnTheCallersThread) {
  ManualClock clock;
  Handler handler;
  auto gatherer = std::make_shared<Gatherer<int>>(handler.options(), clock, nullptr);
  gatherer->add(1);
  EXPECT_EQ(handler.count(), 1u);
  gatherer->add(2);
  EXPECT_THAT(handler.groups(2), ElementsAre(ElementsAre(1), ElementsAre(2)));
}

TEST(Gatherer, WhatComesWhileAGroupIsHandledIsTheNextGroupAndHoldsNobody) {
  ManualClock clock;
  Handler handler;
  handler.close();
  auto gatherer = std::make_shared<Gatherer<int>>(handler.options(), clock, nullptr);
  std::thread leader([&] { gatherer->add(1); });
  handler.groups(1);
  for (int i = 2; i <= 4; ++i) gatherer->add(i);  // returns, though nothing goes on
  EXPECT_EQ(gatherer->waiting_cost(), 3u);
  handler.open();
  leader.join();
  EXPECT_THAT(handler.groups(2), ElementsAre(ElementsAre(1), ElementsAre(2, 3, 4)));
}

TEST(Gatherer, AGroupHasABoundedCost) {
  ManualClock clock;
  Handler handler;
  handler.close();
  auto options = handler.options();
  options.max_cost = 10;
  auto gatherer = std::make_shared<Gatherer<int>>(std::move(options), clock, nullptr);
  std::thread leader([&] { gatherer->add(1, 1); });
  handler.groups(1);
  gatherer->add(2, 50);  // alone
  gatherer->add(3, 6);
  gatherer->add(4, 4);
  gatherer->add(5, 1);
  handler.open();
  leader.join();
  EXPECT_THAT(handler.groups(4),
              ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3, 4), ElementsAre(5)));
}

TEST(Gatherer, UnderLoadGroupsAreKeptApart) {
  ManualClock clock;
  Handler handler;
  Later later(clock, 1);
  auto gatherer = std::make_shared<Gatherer<int>>(handler.options(), clock, &later);
  gatherer->add(1);
  EXPECT_EQ(handler.count(), 1u);
  gatherer->add(2);
  clock.advance_ms(49);
  gatherer->add(3);
  EXPECT_EQ(handler.count(), 1u);
  clock.advance_ms(1);
  EXPECT_THAT(handler.groups(2), ElementsAre(ElementsAre(1), ElementsAre(2, 3)));
  clock.advance_ms(50);
  gatherer->add(4);
  // Idle again, or just about to be: the group before may still be on its way out of the handler.
  EXPECT_THAT(handler.groups(3), ElementsAre(ElementsAre(1), ElementsAre(2, 3), ElementsAre(4)));
}

TEST(Gatherer, DoesNotWaitWhenNothingElseCanCome) {
  ManualClock clock;
  Handler handler;
  Later later(clock, 1);
  auto options = handler.options();
  options.complete = [](size_t waiting) { return waiting >= 2; };
  auto gatherer = std::make_shared<Gatherer<int>>(std::move(options), clock, &later);
  gatherer->add(1);
  gatherer->add(2);
  EXPECT_EQ(handler.count(), 1u);
  gatherer->add(3);
  EXPECT_THAT(handler.groups(2), ElementsAre(ElementsAre(1), ElementsAre(2, 3)));
}

TEST(Gatherer, WhatWaitsIsHandledWhenTheWaitIsCutShort) {
  ManualClock clock;
  Handler handler;
  {
    Later later(clock, 2);
    auto gatherer = std::make_shared<Gatherer<int>>(handler.options(), clock, &later);
    gatherer->add(1);
    gatherer->add(2);
    gatherer->add(3);
  }
  EXPECT_THAT(handler.groups(2), ElementsAre(ElementsAre(1), ElementsAre(2, 3)));
}

TEST(Gatherer, ManyThreadsNothingLostNothingTwice) {
  constexpr int kThreads = 8;
  constexpr int kEach = 500;
  Handler handler;
  {
    Later later(real_clock(), 2);
    auto options = handler.options();
    options.every_ms = 1;
    options.max_cost = 7;
    auto gatherer = std::make_shared<Gatherer<int>>(std::move(options), real_clock(), &later);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) gatherer->add(t * kEach + i);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  std::vector<int> seen(kThreads * kEach);
  for (const auto& group : handler.groups(1)) {
    for (const int item : group) ++seen[static_cast<size_t>(item)];
  }
  EXPECT_THAT(seen, ::testing::Each(1));
}

TEST(Later, RunsInOrderOfTime) {
  ManualClock clock;
  std::vector<int> ran;
  std::atomic<int> count{0};
  {
    Later later(clock, 1);
    later.run_at(clock.monotonic_ms() + 20, [&] { ran.push_back(2), ++count; });
    later.run_at(clock.monotonic_ms() + 10, [&] { ran.push_back(1), ++count; });
    later.run_at(clock.monotonic_ms() + 1000, [&] { ran.push_back(3), ++count; });
    clock.advance_ms(20);
    while (count < 2) std::this_thread::yield();
    EXPECT_THAT(ran, ElementsAre(1, 2));
  }
  EXPECT_THAT(ran, ElementsAre(1, 2, 3)) << "the end runs what waits";
}

}  // namespace
}  // namespace qanat::pipeline
