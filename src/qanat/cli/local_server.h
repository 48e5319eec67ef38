// How a command on the same machine finds the server that this user started.
//
// A server writes one small file when it is ready and removes it when it stops:
// $XDG_STATE_HOME/qanat/server.json (~/.local/state/qanat), readable by its owner only, with its
// address and its data folder, where the first token lies (DIR/token). A file left by a server that
// died is noticed by its process id.
#pragma once

#include <optional>
#include <string>

#include "qanat/base/status.h"

namespace qanat::cli {

struct LocalServer {
  std::string address;  // "http://127.0.0.1:7700"
  std::string data;     // its data folder, absolute
  int64_t pid = 0;
};

// The server that runs now, if there is one.
std::optional<LocalServer> find_local_server();
// Best effort: a server without a home folder is found by flags only.
void announce_local_server(const LocalServer& server);
void withdraw_local_server(int64_t pid);

// "$XDG_CONFIG_HOME/qanat" and the like; "" without a home folder.
std::string config_folder();
std::string state_folder();
// ${XDG_CACHE_HOME:-~/.cache}/qanat; "" if there is none.
std::string cache_folder();

}  // namespace qanat::cli
