#include "qanat/net/http_date.h"

#include <cstdio>
#include <ctime>

#include "qanat/base/string.h"

namespace qanat::net {
namespace {

// By hand, because strftime follows the locale.
constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

tm parts_of(int64_t wall_ms) {
  const auto seconds = static_cast<time_t>(wall_ms / 1000);
  tm parts{};
  gmtime_r(&seconds, &parts);
  return parts;
}

// Exactly `digits` decimal digits at `at`; -1 otherwise.
int number(std::string_view text, size_t at, size_t digits) {
  if (at + digits > text.size()) return -1;
  int value = 0;
  for (size_t i = at; i < at + digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

// Refuses what is no date, such as 31 February, by writing it again.
Result<int64_t> moment(tm parts, std::string_view text) {
  const bool in_range = parts.tm_year >= 70 && parts.tm_mday >= 1 && parts.tm_mday <= 31 &&
                        parts.tm_mon >= 0 && parts.tm_mon <= 11 && parts.tm_hour >= 0 &&
                        parts.tm_hour <= 23 && parts.tm_min >= 0 && parts.tm_min <= 59 &&
                        parts.tm_sec >= 0 && parts.tm_sec <= 59;
  if (in_range) {
    const int day = parts.tm_mday;
    const time_t seconds = timegm(&parts);
    if (parts.tm_mday == day) return static_cast<int64_t>(seconds) * 1000;
  }
  return invalid_argument(str_cat(quoted(text), " is not a date"));
}

}  // namespace

std::string format_http_date(int64_t wall_ms) {
  const tm parts = parts_of(wall_ms);
  char text[64];
  snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT", kDays[parts.tm_wday],
           parts.tm_mday, kMonths[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour, parts.tm_min,
           parts.tm_sec);
  return text;
}

Result<int64_t> parse_http_date(std::string_view text) {
  // "Sun, 06 Nov 1994 08:49:37 GMT"
  tm parts{};
  parts.tm_mon = -1;
  if (text.size() == 29 && text.substr(3, 2) == ", " && text[7] == ' ' && text[11] == ' ' &&
      text[16] == ' ' && text[19] == ':' && text[22] == ':' && text.substr(25) == " GMT") {
    for (int month = 0; month < 12; ++month) {
      if (text.substr(8, 3) == kMonths[month]) parts.tm_mon = month;
    }
    parts.tm_mday = number(text, 5, 2);
    parts.tm_year = number(text, 12, 4) - 1900;
    parts.tm_hour = number(text, 17, 2);
    parts.tm_min = number(text, 20, 2);
    parts.tm_sec = number(text, 23, 2);
  }
  return moment(parts, text);
}

std::string format_compact_date(int64_t wall_ms) {
  const tm parts = parts_of(wall_ms);
  char text[64];
  snprintf(text, sizeof text, "%04d%02d%02dT%02d%02d%02dZ", parts.tm_year + 1900, parts.tm_mon + 1,
           parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
  return text;
}

Result<int64_t> parse_compact_date(std::string_view text) {
  tm parts{};
  parts.tm_mon = -1;
  if (text.size() == 16 && text[8] == 'T' && text[15] == 'Z') {
    parts.tm_year = number(text, 0, 4) - 1900;
    parts.tm_mon = number(text, 4, 2) - 1;
    parts.tm_mday = number(text, 6, 2);
    parts.tm_hour = number(text, 9, 2);
    parts.tm_min = number(text, 11, 2);
    parts.tm_sec = number(text, 13, 2);
  }
  return moment(parts, text);
}

}  // namespace qanat::net
