// Status and Result<T>: how every fallible function of Qanat reports what happened.
//
// A Status is a code, a message ("what happened and why") and an optional hint ("what to do next").
// Context is added at each level on the way up with `with_context`, outermost first: "put file a/b:
// pack 3f..: write: No space left on device". Values are cheap to move; an OK status holds no
// memory. Neither type throws. Not thread safe; copy across threads.
#pragma once

#include <cassert>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace qanat {

// The numbers are not stored or sent; the names (see code_name) are part of the HTTP API.
enum class Code {
  kOk = 0,
  kInvalidArgument,     // the request itself is wrong; repeating it cannot help (HTTP 400)
  kUnauthenticated,     // no valid token (401)
  kPermissionDenied,    // a valid token without the right (403)
  kNotFound,            // (404)
  kAlreadyExists,       // (409)
  kFailedPrecondition,  // the state of the system forbids it (409)
  kConflict,            // lost a compare-and-swap; re-read and retry (409)
  kGone,                // a revision that was compacted: list again (410)
  kTooLarge,            // a body, path or list over its limit (413)
  kResourceExhausted,   // disk, quota or queue full (507)
  kUnavailable,         // try again later (503)
  kDeadlineExceeded,    // (504)
  kCancelled,           // the caller gave up (499)
  kDataLoss,            // stored bytes do not match their hash, or are missing (500)
  kInternal,            // a defect of Qanat (500)
};

// The stable name of a code in the API, e.g. "not_found".
std::string_view code_name(Code code);
// The inverse; kInternal for an unknown name.
Code code_from_name(std::string_view name);

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  Status(Code code, std::string message, std::string hint = {})
      : state_(std::make_shared<State>(State{code, std::move(message), std::move(hint)})) {
    assert(code != Code::kOk);
  }

  bool ok() const { return state_ == nullptr; }
  Code code() const { return state_ ? state_->code : Code::kOk; }
  const std::string& message() const;  // empty when OK
  const std::string& hint() const;     // empty when there is none
  // "context: message", same code and hint. OK stays OK.
  Status with_context(std::string_view context) const;
  Status with_hint(std::string hint) const;
  // "not_found: repo orders does not exist" for logs.
  std::string to_string() const;

 private:
  struct State {
    Code code;
    std::string message;
    std::string hint;
  };
  std::shared_ptr<const State> state_;
};

inline Status ok_status() { return {}; }
Status invalid_argument(std::string message, std::string hint = {});
Status unauthenticated(std::string message, std::string hint = {});
Status permission_denied(std::string message, std::string hint = {});
Status not_found(std::string message, std::string hint = {});
Status already_exists(std::string message, std::string hint = {});
Status failed_precondition(std::string message, std::string hint = {});
Status conflict(std::string message, std::string hint = {});
Status gone(std::string message, std::string hint = {});
Status too_large(std::string message, std::string hint = {});
Status resource_exhausted(std::string message, std::string hint = {});
Status unavailable(std::string message, std::string hint = {});
Status deadline_exceeded(std::string message, std::string hint = {});
Status cancelled(std::string message, std::string hint = {});
Status data_loss(std::string message, std::string hint = {});
Status internal_error(std::string message, std::string hint = {});
// From errno: ENOENT -> not_found, EEXIST -> already_exists, ENOSPC/EDQUOT -> resource_exhausted,
// EACCES -> permission_denied, others -> internal. The message is "what: strerror".
Status errno_status(int error, std::string_view what);

// A value or the Status that explains its absence. Never holds an OK status.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {
    assert(!status_.ok());
  }  // NOLINT(google-explicit-constructor)

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Status& status() const { return status_; }  // OK when there is a value
  Code code() const { return status_.code(); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T value_or(T other) && { return ok() ? std::move(*value_) : std::move(other); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace qanat

#define QANAT_CONCAT_INNER(a, b) a##b
#define QANAT_CONCAT(a, b) QANAT_CONCAT_INNER(a, b)

// Returns the status from the enclosing function if it is not OK. The enclosing function returns
// Status or Result<T>.
#define QANAT_RETURN_IF_ERROR(expression)        \
  do {                                           \
    ::qanat::Status qanat_status = (expression); \
    if (!qanat_status.ok()) return qanat_status; \
  } while (false)

// QANAT_ASSIGN_OR_RETURN(auto x, f()): assigns the value of a Result, or returns its status.
#define QANAT_ASSIGN_OR_RETURN(declaration, expression) \
  QANAT_ASSIGN_OR_RETURN_IMPL(QANAT_CONCAT(qanat_result_, __LINE__), declaration, expression)
#define QANAT_ASSIGN_OR_RETURN_IMPL(result, declaration, expression) \
  auto result = (expression);                                        \
  if (!result.ok()) return result.status();                          \
  declaration = *std::move(result)
