// Tokens, the server itself, projects.

#include "qanat/api/address.h"
#include "qanat/api/routes.h"
#include "qanat/base/counters.h"
#include "qanat/base/name.h"
#include "qanat/base/string.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/http_api.h"

namespace qanat::serve {
namespace {

Status create_token(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::CreateTokenRequest>());
  QANAT_ASSIGN_OR_RETURN(const auto created, call.state.tokens->create(body, call.caller().name));
  return call.answer(created);
}

Status list_tokens(Call& call) {
  api::List<api::TokenInfo> list;
  QANAT_ASSIGN_OR_RETURN(list.items, call.state.tokens->list());
  list.revision = call.state.meta->current_revision();
  return call.answer(list);
}

Status delete_token(Call& call) {
  const auto token = call.state.tokens->remove(call.path("token"));
  if (!token.ok() && token.code() != Code::kNotFound) return token.status();
  // Also for one that is gone: a server that died between these two lines has left its pipelines
  // running.
  QANAT_ASSIGN_OR_RETURN(const auto stopped, call.state.pipelines->withdraw(
                                                 token.ok() ? token->name : call.path("token")));
  if (!token.ok() && stopped.empty()) return token.status();
  return call.answer_empty();
}

Status whoami(Call& call) {
  api::WhoAmI me;
  me.name = call.caller().name;
  me.scopes.assign(call.caller().scopes.begin(), call.caller().scopes.end());
  me.expires = call.caller().expires;
  return call.answer(me);
}

// As far as can be told: what forwards requests mostly has another address, or says so. (The client
// looks whether it finds this very server at the socket.)
bool is_on_this_machine(const Call& call) {
  const net::Headers& headers = call.request.head().headers;
  for (const char* forwarded : {"Via", "Forwarded", "X-Forwarded-For", "X-Real-IP"}) {
    if (headers.has(forwarded)) return false;
  }
  const std::string_view host = headers.get("Host");
  const std::string& own = call.state.host;
  const std::string& peer = call.request.peer();
  if (peer == "unix") return true;
  if (!peer.starts_with("127.") && !peer.starts_with("[::1]")) return false;
  return host == own || host == "localhost" + own.substr(std::min(own.rfind(':'), own.size()));
}

Status version(Call& call) {
  return call.answer(api::VersionInfo{call.state.version, "v1", call.state.runner,
                                      call.state.installation,
                                      is_on_this_machine(call) ? call.state.socket : ""});
}

Status openapi(Call& call) { return call.answer_json(api::openapi_document()); }

Status healthz(Call& call) { return call.response.send(200, "ok\n", "text/plain"); }

Status metrics(Call& call) {
  return call.response.send(200, metrics_text(), "text/plain; version=0.0.4");
}

Status list_projects(Call& call) {
  api::List<api::ProjectInfo> list;
  constexpr std::string_view kPrefix = "/v1/project/";
  QANAT_ASSIGN_OR_RETURN(const auto found, call.state.meta->range(meta::KeyRange::prefix(kPrefix)));
  list.revision = found.revision;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(const auto record,
                           version::decode<version::ProjectRecord>(item.key, item.value));
    const std::string name = item.key.substr(kPrefix.size());
    if (call.caller().may_enter(name))
      list.items.push_back({name, record.description, {record.created_ms}});
  }
  return call.answer(list);
}

Status create_project(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::ProjectInfo>());
  QANAT_RETURN_IF_ERROR(check_description(body.description));
  QANAT_RETURN_IF_ERROR(call.state.versions->create_project(body.name, body.description));
  QANAT_RETURN_IF_ERROR(call.state.pipelines->add_project(body.name));
  return call.answer(api::ProjectInfo{body.name, body.description, {call.state.clock->wall_ms()}});
}

}  // namespace

void add_server_handlers(Handlers& handlers) {
  handlers["create_token"] = create_token;
  handlers["list_tokens"] = list_tokens;
  handlers["delete_token"] = delete_token;
  handlers["whoami"] = whoami;
  handlers["version"] = version;
  handlers["openapi"] = openapi;
  handlers["healthz"] = healthz;
  handlers["metrics"] = metrics;
  handlers["list_projects"] = list_projects;
  handlers["create_project"] = create_project;
}

}  // namespace qanat::serve
