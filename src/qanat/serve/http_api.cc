#include "qanat/serve/http_api.h"

#include <set>

#include "qanat/api/address.h"
#include "qanat/api/error.h"
#include "qanat/base/counters.h"
#include "qanat/base/log.h"
#include "qanat/base/name.h"
#include "qanat/base/string.h"
#include "qanat/serve/maintenance.h"
#include "qanat/version/keys.h"

namespace qanat::serve {
namespace {

constexpr auto kRevisionTimeout = std::chrono::milliseconds(10'000);

// What a paused installation refuses. Tokens stay in the hands of admins, so that a leaked one can
// be deleted at any time.
bool changes_something(const api::Route& route) {
  if (route.method == net::Method::kGet || route.method == net::Method::kHead) return false;
  static const std::set<std::string_view> harmless = {"validate_pipelines", "pause", "resume",
                                                      "upload_have", "delete_token"};
  return !harmless.contains(route.id);
}

// What the route does not know would be ignored, and something else done than was asked for.
Status check_query(const api::Route& route, const net::Query& query) {
  for (const auto& [name, value] : query.parameters()) {
    const auto is_it = [&name = name](const api::QueryParameter& p) { return p.name == name; };
    if (std::any_of(route.query.begin(), route.query.end(), is_it)) continue;
    std::vector<std::string> known;
    for (const api::QueryParameter& parameter : route.query) known.emplace_back(parameter.name);
    const std::string near = api::closest_name(name, known);
    return invalid_argument(str_cat("there is no query parameter ", quoted(name), " here"),
                            !near.empty()   ? str_cat("did you mean ", near, "?")
                            : known.empty() ? "this path takes none"
                                            : str_cat("this path takes ", join(known, ", ")));
  }
  return ok_status();
}

}  // namespace

std::string_view bearer_token(const net::RequestHead& head) {
  const std::string_view value = head.headers.get("Authorization");
  constexpr std::string_view kScheme = "Bearer ";
  return value.size() > kScheme.size() &&
                 equal_ignoring_case(value.substr(0, kScheme.size()), kScheme)
             ? trim(value.substr(kScheme.size()))
             : std::string_view();
}

void answer_error(net::Response& response, const Status& status) {
  // Once the answer has begun, cutting the connection is the only way left to say that it is not
  // whole.
  if (response.started()) return;
  if (status.code() == Code::kUnauthenticated) response.headers().set("WWW-Authenticate", "Bearer");
  (void)response.send(net::http_status(status.code()), api::error_json(status), "application/json");
}

HttpApi::HttpApi(State& state) : state_(state) {
  add_repo_handlers(handlers_);
  add_file_handlers(handlers_);
  add_edit_handlers(handlers_);
  add_upload_handlers(handlers_);
  add_wave_handlers(handlers_);
  add_pipeline_handlers(handlers_);
  add_job_handlers(handlers_);
  add_server_handlers(handlers_);
  add_gc_handlers(handlers_);
  add_fsck_handlers(handlers_);
}

std::vector<std::string> HttpApi::missing() const {
  std::vector<std::string> missing;
  for (const api::Route& route : api::routes()) {
    if (!route.path.starts_with("/worker/") && !handlers_.contains(route.id))
      missing.emplace_back(route.id);
  }
  return missing;
}

namespace {

class RunningRequest {
 public:
  RunningRequest() { all().add(1); }
  ~RunningRequest() { all().add(-1); }
  RunningRequest(const RunningRequest&) = delete;
  RunningRequest& operator=(const RunningRequest&) = delete;

