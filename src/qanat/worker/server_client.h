// The worker's side of the protocol in api/worker.h: one call, one function. HTTP over the Unix
// socket of the worker's group.
//
// Every call makes one attempt; `Retry` (below) says how to go on while the server is away. Thread
// safe. Errors: kUnavailable (no server: try again), kUnauthenticated and kPermissionDenied (this
// worker is not wanted any more), kNotFound and kGone (job or datum is over), others as the server
// says them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/file_stream.h"
#include "qanat/api/worker.h"
#include "qanat/base/clock.h"
#include "qanat/base/status.h"
#include "qanat/net/http_client.h"

namespace qanat::worker {

class ServerClient {
 public:
  explicit ServerClient(std::string socket_path);

  // Keeps the token for all other calls. Not at the same time as other calls.
  Result<api::HelloAnswer> hello(const api::HelloRequest& request);
  // Nothing when the server had none for as long as was asked.
  Result<std::optional<api::LeaseAnswer>> lease(const api::LeaseRequest& request);
  // The files of these datums; `receive` reads the stream to its end.
  Status inputs(const std::string& job, const std::vector<std::string>& datums,
                const std::function<Status(api::FileStreamReader&)>& receive);
  Result<api::ResultsAnswer> results(const std::string& job, std::string body);
  // The same with a body that is made while it is sent: `produce` runs on this thread and returns
  // early with an error when the server stops reading.
  Result<api::ResultsAnswer> results_streamed(
      const std::string& job, const std::function<Status(api::FileStreamWriter&)>& produce);
  Result<api::RenewAnswer> renew(const api::RenewRequest& request);
  Status logs(const api::LogPush& push);

  // Ends all calls, those to come too, with kCancelled.
  void abort() { cancel_->cancel(); }

 private:
  net::ClientRequest request(net::Method method, std::string_view target) const;
  Result<std::string> call(const net::ClientRequest& request, size_t limit, int* http_status);

  const std::string socket_path_;
  std::string token_;
  const std::shared_ptr<net::CancelSignal> cancel_ = std::make_shared<net::CancelSignal>();
  net::HttpClient client_;
};

// Calls again, after 20 ms, 40 ms ... 2 s, for as long as an answer of that kind may still change:
// an hour while the server is away or full (it restarts, most likely); a minute when it says that
// it does not know the job (it has not got so far yet after a restart; when it has, it cancels the
// datum) or has a defect; a few seconds when it does not know this worker. Gives up at once on
// other errors.
class Retry {
 public:
  explicit Retry(Clock& clock) : clock_(clock), start_ms_(clock.monotonic_ms()) {}
  // Sleeps and returns true if `status` is worth another attempt.
  bool again(const Status& status);

  // The server is away, or full.
  static bool is_transient(const Status& status);
  // How long to go on after an error of that kind.
  static std::int64_t patience_ms(const Status& status);

 private:
  Clock& clock_;
  std::int64_t start_ms_;
  std::int64_t delay_ms_ = 20;
};

}  // namespace qanat::worker
