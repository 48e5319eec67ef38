// The body of every answer with an error status.
#pragma once

#include <string>

#include "qanat/api/describe.h"
#include "qanat/base/status.h"

namespace qanat::api {

struct ErrorInfo {
  std::string code;
  std::string message;
  std::string hint;
};
template <class V>
void describe(V& v, ErrorInfo& t) {
  v.type("ErrorInfo", "What went wrong.");
  v.required("code", t.code, "A stable name, such as not_found.");
  v.required("message", t.message, "What happened and why.");
  v.optional("hint", t.hint, "What to do next.");
}

struct ErrorBody {
  ErrorInfo error;
};
template <class V>
void describe(V& v, ErrorBody& t) {
  v.type("Error", "The body of every answer with an error status.");
  v.required("error", t.error, "The error.");
}

// {"error":{...}} of a status that is not OK.
std::string error_json(const Status& status);
// The status in an answer: from its body if that is an error body, else made from the HTTP status.
Status status_from_answer(int http_status, std::string_view body);

}  // namespace qanat::api
