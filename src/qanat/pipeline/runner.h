// Runner: where workers run. The pipeline controller declares which workers it wants; a runner
// (process, container engine, later Kubernetes; see run/) keeps them alive. The controller never
// starts a worker itself, and a runner knows nothing of datums.
//
// The model is level-triggered: `ensure` records what is wanted and returns at once; a thread of
// the runner compares that with what exists, starts, replaces and removes workers, and tells a
// listener what it saw. Workers outlive the server: they carry labels (installation, project,
// pipeline, version, worker id), so that a restarted server finds them with `list`, and `ensure`
// with an equal spec adopts them without touching them.
//
// Replacement: a worker that ended is replaced at once if it had been healthy, else after a delay
// that doubles with each failure in a row from 250 ms to 60 s, and is forgotten when a worker has
// lived for 30 s.
//
// All methods are thread safe. None blocks longer than seconds, and only `resolve_image`,
// `check_command` and `list` wait for the engine.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::pipeline {

// What an image says about itself. `digest` is the digest of its config: equal for equal content,
// whatever its name.
struct ImageInfo {
  std::string name;              // as asked for
  std::string digest;            // "sha256:<64 hex>"; "" from a runner that uses no images
  std::string architecture;      // "amd64", as Docker names it
  std::string os;                // "linux"
  std::string user;              // USER, "" = root
  std::string working_dir;       // WORKDIR, "" = /
  std::vector<std::string> env;  // "NAME=value"
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
};

// One version of one pipeline has one group of equal workers.
struct WorkerGroupId {
  std::string project;
  std::string pipeline;
  std::uint64_t version = 0;
  auto operator<=>(const WorkerGroupId&) const = default;
};
// "project/pipeline version 3", for messages.
std::string to_string(const WorkerGroupId& id);

struct WorkerLimits {
  double cpus = 0;                 // 0: no limit
  std::uint64_t memory_bytes = 0;  // 0: no limit; swap is not added
  std::int64_t pids = 0;           // processes and threads; 0: the runner's default (4096)
  auto operator<=>(const WorkerLimits&) const = default;
};

enum class Network { kNone, kHost };

struct WorkerGroupSpec {
  WorkerGroupId id;
  std::string image;         // as the user wrote it, for messages
  std::string image_digest;  // from ImageInfo; ignored by a runner without images
  // The transform's own variables; the image's come from the image. A worker gives them to user
  // code only.
  std::map<std::string, std::string> env;
  WorkerLimits limits;
  Network network = Network::kNone;
  int count = 1;
  // Absolute path of the group's folder, made and owned by the caller, who listens on
  // <run_folder>/run/worker.sock. The runner puts the worker's program at
  // <run_folder>/bin/qanat-worker; both are seen in the worker under /qanat, read-only.
  std::string run_folder;
  // Gives the one-use credential of a worker about to be started (called on a runner's thread; must
  // not call the runner). The worker shows it in `hello`.
  std::function<Result<std::string>(const std::string& worker_id)> new_credential;
};

// Something about a worker that its group's owner may want to know or show.
struct WorkerEvent {
  enum class Kind {
    kStarted,  // the worker's process runs (it has not said hello yet)
    kExited,   // it ended; `exit_code`, `oom`, `reason` say why
    kFailed,   // it could not be started; `reason` is an error with what to do next
  };
  Kind kind = Kind::kStarted;
  WorkerGroupId group;
  std::string worker_id;
  int exit_code = 0;  // 128 + signal for a killed one
  bool oom = false;   // the kernel killed it at its memory limit
  // For people, e.g. "worker 3f.. was killed: over resource_limits.memory (64Mi)".
  std::string reason;
  std::int64_t retry_in_ms = 0;  // when a replacement will be tried
  int failures_in_a_row = 0;     // 0 after a healthy life
};
std::string_view to_string(WorkerEvent::Kind kind);

struct WorkerInfo {
  std::string worker_id;
  bool running = false;
};

// A group as the engine has it now.
struct WorkerGroupStatus {
  WorkerGroupId id;
  bool wanted = false;  // an `ensure` named it since this server started
  int count = 0;        // workers wanted
  std::vector<WorkerInfo> workers;
};

class Runner {
 public:
  virtual ~Runner() = default;

  // "docker" or "process".
  virtual std::string_view name() const = 0;

  // Looks an image up on this machine, by name or by digest; never downloads. Errors, within
  // seconds: kNotFound (with what to do), kFailedPrecondition for a wrong architecture or system,
  // kUnavailable when no engine answers.
  virtual Result<ImageInfo> resolve_image(const std::string& image) = 0;

  // Whether the image has the program `cmd[0]`, looked up as the worker will look it up (PATH of
  // `env` or the image, relative to `working_dir`). kNotFound names it; OK when that cannot be told
  // (under /pfs, or no images).
  virtual Status check_command(const ImageInfo& image, const std::vector<std::string>& cmd,
                               const std::map<std::string, std::string>& env,
                               const std::string& working_dir) = 0;

  // Wants `spec.count` workers like this. Replaces what was wanted for spec.id; running workers are
  // kept if they fit (equal image, env, limits, network and folder), and replaced if not. Fails
  // only for a spec that can never work; other troubles come as events and are retried.
  virtual Status ensure(const WorkerGroupSpec& spec) = 0;

  // Changes the number alone. When scaling down, workers are removed without regard to what they
  // do: the controller takes their datums back first. kNotFound if not ensured.
  virtual Status scale(const WorkerGroupId& id, int count) = 0;

  // Removes the group's workers, whatever they are doing, and forgets it. Returns before they are
  // gone; OK if unknown.
  virtual Status stop(const WorkerGroupId& id) = 0;

  // Stops every group of this installation that no `ensure` has named: called once after a restart,
  // when all pipelines have been loaded.
  virtual Status stop_unwanted() = 0;

  // Every group of this installation, wanted or found.
  virtual Result<std::vector<WorkerGroupStatus>> list() = 0;

  // At most one listener, called on a thread of the runner, without locks held. Null removes it and
  // waits for a call in progress.
  virtual void set_listener(std::function<void(const WorkerEvent&)> listener) = 0;
};

}  // namespace qanat::pipeline
