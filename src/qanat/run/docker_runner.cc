#include "qanat/run/docker_runner.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "qanat/base/file_system.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/run/worker_program.h"

namespace qanat::run {
namespace {

using pipeline::ImageInfo;
using pipeline::WorkerGroupId;
using pipeline::WorkerGroupSpec;

constexpr const char* kWorkerPath = "/qanat/bin/qanat-worker";
constexpr std::int64_t kDefaultPids = 4096;
constexpr int kLogLines = 3;
constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

constexpr const char* kInstallation = "qanat.installation";
constexpr const char* kProject = "qanat.project";
constexpr const char* kPipeline = "qanat.pipeline";
constexpr const char* kVersion = "qanat.version";
constexpr const char* kWorker = "qanat.worker";
constexpr const char* kFingerprint = "qanat.fingerprint";

// The word in DATA/engine/used for the private engine, whose socket moves with the data folder.
constexpr std::string_view kPrivate = "private";
constexpr std::string_view kUnix = "unix://";

#if defined(__x86_64__)
constexpr const char* kArchitecture = "amd64";
#elif defined(__aarch64__)
constexpr const char* kArchitecture = "arm64";
#endif

// What root in a worker's container may do: change owners, read and remove files of others, become
// another user. User code that runs as root keeps these. The process runner has the same list
// (worker/private_root.cc).
std::vector<std::string> capabilities() {
  return {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID",
          "KILL",  "SETGID",       "SETUID", "NET_BIND_SERVICE"};
}

std::string label(const ContainerSummary& container, const char* name) {
  auto found = container.labels.find(name);
  return found == container.labels.end() ? std::string() : found->second;
}

}  // namespace

Result<std::string> socket_of_docker_host(std::string_view value) {
  if (value.starts_with(kUnix)) return std::string(value.substr(kUnix.size()));
  if (value.starts_with("/")) return std::string(value);
  return failed_precondition(
      str_cat("DOCKER_HOST is ", quoted(value),
              ": an engine on another machine cannot see this machine's folders, through which "
              "workers reach the server"),
      "run qanat serve on the engine's machine, or set DOCKER_HOST=unix:///path of a socket here");
}

WorkerEnd end_of_worker(const ContainerState& state, bool podman, std::string_view log) {
  WorkerEnd end;
  end.exit_code = state.exit_code;
  // Docker sets the flag when the kernel kills any process of the container, user code at any time
  // since its start too; the worker itself ended by it only if it was killed. Podman never sets it
  // for a cgroup v1 (4.3): nobody but the kernel and the engine can kill process 1 of a container,
  // and the engine does so only when it is removed.
  end.oom = (state.oom_killed || podman) && state.exit_code == 128 + SIGKILL;
  end.reason = state.error.empty() ? std::string(trim(log)) : state.error;
  return end;
}

DockerRunner::DockerRunner(DockerRunnerOptions options, Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      private_(options_.data_folder, clock),
      keeper_(*this, clock) {}

DockerRunner::~DockerRunner() { keeper_.stop(); }

void DockerRunner::start() { keeper_.start(); }

Status DockerRunner::prepare() { return engine().status(); }

std::string DockerRunner::engine_socket() {
  MutexLock lock(mutex_);
  return engine_ == nullptr ? std::string() : engine_->api->socket();
}

std::string DockerRunner::used_file() const {
  return str_cat(options_.data_folder, "/engine/used");
}

Result<std::string> DockerRunner::used_socket() const {
  Result<std::string> text = posix_file_system().read_file(used_file(), 4096);
  if (text.code() == Code::kNotFound) return std::string();
  if (!text.ok()) return text;
  const std::string_view engine = trim(*text);
  if (engine == kPrivate) return private_.socket();
  if (engine.starts_with(kUnix)) return std::string(engine.substr(kUnix.size()));
  return data_loss(str_cat(used_file(), " names no container engine"),
                   "remove it, and one is chosen as in a new data folder");
}

Status DockerRunner::remember(const std::string& socket) const {
  Result<std::string> used = used_socket();
  if (used.ok() && *used == socket) return ok_status();
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(parent_directory(used_file())));
  return posix_file_system().write_file_durably(
      used_file(),
      str_cat(socket == private_.socket() ? std::string(kPrivate) : str_cat(kUnix, socket), "\n"));
}

Result<std::string> DockerRunner::private_socket() {
  if (!private_.running()) {
    if (!options_.private_engine) {
      return unavailable("no container engine answers",
                         "start Docker or Podman, or set DOCKER_HOST=unix:///path/of/its/socket");
    }
    QANAT_RETURN_IF_ERROR(private_.start());
  }
  return private_.socket();
}

Result<std::string> DockerRunner::find_socket() {
  if (options_.docker_host && !options_.docker_host->empty()) {
    QANAT_ASSIGN_OR_RETURN(std::string socket, socket_of_docker_host(*options_.docker_host));
    if (Status status = DockerEngine(socket).ping(); !status.ok()) {
      return unavailable(str_cat("no container engine answers at DOCKER_HOST=",
                                 *options_.docker_host, ": ", status.message()),
                         "start the engine, or unset DOCKER_HOST");
    }
    return socket;
  }
  QANAT_ASSIGN_OR_RETURN(const std::string used, used_socket());
  if (!used.empty()) {
    const std::string other = str_cat("remove ", used_file(),
                                      " to choose another engine; workers and images of this one "
                                      "stay where they are");
    if (used == private_.socket()) {
      Result<std::string> socket = private_socket();
      if (socket.ok()) return socket;
      return socket.status().with_hint(str_cat(socket.status().hint(), "; or ", other));
    }
    if (Status status = DockerEngine(used).ping(); !status.ok()) {
      return unavailable(str_cat("the container engine of this data folder does not answer at ",
                                 used, ", and is waited for: ", status.message()),
                         str_cat("start it again (systemctl start docker); or ", other));
    }
    return used;
  }
  if (private_.lives()) return private_socket();
  std::vector<std::string> usual = {"/var/run/docker.sock", "/run/podman/podman.sock"};
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR"); runtime != nullptr && *runtime != 0) {
    usual.push_back(str_cat(runtime, "/docker.sock"));
    usual.push_back(str_cat(runtime, "/podman/podman.sock"));
  }
  for (const std::string& socket : usual) {
    if (::access(socket.c_str(), R_OK | W_OK) == 0 && DockerEngine(socket).ping().ok()) {
      return socket;
    }
  }
  return private_socket();
}

