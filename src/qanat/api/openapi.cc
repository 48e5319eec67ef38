// The OpenAPI document, from the table of routes and the descriptions of the bodies.
#include <algorithm>

#include "qanat/api/error.h"
#include "qanat/api/routes.h"
#include "qanat/base/string.h"

namespace qanat::api {
namespace {

using net::Method;

std::string json_string(std::string_view text) { return json_text(std::string(text)); }

std::string_view media_type(BodyKind kind) {
  switch (kind) {
    case BodyKind::kJson:
      return "application/json";
    case BodyKind::kBytes:
      return "application/octet-stream";
    case BodyKind::kFileStream:
      return "application/vnd.qanat.file-stream";
    case BodyKind::kEvents:
      return "text/event-stream";
    case BodyKind::kText:
      return "text/plain";
    case BodyKind::kNone:
      break;
  }
  return "";
}

std::string content(BodyKind kind, const Type& (*type)(),
                    std::map<std::string, std::string>& schemas) {
  std::string schema = R"({"type":"string"})";
  if (type != nullptr) {
    schema = schema_text(type(), schemas);
  } else if (kind == BodyKind::kBytes || kind == BodyKind::kFileStream) {
    schema = R"({"type":"string","format":"binary"})";
  }
  return str_cat("\"content\":{", json_string(media_type(kind)), ":{\"schema\":", schema, "}}");
}

std::string parameter_json(std::string_view name, std::string_view where, bool required,
                           std::string_view type, std::string_view doc) {
  std::string out = str_cat("{\"name\":", json_string(name), ",\"in\":", json_string(where));
  if (required) out += ",\"required\":true";
  if (!doc.empty()) str_append(out, ",\"description\":", json_string(doc));
  str_append(out, ",\"schema\":{\"type\":", json_string(type), "}}");
  return out;
}

std::string right_text(const Route& route) {
  switch (route.right) {
    case Right::kPublic:
      return "Needs no token.";
    case Right::kToken:
      return "Needs a token.";
    case Right::kReader:
      return "Needs reader of the repo.";
    case Right::kWriter:
      return "Needs writer of the repo.";
    case Right::kOperator:
      return "Needs operator of the pipeline.";
    case Right::kObserver:
      return "Needs operator of the pipeline, or reader of its output repo.";
    case Right::kAdmin:
      return "Needs admin.";
    case Right::kWorker:
      return "For workers.";
  }
  return "";
}

// "/a/{b}/{c...}" -> the path as OpenAPI spells it, and the parameters' names.
std::string openapi_path(std::string_view pattern, std::vector<std::string>& names) {
  std::string out;
  for (std::string_view part : split(pattern.substr(1), '/')) {
    if (part.starts_with('{')) {
      size_t end = part.find_first_of(".}");
      names.emplace_back(part.substr(1, end - 1));
      str_append(out, "/{", names.back(), "}");
    } else {
      str_append(out, "/", part);
    }
  }
  return out;
}

std::string operation(const Route& route, const std::vector<std::string>& names,
                      std::map<std::string, std::string>& schemas) {
  std::string description = right_text(route);
  if (!route.note.empty()) str_append(description, " ", route.note);
  std::string out = str_cat("{\"operationId\":", json_string(route.id),
                            ",\"summary\":", json_string(route.summary),
                            ",\"description\":", json_string(description));
  if (route.right == Right::kPublic) out += ",\"security\":[]";
  std::string parameters;
  auto add = [&parameters](const std::string& text) {
    str_append(parameters, parameters.empty() ? "" : ",", text);
  };
  for (const std::string& name : names) add(parameter_json(name, "path", true, "string", ""));
  for (const QueryParameter& p : route.query) {
    add(parameter_json(p.name, "query", p.required, p.type, p.doc));
  }
  if (!parameters.empty()) str_append(out, ",\"parameters\":[", parameters, "]");
  if (route.request_kind != BodyKind::kNone) {
    str_append(out, ",\"requestBody\":{\"required\":true,",
               content(route.request_kind, route.request_type, schemas), "}");
  }
  str_append(out, ",\"responses\":{\"", route.success, "\":{\"description\":\"Done.\"");
  if (route.response_kind != BodyKind::kNone) {
    str_append(out, ",", content(route.response_kind, route.response_type, schemas));
  }
  out += "},\"default\":{\"$ref\":\"#/components/responses/Error\"}}}";
  return out;
}

std::string_view lower_method(Method method) {
  switch (method) {
    case Method::kGet:
      return "get";
    case Method::kPost:
      return "post";
    case Method::kPut:
      return "put";
    case Method::kDelete:
      return "delete";
    default:
      return "patch";
  }
}

std::string make_openapi() {
  std::map<std::string, std::string> schemas;
  std::string error = schema_text(type_of<ErrorBody>(), schemas);
  // Path -> operations, in the order of the table.
  std::vector<std::pair<std::string, std::string>> paths;
  for (const Route& route : routes()) {
    if (route.path.starts_with("/worker/")) continue;
    std::vector<std::string> names;
    std::string path = openapi_path(route.path, names);
    std::string text =
        str_cat("\"", lower_method(route.method), "\":", operation(route, names, schemas));
    auto found = std::find_if(paths.begin(), paths.end(),
                              [&path](const auto& entry) { return entry.first == path; });
    if (found == paths.end()) {
      paths.emplace_back(path, text);
    } else {
      str_append(found->second, ",", text);
    }
  }
  std::string out =
      R"({"openapi":"3.1.0","info":{"title":"Qanat","version":"1","description":"Versioned data and containerised pipelines. Every answer carries the header Qanat-Revision; a request with that header waits until the server has that revision.","license":{"name":"Apache-2.0","identifier":"Apache-2.0"}},"security":[{"token":[]}],"paths":{)";
  const char* separator = "";
  for (auto& [path, operations] : paths) {
    str_append(out, separator, json_string(path), ":{", operations, "}");
    separator = ",";
  }
  str_append(
      out, R"(},"components":{"securitySchemes":{"token":{"type":"http","scheme":"bearer"}},)",
      R"("responses":{"Error":{"description":"An error.","content":{"application/json":{"schema":)",
      error, R"(}}}},"schemas":{)");
  separator = "";
  for (auto& [name, schema] : schemas) {
    str_append(out, separator, json_string(name), ":", schema);
    separator = ",";
  }
  out += "}}}";
  return out;
}

}  // namespace

const std::string& openapi_document() {
  static const auto* const kDocument = new std::string(make_openapi());
  return *kDocument;
}

}  // namespace qanat::api
