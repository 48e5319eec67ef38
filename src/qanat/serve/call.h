// Call: one request to the API, as its handler sees it: matched to its route, authenticated, and
// allowed what the route asks for.
//
// A handler answers through it, or gives back an error that becomes the answer. Used by one thread,
// until the handler returns.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "qanat/api/describe.h"
#include "qanat/api/list.h"
#include "qanat/api/routes.h"
#include "qanat/base/status.h"
#include "qanat/net/http_server.h"
#include "qanat/serve/state.h"
#include "qanat/serve/tokens.h"

namespace qanat::serve {

class Call {
 public:
  Call(State& state, net::Request& request, net::Response& response, api::RouteMatch match,
       net::Query query, std::shared_ptr<const Caller> caller)
      : state(state),
        request(request),
        response(response),
        caller_(std::move(caller)),
        match_(std::move(match)),
        query_(std::move(query)) {}

  State& state;
  net::Request& request;
  net::Response& response;

  const api::Route& route() const { return *match_.route; }
  const Caller& caller() const { return *caller_; }
  std::shared_ptr<const Caller> shared_caller() const { return caller_; }
  const net::Query& query() const { return query_; }
  // A parameter of the path; "" if the route has none of that name.
  std::string path(std::string_view name) const;
  std::string project() const { return path("project"); }
  std::string query_or(std::string_view name, std::string_view otherwise = {}) const {
    return query_.get_or(name, otherwise);
  }
  Result<std::string> required(std::string_view name) const;
  // `page` and `limit` of a list.
  Result<version::PageRequest> page() const;

  // The body as a T; an empty body is a default T.
  template <class T>
  Result<T> body(size_t limit = 1 << 20) {
    QANAT_ASSIGN_OR_RETURN(const std::string text, request.read_all(limit));
    if (text.empty()) return T{};
    return api::parse_json<T>(text);
  }

  // Keeps the connection for events, until the caller's token is deleted or expires.
  std::shared_ptr<net::EventStream> stream(net::StreamOptions options = {});

  template <class T>
  Status answer(const T& value) {
    return answer_json(api::json_text(value));
  }
  Status answer_json(const std::string& text);
  Status answer_empty();

 private:
  std::shared_ptr<const Caller> caller_;
  api::RouteMatch match_;
  net::Query query_;
};

// For what goes on in a stream once it has begun: if it could not, the stream says why and ends.
Status begun(net::EventStream& stream, const Status& status);

// kPermissionDenied, saying what is missing.
Status denied(const Caller& caller, std::string_view scope);

}  // namespace qanat::serve
