#include "qanat/object/store_client.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "qanat/base/clock.h"
#include "qanat/base/counters.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/net/http_date.h"

namespace qanat::object {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

struct Counters {
  Counter& requests = counter("qanat_object_requests_total", "Requests sent to object stores");
  Counter& retries = counter("qanat_object_retries_total", "Of these: sent again after a failure");
  Counter& throttled =
      counter("qanat_object_throttled_total", "Answers of object stores that ask to slow down");
};
Counters& counters() {
  static auto* all = new Counters;
  return *all;
}

// False if it was cancelled.
bool sleep_until(net::Deadline moment, const net::CancelSignal& cancel) {
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(moment - SteadyClock::now());
    if (left.count() <= 0) return true;
    pollfd waiting{cancel.fd(), POLLIN, 0};
    (void)poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left.count(), 60'000)));
    if (cancel.cancelled()) return false;
  }
}

// Seconds, or a date.
std::optional<milliseconds> retry_after(const net::Headers& headers) {
  const std::string_view text = headers.get("Retry-After");
  if (text.empty()) return std::nullopt;
  constexpr uint64_t kDay = 86'400;
  if (const auto seconds = parse_u64(text); seconds.ok()) {
    return milliseconds(static_cast<int64_t>(std::min(*seconds, kDay)) * 1000);
  }
  const auto date = net::parse_http_date(text);
  if (!date.ok()) return std::nullopt;
  return milliseconds(std::max<int64_t>(*date - real_clock().wall_ms(), 0));
}

// What went wrong on the way: worth another attempt, unless it was wanted or cannot get better.
Refusal::Kind kind_of(const Status& status) {
  switch (status.code()) {
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
    case Code::kDataLoss:
      return Refusal::Kind::kAgain;
    default:
      return Refusal::Kind::kFinal;
  }
}

}  // namespace

struct StoreClient::Attempt {
  std::optional<StoreAnswer> answer;  // a success
  Refusal refusal;                    // otherwise
  std::optional<milliseconds> retry_after;
  bool lost_connection = false;
  std::string key;  // what it was signed with
};

StoreClient::StoreClient(net::ClientOptions client, RetryOptions options, StoreDialect& dialect)
    : options_(options),
      dialect_(dialect),
      client_([&] {
        client.idle_timeout = options.idle_timeout;
        client.max_idle_connections = static_cast<size_t>(options.max_requests);
        return std::move(client);
      }()),
      limit_(options.max_requests) {}

const net::CancelSignal& StoreClient::signal_of(const StoreRequest& request) const {
  return request.cancel ? *request.cancel : *cancel_;
}

milliseconds StoreClient::jitter(int attempt) const {
  int64_t most = options_.first_wait.count();
  for (int i = 1; i < attempt && most < options_.longest_wait.count(); ++i) most *= 2;
  most = std::min<int64_t>(most, options_.longest_wait.count());
  return milliseconds(static_cast<int64_t>(system_random().below(static_cast<uint64_t>(most) + 1)));
}

Result<StoreAnswer> StoreClient::exchange(const StoreRequest& request, net::Deadline deadline,
                                          std::string& key) {
  net::ClientRequest http;
  http.method = request.method;
  http.url = request.url;
  http.headers = request.headers;
  QANAT_RETURN_IF_ERROR(dialect_.sign(request, http.url, http.headers, key));
  http.cancel = request.cancel ? request.cancel : cancel_;
  http.total_timeout =
      std::max(std::chrono::ceil<milliseconds>(deadline - SteadyClock::now()), milliseconds(1));
  if (request.method == net::Method::kPut || request.method == net::Method::kPost) {
    // As a source, so that the client does not repeat it behind our back: whether a request may
    // have been carried out must be known here.
    std::string_view left = request.body;
    http.source_length = left.size();
    http.source = [left](char* buffer, size_t size) mutable -> Result<size_t> {
      const size_t piece = std::min(size, left.size());
      if (piece > 0) std::memcpy(buffer, left.data(), piece);
      left.remove_prefix(piece);
      return piece;
    };
  }
  counters().requests.add();
  QANAT_ASSIGN_OR_RETURN(std::unique_ptr<net::ClientResponse> response, client_.send(http));
  StoreAnswer answer;
  answer.status = response->status();
  answer.headers = response->headers();
  // A refusal's text is short; what a success may hold, the caller knows.
  const uint64_t most = response->ok() ? request.max_answer_bytes : 256 << 10;
  const uint64_t length = response->content_length().value_or(0);
  const bool empty = request.method == net::Method::kHead;
  if (length > most && !empty) {
    return data_loss(str_cat("the store answers with ", length, " bytes where at most ", most,
                             " were asked for"));
  }
  if (!empty) {
    answer.body.reserve(length);
    std::string piece(64 << 10, '\0');
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const size_t got, response->read(piece.data(), piece.size()));
      if (got == 0) break;
      if (answer.body.size() + got > most) {
        return data_loss(
            str_cat("the store answers with more than the ", most, " bytes that were asked for"));
      }
      answer.body.append(piece, 0, got);
    }
  }
  return answer;
}

