#include "qanat/base/string.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace qanat {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

template <class Text>
std::string join_all(const std::vector<Text>& parts, std::string_view separator) {
  std::string out;
  for (const Text& part : parts) {
    if (&part != parts.data()) out.append(separator);
    out.append(part);
  }
  return out;
}

template <class T>
Result<T> parse_number(std::string_view text, std::string_view kind) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::result_out_of_range) {
    return invalid_argument(str_cat(quoted(text), " is out of range"));
  }
  if (error != std::errc() || after != end) {
    return invalid_argument(str_cat(quoted(text), " is not a ", kind));
  }
  return value;
}

// With one digit after the point.
std::string one_decimal(double number) {
  char digits[32];
  const auto [end, error] =
      std::to_chars(std::begin(digits), std::end(digits), number, std::chars_format::fixed, 1);
  return {digits, end};
}

std::string two_digits(int64_t number) { return str_cat(number < 10 ? "0" : "", number); }

}  // namespace

StringPiece::StringPiece(double number) {
  const auto [end, error] = std::to_chars(std::begin(digits_), std::end(digits_), number);
  text_ = {digits_, static_cast<size_t>(end - digits_)};
}

void StringPiece::set_signed(int64_t number) {
  const auto [end, error] = std::to_chars(std::begin(digits_), std::end(digits_), number);
  text_ = {digits_, static_cast<size_t>(end - digits_)};
}

void StringPiece::set_unsigned(uint64_t number) {
  const auto [end, error] = std::to_chars(std::begin(digits_), std::end(digits_), number);
  text_ = {digits_, static_cast<size_t>(end - digits_)};
}

namespace internal {

void append_all(std::string& out, const std::string_view* pieces, size_t count) {
  for (size_t i = 0; i < count; ++i) out.append(pieces[i]);
}

std::string concatenate(const std::string_view* pieces, size_t count) {
  size_t size = 0;
  for (size_t i = 0; i < count; ++i) size += pieces[i].size();
  std::string out;
  out.reserve(size);
  append_all(out, pieces, count);
  return out;
}

}  // namespace internal

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  size_t start = 0;
  for (size_t end; (end = text.find(separator, start)) != std::string_view::npos; start = end + 1) {
    parts.push_back(text.substr(start, end - start));
  }
  parts.push_back(text.substr(start));
  return parts;
}

std::pair<std::string_view, std::string_view> split_once(std::string_view text, char separator) {
  const size_t at = text.find(separator);
  if (at == std::string_view::npos) return {text, {}};
  return {text.substr(0, at), text.substr(at + 1)};
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  return join_all(parts, separator);
}
std::string join(const std::vector<std::string_view>& parts, std::string_view separator) {
  return join_all(parts, separator);
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string to_lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower);
  return out;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  if (from.empty()) return std::string(text);
  std::string out;
  size_t start = 0;
  for (size_t at; (at = text.find(from, start)) != std::string_view::npos;
       start = at + from.size()) {
    out.append(text.substr(start, at - start));
    out.append(to);
  }
  out.append(text.substr(start));
  return out;
}

Result<uint64_t> parse_u64(std::string_view text) {
  return parse_number<uint64_t>(text, "whole number");
}
Result<int64_t> parse_i64(std::string_view text) {
  return parse_number<int64_t>(text, "whole number");
}
Result<double> parse_double(std::string_view text) {
  Result<double> number = parse_number<double>(text, "number");
  if (number.ok() && !std::isfinite(*number)) {
    return invalid_argument(str_cat(quoted(text), " is not a number"));
  }
  return number;
}

std::string format_size(uint64_t bytes) {
  if (bytes < 1024) return str_cat(bytes, " B");
  constexpr std::string_view kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto amount = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.95 would print as 1024.0 of the smaller unit.
  while (amount >= 1023.95 && unit + 1 < std::size(kUnits)) amount /= 1024, ++unit;
  return str_cat(one_decimal(amount), " ", kUnits[unit]);
}

std::string format_duration(int64_t milliseconds) {
  if (milliseconds < 0) return str_cat("-", format_duration(-milliseconds));
  if (milliseconds < 1000) return str_cat(milliseconds, "ms");
  if (milliseconds < 59'950)
    return str_cat(one_decimal(static_cast<double>(milliseconds) / 1000), "s");
  const int64_t seconds = (milliseconds + 500) / 1000;
  const int64_t minutes = seconds / 60;
  const int64_t hours = minutes / 60;
  if (hours == 0) return str_cat(minutes, "m ", two_digits(seconds % 60), "s");
  if (hours < 24) return str_cat(hours, "h ", two_digits(minutes % 60), "m");
  return str_cat(hours / 24, "d ", hours % 24, "h");
}

std::string quoted(std::string_view text) {
  constexpr std::string_view kHexDigits = "0123456789abcdef";
  std::string out = "\"";
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (c == '\n') {
      out.append("\\n");
    } else if (c == '\t') {
      out.append("\\t");
    } else if (byte < 0x20 || byte == 0x7F) {
      out.append("\\x");
      out.push_back(kHexDigits[byte >> 4U]);
      out.push_back(kHexDigits[byte & 15U]);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

}  // namespace qanat
