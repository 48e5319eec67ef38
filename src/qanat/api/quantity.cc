#include "qanat/api/quantity.h"

#include <cmath>

namespace qanat::api {
namespace {

constexpr std::int64_t kMaxDurationMs = 100LL * 365 * 24 * 3600 * 1000;
constexpr std::uint64_t kMaxSize = 1ULL << 62;

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr Unit kDurationUnits[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
constexpr Unit kSizeUnits[] = {{"Ei", 1ULL << 60},
                               {"Pi", 1ULL << 50},
                               {"Ti", 1ULL << 40},
                               {"Gi", 1ULL << 30},
                               {"Mi", 1ULL << 20},
                               {"Ki", 1ULL << 10},
                               {"E", 1000000000000000000ULL},
                               {"P", 1000000000000000ULL},
                               {"T", 1000000000000ULL},
                               {"G", 1000000000ULL},
                               {"M", 1000000ULL},
                               {"k", 1000ULL},
                               {"K", 1000ULL},
                               {"", 1}};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Takes "12" or "1.5" from the front of `text`. At most 19 digits before the point and 9 after.
bool take_number(std::string_view& text, long double& value) {
  std::size_t at = 0;
  value = 0;
  while (at < text.size() && is_digit(text[at])) value = value * 10 + (text[at++] - '0');
  if (at == 0 || at > 19) return false;
  if (at < text.size() && text[at] == '.') {
    long double scale = 1;
    const std::size_t first = ++at;
    while (at < text.size() && is_digit(text[at])) {
      scale /= 10;
      value += (text[at++] - '0') * scale;
    }
    if (at == first || at - first > 9) return false;
  }
  text.remove_prefix(at);
  return true;
}

std::string_view take_unit(std::string_view& text) {
  std::size_t at = 0;
  while (at < text.size() && is_letter(text[at])) ++at;
  const std::string_view unit = text.substr(0, at);
  text.remove_prefix(at);
  return unit;
}

}  // namespace

Result<std::int64_t> parse_duration(std::string_view text) {
  const auto bad = [&] {
    return invalid_argument("'" + std::string(text.substr(0, 40)) + "' is not a duration",
                            "Write it as 30s, 5m, 1h30m or 250ms.");
  };
  if (text == "0") return std::int64_t{0};
  std::string_view rest = text;
  long double total = 0;
  std::size_t next_unit = 0;  // each unit once, from large to small
  while (!rest.empty()) {
    long double value = 0;
    if (!take_number(rest, value)) return bad();
    const std::string_view name = take_unit(rest);
    while (next_unit < std::size(kDurationUnits) && kDurationUnits[next_unit].name != name) {
      ++next_unit;
    }
    if (next_unit == std::size(kDurationUnits)) return bad();
    total += value * kDurationUnits[next_unit++].factor;
    if (total > static_cast<long double>(kMaxDurationMs)) {
      return invalid_argument("the duration " + std::string(text.substr(0, 40)) +
                              " is over 100 years");
    }
  }
  if (text.empty()) return bad();
  return static_cast<std::int64_t>(std::llroundl(total));
}

std::string write_duration(std::int64_t milliseconds) {
  if (milliseconds <= 0) return "0s";
  std::string out;
  std::uint64_t rest = static_cast<std::uint64_t>(milliseconds);
  for (const Unit& unit : kDurationUnits) {
    if (const std::uint64_t count = rest / unit.factor; count > 0) {
      out += std::to_string(count) + std::string(unit.name);
      rest %= unit.factor;
    }
  }
  return out;
}

Result<std::uint64_t> parse_size(std::string_view text) {
  std::string_view rest = text;
  long double value = 0;
  if (take_number(rest, value)) {
    const std::string_view name = take_unit(rest);
    for (const Unit& unit : kSizeUnits) {
      if (unit.name != name || !rest.empty()) continue;
      value *= unit.factor;
      if (value > static_cast<long double>(kMaxSize)) {
        return invalid_argument("the size " + std::string(text.substr(0, 40)) + " is too large");
      }
      return static_cast<std::uint64_t>(std::llroundl(value));
    }
  }
  return invalid_argument("'" + std::string(text.substr(0, 40)) + "' is not a size",
                          "Write it as 64M, 1Gi or a number of bytes.");
}

std::string write_size(std::uint64_t bytes) {
  if (bytes == 0) return "0";
  std::string best = std::to_string(bytes);
  for (const Unit& unit : kSizeUnits) {
    if (unit.name == "K" || bytes % unit.factor != 0) continue;
    std::string text = std::to_string(bytes / unit.factor) + std::string(unit.name);
    if (text.size() < best.size()) best = std::move(text);
  }
  return best;
}

}  // namespace qanat::api
