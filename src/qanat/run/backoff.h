// When to try again: at once after a healthy life, else after a delay that doubles with each
// failure in a row.
#pragma once

#include <algorithm>
#include <cstdint>

namespace qanat::run {

// A pure state machine; times are the caller's monotonic milliseconds. Not thread safe.
class Backoff {
 public:
  static constexpr std::int64_t kFirstDelayMs = 250;
  static constexpr std::int64_t kMaxDelayMs = 60'000;
  static constexpr std::int64_t kHealthyMs =
      30'000;  // a life of so long forgives everything before

  void succeeded() {
    failures_ = 0;
    next_ms_ = 0;
  }
  void failed(std::int64_t now_ms) {
    const int shift = std::min(failures_, 16);
    next_ms_ = now_ms + std::min(kFirstDelayMs << shift, kMaxDelayMs);
    ++failures_;
  }

  int failures() const { return failures_; }
  bool may_start(std::int64_t now_ms) const { return now_ms >= next_ms_; }
  std::int64_t wait_ms(std::int64_t now_ms) const {
    return std::max<std::int64_t>(next_ms_ - now_ms, 0);
  }

 private:
  int failures_ = 0;
  std::int64_t next_ms_ = 0;
};

}  // namespace qanat::run
