// Time, behind an interface so that tests and simulations can own it. Milliseconds everywhere,
// unless a name says otherwise.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/base/thread_annotations.h"

namespace qanat {

// Thread safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Milliseconds since 1970-01-01 UTC. May jump; for records and people, never for deadlines.
  virtual int64_t wall_ms() const = 0;
  // Nanoseconds since some fixed moment; never goes back, and runs while the machine sleeps
  // (CLOCK_BOOTTIME), so that a lease's holder cannot outlive its lease.
  virtual int64_t monotonic_ns() const = 0;
  int64_t monotonic_ms() const { return monotonic_ns() / 1'000'000; }
  // Returns when monotonic_ms() has reached `deadline_ms`.
  virtual void sleep_until_ms(int64_t deadline_ms) = 0;
  // At least so long: the present is rounded up to a whole millisecond.
  void sleep_for_ms(int64_t duration_ms) {
    sleep_until_ms((monotonic_ns() + 999'999) / 1'000'000 + duration_ms);
  }
};

// The machine's clock.
Clock& real_clock();

// Stands still until advanced. Sleepers wake when an advance passes their deadline.
class ManualClock : public Clock {
 public:
  explicit ManualClock(int64_t wall_ms = 1'600'000'000'000) : start_wall_ms_(wall_ms) {}

  int64_t wall_ms() const override;
  int64_t monotonic_ns() const override;
  void sleep_until_ms(int64_t deadline_ms) override;

  // Moves both times forward.
  void advance_ms(int64_t duration_ms);
  // How many threads sleep now: lets a test wait until its subject has gone to sleep before it
  // advances.
  int sleepers() const;

 private:
  const int64_t start_wall_ms_;
  mutable Mutex mutex_;
  CondVar changed_;
  int64_t elapsed_ms_ GUARDED_BY(mutex_) = 0;
  int sleepers_ GUARDED_BY(mutex_) = 0;
};

// RFC 3339 in UTC: "2026-01-31T08:05:09Z", with ".123" before the Z when the milliseconds are not
// zero.
std::string format_rfc3339(int64_t wall_ms);
// Takes any offset and any number of fraction digits (cut to milliseconds). kInvalidArgument when
// malformed.
Result<int64_t> parse_rfc3339(std::string_view text);

}  // namespace qanat
