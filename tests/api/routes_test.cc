#include "qanat/api/routes.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "qanat/api/error.h"
#include "qanat/api/types.h"

namespace qanat::api {
namespace {

using net::Method;

TEST(RoutesTest, TableIsSound) {
  std::set<std::string> ids;
  std::set<std::string> targets;
  for (const Route& route : routes()) {
    std::string id(route.id);
    EXPECT_TRUE(ids.insert(id).second) << id << " occurs twice";
    std::string target =
        std::string(net::method_name(route.method)) + " " + std::string(route.path);
    EXPECT_TRUE(targets.insert(target).second) << target << " occurs twice";
    EXPECT_FALSE(route.summary.empty()) << id;
    EXPECT_EQ(route.request_kind == BodyKind::kJson, route.request_type != nullptr) << id;
    if (route.response_kind == BodyKind::kJson) {
      EXPECT_NE(route.response_type, nullptr) << id;
    }
    if (route.right == Right::kReader || route.right == Right::kWriter ||
        route.right == Right::kOperator || route.right == Right::kObserver) {
      std::string parameter(route.right_parameter);
      bool in_path = route.path.find("{" + parameter + "}") != std::string_view::npos;
      bool in_query = false;
      for (const QueryParameter& p : route.query) in_query |= p.name == parameter && p.required;
      EXPECT_TRUE(in_path || in_query) << id << " does not name what its right is about";
    }
    if (route.right == Right::kPublic) {
      EXPECT_TRUE(id == "openapi" || id == "healthz" || id == "worker_hello") << id << " is open";
    }
  }
}

TEST(RoutesTest, PathsOfAllRoutesMatchThemselves) {
  for (const Route& route : routes()) {
    std::map<std::string, std::string, std::less<>> parameters;
    for (const char* name : {"project", "repo", "branch", "ref", "wave", "pipeline", "job", "datum",
                             "token", "upload", "commit"}) {
      parameters[name] = std::string("va/l %") + name;
    }
    parameters["path"] = "a b/c%/d";
    auto match = match_route(route.method, route_path(route.id, parameters), nullptr);
    ASSERT_TRUE(match.ok()) << route.id << ": " << match.status().to_string();
    EXPECT_EQ(match->route->id, route.id);
    for (auto& [name, value] : match->parameters) EXPECT_EQ(value, parameters[name]) << route.id;
  }
}

TEST(RoutesTest, Matching) {
  std::string allowed;
  auto id = [&](Method method, const char* path) -> std::string {
    auto match = match_route(method, path, &allowed);
    return match.ok() ? std::string(match->route->id) : std::string(code_name(match.code()));
  };
  EXPECT_EQ(id(Method::kGet, "/api/v1/projects/default/repos"), "list_repos");
  EXPECT_EQ(id(Method::kGet, "/api/v1/projects/default/repos/x/files/a/b"), "get_file");
  EXPECT_EQ(id(Method::kHead, "/api/v1/projects/default/repos/x/files/a"), "get_file");
  EXPECT_EQ(id(Method::kPost, "/api/v1/projects/default/pipelines:validate"), "validate_pipelines");
  EXPECT_EQ(id(Method::kGet, "/api/v1/projects/default/repos/"), "not_found");
  EXPECT_EQ(id(Method::kGet, "/api/v1/nothing"), "not_found");
  EXPECT_EQ(id(Method::kGet, "/api/v1/projects/default/repos/%zz"), "invalid_argument");
  EXPECT_EQ(id(Method::kDelete, "/api/v1/projects/default/repos"), "failed_precondition");
  EXPECT_EQ(allowed, "POST, GET");
}

TEST(RoutesTest, OpenApiDocumentIsWhole) {
  auto document = nlohmann::json::parse(openapi_document());
  EXPECT_EQ(document["openapi"], "3.1.0");
  size_t operations = 0;
  for (auto& [path, item] : document["paths"].items()) {
    EXPECT_EQ(path.find("..."), std::string::npos) << path;
    for (auto& [method, operation] : item.items()) {
      ++operations;
      std::set<std::string> named;
      if (operation.contains("parameters")) {
        for (auto& parameter : operation["parameters"]) {
          if (parameter["in"] == "path") named.insert(parameter["name"]);
        }
      }
      for (size_t at = path.find('{'); at != std::string::npos; at = path.find('{', at + 1)) {
        EXPECT_TRUE(named.contains(path.substr(at + 1, path.find('}', at) - at - 1))) << path;
      }
    }
  }
  size_t expected = 0;
  for (const Route& route : routes()) expected += route.path.starts_with("/worker/") ? 0 : 1;
  EXPECT_EQ(operations, expected);
  // Every reference leads somewhere.
  const std::string& text = openapi_document();
  std::string marker = "\"#/components/schemas/";
  for (size_t at = text.find(marker); at != std::string::npos; at = text.find(marker, at + 1)) {
    size_t begin = at + marker.size();
    std::string name = text.substr(begin, text.find('"', begin) - begin);
    EXPECT_TRUE(document["components"]["schemas"].contains(name)) << name;
    EXPECT_NE(document["components"]["schemas"][name], nlohmann::json::object()) << name;
  }
}

TEST(ErrorTest, RoundTrip) {
  Status status = not_found("repo \"a\" does not exist", "create it");
  Status back = status_from_answer(404, error_json(status));
  EXPECT_EQ(back.code(), status.code());
  EXPECT_EQ(back.message(), status.message());
  EXPECT_EQ(back.hint(), status.hint());
  EXPECT_EQ(status_from_answer(502, "<html>").code(), Code::kUnavailable);
  EXPECT_EQ(status_from_answer(502, "<html>").message(), "the server answered 502 Bad Gateway");
  EXPECT_EQ(status_from_answer(200, "").code(), Code::kInternal);
}

}  // namespace
}  // namespace qanat::api
