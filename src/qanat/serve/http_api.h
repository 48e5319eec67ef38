// HttpApi: answers requests by api/routes.h. Finds the route, the caller and whether it may, waits
// for the revision that the request names, calls the handler, and turns its error into an answer.
//
// Thread safe; handlers run on the server's pool threads.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "qanat/net/http_server.h"
#include "qanat/serve/call.h"
#include "qanat/serve/state.h"

namespace qanat::serve {

using RouteHandler = std::function<Status(Call&)>;
using Handlers = std::map<std::string_view, RouteHandler>;

// The handlers of a group of routes, by route id; a file each.
void add_repo_handlers(Handlers& handlers);
void add_file_handlers(Handlers& handlers);
void add_edit_handlers(Handlers& handlers);
void add_upload_handlers(Handlers& handlers);
void add_wave_handlers(Handlers& handlers);
void add_pipeline_handlers(Handlers& handlers);
void add_job_handlers(Handlers& handlers);
void add_server_handlers(Handlers& handlers);
void add_gc_handlers(Handlers& handlers);
void add_fsck_handlers(Handlers& handlers);

class HttpApi {
 public:
  // `state` outlives it.
  explicit HttpApi(State& state);
  void handle(net::Request& request, net::Response& response);

  // Routes of the table without a handler (for the test that there is none), worker routes apart.
  std::vector<std::string> missing() const;

 private:
  Status dispatch(net::Request& request, net::Response& response);
  Status check_project(const api::RouteMatch& match, const Caller& caller) const;
  Status authorize(const api::RouteMatch& match, const net::Query& query,
                   const Caller& caller) const;

  State& state_;
  Handlers handlers_;
};

// Answers with a Status as the API does.
void answer_error(net::Response& response, const Status& status);
// "Bearer x" -> "x".
std::string_view bearer_token(const net::RequestHead& head);

}  // namespace qanat::serve
