// Dates in HTTP headers, "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 section 5.6.7, IMF-fixdate), and
// the compact form of AWS, "19941106T084937Z". Milliseconds since 1970 here, whole seconds there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::net {

std::string format_http_date(int64_t wall_ms);
// The one form above only: the obsolete two are not written by anything alive.
Result<int64_t> parse_http_date(std::string_view text);

std::string format_compact_date(int64_t wall_ms);
Result<int64_t> parse_compact_date(std::string_view text);

}  // namespace qanat::net
