// Requests to a remote object store that are tried until they succeed, cannot succeed, or run out
// of time.
//
// Tried again: lost connections, time-outs, 408, 429, 5xx, answers that arrived damaged, and what
// the store's dialect names. Between attempts a random part of an interval that doubles ("full
// jitter"; M. Brooker, "Exponential Backoff And Jitter", 2015), or what Retry-After says. Each call
// has a deadline for everything together. Throttling lowers the number of requests that all threads
// may have under way (adaptive_limit.h).
//
// Thread safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/net/http_client.h"
#include "qanat/object/adaptive_limit.h"

namespace qanat::object {

struct RetryOptions {
  int max_attempts = 10;
  std::chrono::milliseconds first_wait{50};  // at most, before the second attempt; then doubling
  std::chrono::milliseconds longest_wait{5'000};
  // Of a whole call, to which the time is added that its bytes take at `slowest`.
  std::chrono::milliseconds deadline{60'000};
  int64_t slowest = 256 << 10;                     // bytes a second
  std::chrono::milliseconds idle_timeout{20'000};  // of one attempt: no byte moves for so long
  int max_requests = 32;                           // under way at a time
};

struct StoreRequest {
  net::Method method = net::Method::kGet;
  net::Url url;           // unsigned
  net::Headers headers;   // without those that signing adds
  std::string_view body;  // lives as long as the call
  std::string body_hash;  // SHA-256 in hex, where the dialect wants it
  uint64_t max_answer_bytes = 1 << 20;
  std::shared_ptr<net::CancelSignal> cancel;  // null: the client's own
  int max_attempts = 0;                       // 0: as the options say
  // If given: whether the last answer was that the key has no right to this (403, and no fault of
  // the key itself). Set by dialects that can tell.
  bool* forbidden = nullptr;
};

struct StoreAnswer {
  int status = 0;
  net::Headers headers;
  std::string body;
};

// What an answer that is no success means.
struct Refusal {
  enum class Kind {
    kFinal,      // the same request cannot succeed
    kAgain,      // it may, later
    kThrottled,  // it may, if fewer are sent
    kKey,        // the key is not taken (any more): with another it may
  };
  Kind kind = Kind::kFinal;
  Status status;
};

// What is particular to one kind of store.
class StoreDialect {
 public:
  virtual ~StoreDialect() = default;
  // Puts a signature on a request that is about to be sent; `key` says with which key, in words
  // that only the dialect understands.
  virtual Status sign(const StoreRequest& request, net::Url& url, net::Headers& headers,
                      std::string& key) = 0;
  // Of an answer that is not 2xx.
  virtual Refusal judge(const StoreRequest& request, const StoreAnswer& answer) = 0;
  // After Refusal::Kind::kKey: true if there is another key now than the one that was refused.
  virtual bool renew_key(const std::string& refused) = 0;
};

class StoreClient {
 public:
  // Borrows the dialect.
  StoreClient(net::ClientOptions client, RetryOptions options, StoreDialect& dialect);

  // Looks at a 2xx answer; what it returns, if not OK, is retried (the answer was damaged).
  using Check = std::function<Status(const StoreAnswer&)>;
  // A 2xx answer, or the reason why there is none. `unsure`, if given, is set when an attempt
  // before the last one may have been carried out by the store all the same.
  Result<StoreAnswer> run(const StoreRequest& request, const Check& check = {},
                          bool* unsure = nullptr);

  // Ends the requests that have no signal of their own, now and from now on, with kCancelled.
  void cancel() { cancel_->cancel(); }

  const AdaptiveLimit& limit() const { return limit_; }

 private:
  struct Attempt;
  Attempt try_once(const StoreRequest& request, const Check& check, net::Deadline deadline);
  Result<StoreAnswer> exchange(const StoreRequest& request, net::Deadline deadline,
                               std::string& key);
  std::chrono::milliseconds jitter(int attempt) const;
  const net::CancelSignal& signal_of(const StoreRequest& request) const;

  const RetryOptions options_;
  StoreDialect& dialect_;
  net::HttpClient client_;
  AdaptiveLimit limit_;
  const std::shared_ptr<net::CancelSignal> cancel_ = std::make_shared<net::CancelSignal>();
};

}  // namespace qanat::object
