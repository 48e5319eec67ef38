#include "qanat/worker/server_client.h"

#include <algorithm>
#include <thread>

#include "qanat/api/error.h"
#include "qanat/base/string.h"
#include "qanat/worker/byte_pipe.h"

namespace qanat::worker {
namespace {

constexpr size_t kMaxAnswer = 64 << 20;  // a lease of many datums with many inputs
constexpr size_t kPipeSize = 1 << 20;
constexpr auto kCallIdle = std::chrono::milliseconds(60'000);
constexpr auto kLeaseIdle = std::chrono::milliseconds(40'000);
// Results are answered once they are durable, which may wait for a disk, or for the job's fold.
constexpr auto kResultsIdle = std::chrono::milliseconds(120'000);

}  // namespace

bool Retry::is_transient(const Status& status) {
  return status.code() == Code::kUnavailable || status.code() == Code::kDeadlineExceeded ||
         status.code() == Code::kResourceExhausted;
}

std::int64_t Retry::patience_ms(const Status& status) {
  if (is_transient(status)) return 3'600'000;
  switch (status.code()) {
    case Code::kNotFound:
    case Code::kInternal:
      return 60'000;
    case Code::kUnauthenticated:
    case Code::kPermissionDenied:
      return 3000;
    default:
      return 0;
  }
}

bool Retry::again(const Status& status) {
  if (clock_.monotonic_ms() - start_ms_ >= patience_ms(status)) return false;
  clock_.sleep_for_ms(delay_ms_);
  delay_ms_ = std::min<int64_t>(2 * delay_ms_, 2000);
  return true;
}

ServerClient::ServerClient(std::string socket_path) : socket_path_(std::move(socket_path)) {}

net::ClientRequest ServerClient::request(net::Method method, std::string_view target) const {
  net::ClientRequest request;
  request.method = method;
  request.unix_socket = socket_path_;
  request.url.scheme = "http";
  request.url.host = "qanat";
  request.url.port = 80;
  auto [path, query] = split_once(target, '?');
  request.url.path = path;
  request.url.query_text = query;
  request.idle_timeout = kCallIdle;
  request.cancel = cancel_;
  if (!token_.empty()) request.headers.set("Authorization", str_cat("Bearer ", token_));
  return request;
}

Result<std::string> ServerClient::call(const net::ClientRequest& request, size_t limit,
                                       int* http_status) {
  QANAT_ASSIGN_OR_RETURN(auto response, client_.send(request));
  QANAT_ASSIGN_OR_RETURN(std::string body, response->read_all(limit));
  if (!response->ok()) return api::status_from_answer(response->status(), body);
  if (http_status != nullptr) *http_status = response->status();
  return body;
}

Result<api::HelloAnswer> ServerClient::hello(const api::HelloRequest& hello) {
  net::ClientRequest request = this->request(net::Method::kPost, "/worker/v1/hello");
  request.headers.set("Authorization", str_cat("Bearer ", hello.credential));
  request.headers.set("Content-Type", "application/json");
  request.body = api::json_text(hello);
  QANAT_ASSIGN_OR_RETURN(std::string body, call(request, kMaxAnswer, nullptr));
  QANAT_ASSIGN_OR_RETURN(auto answer,
                         api::parse_json<api::HelloAnswer>(body, {.ignore_unknown = true}));
  token_ = answer.token;
  return answer;
}

Result<std::optional<api::LeaseAnswer>> ServerClient::lease(const api::LeaseRequest& lease) {
  net::ClientRequest request = this->request(net::Method::kPost, "/worker/v1/lease");
  request.headers.set("Content-Type", "application/json");
  request.body = api::json_text(lease);
  request.idle_timeout = kLeaseIdle;
  int http_status = 0;
  QANAT_ASSIGN_OR_RETURN(std::string body, call(request, kMaxAnswer, &http_status));
  if (http_status == 204) return std::optional<api::LeaseAnswer>();
  QANAT_ASSIGN_OR_RETURN(auto answer,
                         api::parse_json<api::LeaseAnswer>(body, {.ignore_unknown = true}));
  return std::optional<api::LeaseAnswer>(std::move(answer));
}

Status ServerClient::inputs(const std::string& job, const std::vector<std::string>& datums,
                            const std::function<Status(api::FileStreamReader&)>& receive) {
  std::string target = str_cat("/worker/v1/inputs?job=", net::encode_query_part(job));
  for (const std::string& datum : datums) {
    str_append(target, "&datum=", net::encode_query_part(datum));
  }
  QANAT_ASSIGN_OR_RETURN(auto response,
                         client_.send(request(net::Method::kGet, std::move(target))));
  if (!response->ok()) {
    QANAT_ASSIGN_OR_RETURN(std::string body, response->read_all(kMaxAnswer));
    return api::status_from_answer(response->status(), body);
  }
  api::FileStreamReader reader(
      [&](char* buffer, size_t size) { return response->read(buffer, size); });
  return receive(reader);
}

Result<api::ResultsAnswer> ServerClient::results(const std::string& job, std::string body) {
  net::ClientRequest request = this->request(
      net::Method::kPost, str_cat("/worker/v1/results?job=", net::encode_query_part(job)));
  request.headers.set("Content-Type", std::string(api::kFileStreamType));
  request.body = std::move(body);
  request.idle_timeout = kResultsIdle;
  QANAT_ASSIGN_OR_RETURN(std::string answer, call(request, kMaxAnswer, nullptr));
  return api::parse_json<api::ResultsAnswer>(answer, {.ignore_unknown = true});
}

Result<api::ResultsAnswer> ServerClient::results_streamed(
    const std::string& job, const std::function<Status(api::FileStreamWriter&)>& produce) {
  BytePipe pipe(kPipeSize);
  net::ClientRequest request = this->request(
      net::Method::kPost, str_cat("/worker/v1/results?job=", net::encode_query_part(job)));
  request.headers.set("Content-Type", std::string(api::kFileStreamType));
  request.source = [&pipe](char* buffer, size_t size) { return pipe.read(buffer, size); };
  request.idle_timeout = kResultsIdle;
  Result<std::string> answer = unavailable("not sent");
  std::thread sender([&] {
    answer = call(request, kMaxAnswer, nullptr);
    pipe.abandon();
  });
  api::FileStreamWriter writer([&pipe](std::string_view bytes) { return pipe.write(bytes); });
  Status produced = produce(writer);
  if (produced.ok()) produced = writer.finish();
  pipe.close(produced);
  sender.join();
  // The sender's word counts, unless what it failed of came from here.
  if (!produced.ok() && produced.code() != Code::kCancelled) return produced;
  if (!answer.ok()) return answer.status();
  return api::parse_json<api::ResultsAnswer>(*answer, {.ignore_unknown = true});
}

Result<api::RenewAnswer> ServerClient::renew(const api::RenewRequest& renew) {
  net::ClientRequest request = this->request(net::Method::kPost, "/worker/v1/renew");
  request.headers.set("Content-Type", "application/json");
  request.body = api::json_text(renew);
  QANAT_ASSIGN_OR_RETURN(std::string body, call(request, kMaxAnswer, nullptr));
  return api::parse_json<api::RenewAnswer>(body, {.ignore_unknown = true});
}

Status ServerClient::logs(const api::LogPush& push) {
  net::ClientRequest request = this->request(net::Method::kPost, "/worker/v1/logs");
  request.headers.set("Content-Type", "application/json");
  request.body = api::json_text(push);
  Result<std::string> answer = call(request, kMaxAnswer, nullptr);
  return answer.ok() ? ok_status() : answer.status();
}

}  // namespace qanat::worker
