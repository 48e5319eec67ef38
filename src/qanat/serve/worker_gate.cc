#include "qanat/serve/worker_gate.h"

#include <sys/stat.h>

#include "qanat/api/error.h"
#include "qanat/api/file_stream.h"
#include "qanat/api/routes.h"
#include "qanat/api/worker.h"
#include "qanat/base/file_system.h"
#include "qanat/base/hash.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/serve/http_api.h"

namespace qanat::serve {
namespace {

constexpr size_t kMaxBody = 16u << 20;  // of JSON
constexpr int64_t kMaxWaitMs = 20'000;
constexpr int64_t kDurableMs = 100'000;  // workers wait a little longer

Status send_json(net::Response& response, const std::string& text) {
  return response.send(200, text, "application/json");
}

void log_if_serious(std::string_view call, const Status& status) {
  if (status.code() == Code::kInternal || status.code() == Code::kDataLoss ||
      status.code() == Code::kResourceExhausted)
    log_error("a worker's call failed", {{"call", std::string(call)}, {"error", status}});
}

template <class T>
Result<T> read_body(net::Request& request) {
  QANAT_ASSIGN_OR_RETURN(const std::string text, request.read_all(kMaxBody));
  return api::parse_json<T>(text);
}

Status lease(pipeline::WorkerHub& hub, const pipeline::WorkerHub::Worker& worker,
             net::Request& request, net::Response& response) {
  QANAT_ASSIGN_OR_RETURN(const auto body, read_body<api::LeaseRequest>(request));
  QANAT_ASSIGN_OR_RETURN(const auto leased, hub.lease(worker, body));
  if (!leased.datums.empty()) {
    const Status sent = send_json(response, api::json_text(leased));
    if (!sent.ok()) hub.not_told(worker, leased);
    return sent;
  }
  net::DeferOptions options;
  options.timeout = net::Milliseconds(std::clamp<int64_t>(body.wait_ms, 1, kMaxWaitMs));
  auto pending = response.defer(options);
  // When time is over, or the worker has gone, `complete` says so and the datums are taken back.
  hub.wait_for_work(worker, body, [pending](const api::LeaseAnswer& answer) {
    return pending->complete(200, {{"Content-Type", "application/json"}}, api::json_text(answer));
  });
  return ok_status();
}

Status inputs(pipeline::WorkerHub& hub, const pipeline::WorkerHub::Worker& worker,
              net::Request& request, net::Response& response) {
  QANAT_ASSIGN_OR_RETURN(const net::Query query, request.head().query());
  response.headers().set("Content-Type", std::string(api::kFileStreamType));
  bool started = false;
  api::FileStreamWriter out([&](std::string_view bytes) -> Status {
    // The header goes out with the first bytes, so that an error before them is an error status.
    if (!std::exchange(started, true)) QANAT_RETURN_IF_ERROR(response.start(200, std::nullopt));
    return response.write(bytes);
  });
  const Status status =
      hub.send_inputs(worker, query.get_or("job", ""), query.get_all("datum"), out);
  if (!status.ok()) {
    if (!started || !out.error(status).ok()) return status;
    // The stream says what is wrong; cut off, it would be taken for trouble on the way.
    log_if_serious("inputs", status);
    return response.finish();
  }
  QANAT_RETURN_IF_ERROR(out.finish());
  return response.finish();
}

Status results(pipeline::WorkerHub& hub, const pipeline::WorkerHub::Worker& worker,
               net::Request& request, net::Response& response) {
  QANAT_ASSIGN_OR_RETURN(const net::Query query, request.head().query());
  api::FileStreamReader in(
      [&request](char* buffer, size_t size) { return request.read(buffer, size); });
  // The answer comes when the reports are durable, together with those of other workers; no thread
  // waits for that. Who was told that it took too long sends them again: they are not taken twice.
  return hub.take_results(worker, query.get_or("job", ""), in, [&response] {
    net::DeferOptions options;
    options.timeout = net::Milliseconds(kDurableMs);
    const Status late = unavailable("results take long to become durable", "try again");
    options.timeout_status = net::http_status(late.code());
    options.timeout_headers = {{"Content-Type", "application/json"}};
    options.timeout_body = api::error_json(late);
    return [pending = response.defer(options)](const Result<api::ResultsAnswer>& answer) {
      const Status& status = answer.status();
      log_if_serious("results", status);
      pending->complete(status.ok() ? 200 : net::http_status(status.code()),
                        {{"Content-Type", "application/json"}},
                        status.ok() ? api::json_text(*answer) : api::error_json(status));
    };
  });
}

}  // namespace

Result<std::string> HttpWorkerGate::open(const pipeline::WorkerGroupId& group) {
  const std::string folder = str_cat(folder_, "/", sha256(to_string(group)).to_hex().substr(0, 16));
  MutexLock lock(mutex_);
  if (listeners_.contains(group)) return folder;
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(folder + "/run"));
  // User code of any uid passes through these to the worker's program; it finds nothing else here.
  for (const std::string& path : {folder, folder + "/run"}) {
    if (chmod(path.c_str(), 0711) != 0) return errno_status(errno, path);
  }
  QANAT_ASSIGN_OR_RETURN(const auto listener,
                         server_.listen_unix(
                             folder + "/run/worker.sock", 0600,
                             [this, group](net::Request& request, net::Response& response) {
                               handle(group, request, response);
                             },
                             /*descriptors=*/false));
  listeners_[group] = listener;
  return folder;
}

