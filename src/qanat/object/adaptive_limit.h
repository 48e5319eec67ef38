// How many requests may be under way at a time: a limit that a store's throttling lowers and
// success raises again (additive increase, multiplicative decrease: Chiu and Jain, 1989), so that a
// store that says "slow down" is obeyed by all threads and not only by the one that was told.
//
// Thread safe.
#pragma once

#include <chrono>

#include "qanat/base/status.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/net/stream.h"

namespace qanat::object {

class AdaptiveLimit {
 public:
  enum class Outcome { kSuccess, kThrottled, kFailed };

  // Between 1 and `most` requests; starts at `most`.
  explicit AdaptiveLimit(int most);

  // Waits for a place; kDeadlineExceeded if there is none in time, kCancelled. Each OK needs one
  // release().
  Status acquire(net::Deadline deadline, const net::CancelSignal& cancel);
  // kThrottled halves the limit, at most once in a while, so that the answers to requests that were
  // sent together count once; kSuccess raises it by 1 after as many successes as it is high.
  void release(Outcome outcome);
  // The store asked for silence: no place is given before.
  void pause_until(net::Deadline moment);

  int limit() const;

 private:
  const double most_;
  mutable Mutex mutex_;
  CondVar freed_;
  double limit_ GUARDED_BY(mutex_);
  int used_ GUARDED_BY(mutex_) = 0;
  net::Deadline lowered_ GUARDED_BY(mutex_){};
  net::Deadline not_before_ GUARDED_BY(mutex_){};
};

}  // namespace qanat::object
