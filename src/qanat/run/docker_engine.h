// A client for the Docker Engine API 1.41 over a Unix socket, as far as Qanat needs it.
// Docker 20.10 and newer and Podman 4 and newer (`podman system service`) speak it. Reference:
// docs.docker.com/engine/api/v1.41.
//
// Thread safe. Errors: kUnavailable when nothing answers on the socket; else what the engine says,
// with its words.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/net/http_client.h"
#include "qanat/pipeline/runner.h"

namespace qanat::run {

struct EngineInfo {
  std::string version;      // of the engine
  std::string api_version;  // the newest it speaks
  std::string os;
  std::string architecture;
  bool podman = false;
};

// A container to be made.
struct ContainerSpec {
  std::string name;
  std::string image;  // digest
  std::vector<std::string> entrypoint;
  std::vector<std::string> env;  // "NAME=value", over the image's
  std::map<std::string, std::string> labels;
  std::string mount_source;  // bound read-only; "" for no mount
  std::string mount_target;
  bool host_network = false;              // else none
  std::vector<std::string> capabilities;  // all others are dropped
  std::uint64_t memory_bytes = 0;
  double cpus = 0;
  std::int64_t pids = 0;
};

struct ContainerSummary {
  std::string id;
  bool running = false;
  std::int64_t created_s = 0;  // since 1970
  std::map<std::string, std::string> labels;
};

struct ContainerState {
  bool running = false;
  int exit_code = 0;
  bool oom_killed = false;
  std::string error;
};

class DockerEngine {
 public:
  explicit DockerEngine(std::string socket);

  const std::string& socket() const { return socket_; }

  // Whether something answers, in at most 2 seconds.
  Status ping();
  // kFailedPrecondition when the engine is too old.
  Result<EngineInfo> info();
  // How many processors containers may use.
  Result<int> processors();

  // kNotFound, without a hint, when the engine has no such image.
  Result<pipeline::ImageInfo> inspect_image(const std::string& image);

  // Has the engine fetch it from its registry; returns when it is there. `image` as in
  // inspect_image; a name without tag or digest means "latest". As long as bytes come it may take
  // an hour; then, and after a minute without any, kDeadlineExceeded. Other errors are the
  // engine's, in its words.
  Status pull_image(const std::string& image);

  // The id. The container is not started.
  Result<std::string> create_container(const ContainerSpec& spec);
  Status start_container(const std::string& id);
  // Kills it if it runs, and removes it with its anonymous volumes. OK if there is none.
  Status remove_container(const std::string& id);
  Result<ContainerState> inspect_container(const std::string& id);
  // All, running or not, that have every one of these labels ("name=value").
  Result<std::vector<ContainerSummary>> list_containers(const std::vector<std::string>& labels);
  // The last lines of what it wrote.
  Result<std::string> container_log(const std::string& id, int lines);
  // Whether there is such a path in the container, running or not; mounts are seen.
  Result<bool> path_exists(const std::string& id, const std::string& path);

 private:
  // The body of an answer with a good status. `body` is JSON or empty.
  Result<std::string> call(net::Method method, const std::string& target,
                           const std::string& body = {}, std::int64_t timeout_ms = 60'000);

  net::ClientRequest request(net::Method method, const std::string& target) const;

  const std::string socket_;
  net::HttpClient client_;
};

// The parts that read what an engine says; for tests.
Result<pipeline::ImageInfo> parse_image(std::string_view json);
Result<ContainerState> parse_container_state(std::string_view json);
Result<std::vector<ContainerSummary>> parse_container_list(std::string_view json);
std::string container_json(const ContainerSpec& spec);
// Takes the headers out of the stream format of logs (8 bytes: stream, 0, 0, 0, big-endian length).
std::string plain_log(std::string_view framed);
// The query of a pull: name and tag apart, as in "fromImage=busybox&tag=1.36".
std::string pull_query(std::string_view image);
// A line of what an engine tells during a pull: OK unless it says that the pull failed.
Status pull_line(std::string_view json);
// What an error answer says in "message" (Docker) or "cause" (Podman).
Status engine_error(int http_status, std::string_view body);

}  // namespace qanat::run
