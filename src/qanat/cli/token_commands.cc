// Tokens and who one is.

#include "qanat/api/tokens.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string name;
  std::vector<std::string> scopes;
  std::string expires;
};

// A scope whose name has no project means one of --project, as every other name does.
Result<std::string> in_project(const Cli& cli, const std::string& scope) {
  const auto [kind, name] = split_once(scope, ':');
  if (name.empty()) return scope;  // admin and the like, or what the server refuses
  if (name == "*") {
    if (cli.project() == api::kDefaultProject) return scope;
    return invalid_argument(
        str_cat(scope, " is of all projects, not only of ", cli.project()),
        "name them, such as reader:orders; or say --project default if all projects are meant");
  }
  QANAT_ASSIGN_OR_RETURN(const api::Address address, cli.name(std::string(name)));
  return str_cat(kind, ":", address.to_string());
}

}  // namespace

void add_token_commands(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("create", "token",
              "Create a token that may do only what its scopes say; prints it, once")
      .argument("NAME", a->name, "What it is for")
      .option("-s,--scope", a->scopes,
              "admin, reader:REPO, writer:REPO, operator:PIPELINE or network-host; a name of "
              "another project than --project's is PROJECT/NAME; * for all names of all projects; "
              "may be repeated")
      .option("--expires", a->expires, "RFC 3339 time at which it ends")
      .example("qanat create token sales --scope reader:report")
      .example("qanat create token planner --scope reader:sales/report --scope writer:plans")
      .run([&cli, a]() -> Status {
        if (a->scopes.empty()) {
          return invalid_argument("a token without scopes could do nothing",
                                  "give at least one --scope, such as reader:orders");
        }
        api::CreateTokenRequest request{a->name, {}, {}};
        for (const std::string& scope : a->scopes) {
          QANAT_ASSIGN_OR_RETURN(request.scopes.emplace_back(), in_project(cli, scope));
        }
        if (!a->expires.empty()) {
          QANAT_ASSIGN_OR_RETURN(request.expires, api::parse_timestamp(a->expires));
        }
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto created,
                               server->send<api::CreateTokenResponse>("create_token", {}, request));
        std::puts(created.token.c_str());
        return ok_status();
      });
  cli.command("list", "token", "List tokens (never their secrets)")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto tokens,
                               server->list<api::List<api::TokenInfo>>("list_tokens", {}));
        return print_list<api::TokenInfo>(
            format, tokens,
            {{"NAME", [](const api::TokenInfo& t) { return t.name; }},
             {"SCOPES", [](const api::TokenInfo& t) { return join(t.scopes, ","); }},
             {"CREATED", [](const api::TokenInfo& t) { return show_age(t.created.ms); }},
             {"EXPIRES",
              [](const api::TokenInfo& t) {
                return t.expires.ms == 0 ? "never" : show_time(t.expires.ms);
              }},
             {"ID", [](const api::TokenInfo& t) { return t.id; }, true}},
            [](const api::TokenInfo& t) { return t.name; });
      });
  cli.command("delete", "token",
              "Withdraw a token, and the rights that pipelines got from it: those pipelines stop")
      .argument("NAME", a->name, "The token's name or id")
      .run([&cli, a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        return server->call("delete_token", {{"token", a->name}}).status();
      });
  cli.command("whoami", "", "Show what the token in use may do")
      .option("-o,--output", cli.output(), kFormatHelp)
      .run([&cli]() -> Status {
        QANAT_ASSIGN_OR_RETURN(const Format format, cli.format());
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto me, server->get<api::WhoAmI>("whoami", {}));
        return print_item(format, me,
                          {{"Token", me.name},
                           {"Scopes", join(me.scopes, ", ")},
                           {"Server", str_cat(server->server(), " (", server->origin(), ")")}},
                          me.name);
      });
}

}  // namespace qanat::cli
