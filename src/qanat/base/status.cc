#include "qanat/base/status.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "qanat/base/string.h"

namespace qanat {
namespace {

constexpr std::array<std::string_view, 16> kCodeNames = {
    "ok",
    "invalid_argument",
    "unauthenticated",
    "permission_denied",
    "not_found",
    "already_exists",
    "failed_precondition",
    "conflict",
    "gone",
    "too_large",
    "resource_exhausted",
    "unavailable",
    "deadline_exceeded",
    "cancelled",
    "data_loss",
    "internal",
};
static_assert(kCodeNames.size() == static_cast<size_t>(Code::kInternal) + 1);

const std::string kEmpty;

Code code_of_errno(int error) {
  switch (error) {
    case ENOENT:
      return Code::kNotFound;
    case EEXIST:
      return Code::kAlreadyExists;
    case ENOSPC:
    case EDQUOT:
      return Code::kResourceExhausted;
    case EACCES:
    case EPERM:
    case EROFS:
      return Code::kPermissionDenied;
    default:
      return Code::kInternal;
  }
}

}  // namespace

std::string_view code_name(Code code) { return kCodeNames[static_cast<size_t>(code)]; }

Code code_from_name(std::string_view name) {
  for (size_t i = 0; i < kCodeNames.size(); ++i) {
    if (kCodeNames[i] == name) return static_cast<Code>(i);
  }
  return Code::kInternal;
}

const std::string& Status::message() const { return state_ ? state_->message : kEmpty; }
const std::string& Status::hint() const { return state_ ? state_->hint : kEmpty; }

Status Status::with_context(std::string_view context) const {
  if (ok()) return *this;
  return {code(), str_cat(context, ": ", message()), hint()};
}

Status Status::with_hint(std::string hint) const {
  if (ok()) return *this;
  return {code(), message(), std::move(hint)};
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  std::string text = str_cat(code_name(code()), ": ", message());
  if (!hint().empty()) str_append(text, " (", hint(), ")");
  return text;
}

Status invalid_argument(std::string message, std::string hint) {
  return {Code::kInvalidArgument, std::move(message), std::move(hint)};
}
Status unauthenticated(std::string message, std::string hint) {
  return {Code::kUnauthenticated, std::move(message), std::move(hint)};
}
Status permission_denied(std::string message, std::string hint) {
  return {Code::kPermissionDenied, std::move(message), std::move(hint)};
}
Status not_found(std::string message, std::string hint) {
  return {Code::kNotFound, std::move(message), std::move(hint)};
}
Status already_exists(std::string message, std::string hint) {
  return {Code::kAlreadyExists, std::move(message), std::move(hint)};
}
Status failed_precondition(std::string message, std::string hint) {
  return {Code::kFailedPrecondition, std::move(message), std::move(hint)};
}
Status conflict(std::string message, std::string hint) {
  return {Code::kConflict, std::move(message), std::move(hint)};
}
Status gone(std::string message, std::string hint) {
  return {Code::kGone, std::move(message), std::move(hint)};
}
Status too_large(std::string message, std::string hint) {
  return {Code::kTooLarge, std::move(message), std::move(hint)};
}
Status resource_exhausted(std::string message, std::string hint) {
  return {Code::kResourceExhausted, std::move(message), std::move(hint)};
}
Status unavailable(std::string message, std::string hint) {
  return {Code::kUnavailable, std::move(message), std::move(hint)};
}
Status deadline_exceeded(std::string message, std::string hint) {
  return {Code::kDeadlineExceeded, std::move(message), std::move(hint)};
}
Status cancelled(std::string message, std::string hint) {
  return {Code::kCancelled, std::move(message), std::move(hint)};
}
Status data_loss(std::string message, std::string hint) {
  return {Code::kDataLoss, std::move(message), std::move(hint)};
}
Status internal_error(std::string message, std::string hint) {
  return {Code::kInternal, std::move(message), std::move(hint)};
}

Status errno_status(int error, std::string_view what) {
  // Not strerror: it is not thread safe, and it would load the user's locale in the static worker.
  const char* description = strerrordesc_np(error);
  std::string reason = description != nullptr ? std::string(description) : str_cat("error ", error);
  return {code_of_errno(error), str_cat(what, ": ", reason)};
}

}  // namespace qanat
