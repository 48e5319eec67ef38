#include "qanat/api/time.h"

#include "qanat/base/clock.h"

namespace qanat::api {

std::string format_timestamp(Timestamp time) {
  return time.ms == 0 ? std::string() : format_rfc3339(time.ms);
}

Result<Timestamp> parse_timestamp(std::string_view text) {
  if (text.empty()) return Timestamp{};
  QANAT_ASSIGN_OR_RETURN(int64_t ms, parse_rfc3339(text));
  return Timestamp{ms};
}

}  // namespace qanat::api
