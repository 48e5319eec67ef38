#include "qanat/base/clock.h"

#include <gtest/gtest.h>

#include <thread>

namespace qanat {
namespace {

TEST(Clock, RealTimeMoves) {
  const int64_t before = real_clock().monotonic_ns();
  real_clock().sleep_for_ms(2);
  EXPECT_GE(real_clock().monotonic_ns() - before, 2'000'000);
  EXPECT_GT(real_clock().wall_ms(), 1'700'000'000'000);
  real_clock().sleep_until_ms(0);  // long past: returns at once
}

TEST(Clock, ManualTimeMovesWhenTold) {
  ManualClock clock(1000);
  EXPECT_EQ(clock.wall_ms(), 1000);
  std::thread sleeper([&clock] { clock.sleep_for_ms(50); });
  while (clock.sleepers() == 0) std::this_thread::yield();
  clock.advance_ms(49);
  EXPECT_EQ(clock.sleepers(), 1);
  clock.advance_ms(1);
  sleeper.join();
  EXPECT_EQ(clock.sleepers(), 0);
  EXPECT_EQ(clock.wall_ms(), 1050);
  EXPECT_EQ(clock.monotonic_ms(), 50);
}

TEST(Clock, Rfc3339) {
  EXPECT_EQ(format_rfc3339(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(format_rfc3339(1'709'210'096'007), "2024-02-29T12:34:56.007Z");
  EXPECT_EQ(format_rfc3339(-1), "1969-12-31T23:59:59.999Z");
  EXPECT_EQ(*parse_rfc3339("2024-02-29T12:34:56Z"), 1'709'210'096'000);
  EXPECT_EQ(*parse_rfc3339("2024-02-29T13:34:56.0079+01:00"), 1'709'210'096'007);
  EXPECT_EQ(*parse_rfc3339("2024-02-29t07:04:56.5-05:30"), 1'709'210'096'500);
  for (int64_t ms = -60'000'000'000'000; ms < 90'000'000'000'000; ms += 999'999'999'937) {
    EXPECT_EQ(*parse_rfc3339(format_rfc3339(ms)), ms);
  }
  for (std::string_view bad :
       {"", "2024-02-30T00:00:00Z", "2023-02-29T00:00:00Z", "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:00Z", "2024-01-01T00:00:00", "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00Zx", "24-01-01T00:00:00Z", "2024-01-01"}) {
    EXPECT_EQ(parse_rfc3339(bad).code(), Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace qanat
