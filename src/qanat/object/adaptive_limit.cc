#include "qanat/object/adaptive_limit.h"

#include <algorithm>

namespace qanat::object {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLowerAtMostEvery{200};
// How often a waiting thread looks whether it was cancelled.
constexpr std::chrono::milliseconds kLook{50};

}  // namespace

AdaptiveLimit::AdaptiveLimit(int most) : most_(std::max(most, 1)), limit_(most_) {}

Status AdaptiveLimit::acquire(net::Deadline deadline, const net::CancelSignal& cancel) {
  MutexLock lock(mutex_);
  while (true) {
    if (cancel.cancelled()) return cancelled("given up");
    const auto now = SteadyClock::now();
    if (now >= not_before_ && used_ < static_cast<int>(limit_)) {
      ++used_;
      return ok_status();
    }
    if (now >= deadline) {
      return deadline_exceeded("the object store is too slow: no request could be sent in time");
    }
    auto wait = std::min<std::chrono::nanoseconds>(deadline - now, kLook);
    if (not_before_ > now) wait = std::min<std::chrono::nanoseconds>(wait, not_before_ - now);
    freed_.wait_for_ms(mutex_, std::chrono::ceil<std::chrono::milliseconds>(wait).count());
  }
}

void AdaptiveLimit::release(Outcome outcome) {
  MutexLock lock(mutex_);
  --used_;
  if (outcome == Outcome::kSuccess) {
    limit_ = std::min(most_, limit_ + 1 / limit_);
  } else if (outcome == Outcome::kThrottled) {
    const auto now = SteadyClock::now();
    if (now - lowered_ >= kLowerAtMostEvery) {
      limit_ = std::max(1.0, limit_ / 2);
      lowered_ = now;
    }
  }
  freed_.notify_all();
}

void AdaptiveLimit::pause_until(net::Deadline moment) {
  MutexLock lock(mutex_);
  not_before_ = std::max(not_before_, moment);
}

int AdaptiveLimit::limit() const {
  MutexLock lock(mutex_);
  return static_cast<int>(limit_);
}

}  // namespace qanat::object
