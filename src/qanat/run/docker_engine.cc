#include "qanat/run/docker_engine.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "qanat/base/string.h"

namespace qanat::run {
namespace {

using nlohmann::json;

constexpr size_t kMaxAnswer = 64 << 20;
constexpr std::string_view kPrefix = "/v1.41";
constexpr std::int64_t kPingMs = 2000;
constexpr std::int64_t kPullIdleMs = 60'000;
constexpr std::int64_t kPullMs = 3'600'000;
constexpr size_t kMaxPullLine = 64 << 10;

Result<json> parse(std::string_view text) {
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return internal_error("the container engine's answer is not JSON");
  return value;
}

// Engines leave fields out, or give null.
std::string text_of(const json& object, const char* name) {
  auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::vector<std::string> list_of(const json& object, const char* name) {
  std::vector<std::string> list;
  auto found = object.find(name);
  if (found == object.end()) return list;
  if (found->is_string()) list.push_back(found->get<std::string>());
  if (found->is_array()) {
    for (const json& item : *found) {
      if (item.is_string()) list.push_back(item.get<std::string>());
    }
  }
  return list;
}

const json& object_of(const json& object, const char* name) {
  static const json kEmpty = json::object();
  auto found = object.find(name);
  return found != object.end() && found->is_object() ? *found : kEmpty;
}

std::int64_t number_of(const json& object, const char* name) {
  auto found = object.find(name);
  return found != object.end() && found->is_number() ? found->get<std::int64_t>() : 0;
}

bool flag_of(const json& object, const char* name) {
  auto found = object.find(name);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

}  // namespace

Result<pipeline::ImageInfo> parse_image(std::string_view text) {
  QANAT_ASSIGN_OR_RETURN(json value, parse(text));
  if (!value.is_object()) return internal_error("the container engine describes no image");
  pipeline::ImageInfo image;
  image.digest = text_of(value, "Id");
  if (image.digest.size() == 64) image.digest = str_cat("sha256:", image.digest);
  if (image.digest.empty()) return internal_error("the container engine gives the image no id");
  image.architecture = text_of(value, "Architecture");
  image.os = text_of(value, "Os");
  const json& config = object_of(value, "Config");
  image.user = text_of(config, "User");
  image.working_dir = text_of(config, "WorkingDir");
  image.env = list_of(config, "Env");
  image.entrypoint = list_of(config, "Entrypoint");
  image.cmd = list_of(config, "Cmd");
  return image;
}

Result<ContainerState> parse_container_state(std::string_view text) {
  QANAT_ASSIGN_OR_RETURN(json value, parse(text));
  const json& state = object_of(value, "State");
  ContainerState result;
  result.running = flag_of(state, "Running");
  result.exit_code = static_cast<int>(number_of(state, "ExitCode"));
  result.oom_killed = flag_of(state, "OOMKilled");
  result.error = text_of(state, "Error");
  return result;
}

Result<std::vector<ContainerSummary>> parse_container_list(std::string_view text) {
  QANAT_ASSIGN_OR_RETURN(json value, parse(text));
  std::vector<ContainerSummary> list;
  if (!value.is_array()) return internal_error("the container engine lists no containers");
  for (const json& item : value) {
    if (!item.is_object()) continue;
    ContainerSummary container;
    container.id = text_of(item, "Id");
    container.running = text_of(item, "State") == "running";
    container.created_s = number_of(item, "Created");
    for (const auto& [name, label] : object_of(item, "Labels").items()) {
      if (label.is_string()) container.labels[name] = label.get<std::string>();
    }
    list.push_back(std::move(container));
  }
  return list;
}

std::string container_json(const ContainerSpec& spec) {
  json host = {
      {"NetworkMode", spec.host_network ? "host" : "none"},
      {"CapDrop", {"ALL"}},
      {"CapAdd", spec.capabilities},
      {"SecurityOpt", {"no-new-privileges"}},
      {"RestartPolicy", {{"Name", "no"}}},
      {"Init", false},
      {"Privileged", false},
  };
  if (!spec.mount_source.empty()) {
    host["Mounts"] = json::array({{{"Type", "bind"},
                                   {"Source", spec.mount_source},
                                   {"Target", spec.mount_target},
                                   {"ReadOnly", true}}});
  }
  if (spec.memory_bytes != 0) {
    host["Memory"] = spec.memory_bytes;
    host["MemorySwap"] = spec.memory_bytes;  // no swap on top
  }
  if (spec.cpus > 0) host["NanoCpus"] = std::llround(spec.cpus * 1e9);
  if (spec.pids > 0) host["PidsLimit"] = spec.pids;
  json body = {
      {"Image", spec.image},   {"Entrypoint", spec.entrypoint},
      {"Cmd", json::array()},  {"User", "0:0"},
      {"WorkingDir", "/"},     {"Env", spec.env},
      {"Labels", spec.labels}, {"Healthcheck", {{"Test", {"NONE"}}}},
      {"AttachStdout", false}, {"AttachStderr", false},
      {"Tty", false},          {"HostConfig", host},
  };
  if (!spec.host_network) body["Hostname"] = "worker";
  return body.dump();
}

std::string plain_log(std::string_view framed) {
  std::string text;
  while (framed.size() >= 8) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(framed.data());
    if (bytes[0] > 2 || bytes[1] != 0 || bytes[2] != 0 || bytes[3] != 0) {
      text += framed;  // not framed at all
      return text;
    }
    const size_t length = (size_t{bytes[4]} << 24) | (size_t{bytes[5]} << 16) |
                          (size_t{bytes[6]} << 8) | size_t{bytes[7]};
    framed.remove_prefix(8);
    text += framed.substr(0, length);
    framed.remove_prefix(std::min(length, framed.size()));
  }
  return text;
}

Status engine_error(int http_status, std::string_view body) {
  std::string message;
  json value = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (value.is_object()) {
    message = text_of(value, "message");
    if (message.empty()) message = text_of(value, "cause");
  }
  if (message.empty()) message = str_cat("HTTP status ", http_status);
  Code code = Code::kInternal;
  if (http_status == 404) code = Code::kNotFound;
  if (http_status == 400) code = Code::kInvalidArgument;
  if (http_status == 409) code = Code::kConflict;
  if (http_status == 503) code = Code::kUnavailable;
  return Status(code, str_cat("container engine: ", message));
}

DockerEngine::DockerEngine(std::string socket) : socket_(std::move(socket)) {}

net::ClientRequest DockerEngine::request(net::Method method, const std::string& target) const {
  net::ClientRequest request;
  request.method = method;
  request.unix_socket = socket_;
  request.url.scheme = "http";
  request.url.host = "docker";
  request.url.port = 80;
  auto [path, query] = split_once(target, '?');
  request.url.path = str_cat(kPrefix, path);
  request.url.query_text = query;
  return request;
}

Result<std::string> DockerEngine::call(net::Method method, const std::string& target,
                                       const std::string& body, std::int64_t timeout_ms) {
  net::ClientRequest request = this->request(method, target);
  request.total_timeout = net::Milliseconds(timeout_ms);
  if (!body.empty()) {
    request.headers.set("Content-Type", "application/json");
    request.body = body;
  }
  auto response = client_.send(request);
  if (!response.ok()) {
    return response.status().with_context(str_cat("container engine at ", socket_));
  }
  QANAT_ASSIGN_OR_RETURN(std::string answer, (*response)->read_all(kMaxAnswer));
  const int status = (*response)->status();
  // 304: it is already as asked for.
  if (!(*response)->ok() && status != 304) return engine_error(status, answer);
  return answer;
}

Status DockerEngine::ping() { return call(net::Method::kGet, "/_ping", {}, kPingMs).status(); }

Result<EngineInfo> DockerEngine::info() {
  QANAT_ASSIGN_OR_RETURN(std::string text, call(net::Method::kGet, "/version"));
  QANAT_ASSIGN_OR_RETURN(json value, parse(text));
  EngineInfo info;
  info.version = text_of(value, "Version");
  info.api_version = text_of(value, "ApiVersion");
  info.os = text_of(value, "Os");
  info.architecture = text_of(value, "Arch");
  for (const json& component : value.value("Components", json::array())) {
    if (text_of(component, "Name").find("Podman") != std::string::npos) info.podman = true;
  }
  return info;
}

Result<int> DockerEngine::processors() {
  QANAT_ASSIGN_OR_RETURN(std::string text, call(net::Method::kGet, "/info"));
  QANAT_ASSIGN_OR_RETURN(json value, parse(text));
  return static_cast<int>(number_of(value, "NCPU"));
}

Result<pipeline::ImageInfo> DockerEngine::inspect_image(const std::string& image) {
  // A name may hold slashes and colons, which the engine's route takes as they are.
  QANAT_ASSIGN_OR_RETURN(
      std::string text,
      call(net::Method::kGet, str_cat("/images/", net::encode_path(image), "/json")));
  QANAT_ASSIGN_OR_RETURN(pipeline::ImageInfo info, parse_image(text));
  info.name = image;
  return info;
}

std::string pull_query(std::string_view image) {
  // A digest goes with the name; a colon before the last slash is a registry's port.
  const size_t colon = image.rfind(':');
  const bool digest = image.find('@') != std::string_view::npos;
  const bool tagged = !digest && colon != std::string_view::npos &&
                      image.find('/', colon) == std::string_view::npos;
  const std::string_view name = tagged ? image.substr(0, colon) : image;
  std::string query = str_cat("fromImage=", net::encode_query_part(name));
  if (digest) return query;
  return str_cat(query,
                 "&tag=", net::encode_query_part(tagged ? image.substr(colon + 1) : "latest"));
}

Status pull_line(std::string_view line) {
  const json value = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object() || !value.contains("error")) return ok_status();
  std::string message = text_of(value, "error");
  if (message.empty()) message = text_of(object_of(value, "errorDetail"), "message");
  return not_found(message.empty() ? "the engine does not say why" : message);
}

Status DockerEngine::pull_image(const std::string& image) {
  net::ClientRequest request =
      this->request(net::Method::kPost, str_cat("/images/create?", pull_query(image)));
  request.idle_timeout = net::Milliseconds(kPullIdleMs);
  request.total_timeout = net::Milliseconds(kPullMs);
  auto response = client_.send(request);
  if (!response.ok()) {
    return response.status().with_context(str_cat("container engine at ", socket_));
  }
  if (!(*response)->ok()) {
    QANAT_ASSIGN_OR_RETURN(const std::string answer, (*response)->read_all(kMaxAnswer));
    return engine_error((*response)->status(), answer);
  }
  // JSON objects, a line each; lines are short, and what is longer than any sensible one is
  // skipped.
  std::string line;
  std::vector<char> buffer(16 << 10);
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const size_t got, (*response)->read(buffer.data(), buffer.size()));
    if (got == 0) return pull_line(line);
    for (const char c : std::string_view(buffer.data(), got)) {
      if (c != '\n') {
        if (line.size() < kMaxPullLine) line.push_back(c);
        continue;
      }
      QANAT_RETURN_IF_ERROR(pull_line(line));
      line.clear();
    }
  }
}

