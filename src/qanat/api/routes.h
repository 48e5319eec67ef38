// The one table of the HTTP API: what the server dispatches on, what it asks of a token, and what
// the OpenAPI document says.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/base/status.h"
#include "qanat/net/http.h"

namespace qanat::api {

// What a request needs. Except for kPublic a valid token always.
enum class Right {
  kPublic,    // no token
  kToken,     // any valid token; the handler filters what it shows or checks more (see Route::note)
  kReader,    // reader of the repo named by `right_parameter`
  kWriter,    // writer of it
  kOperator,  // operator of the pipeline named by it
  kObserver,  // operator of the pipeline, or reader of its output repo (same name): sees jobs; and
              // if it may read the inputs, datums and logs
  kAdmin,
  kWorker,  // a worker's token, on a worker's socket
};

enum class BodyKind { kNone, kJson, kBytes, kFileStream, kEvents, kText };

struct QueryParameter {
  std::string_view name;
  std::string_view type;  // "string", "integer", "boolean"
  std::string_view doc;
  bool required = false;
};

struct Route {
  std::string_view id;  // OpenAPI's operationId, and the key handlers are registered by
  net::Method method = net::Method::kGet;
  std::string_view
      path;  // "{name}" is one segment; "{path...}" the rest, slashes included, may be empty
  std::string_view summary;
  Right right = Right::kToken;
  std::string_view right_parameter;  // "repo" or "pipeline": a path or query parameter
  BodyKind request_kind = BodyKind::kNone;
  const Type& (*request_type)() = nullptr;  // of a JSON body
  BodyKind response_kind = BodyKind::kJson;
  const Type& (*response_type)() = nullptr;  // of a JSON body, or of the data of each event
  int success = 200;
  std::vector<QueryParameter> query;
  std::string_view note;
};

// All routes, the worker's included (those are left out of the OpenAPI document).
const std::vector<Route>& routes();

struct RouteMatch {
  const Route* route = nullptr;
  std::map<std::string, std::string, std::less<>> parameters;  // decoded
};

// kNotFound when no path fits; kFailedPrecondition when the path exists but not with this method
// (`allowed` lists those it has, for 405); kInvalidArgument for bad percent-coding. HEAD matches
// GET.
Result<RouteMatch> match_route(net::Method method, std::string_view path, std::string* allowed);
const Route* find_route(std::string_view id);

// Fills a template: parameters are percent-encoded. For clients.
std::string route_path(std::string_view id,
                       const std::map<std::string, std::string, std::less<>>& parameters);

// The OpenAPI 3.1 document, as JSON text. Computed once.
const std::string& openapi_document();

}  // namespace qanat::api
