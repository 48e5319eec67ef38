// The configuration file of the command line: named contexts (a server and a token each).
//
// ~/.config/qanat/config.json ($XDG_CONFIG_HOME), readable by its owner only because it holds
// tokens.
#pragma once

#include <map>
#include <string>

#include "qanat/api/describe.h"
#include "qanat/base/status.h"

namespace qanat::cli {

struct Context {
  std::string server;
  std::string token;
  std::string project;  // default of --project
  std::string ca_file;  // for https with a private authority
};
template <class V>
void describe(V& v, Context& t) {
  v.type("Context", "");
  v.required("server", t.server, "");
  v.optional("token", t.token, "");
  v.optional("project", t.project, "");
  v.optional("ca_file", t.ca_file, "");
}

struct Config {
  std::string current;
  std::map<std::string, Context> contexts;
};
template <class V>
void describe(V& v, Config& t) {
  v.type("Config", "");
  v.optional("current", t.current, "");
  v.optional("contexts", t.contexts, "");
}

// An absent file is an empty configuration; a damaged one is an error naming it.
Result<Config> load_config();
Status save_config(const Config& config);

}  // namespace qanat::cli
