#include "qanat/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>

namespace qanat {
namespace {

// Holds threads back until opened.
class Gate {
 public:
  void open() {
    MutexLock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    MutexLock lock(mutex_);
    while (!open_) changed_.wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ GUARDED_BY(mutex_) = false;
};

TEST(ThreadPool, RunsEverything) {
  std::atomic<int> sum = 0;
  {
    ThreadPool pool("test", 3, 2);
    for (int i = 1; i <= 100; ++i) pool.submit([&sum, i] { sum += i; });
    pool.wait_idle();
    EXPECT_EQ(sum, 5050);
    for (int i = 1; i <= 100; ++i) pool.submit([&sum, i] { sum += i; });
  }
  EXPECT_EQ(sum, 10100) << "the destructor runs what is queued";
}

TEST(ThreadPool, RefusesWhenFull) {
  Gate gate;
  std::atomic<bool> started = false;
  ThreadPool pool("test", 1, 1);
  pool.submit([&] {
    started = true;
    gate.pass();
  });
  while (!started) std::this_thread::yield();
  EXPECT_TRUE(pool.try_submit([] {}));
  EXPECT_FALSE(pool.try_submit([] {}));
  gate.open();
  pool.wait_idle();
  EXPECT_TRUE(pool.try_submit([] {}));
}

TEST(TaskGroup, ReturnsTheFirstError) {
  ThreadPool pool("test", 1, 10);
  TaskGroup group(pool);
  EXPECT_TRUE(group.wait().ok());
  std::atomic<int> done = 0;
  for (int i = 0; i < 50; ++i) {
    group.run([&done] {
      ++done;
      return ok_status();
    });
  }
  EXPECT_TRUE(group.wait().ok());
  EXPECT_EQ(done, 50);
  group.run([] { return not_found("first"); });
  while (!group.failed()) std::this_thread::yield();
  group.run([&done] {
    ++done;
    return ok_status();
  });
  EXPECT_EQ(group.wait().message(), "first");
  EXPECT_EQ(done, 50) << "tasks after a failure are dropped";
  EXPECT_TRUE(group.wait().ok()) << "and the group starts afresh";
}

TEST(TaskGroup, GroupsInsideGroupsDoNotDeadlock) {
  ThreadPool pool("test", 2, 1);
  std::atomic<int> leaves = 0;
  TaskGroup outer(pool);
  for (int i = 0; i < 20; ++i) {
    outer.run([&] {
      TaskGroup inner(pool);
      for (int j = 0; j < 20; ++j) {
        inner.run([&] {
          ++leaves;
          return ok_status();
        });
      }
      return inner.wait();
    });
  }
  EXPECT_TRUE(outer.wait().ok());
  EXPECT_EQ(leaves, 400);
}

}  // namespace
}  // namespace qanat
