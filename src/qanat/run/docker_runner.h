// The Runner over a container engine: workers are containers of the user's image, unmodified, in
// which /qanat/bin/qanat-worker is process 1.
//
// Which engine: DOCKER_HOST if set (unix:// only; a remote engine could not see this machine's
// folders); else the one that was used last, which DATA/engine/used names: workers and images are
// there, so while it is away nothing is done but wait for it; else, the first time, the private one
// of this data folder if it lives, the usual sockets of Docker and Podman, or a private one that is
// started (private_engine.h). It is looked for when first needed, and again after it stopped
// answering. Before an engine is used it is checked that it sees our
// folders: an engine in another mount namespace (a server inside a container with the host's
// socket) is refused with words.
//
// A container is labelled with installation, project, pipeline, version, worker and fingerprint,
// has one mount (the group's folder, read-only, at /qanat), no capability beyond what the worker
// needs, no_new_privs, and no network unless asked for.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/pipeline/runner.h"
#include "qanat/run/docker_engine.h"
#include "qanat/run/private_engine.h"
#include "qanat/run/worker_keeper.h"

namespace qanat::run {

struct DockerRunnerOptions {
  std::string data_folder;                 // absolute
  std::string installation_id;             // from meta; label of everything of ours
  std::string worker_program;              // the static qanat-worker
  std::optional<std::string> docker_host;  // the value of DOCKER_HOST, if set
  bool private_engine = true;              // may be started
  bool pull = true;                        // images that are not there
};

// Thread safe.
class DockerRunner : public pipeline::Runner, private WorkerBackend {
 public:
  DockerRunner(DockerRunnerOptions options, Clock& clock);
  ~DockerRunner() override;

  // Starts keeping workers. Containers live on when this is destroyed.
  void start();
  // Finds, or starts, the engine now instead of at the first use.
  Status prepare();
  // Where the engine listens, once it has been found; for messages (DOCKER_HOST=unix://...).
  std::string engine_socket() EXCLUDES(mutex_);

  std::string_view name() const override { return "docker"; }
  Result<pipeline::ImageInfo> resolve_image(const std::string& image) override;
  Status check_command(const pipeline::ImageInfo& image, const std::vector<std::string>& cmd,
                       const std::map<std::string, std::string>& env,
                       const std::string& working_dir) override;
  Status ensure(const pipeline::WorkerGroupSpec& spec) override;
  Status scale(const pipeline::WorkerGroupId& id, int count) override;
  Status stop(const pipeline::WorkerGroupId& id) override;
  Status stop_unwanted() override;
  Result<std::vector<pipeline::WorkerGroupStatus>> list() override;
  void set_listener(std::function<void(const pipeline::WorkerEvent&)> listener) override;

 private:
  struct Engine {
    std::unique_ptr<DockerEngine> api;
    EngineInfo info;
    int processors = 0;
    bool sees_folders = false;  // known to
  };

  Result<std::shared_ptr<Engine>> engine() EXCLUDES(mutex_);
  Result<std::string> find_socket();
  Result<std::string> private_socket();  // starts it if need be
  // What DATA/engine/used names: a socket; "" if there is no such file.
  Result<std::string> used_socket() const;
  Status remember(const std::string& socket) const;
  std::string used_file() const;
  static Status missing_image(const Engine& engine, const std::string& image,
                              const std::string& why);
  // Forgets an engine that does not answer, so that the next call looks again.
  Status noted(Status status) EXCLUDES(mutex_);
  // Makes a container of the image with a fresh folder bound into it, and looks whether the folder
  // is there.
  Status check_folders(Engine& engine, const std::string& image);

  Result<std::vector<ObservedWorker>> observe() override;
  Status start(const pipeline::WorkerGroupSpec& spec, const std::string& worker_id,
               const std::string& fingerprint, const std::string& credential) override;
  WorkerEnd ended(const ObservedWorker& worker) override;
  Status remove(const ObservedWorker& worker) override;

  const DockerRunnerOptions options_;
  Clock& clock_;
  PrivateEngine private_;
  Mutex mutex_;
  std::shared_ptr<Engine> engine_ GUARDED_BY(mutex_);
  Mutex check_mutex_;
  WorkerKeeper keeper_;  // last: its thread uses all the others
};

// The Unix socket that a value of DOCKER_HOST names; kFailedPrecondition for engines elsewhere.
Result<std::string> socket_of_docker_host(std::string_view value);
// How a worker in a container ended; `log`: the last of what it wrote.
WorkerEnd end_of_worker(const ContainerState& state, bool podman, std::string_view log);

}  // namespace qanat::run
