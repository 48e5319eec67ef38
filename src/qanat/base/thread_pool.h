// A fixed number of threads with a bounded queue in front: whoever gives it work faster than it
// works is made to wait.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/base/thread_annotations.h"

namespace qanat {

// Thread safe. The destructor runs what is queued, then joins. Tasks must not throw.
class ThreadPool {
 public:
  // `name` (up to 15 bytes) is the threads' name in a debugger. `queue_limit` is the number of
  // tasks waiting, at least 1.
  ThreadPool(std::string name, size_t threads, size_t queue_limit);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Waits while the queue is full. Not from one of the pool's own threads, which could wait for
  // itself: use try_submit.
  void submit(std::function<void()> task);
  // False, and the task is not taken, when the queue is full.
  bool try_submit(std::function<void()> task);
  // Until nothing is queued or running. Not from one of the pool's own threads.
  void wait_idle();

  size_t thread_count() const { return threads_.size(); }

 private:
  void run();

  const std::string name_;
  const size_t queue_limit_;
  Mutex mutex_;
  CondVar work_;   // something was queued, or stopping_
  CondVar space_;  // the queue has room
  CondVar idle_;
  std::deque<std::function<void()>> queue_ GUARDED_BY(mutex_);
  size_t running_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// Tasks that belong together: run several, wait for all, get the first error. Usable from a thread
// of the pool itself: a waiting owner works through its own tasks, so groups inside groups cannot
// deadlock. One owner thread; destruction waits.
class TaskGroup {
 public:
  explicit TaskGroup(ThreadPool& pool);
  ~TaskGroup();
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  // Starts the task on the pool, or runs one here when as many wait as the pool has threads. After
  // a task failed, tasks not yet started are dropped.
  void run(std::function<Status()> task);
  // Until all are done; the error that came first in time, if any. The group can be used again.
  Status wait();
  // True once a task failed: long tasks may look and stop early.
  bool failed() const;

 private:
  struct State;
  ThreadPool& pool_;
  std::shared_ptr<State> state_;
};

}  // namespace qanat