StoreClient::Attempt StoreClient::try_once(const StoreRequest& request, const Check& check,
                                           net::Deadline deadline) {
  Attempt attempt;
  if (Status status = limit_.acquire(deadline, signal_of(request)); !status.ok()) {
    attempt.refusal = {Refusal::Kind::kFinal, status};
    return attempt;
  }
  Result<StoreAnswer> answer = exchange(request, deadline, attempt.key);
  auto outcome = AdaptiveLimit::Outcome::kFailed;
  if (!answer.ok()) {
    attempt.refusal = {kind_of(answer.status()), answer.status()};
    attempt.lost_connection = answer.code() == Code::kUnavailable;
  } else if (answer->status < 200 || answer->status >= 300) {
    attempt.refusal = dialect_.judge(request, *answer);
    if (attempt.refusal.kind == Refusal::Kind::kThrottled) {
      outcome = AdaptiveLimit::Outcome::kThrottled;
      counters().throttled.add();
    }
    attempt.retry_after = retry_after(answer->headers);
  } else {
    outcome = AdaptiveLimit::Outcome::kSuccess;
    const Status checked = check ? check(*answer) : ok_status();
    if (checked.ok()) {
      attempt.answer = *std::move(answer);
    } else {
      attempt.refusal = {Refusal::Kind::kAgain, checked};
    }
  }
  limit_.release(outcome);
  return attempt;
}

Result<StoreAnswer> StoreClient::run(const StoreRequest& request, const Check& check,
                                     bool* unsure) {
  const int64_t bytes = static_cast<int64_t>(request.body.size() + request.max_answer_bytes);
  const auto deadline = SteadyClock::now() + options_.deadline +
                        milliseconds(bytes * 1000 / std::max<int64_t>(options_.slowest, 1));
  const int max_attempts = request.max_attempts > 0 ? request.max_attempts : options_.max_attempts;
  bool key_renewed = false;
  Status before;  // what the attempt before this one ended with
  for (int number = 1;; ++number) {
    Attempt attempt = try_once(request, check, deadline);
    if (attempt.answer) return *std::move(attempt.answer);
    const Status& status = attempt.refusal.status;
    if (attempt.refusal.kind == Refusal::Kind::kFinal) {
      // No attempt ends so: it was not made any more. What went wrong is what the one before says.
      if (status.code() == Code::kDeadlineExceeded && !before.ok()) {
        return before.with_context(str_cat("after ", number - 1, " attempts"));
      }
      return status;
    }
    if (attempt.refusal.kind == Refusal::Kind::kKey) {
      // Once at once; afterwards as if there were no other, lest two bad keys take turns.
      if (key_renewed || !dialect_.renew_key(attempt.key)) return status;
      key_renewed = true;
      continue;
    }
    if (unsure != nullptr) *unsure = true;
    if (number >= max_attempts) {
      return number == 1 ? status : status.with_context(str_cat("after ", number, " attempts"));
    }
    // A connection that had been kept was closed in between: nothing to wait for.
    auto wait = number == 1 && attempt.lost_connection ? milliseconds(0) : jitter(number);
    if (attempt.retry_after) wait = std::max(wait, *attempt.retry_after);
    const auto next = SteadyClock::now() + wait;
    if (next >= deadline) {
      return status.with_context(
          str_cat("after ", number, " attempts",
                  attempt.retry_after ? ", and it asks to wait longer than there is time" : ""));
    }
    if (attempt.retry_after) limit_.pause_until(next);
    if (!sleep_until(next, signal_of(request))) return cancelled("given up");
    before = status;
    counters().retries.add();
  }
}

}  // namespace qanat::object