 private:
  static Gauge& all() {
    static Gauge& running = gauge("qanat_api_requests_running",
                                  "Requests to the API that a thread is working on, this one too");
    return running;
  }
};

}  // namespace

void HttpApi::handle(net::Request& request, net::Response& response) {
  static Counter& requests = counter("qanat_api_requests_total", "Requests to the API");
  static Counter& failures =
      counter("qanat_api_errors_total", "Requests to the API that were answered with an error");
  const RunningRequest running;
  requests.add();
  const Status status = dispatch(request, response);
  if (status.ok()) return;
  failures.add();
  if (status.code() == Code::kInternal || status.code() == Code::kDataLoss) {
    log_error(
        "request failed",
        {{"method", request.head().method_text}, {"path", request.head().path}, {"error", status}});
  }
  answer_error(response, status);
}

Status HttpApi::authorize(const api::RouteMatch& match, const net::Query& query,
                          const Caller& caller) const {
  const api::Route& route = *match.route;
  auto value = [&](std::string_view name) {
    const auto found = match.parameters.find(name);
    return found != match.parameters.end() ? found->second : query.get_or(name, "");
  };
  const std::string project = value("project");
  const std::string name = route.right_parameter.empty() ? "" : value(route.right_parameter);
  const std::string named = qualified(project, name);
  switch (route.right) {
    case api::Right::kPublic:
    case api::Right::kToken:
      return ok_status();
    case api::Right::kReader:
      return caller.may_read(project, name) ? ok_status() : denied(caller, "reader:" + named);
    case api::Right::kWriter:
      return caller.may_write(project, name) ? ok_status() : denied(caller, "writer:" + named);
    case api::Right::kOperator:
      return caller.may_operate(project, name) ? ok_status() : denied(caller, "operator:" + named);
    case api::Right::kObserver:
      return caller.may_observe(project, name)
                 ? ok_status()
                 : denied(caller, str_cat("operator:", named, " or reader:", named));
    case api::Right::kAdmin:
      return caller.is_admin() ? ok_status() : denied(caller, "admin");
    case api::Right::kWorker:
      break;
  }
  return permission_denied("workers are served on their own socket only");
}

// A list of what is in a project that does not exist would be empty, and hide the mistake in its
// name. Who may do nothing in a project is not told whether it exists.
Status HttpApi::check_project(const api::RouteMatch& match, const Caller& caller) const {
  const auto project = match.parameters.find("project");
  if (project == match.parameters.end() || match.parameters.size() > 1 ||
      project->second == api::kDefaultProject) {
    return ok_status();
  }
  const std::string& name = project->second;
  QANAT_RETURN_IF_ERROR(check_project_name(name));
  if (!caller.may_enter(name)) {
    return not_found(str_cat("project ", name, " does not exist, or the token ", caller.name,
                             " may do nothing in it"));
  }
  QANAT_ASSIGN_OR_RETURN(const auto found, state_.meta->get(version::project_key(name)));
  if (found) return ok_status();
  return not_found(str_cat("project ", name, " does not exist"),
                   str_cat("`qanat list project` shows those there are; `qanat create project ",
                           name, "` makes it"));
}

Status HttpApi::dispatch(net::Request& request, net::Response& response) {
  const net::RequestHead& head = request.head();
  std::string allowed;
  auto match = api::match_route(head.method, head.path, &allowed);
  if (!match.ok()) {
    if (!allowed.empty()) response.headers().set("Allow", allowed);
    if (match.code() == Code::kFailedPrecondition) {
      (void)response.send(405, api::error_json(match.status()), "application/json");
      return ok_status();
    }
    return match.status();
  }
  QANAT_ASSIGN_OR_RETURN(net::Query query, head.query());
  static const auto nobody = std::make_shared<const Caller>();
  std::shared_ptr<const Caller> caller = nobody;
  if (match->route->right != api::Right::kPublic) {
    QANAT_ASSIGN_OR_RETURN(caller, state_.tokens->authenticate(bearer_token(head)));
    QANAT_RETURN_IF_ERROR(authorize(*match, query, *caller));
    QANAT_RETURN_IF_ERROR(check_query(*match->route, query));
    QANAT_RETURN_IF_ERROR(check_project(*match, *caller));
  }
  if (const std::string_view coding = head.headers.get("Content-Encoding");
      !coding.empty() && !equal_ignoring_case(coding, "identity")) {
    (void)response.send(
        415,
        api::error_json(invalid_argument(
            str_cat("the body has the Content-Encoding ", quoted(coding), ", which is not undone"),
            "send it as it is")),
        "application/json");
    return ok_status();
  }
  if (head.method == net::Method::kPut && head.headers.has("Content-Range")) {
    return invalid_argument("a PUT with a Content-Range would write the part as if it were all",
                            "send the whole, or append with ?append=true");
  }
  if (state_.maintenance != nullptr && changes_something(*match->route)) {
    QANAT_RETURN_IF_ERROR(state_.maintenance->check_writable());
  }
  if (const std::string_view revision = head.headers.get("Qanat-Revision"); !revision.empty()) {
    QANAT_ASSIGN_OR_RETURN(const int64_t wanted, parse_i64(revision));
    QANAT_RETURN_IF_ERROR(state_.meta->wait_revision(wanted, kRevisionTimeout));
  }
  const auto handler = handlers_.find(match->route->id);
  if (handler == handlers_.end())
    return not_found(str_cat("nothing is served at ", head.path, " here"));
  Call call(state_, request, response, *std::move(match), std::move(query), std::move(caller));
  return handler->second(call);
}

}  // namespace qanat::serve