Result<std::string> DockerEngine::create_container(const ContainerSpec& spec) {
  QANAT_ASSIGN_OR_RETURN(
      std::string text, call(net::Method::kPost,
                             str_cat("/containers/create?name=", net::encode_query_part(spec.name)),
                             container_json(spec)));
  QANAT_ASSIGN_OR_RETURN(json value, parse(text));
  std::string id = text_of(value, "Id");
  if (id.empty()) return internal_error("the container engine gives the container no id");
  return id;
}

Status DockerEngine::start_container(const std::string& id) {
  return call(net::Method::kPost, str_cat("/containers/", id, "/start")).status();
}

Status DockerEngine::remove_container(const std::string& id) {
  Status status =
      call(net::Method::kDelete, str_cat("/containers/", id, "?force=true&v=true")).status();
  // 409: another call is removing it.
  if (status.code() == Code::kNotFound || status.code() == Code::kConflict) return ok_status();
  return status;
}

Result<ContainerState> DockerEngine::inspect_container(const std::string& id) {
  QANAT_ASSIGN_OR_RETURN(std::string text,
                         call(net::Method::kGet, str_cat("/containers/", id, "/json")));
  return parse_container_state(text);
}

Result<std::vector<ContainerSummary>> DockerEngine::list_containers(
    const std::vector<std::string>& labels) {
  const std::string filters = json{{"label", labels}}.dump();
  QANAT_ASSIGN_OR_RETURN(std::string text,
                         call(net::Method::kGet, str_cat("/containers/json?all=true&filters=",
                                                         net::encode_query_part(filters))));
  return parse_container_list(text);
}

Result<std::string> DockerEngine::container_log(const std::string& id, int lines) {
  QANAT_ASSIGN_OR_RETURN(
      std::string framed,
      call(net::Method::kGet,
           str_cat("/containers/", id, "/logs?stdout=true&stderr=true&tail=", lines)));
  return plain_log(framed);
}

Result<bool> DockerEngine::path_exists(const std::string& id, const std::string& path) {
  Status status = call(net::Method::kHead,
                       str_cat("/containers/", id, "/archive?path=", net::encode_query_part(path)))
                      .status();
  if (status.ok()) return true;
  if (status.code() == Code::kNotFound) return false;
  return status;
}

}  // namespace qanat::run
