// Durations and sizes as people write them in specs, and back in one canonical form.
//
//   durations  "300ms" "30s" "5m" "1h30m" "1.5h" "0"; units h, m, s, ms, each at most once, from
//   large to small sizes      "64M" "1Gi" "512k" "1.5Gi" "1000000"; k M G T P E are powers of 1000,
//   Ki Mi Gi Ti Pi Ei of 1024
//
// Errors are invalid_argument and show the accepted forms. Everything here is pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::api {

// Milliseconds, 0 or more, at most 100 years.
Result<std::int64_t> parse_duration(std::string_view text);
// "1h30m", "30s", "250ms", "0s": parse_duration gives the same number back.
std::string write_duration(std::int64_t milliseconds);

// Bytes, at most 2^62.
Result<std::uint64_t> parse_size(std::string_view text);
// The shortest exact form: "1Gi", "64M", "1234567".
std::string write_size(std::uint64_t bytes);

}  // namespace qanat::api
