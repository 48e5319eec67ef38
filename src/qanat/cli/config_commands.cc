// The configuration file's contexts, and the version.

#include "qanat/api/tokens.h"
#include "qanat/base/string.h"
#include "qanat/cli/cli.h"
#include "qanat/cli/config.h"
#include "qanat/cli/version.h"

namespace qanat::cli {
namespace {

struct Arguments {
  std::string name;
  Context context;
};

}  // namespace

void add_config_commands(Cli& cli) {
  auto a = std::make_shared<Arguments>();
  cli.command("config", "set", "Keep a server and a token under a name, and use it")
      .argument("NAME", a->name, "Name of the context")
      .option("--address", a->context.server, "http://HOST:PORT or https://HOST")
      .option("--secret", a->context.token, "The token")
      .option("--default-project", a->context.project, "Project of names without one")
      .option("--ca-file", a->context.ca_file, "PEM file of the authority, for https")
      .run([a]() -> Status {
        if (a->context.server.empty()) return invalid_argument("--address is missing");
        QANAT_ASSIGN_OR_RETURN(Config config, load_config());
        config.contexts[a->name] = a->context;
        config.current = a->name;
        return save_config(config);
      });
  cli.command("config", "use", "Use a context from now on; - for none (the server on this machine)")
      .argument("NAME", a->name, "Name of the context, or -")
      .run([a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(Config config, load_config());
        if (a->name != "-" && !config.contexts.contains(a->name)) {
          return not_found(str_cat("there is no context ", quoted(a->name)),
                           "`qanat config list` shows the contexts there are");
        }
        config.current = a->name == "-" ? "" : a->name;
        return save_config(config);
      });
  cli.command("config", "delete", "Forget a context")
      .argument("NAME", a->name, "Name of the context")
      .run([a]() -> Status {
        QANAT_ASSIGN_OR_RETURN(Config config, load_config());
        if (config.contexts.erase(a->name) == 0)
          return not_found(str_cat("there is no context ", quoted(a->name)));
        if (config.current == a->name) config.current.clear();
        return save_config(config);
      });
  cli.command("config", "list", "List the contexts").run([]() -> Status {
    QANAT_ASSIGN_OR_RETURN(const Config config, load_config());
    std::vector<std::vector<std::string>> rows;
    for (const auto& [name, context] : config.contexts) {
      rows.push_back({name == config.current ? "*" : "", name, context.server,
                      context.project.empty() ? "default" : context.project});
    }
    print_table({"", "NAME", "SERVER", "PROJECT"}, rows);
    return ok_status();
  });
  cli.command("version", "", "Show the versions of this program and of the server")
      .run([&cli]() -> Status {
        std::puts(str_cat("qanat   ", kVersion).c_str());
        QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
        QANAT_ASSIGN_OR_RETURN(const auto version, server->get<api::VersionInfo>("version", {}));
        std::puts(str_cat("server  ", version.version, " at ", server->server(), ", runner ",
                          version.runner)
                      .c_str());
        return ok_status();
      });
}

}  // namespace qanat::cli