void HttpWorkerGate::close(const pipeline::WorkerGroupId& group) {
  std::optional<net::HttpServer::ListenerId> listener;
  {
    MutexLock lock(mutex_);
    const auto found = listeners_.find(group);
    if (found != listeners_.end()) {
      listener = found->second;
      listeners_.erase(found);
    }
  }
  if (listener) server_.remove_listener(*listener);
  // Not the whole folder: what the process runner knows of workers that are still ending lies there
  // too.
  FileSystem& files = posix_file_system();
  const std::string folder = str_cat(folder_, "/", sha256(to_string(group)).to_hex().substr(0, 16));
  (void)files.remove_tree(folder + "/run");
  (void)files.remove_tree(folder + "/bin");
  (void)files.remove_directory(folder + "/workers");
  (void)files.remove_directory(folder);
}

void HttpWorkerGate::handle(const pipeline::WorkerGroupId& group, net::Request& request,
                            net::Response& response) {
  const Status status = dispatch(group, request, response);
  if (status.ok()) return;
  log_if_serious(str_cat(group.pipeline, " ", request.head().path), status);
  answer_error(response, status);
}

Status HttpWorkerGate::dispatch(const pipeline::WorkerGroupId& group, net::Request& request,
                                net::Response& response) {
  pipeline::WorkerHub* hub = hub_;
  if (hub == nullptr) return unavailable("the server is starting");
  std::string allowed;
  QANAT_ASSIGN_OR_RETURN(const auto match,
                         api::match_route(request.head().method, request.head().path, &allowed));
  const std::string_view route = match.route->id;
  if (route == "worker_hello") {
    // User code reaches this socket, too: who is not expected does not keep a thread reading.
    const std::string credential(bearer_token(request.head()));
    if (!hub->expects(group, credential))
      return unauthenticated("the worker's credential is not known, or was used before");
    QANAT_ASSIGN_OR_RETURN(auto body, read_body<api::HelloRequest>(request));
    body.credential = credential;
    QANAT_ASSIGN_OR_RETURN(const auto answer, hub->hello(body));
    return send_json(response, api::json_text(answer));
  }
  if (match.route->right != api::Right::kWorker)
    return permission_denied("only workers are served here");
  QANAT_ASSIGN_OR_RETURN(const auto worker, hub->authenticate(bearer_token(request.head())));
  if (worker.group != group) return permission_denied("this is another group's worker");
  if (route == "worker_lease") return lease(*hub, worker, request, response);
  if (route == "worker_inputs") return inputs(*hub, worker, request, response);
  if (route == "worker_results") return results(*hub, worker, request, response);
  if (route == "worker_renew") {
    QANAT_ASSIGN_OR_RETURN(const auto body, read_body<api::RenewRequest>(request));
    return send_json(response, api::json_text(hub->renew(worker, body)));
  }
  if (route == "worker_logs") {
    QANAT_ASSIGN_OR_RETURN(const auto body, read_body<api::LogPush>(request));
    hub->add_logs(worker, body);
    return response.send(204, "");
  }
  return not_found("there is no such call");
}

}  // namespace qanat::serve
