// Timestamps in API bodies: milliseconds since the epoch in memory, RFC 3339 in UTC with
// milliseconds in JSON
// ("2026-03-01T12:00:00.25Z"). Zero means "not set" and is written as an absent field, or as ""
// where the field is required.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "qanat/api/describe.h"
#include "qanat/base/status.h"

namespace qanat::api {

struct Timestamp {
  int64_t ms = 0;
  auto operator<=>(const Timestamp&) const = default;
};

std::string format_timestamp(Timestamp time);
// Accepts any RFC 3339 time (offset or Z, any number of fraction digits, cut to milliseconds); ""
// is zero.
Result<Timestamp> parse_timestamp(std::string_view text);

template <>
struct TextFormat<Timestamp> {
  static constexpr const char* kSchemaFormat = "date-time";
  static std::string format(const Timestamp& time) { return format_timestamp(time); }
  static Status parse(std::string_view text, Timestamp& out) {
    QANAT_ASSIGN_OR_RETURN(out, parse_timestamp(text));
    return ok_status();
  }
};

}  // namespace qanat::api
