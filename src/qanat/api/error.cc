#include "qanat/api/error.h"

#include "qanat/base/string.h"
#include "qanat/net/http.h"

namespace qanat::api {

std::string error_json(const Status& status) {
  ErrorBody body;
  body.error.code = code_name(status.code());
  body.error.message = status.message();
  body.error.hint = status.hint();
  return json_text(body);
}

Status status_from_answer(int http_status, std::string_view body) {
  if (auto parsed = parse_json<ErrorBody>(body, {.ignore_unknown = true}); parsed.ok()) {
    Code code = code_from_name(parsed->error.code);
    if (code == Code::kOk) code = Code::kInternal;
    return {code, parsed->error.message, parsed->error.hint};
  }
  Code code = net::code_from_http_status(http_status);
  if (code == Code::kOk) code = Code::kInternal;
  std::string message = str_cat("the server answered ", http_status);
  std::string_view reason = net::reason_phrase(http_status);
  if (!reason.empty()) str_append(message, " ", reason);
  // A proxy's page would say nothing to a person: only a short plain line is shown.
  std::string_view line = trim(body);
  if (!line.empty() && line.size() <= 200 && line[0] != '<') str_append(message, ": ", line);
  return {code, message};
}

}  // namespace qanat::api
