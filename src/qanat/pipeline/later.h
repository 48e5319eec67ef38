// Later: runs functions at a given time, on a few threads, so that nobody has to sleep for them.
//
// Thread safe. The destructor runs what still waits, at once, then joins: whoever handed something
// over is sure that it runs. Functions must not throw; one that blocks holds up the others once all
// threads are taken.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"

namespace qanat::pipeline {

class Later {
 public:
  Later(Clock& clock, int threads);
  ~Later();
  Later(const Later&) = delete;
  Later& operator=(const Later&) = delete;

  // Runs `task` when the clock's monotonic time has reached `at_ms`. Of two due ones the earlier is
  // begun first.
  void run_at(int64_t at_ms, std::function<void()> task);

 private:
  void work();

  Clock& clock_;
  Mutex mutex_;
  CondVar changed_;
  std::multimap<int64_t, std::function<void()>> tasks_ GUARDED_BY(mutex_);
  bool ending_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace qanat::pipeline
