#include "qanat/cli/local_server.h"

#include <signal.h>

#include <cerrno>
#include <cstdlib>

#include "qanat/api/describe.h"
#include "qanat/base/file_system.h"

namespace qanat::cli {

template <class V>
void describe(V& v, LocalServer& t) {
  v.type("LocalServer", "");
  v.required("address", t.address, "");
  v.required("data", t.data, "");
  v.required("pid", t.pid, "");
}

namespace {

std::string home_folder(const char* variable, const char* below_home) {
  const char* named = std::getenv(variable);
  if (named != nullptr && named[0] == '/') return std::string(named) + "/qanat";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') return "";
  return std::string(home) + "/" + below_home + "/qanat";
}

std::string announcement() {
  const std::string folder = state_folder();
  return folder.empty() ? "" : folder + "/server.json";
}

}  // namespace

std::string config_folder() { return home_folder("XDG_CONFIG_HOME", ".config"); }
std::string state_folder() { return home_folder("XDG_STATE_HOME", ".local/state"); }
std::string cache_folder() { return home_folder("XDG_CACHE_HOME", ".cache"); }

std::optional<LocalServer> find_local_server() {
  const std::string path = announcement();
  if (path.empty()) return std::nullopt;
  const auto text = posix_file_system().read_file(path, 64 << 10);
  if (!text.ok()) return std::nullopt;
  auto server = api::parse_json<LocalServer>(*text, {.ignore_unknown = true});
  if (!server.ok()) return std::nullopt;
  if (kill(static_cast<pid_t>(server->pid), 0) != 0 && errno == ESRCH) return std::nullopt;
  return *server;
}

void announce_local_server(const LocalServer& server) {
  const std::string path = announcement();
  if (path.empty()) return;
  if (!posix_file_system().make_directories(state_folder()).ok()) return;
  (void)posix_file_system().write_file_durably(path, api::json_text(server));
}

void withdraw_local_server(int64_t pid) {
  const auto server = find_local_server();
  if (server && server->pid == pid) (void)posix_file_system().remove(announcement());
}

}  // namespace qanat::cli
