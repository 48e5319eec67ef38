// Small tools for text that the standard library lacks. ASCII only where case matters.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat {

// One argument of str_cat: text or a number, formatted in place. Borrows its text: for use as an
// argument only.
class StringPiece {
 public:
  StringPiece(std::string_view text) : text_(text) {}    // NOLINT(google-explicit-constructor)
  StringPiece(const std::string& text) : text_(text) {}  // NOLINT(google-explicit-constructor)
  StringPiece(const char* text) : text_(text) {}         // NOLINT(google-explicit-constructor)
  StringPiece(char c) : text_(digits_, 1) {
    digits_[0] = c;
  }  // NOLINT(google-explicit-constructor)
  StringPiece(double number);  // NOLINT(google-explicit-constructor)
  template <std::integral T>
    requires(!std::same_as<T, char> && !std::same_as<T, bool>)
  StringPiece(T number) {  // NOLINT(google-explicit-constructor)
    if constexpr (std::signed_integral<T>) {
      set_signed(number);
    } else {
      set_unsigned(number);
    }
  }
  StringPiece(const StringPiece&) = delete;
  StringPiece& operator=(const StringPiece&) = delete;

  std::string_view text() const { return text_; }

 private:
  void set_signed(int64_t number);
  void set_unsigned(uint64_t number);

  std::string_view text_;
  char digits_[32];
};

namespace internal {
std::string concatenate(const std::string_view* pieces, size_t count);
void append_all(std::string& out, const std::string_view* pieces, size_t count);
}  // namespace internal

// str_cat("pack ", id, " has ", 3, " blobs"). Numbers in decimal, doubles in their shortest exact
// form.
template <class... Pieces>
std::string str_cat(const Pieces&... pieces) {
  if constexpr (sizeof...(Pieces) == 0) {
    return {};
  } else {
    // The full expression keeps the temporary StringPieces alive while their views are read.
    return [](std::initializer_list<std::string_view> views) {
      return internal::concatenate(views.begin(), views.size());
    }({StringPiece(pieces).text()...});
  }
}
// The same, at the end of `out`, which must not be one of the pieces.
template <class... Pieces>
void str_append(std::string& out, const Pieces&... pieces) {
  [&out](std::initializer_list<std::string_view> views) {
    internal::append_all(out, views.begin(), views.size());
  }({StringPiece(pieces).text()...});
}

// "a,,b" at ',' -> {"a", "", "b"}; "" -> {""}. The views point into `text`.
std::vector<std::string_view> split(std::string_view text, char separator);
// At the first separator: {"a", "b=c"} for "a=b=c" at '='; {text, ""} if there is none.
std::pair<std::string_view, std::string_view> split_once(std::string_view text, char separator);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::string join(const std::vector<std::string_view>& parts, std::string_view separator);
// Without spaces, tabs and line ends at both ends.
std::string_view trim(std::string_view text);
std::string to_lower(std::string_view text);
bool equal_ignoring_case(std::string_view a, std::string_view b);
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

// The whole text must be the number, in decimal, in range; else kInvalidArgument quoting it.
Result<uint64_t> parse_u64(std::string_view text);
Result<int64_t> parse_i64(std::string_view text);
Result<double> parse_double(std::string_view text);

// "512 B", "4.0 KiB", "1.5 GiB".
std::string format_size(uint64_t bytes);
// "850ms", "4.2s", "3m 05s", "2h 10m", "5d 3h".
std::string format_duration(int64_t milliseconds);

// In double quotes, with quotes, backslashes and control characters escaped: for messages and logs.
std::string quoted(std::string_view text);

}  // namespace qanat
