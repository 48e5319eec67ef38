#include "qanat/base/clock.h"

#include <time.h>

#include <cerrno>
#include <charconv>

#include "qanat/base/string.h"

namespace qanat {
namespace {

constexpr int64_t kNanosecondsPerMs = 1'000'000;
constexpr int64_t kMsPerDay = 86'400'000;

int64_t read_clock_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

class RealClock : public Clock {
 public:
  int64_t wall_ms() const override { return read_clock_ns(CLOCK_REALTIME) / kNanosecondsPerMs; }
  int64_t monotonic_ns() const override { return read_clock_ns(CLOCK_BOOTTIME); }
  void sleep_until_ms(int64_t deadline_ms) override {
    timespec deadline{};
    deadline.tv_sec = deadline_ms / 1000;
    deadline.tv_nsec = deadline_ms % 1000 * kNanosecondsPerMs;
    while (clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &deadline, nullptr) == EINTR) {
    }
  }
};

// Proleptic Gregorian calendar without tables or the C library's locale (after H. Hinnant,
// "chrono-Compatible Low-Level Date Algorithms"): years begin in March, so that the leap day is the
// last of its year.
int64_t days_from_date(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2 ? 1 : 0;
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t year_of_era = year - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146'097 + day_of_era - 719'468;
}

struct Date {
  int64_t year, month, day;
};

Date date_from_days(int64_t days) {
  days += 719'468;
  const int64_t era = (days >= 0 ? days : days - 146'096) / 146'097;
  const int64_t day_of_era = days - era * 146'097;
  const int64_t year_of_era =
      (day_of_era - day_of_era / 1'460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t shifted_month = (5 * day_of_year + 2) / 153;
  const int64_t month = shifted_month + (shifted_month < 10 ? 3 : -9);
  return {year_of_era + era * 400 + (month <= 2 ? 1 : 0), month,
          day_of_year - (153 * shifted_month + 2) / 5 + 1};
}

int64_t days_in_month(int64_t year, int64_t month) {
  const auto [next_year, next_month] =
      month == 12 ? std::pair(year + 1, int64_t{1}) : std::pair(year, month + 1);
  return days_from_date(next_year, next_month, 1) - days_from_date(year, month, 1);
}

std::string padded(int64_t number, size_t width) {
  std::string digits = str_cat(number);
  if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
  return digits;
}

// Takes text apart from the front.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}
  bool at_end() const { return text_.empty(); }
  bool take(char c) {
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  // Exactly so many digits; -1 if they are not there.
  int64_t digits(size_t count) {
    int64_t value = 0;
    if (text_.size() < count) return -1;
    for (char c : text_.substr(0, count)) {
      if (c < '0' || c > '9') return -1;
      value = value * 10 + (c - '0');
    }
    text_.remove_prefix(count);
    return value;
  }
  // The digits after a point, cut to thousandths; -1 if there are none.
  int64_t thousandths() {
    int64_t value = 0;
    size_t count = 0;
    for (; !text_.empty() && text_[0] >= '0' && text_[0] <= '9'; text_.remove_prefix(1), ++count) {
      if (count < 3) value = value * 10 + (text_[0] - '0');
    }
    if (count == 0) return -1;
    for (; count < 3; ++count) value *= 10;
    return value;
  }

 private:
  std::string_view text_;
};

}  // namespace

Clock& real_clock() {
  static RealClock clock;
  return clock;
}

int64_t ManualClock::wall_ms() const {
  MutexLock lock(mutex_);
  return start_wall_ms_ + elapsed_ms_;
}

int64_t ManualClock::monotonic_ns() const {
  MutexLock lock(mutex_);
  return elapsed_ms_ * kNanosecondsPerMs;
}

void ManualClock::sleep_until_ms(int64_t deadline_ms) {
  MutexLock lock(mutex_);
  ++sleepers_;
  while (elapsed_ms_ < deadline_ms) changed_.wait(mutex_);
  --sleepers_;
}

void ManualClock::advance_ms(int64_t duration_ms) {
  MutexLock lock(mutex_);
  elapsed_ms_ += duration_ms;
  changed_.notify_all();
}

int ManualClock::sleepers() const {
  MutexLock lock(mutex_);
  return sleepers_;
}

std::string format_rfc3339(int64_t wall_ms) {
  int64_t days = wall_ms / kMsPerDay;
  int64_t ms_of_day = wall_ms % kMsPerDay;
  if (ms_of_day < 0) ms_of_day += kMsPerDay, --days;
  const Date date = date_from_days(days);
  const int64_t seconds = ms_of_day / 1000;
  const int64_t ms = ms_of_day % 1000;
  std::string text = str_cat(padded(date.year, 4), "-", padded(date.month, 2), "-",
                             padded(date.day, 2), "T", padded(seconds / 3600, 2), ":",
                             padded(seconds / 60 % 60, 2), ":", padded(seconds % 60, 2));
  if (ms != 0) str_append(text, ".", padded(ms, 3));
  text.push_back('Z');
  return text;
}

Result<int64_t> parse_rfc3339(std::string_view text) {
  const Status malformed =
      invalid_argument(str_cat(quoted(text), " is not an RFC 3339 time"),
                       "Write it as 2026-01-31T08:05:09Z or with an offset such as +01:00.");
  Scanner scan(text);
  const int64_t year = scan.digits(4);
  if (year < 0 || !scan.take('-')) return malformed;
  const int64_t month = scan.digits(2);
  if (month < 1 || month > 12 || !scan.take('-')) return malformed;
  const int64_t day = scan.digits(2);
  if (day < 1 || day > days_in_month(year, month)) return malformed;
  if (!scan.take('T') && !scan.take('t') && !scan.take(' ')) return malformed;
  const int64_t hour = scan.digits(2);
  if (hour < 0 || hour > 23 || !scan.take(':')) return malformed;
  const int64_t minute = scan.digits(2);
  if (minute < 0 || minute > 59 || !scan.take(':')) return malformed;
  const int64_t second = scan.digits(2);
  if (second < 0 || second > 60) return malformed;  // 60: a leap second, taken as the next one
  int64_t ms = 0;
  if (scan.take('.') && (ms = scan.thousandths()) < 0) return malformed;

  int64_t offset_minutes = 0;
  if (!scan.take('Z') && !scan.take('z')) {
    const bool west = scan.take('-');
    if (!west && !scan.take('+')) return malformed;
    const int64_t hours = scan.digits(2);
    if (hours < 0 || hours > 23 || !scan.take(':')) return malformed;
    const int64_t minutes = scan.digits(2);
    if (minutes < 0 || minutes > 59) return malformed;
    offset_minutes = (hours * 60 + minutes) * (west ? -1 : 1);
  }
  if (!scan.at_end()) return malformed;
  const int64_t minutes = days_from_date(year, month, day) * 1440 + hour * 60 + minute;
  return ((minutes - offset_minutes) * 60 + second) * 1000 + ms;
}

}  // namespace qanat
