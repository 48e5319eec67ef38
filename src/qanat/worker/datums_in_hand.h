// Which datums this worker has leased and not yet delivered: what every renewal names, and where
// cancellations arrive.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "qanat/api/worker.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/worker/user_process.h"

namespace qanat::worker {

// Thread safe.
class DatumsInHand {
 public:
  void add(const std::string& job, const std::string& datum) EXCLUDES(mutex_);
  // Delivered, or given up.
  void remove(const std::string& job, const std::string& datum) EXCLUDES(mutex_);
  bool cancelled(const std::string& job, const std::string& datum) const EXCLUDES(mutex_);
  // Everything that is not cancelled, by job.
  std::vector<api::HeldDatums> held() const EXCLUDES(mutex_);

  // The datum runs from now on: its cancellation ends `cancel`, at once if it was cancelled before.
  // Reset at the end with stop_running.
  void start_running(const std::string& job, const std::string& datum, Cancellation* cancel)
      EXCLUDES(mutex_);
  void stop_running() EXCLUDES(mutex_);

  // The server wants these no more. Of another job the same datum stays.
  void cancel(const std::vector<api::HeldDatums>& unwanted) EXCLUDES(mutex_);

 private:
  using Key = std::pair<std::string, std::string>;  // job, datum
  mutable Mutex mutex_;
  std::map<Key, bool> datums_ GUARDED_BY(mutex_);  // -> cancelled
  Key running_ GUARDED_BY(mutex_);
  Cancellation* cancel_ GUARDED_BY(mutex_) = nullptr;
};

}  // namespace qanat::worker