Result<std::shared_ptr<DockerRunner::Engine>> DockerRunner::engine() {
  MutexLock lock(mutex_);
  if (engine_ != nullptr) return engine_;
  QANAT_ASSIGN_OR_RETURN(std::string socket, find_socket());
  auto engine = std::make_shared<Engine>();
  engine->api = std::make_unique<DockerEngine>(socket);
  QANAT_ASSIGN_OR_RETURN(engine->info, engine->api->info());
  QANAT_ASSIGN_OR_RETURN(engine->processors, engine->api->processors());
  QANAT_RETURN_IF_ERROR(remember(socket));
  log_info(
      "container engine",
      {{"socket", socket}, {"version", engine->info.version}, {"podman", engine->info.podman}});
  engine_ = engine;
  return engine;
}

Status DockerRunner::noted(Status status) {
  if (status.code() != Code::kUnavailable) return status;
  MutexLock lock(mutex_);
  engine_ = nullptr;
  return status;
}

Status DockerRunner::missing_image(const Engine& engine, const std::string& image,
                                   const std::string& why) {
  const std::string host = str_cat("DOCKER_HOST=unix://", engine.api->socket(), " docker ");
  return not_found(str_cat("image ", quoted(image), " is not on this machine", why),
                   str_cat("check its name, or bring it with `", host, "pull ", image, "`, `", host,
                           "build -t ", image, " .` or `", host, "import FILE.tar ", image, "`"));
}

Result<ImageInfo> DockerRunner::resolve_image(const std::string& image) {
  if (image.empty()) {
    return invalid_argument("the spec names no image",
                            "set transform.image, or run the server with --runner process");
  }
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, this->engine());
  Result<ImageInfo> info = engine->api->inspect_image(image);
  if (info.code() == Code::kNotFound && options_.pull) {
    log_info("pulling an image", {{"image", image}});
    const Status pulled = engine->api->pull_image(image);
    if (pulled.ok()) {
      info = engine->api->inspect_image(image);
    } else if (pulled.code() != Code::kUnavailable) {
      return missing_image(*engine, image, str_cat(", and cannot be pulled: ", pulled.message()));
    } else {
      return noted(pulled);
    }
  }
  if (!info.ok()) {
    if (info.code() == Code::kUnavailable) return noted(info.status());
    if (info.code() == Code::kNotFound || info.code() == Code::kInvalidArgument)
      return missing_image(*engine, image, "");
    return info.status();
  }
  if (!info->os.empty() && info->os != "linux") {
    return failed_precondition(
        str_cat("image ", quoted(image), " is for ", info->os, ", not linux"), "use a linux image");
  }
  if (!info->architecture.empty() && info->architecture != kArchitecture) {
    return failed_precondition(
        str_cat("image ", quoted(image), " is for ", info->architecture, ", this machine is ",
                kArchitecture),
        str_cat("build or pull it for this machine: docker pull --platform linux/", kArchitecture,
                " ", image));
  }
  return info;
}

