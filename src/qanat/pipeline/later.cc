#include "qanat/pipeline/later.h"

namespace qanat::pipeline {

Later::Later(Clock& clock, int threads) : clock_(clock) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Later::~Later() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void Later::run_at(int64_t at_ms, std::function<void()> task) {
  MutexLock lock(mutex_);
  tasks_.emplace(at_ms, std::move(task));
  changed_.notify_all();
}

void Later::work() {
  MutexLock lock(mutex_);
  while (true) {
    if (tasks_.empty()) {
      if (ending_) return;
      changed_.wait(mutex_);
      continue;
    }
    const int64_t left_ms = tasks_.begin()->first - clock_.monotonic_ms();
    if (left_ms > 0 && !ending_) {
      changed_.wait_for_ms(mutex_, left_ms);
      continue;
    }
    std::function<void()> task = std::move(tasks_.extract(tasks_.begin()).mapped());
    lock.unlock();
    task();
    task = nullptr;  // what it holds may end with it: not under the lock
    lock.lock();
  }
}

}  // namespace qanat::pipeline
