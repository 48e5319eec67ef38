// Keeps as many workers as are wanted: the part of a Runner that does not depend on where workers
// run.
//
// A level-triggered loop: it looks at what exists (WorkerBackend::observe), compares with what is
// wanted, and starts, replaces and removes. Whatever happened meanwhile, a crash of the server
// included, the next look puts it right. All calls of the backend that change something come from
// one pass at a time; those of a pass run side by side, a few at once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/pipeline/runner.h"
#include "qanat/run/backoff.h"

namespace qanat::run {

// A worker as the backend has it now.
struct ObservedWorker {
  pipeline::WorkerGroupId group;
  std::string worker_id;
  std::string fingerprint;  // as given to start()
  std::string handle;       // the backend's own name of it
  bool running = false;
  std::int64_t age_ms = 0;  // since it was started
};

// How a worker ended.
struct WorkerEnd {
  int exit_code = 0;
  bool oom = false;
  std::string reason;  // what it said at last, if anything
};

// Thread safe.
class WorkerBackend {
 public:
  virtual ~WorkerBackend() = default;
  // Every worker of this installation, ended ones that were not removed included.
  virtual Result<std::vector<ObservedWorker>> observe() = 0;
  // The worker's process runs when this returns OK. After an error nothing of it is left.
  virtual Status start(const pipeline::WorkerGroupSpec& spec, const std::string& worker_id,
                       const std::string& fingerprint, const std::string& credential) = 0;
  // Of one that is not running.
  virtual WorkerEnd ended(const ObservedWorker& worker) = 0;
  // Kills it if it runs, and removes every trace. OK if it is gone already.
  virtual Status remove(const ObservedWorker& worker) = 0;
};

// Thread safe.
class WorkerKeeper {
 public:
  // The backend outlives this.
  WorkerKeeper(WorkerBackend& backend, Clock& clock);
  ~WorkerKeeper();
  WorkerKeeper(const WorkerKeeper&) = delete;
  WorkerKeeper& operator=(const WorkerKeeper&) = delete;

  // Runs the loop on a thread of its own. Without it, a test calls reconcile() itself.
  void start();
  // Ends the loop. Workers live on.
  void stop() EXCLUDES(mutex_);

  // As in pipeline::Runner.
  Status ensure(const pipeline::WorkerGroupSpec& spec) EXCLUDES(mutex_);
  Status scale(const pipeline::WorkerGroupId& id, int count) EXCLUDES(mutex_);
  Status stop_group(const pipeline::WorkerGroupId& id) EXCLUDES(mutex_);
  Status stop_unwanted() EXCLUDES(mutex_);
  Result<std::vector<pipeline::WorkerGroupStatus>> list() EXCLUDES(mutex_);
  void set_listener(std::function<void(const pipeline::WorkerEvent&)> listener)
      EXCLUDES(mutex_, listener_mutex_);

  // One look and what follows from it. Says in how many milliseconds the next look should be at the
  // latest.
  std::int64_t reconcile() EXCLUDES(mutex_);

 private:
  struct Group {
    pipeline::WorkerGroupSpec spec;
    std::string fingerprint;
    Backoff backoff;
    std::map<std::string, std::int64_t> seen_running;  // worker id -> since when we know
    std::set<std::string> told_ended;  // worker ids; they are still observed: not removed yet
  };
  // What one pass has to do for one group.
  struct Work {
    pipeline::WorkerGroupSpec spec;
    std::string fingerprint;
    int starts = 0;
  };

  void run() EXCLUDES(mutex_);
  // Starts one; false when that failed.
  bool start_worker(const Work& work) EXCLUDES(mutex_);
  Status remove_worker(const ObservedWorker& worker);
  void note_end(const ObservedWorker& worker) EXCLUDES(mutex_);
  void tell(const pipeline::WorkerEvent& event) EXCLUDES(listener_mutex_);

  WorkerBackend& backend_;
  Clock& clock_;
  std::thread thread_;

  Mutex mutex_;
  CondVar changed_;
  std::map<pipeline::WorkerGroupId, Group> groups_ GUARDED_BY(mutex_);
  std::set<pipeline::WorkerGroupId> stopping_ GUARDED_BY(mutex_);
  bool stop_unwanted_ GUARDED_BY(mutex_) = false;
  bool poked_ GUARDED_BY(mutex_) = false;
  bool stopped_ GUARDED_BY(mutex_) = false;

  Mutex listener_mutex_;
  std::function<void(const pipeline::WorkerEvent&)> listener_ GUARDED_BY(listener_mutex_);
};

// What must be equal for a running worker to serve a spec.
std::string fingerprint_of(const pipeline::WorkerGroupSpec& spec);

}  // namespace qanat::run
