// How a command on the same machine finds the servers that this user started.
//
// A server writes one small file when it is ready and removes it when it stops:
// $XDG_STATE_HOME/qanat/servers/ID-PID.json (~/.local/state/qanat), readable by its owner only,
// with its address and its data folder, where the first token lies (DIR/token). ID is of the data
// folder; so servers do not hide each other. A file left by a server that died is noticed by its
// process (id and start time), and removed: its name has the process in it, so that what is removed
// is never the file of a server that has just started on the same folder. One of another machine,
// which shares the home folder, is left alone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::cli {

struct LocalServer {
  std::string address;  // "http://127.0.0.1:7700"
  std::string data;     // its data folder, absolute
  int64_t pid = 0;
  std::string started;  // with the pid it names a process for good; filled in when it is announced
  std::string machine;  // its name; filled in too
};

// The servers that run now on this machine, by address.
std::vector<LocalServer> find_local_servers();
// Best effort: a server without a home folder is found by flags only.
void announce_local_server(LocalServer server);
void withdraw_local_server(const std::string& data, int64_t pid);

// "$XDG_CONFIG_HOME/qanat" and the like; "" without a home folder.
std::string config_folder();
std::string state_folder();
// ${XDG_CACHE_HOME:-~/.cache}/qanat; "" if there is none.
std::string cache_folder();

}  // namespace qanat::cli