Status DockerRunner::check_folders(Engine& engine, const std::string& image) {
  // Other threads wait: one check is enough.
  MutexLock lock(check_mutex_);
  if (engine.sees_folders) return ok_status();
  const std::string nonce = random_id();
  const std::string folder = str_cat(options_.data_folder, "/run/check-", nonce);
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(folder));
  Status status =
      posix_file_system().write_file_durably(str_cat(folder, "/", nonce), "Qanat was here\n");
  bool seen = false;
  if (status.ok()) {
    ContainerSpec spec;
    spec.name = str_cat("qanat-check-", nonce.substr(0, 8));
    spec.image = image;
    spec.entrypoint = {kWorkerPath};
    spec.labels[kInstallation] = options_.installation_id;
    spec.mount_source = folder;
    spec.mount_target = "/qanat";
    Result<std::string> id = engine.api->create_container(spec);
    if (id.ok()) {
      Result<bool> exists = engine.api->path_exists(*id, str_cat("/qanat/", nonce));
      if (exists.ok()) {
        seen = *exists;
      } else {
        status = exists.status();
      }
      Status removed = engine.api->remove_container(*id);
      if (status.ok()) status = removed;
    } else if (id.status().message().find("source path does not exist") == std::string::npos &&
               id.status().message().find("no such file or directory") == std::string::npos) {
      status = id.status();
    }
  }
  if (Status removed = posix_file_system().remove_tree(folder); !removed.ok()) {
    log_warning("cannot remove a folder", {{"folder", folder}, {"error", removed}});
  }
  QANAT_RETURN_IF_ERROR(status);
  if (!seen) {
    return failed_precondition(
        str_cat("the container engine at ", engine.api->socket(),
                " does not see this server's data folder ", options_.data_folder,
                ": it runs on another machine, or the server itself runs in a container"),
        "run qanat serve on the engine's machine and outside of containers; or, in a container, "
        "bind the data folder into it at the same path as on the host");
  }
  engine.sees_folders = true;
  return ok_status();
}

Status DockerRunner::check_command(const ImageInfo& image, const std::vector<std::string>& cmd,
                                   const std::map<std::string, std::string>& env,
                                   const std::string& working_dir) {
  if (cmd.empty() || cmd[0].empty()) {
    return invalid_argument(
        "there is no command: the spec has no transform.cmd and the image no "
        "entrypoint or command of its own",
        "set transform.cmd");
  }
  const std::string& program = cmd[0];
  std::vector<std::string> candidates;
  if (program.find('/') != std::string::npos) {
    const std::string& base = working_dir.empty() ? image.working_dir : working_dir;
    candidates.push_back(program[0] == '/' ? program : str_cat(base, "/", program));
  } else {
    std::string path = kDefaultPath;
    for (const std::string& variable : image.env) {
      if (variable.starts_with("PATH=")) path = variable.substr(5);
    }
    if (auto found = env.find("PATH"); found != env.end()) path = found->second;
    for (std::string_view folder : split(path, ':')) {
      if (folder.starts_with("/")) candidates.push_back(str_cat(folder, "/", program));
    }
  }
  for (const std::string& candidate : candidates) {
    if (candidate.starts_with("/pfs/")) return ok_status();  // comes with the data
  }
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, this->engine());
  ContainerSpec spec;
  spec.name = str_cat("qanat-check-", random_id().substr(0, 8));
  spec.image = image.digest;
  spec.entrypoint = {kWorkerPath};
  spec.labels[kInstallation] = options_.installation_id;
  Result<std::string> id = engine->api->create_container(spec);
  if (!id.ok()) return noted(id.status());
  Status status = not_found(
      str_cat("transform.cmd: ", quoted(program), " is not in image ", quoted(image.name)),
      "check the command's name, or use an image that has it; shell syntax needs [\"sh\"] with "
      "stdin, or [\"sh\", \"-c\", ...]");
  for (const std::string& candidate : candidates) {
    Result<bool> exists = engine->api->path_exists(*id, candidate);
    if (!exists.ok()) {
      status = noted(exists.status());
      break;
    }
    if (*exists) {
      status = ok_status();
      break;
    }
  }
  if (Status removed = engine->api->remove_container(*id); !removed.ok()) {
    log_warning("cannot remove a container", {{"container", *id}, {"error", removed}});
  }
  return status;
}

Status DockerRunner::ensure(const WorkerGroupSpec& spec) {
  if (spec.image_digest.empty()) return internal_error("worker group without an image digest");
  return keeper_.ensure(spec);
}

