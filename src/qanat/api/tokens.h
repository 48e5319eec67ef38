// Bodies about tokens and the server itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/list.h"
#include "qanat/api/time.h"

namespace qanat::api {

struct TokenInfo {
  std::string id;
  std::string name;
  std::vector<std::string> scopes;
  Timestamp created;
  std::string created_by;
  Timestamp expires;
};
template <class V>
void describe(V& v, TokenInfo& t) {
  v.type("TokenInfo", "A token, without its secret.");
  v.required("id", t.id, "Names it, for deleting it.");
  v.required("name", t.name, "What it is for.");
  v.required("scopes", t.scopes,
             "admin, reader:REPO, writer:REPO, operator:PIPELINE, network-host; * for all names.");
  v.required("created", t.created, "When it was created.");
  v.optional("created_by", t.created_by, "Name of the token it was created with.");
  v.optional("expires", t.expires, "When it ends; absent: never.");
}

struct CreateTokenRequest {
  std::string name;
  std::vector<std::string> scopes;
  Timestamp expires;
};
template <class V>
void describe(V& v, CreateTokenRequest& t) {
  v.type("CreateTokenRequest", "Creates a token.");
  v.required("name", t.name, "What it is for.");
  v.required("scopes", t.scopes,
             "admin, reader:REPO, writer:REPO, operator:PIPELINE, network-host; * for all names.");
  v.optional("expires", t.expires, "When it ends; absent: never.");
}

struct CreateTokenResponse {
  std::string token;
  TokenInfo info;
};
template <class V>
void describe(V& v, CreateTokenResponse& t) {
  v.type("CreateTokenResponse", "A new token.");
  v.required("token", t.token, "The secret. It is shown this once.");
  v.required("info", t.info, "The token.");
}

struct WhoAmI {
  std::string name;
  std::vector<std::string> scopes;
  Timestamp expires;
};
template <class V>
void describe(V& v, WhoAmI& t) {
  v.type("WhoAmI", "The token this request was made with.");
  v.required("name", t.name, "Its name.");
  v.required("scopes", t.scopes, "What it may do.");
  v.optional("expires", t.expires, "When it ends.");
}

struct VersionInfo {
  std::string version;
  std::string api;
  std::string runner;
  std::string installation;
  std::string socket;
};
template <class V>
void describe(V& v, VersionInfo& t) {
  v.type("VersionInfo", "The server.");
  v.required("version", t.version, "Version of Qanat.");
  v.required("api", t.api, "Version of this API: v1.");
  v.optional("runner", t.runner, "Where workers run: docker or process.");
  v.optional("installation", t.installation, "Id of the installation.");
  v.optional(
      "socket", t.socket,
      "The server's Unix socket, for who asks on its machine under its own address: the same "
      "API, and open files can be passed.");
}

}  // namespace qanat::api
