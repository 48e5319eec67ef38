#include "qanat/base/thread_pool.h"

#include <pthread.h>

#include <algorithm>

namespace qanat {

ThreadPool::ThreadPool(std::string name, size_t threads, size_t queue_limit)
    : name_(std::move(name)), queue_limit_(std::max<size_t>(queue_limit, 1)) {
  threads = std::max<size_t>(threads, 1);
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { run(); });
  }
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    work_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::submit(std::function<void()> task) {
  MutexLock lock(mutex_);
  while (queue_.size() >= queue_limit_) space_.wait(mutex_);
  queue_.push_back(std::move(task));
  work_.notify_one();
}

bool ThreadPool::try_submit(std::function<void()> task) {
  MutexLock lock(mutex_);
  if (queue_.size() >= queue_limit_) return false;
  queue_.push_back(std::move(task));
  work_.notify_one();
  return true;
}

void ThreadPool::wait_idle() {
  MutexLock lock(mutex_);
  while (!queue_.empty() || running_ > 0) idle_.wait(mutex_);
}

void ThreadPool::run() {
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  MutexLock lock(mutex_);
  while (true) {
    while (queue_.empty() && !stopping_) work_.wait(mutex_);
    if (queue_.empty()) return;
    std::function<void()> task = std::move(queue_.front());
    queue_.pop_front();
    ++running_;
    space_.notify_one();
    lock.unlock();
    task();
    task = nullptr;  // what it holds is let go before the pool counts as idle
    lock.lock();
    --running_;
    if (queue_.empty() && running_ == 0) idle_.notify_all();
  }
}

// Shared with the tickets in the pool's queue, which may be drawn after the group is gone: such a
// ticket finds no task.
struct TaskGroup::State {
  Mutex mutex;
  CondVar changed;
  std::deque<std::function<Status()>> waiting GUARDED_BY(mutex);
  size_t running GUARDED_BY(mutex) = 0;
  Status error GUARDED_BY(mutex);

  // Runs one waiting task, if there is one.
  bool run_one() EXCLUDES(mutex) {
    std::function<Status()> task;
    {
      MutexLock lock(mutex);
      if (waiting.empty()) return false;
      task = std::move(waiting.front());
      waiting.pop_front();
      ++running;
    }
    Status status = task();
    task = nullptr;
    MutexLock lock(mutex);
    --running;
    if (!status.ok() && error.ok()) {
      error = std::move(status);
      waiting.clear();
    }
    if (running == 0) changed.notify_all();
    return true;
  }
};

TaskGroup::TaskGroup(ThreadPool& pool) : pool_(pool), state_(std::make_shared<State>()) {}

TaskGroup::~TaskGroup() { (void)wait(); }

void TaskGroup::run(std::function<Status()> task) {
  bool crowded = false;
  {
    MutexLock lock(state_->mutex);
    if (!state_->error.ok()) return;
    state_->waiting.push_back(std::move(task));
    crowded = state_->waiting.size() > pool_.thread_count();
  }
  // A ticket, not the task: whoever comes first, a pool thread or the waiting owner, draws the next
  // task.
  if (crowded || !pool_.try_submit([state = state_] { state->run_one(); })) state_->run_one();
}

Status TaskGroup::wait() {
  while (state_->run_one()) {
  }
  MutexLock lock(state_->mutex);
  while (state_->running > 0) state_->changed.wait(state_->mutex);
  return std::exchange(state_->error, Status());
}

bool TaskGroup::failed() const {
  MutexLock lock(state_->mutex);
  return !state_->error.ok();
}

}  // namespace qanat