Status DockerRunner::scale(const WorkerGroupId& id, int count) { return keeper_.scale(id, count); }
Status DockerRunner::stop(const WorkerGroupId& id) { return keeper_.stop_group(id); }
Status DockerRunner::stop_unwanted() { return keeper_.stop_unwanted(); }
Result<std::vector<pipeline::WorkerGroupStatus>> DockerRunner::list() { return keeper_.list(); }
void DockerRunner::set_listener(std::function<void(const pipeline::WorkerEvent&)> listener) {
  keeper_.set_listener(std::move(listener));
}

Result<std::vector<ObservedWorker>> DockerRunner::observe() {
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, this->engine());
  Result<std::vector<ContainerSummary>> containers =
      engine->api->list_containers({str_cat(kInstallation, "=", options_.installation_id)});
  if (!containers.ok()) return noted(containers.status());
  std::vector<ObservedWorker> workers;
  for (const ContainerSummary& container : *containers) {
    ObservedWorker worker;
    worker.worker_id = label(container, kWorker);
    if (worker.worker_id.empty()) continue;  // of a check
    worker.group.project = label(container, kProject);
    worker.group.pipeline = label(container, kPipeline);
    worker.group.version = parse_u64(label(container, kVersion)).value_or(0);
    worker.fingerprint = label(container, kFingerprint);
    worker.handle = container.id;
    worker.running = container.running;
    worker.age_ms = std::max<std::int64_t>(clock_.wall_ms() - container.created_s * 1000, 0);
    workers.push_back(std::move(worker));
  }
  return workers;
}

Status DockerRunner::start(const WorkerGroupSpec& group, const std::string& worker_id,
                           const std::string& fingerprint, const std::string& credential) {
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, this->engine());
  QANAT_RETURN_IF_ERROR(check_folders(*engine, group.image_digest));
  QANAT_RETURN_IF_ERROR(install_worker_program(options_.worker_program, group.run_folder));
  ContainerSpec spec;
  spec.name =
      str_cat("qanat-", group.id.pipeline, "-v", group.id.version, "-", worker_id.substr(0, 8));
  spec.image = group.image_digest;
  spec.entrypoint = {kWorkerPath};
  spec.env = {str_cat("QANAT_WORKER_ID=", worker_id),
              str_cat("QANAT_WORKER_CREDENTIAL=", credential)};
  spec.labels = {{kInstallation, options_.installation_id},
                 {kProject, group.id.project},
                 {kPipeline, group.id.pipeline},
                 {kVersion, std::to_string(group.id.version)},
                 {kWorker, worker_id},
                 {kFingerprint, fingerprint}};
  spec.mount_source = group.run_folder;
  spec.mount_target = "/qanat";
  spec.host_network = group.network == pipeline::Network::kHost;
  spec.capabilities = capabilities();
  spec.memory_bytes = group.limits.memory_bytes;
  spec.pids = group.limits.pids > 0 ? group.limits.pids : kDefaultPids;
  // The engine refuses more than the machine has; more limits nothing.
  if (group.limits.cpus > 0 && group.limits.cpus < engine->processors) {
    spec.cpus = std::max(group.limits.cpus, 0.01);
  }
  Result<std::string> id = engine->api->create_container(spec);
  if (!id.ok()) {
    if (id.code() == Code::kNotFound) {
      return not_found(str_cat("image ", quoted(group.image), " (", group.image_digest,
                               ") is not on this machine any more"),
                       "bring it back, then update the pipeline");
    }
    return noted(id.status());
  }
  Status started = engine->api->start_container(*id);
  if (!started.ok()) {
    if (Status removed = engine->api->remove_container(*id); !removed.ok()) {
      log_warning("cannot remove a container", {{"container", *id}, {"error", removed}});
    }
    if (started.message().find("exec format error") != std::string::npos) {
      return failed_precondition(str_cat("the worker cannot run in image ", quoted(group.image),
                                         ": wrong architecture (exec format error)"),
                                 str_cat("use an image for ", kArchitecture));
    }
    return noted(started);
  }
  return ok_status();
}

WorkerEnd DockerRunner::ended(const ObservedWorker& worker) {
  WorkerEnd end;
  Result<std::shared_ptr<Engine>> engine = this->engine();
  if (!engine.ok()) {
    end.reason = engine.status().message();
    return end;
  }
  Result<ContainerState> state = (*engine)->api->inspect_container(worker.handle);
  if (!state.ok()) {
    end.reason = state.status().message();
    return end;
  }
  Result<std::string> log = (*engine)->api->container_log(worker.handle, kLogLines);
  return end_of_worker(*state, (*engine)->info.podman, log.ok() ? std::string_view(*log) : "");
}

Status DockerRunner::remove(const ObservedWorker& worker) {
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, this->engine());
  return noted(engine->api->remove_container(worker.handle));
}

}  // namespace qanat::run
