#include "qanat/cli/local_server.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "qanat/api/describe.h"
#include "qanat/base/file_system.h"
#include "qanat/base/hash.h"
#include "qanat/base/string.h"

namespace qanat::cli {

template <class V>
void describe(V& v, LocalServer& t) {
  v.type("LocalServer", "");
  v.required("address", t.address, "");
  v.required("data", t.data, "");
  v.required("pid", t.pid, "");
  v.required("started", t.started, "");
  v.required("machine", t.machine, "");
}

namespace {

std::string home_folder(const char* variable, const char* below_home) {
  const char* named = std::getenv(variable);
  if (named != nullptr && named[0] == '/') return std::string(named) + "/qanat";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') return "";
  return std::string(home) + "/" + below_home + "/qanat";
}

constexpr size_t kIdDigits = 16;

std::string servers_folder() {
  const std::string folder = state_folder();
  return folder.empty() ? "" : folder + "/servers";
}

std::string announcement(const std::string& data, int64_t pid) {
  return str_cat(servers_folder(), "/", sha256(data).to_hex().substr(0, kIdDigits), "-", pid,
                 ".json");
}

std::string machine_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "";
}

// The boot and the moment in it at which a process started; "" if there is none of that id, or only
// its remains.
std::string start_of(int64_t pid) {
  FileSystem& files = posix_file_system();
  const std::string text = files.read_file(str_cat("/proc/", pid, "/stat"), 4096).value_or("");
  const size_t end = text.rfind(')');  // the name may hold anything
  if (end == std::string::npos || end + 2 >= text.size()) return "";
  const auto fields = split(std::string_view(text).substr(end + 2), ' ');
  if (fields.size() < 20 || fields[0] == "Z" || fields[0] == "X") return "";
  const std::string boot = files.read_file("/proc/sys/kernel/random/boot_id", 4096).value_or("");
  return str_cat(trim(boot), " ", fields[19]);
}

}  // namespace

std::string config_folder() { return home_folder("XDG_CONFIG_HOME", ".config"); }
std::string state_folder() { return home_folder("XDG_STATE_HOME", ".local/state"); }
std::string cache_folder() { return home_folder("XDG_CACHE_HOME", ".cache"); }

std::vector<LocalServer> find_local_servers() {
  std::vector<LocalServer> servers;
  if (servers_folder().empty()) return servers;
  FileSystem& files = posix_file_system();
  const auto entries = files.list(servers_folder());
  if (!entries.ok()) return servers;
  const std::string machine = machine_name();
  for (const DirectoryEntry& entry : *entries) {
    if (!entry.name.ends_with(".json")) continue;
    const std::string path = str_cat(servers_folder(), "/", entry.name);
    const auto text = files.read_file(path, 64 << 10);
    if (!text.ok()) continue;
    auto server = api::parse_json<LocalServer>(*text, {.ignore_unknown = true});
    if (!server.ok() || server->machine != machine) continue;
    if (start_of(server->pid) != server->started) {
      (void)files.remove(path);
      continue;
    }
    servers.push_back(*std::move(server));
  }
  std::sort(servers.begin(), servers.end(),
            [](const LocalServer& a, const LocalServer& b) { return a.address < b.address; });
  return servers;
}

void announce_local_server(LocalServer server) {
  if (servers_folder().empty()) return;
  (void)find_local_servers();  // removes what died
  server.started = start_of(server.pid);
  server.machine = machine_name();
  if (!posix_file_system().make_directories(servers_folder()).ok()) return;
  (void)posix_file_system().write_file_durably(announcement(server.data, server.pid),
                                               api::json_text(server));
}

void withdraw_local_server(const std::string& data, int64_t pid) {
  if (!servers_folder().empty()) (void)posix_file_system().remove(announcement(data, pid));
}

}  // namespace qanat::cli
