// WorkerHub: the server's side of what workers say (docs/architecture.md, "Workers"), whatever
// carries it.
//
// A worker is one of a group: a version of a pipeline. It proves that with a one-use credential,
// once, and gets a token: an HMAC over its group and id under a key of the installation, so that it
// needs no record and outlives a restart of the server. The token reaches the datums of its own
// group's running job and nothing else.
//
// Thread safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/file_stream.h"
#include "qanat/api/worker.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/pipeline/controller.h"
#include "qanat/pipeline/services.h"

namespace qanat::pipeline {

class WorkerHub {
 public:
  // Finds the pipeline of a group; null if its version is not in force.
  using Find = std::function<std::shared_ptr<Controller>(const WorkerGroupId&)>;

  // Makes the installation's key at the first start.
  static Result<std::unique_ptr<WorkerHub>> open(const Services& services, Find find);

  // A credential for a worker about to be started. Kept in memory until it is used.
  std::string new_credential(const WorkerGroupId& group, const std::string& worker);

  struct Worker {
    WorkerGroupId group;
    std::string id;
  };
  // kUnauthenticated: unknown, used, or another worker's credential; another protocol or
  // architecture is kFailedPrecondition.
  Result<api::HelloAnswer> hello(const api::HelloRequest& request);
  // Whether a worker of the group with this credential is expected: asked before more is read of
  // who says so.
  bool expects(const WorkerGroupId& group, std::string_view credential) const;
  Result<Worker> authenticate(std::string_view token) const;

  // Datums for the worker, or none at this moment.
  Result<api::LeaseAnswer> lease(const Worker& worker, const api::LeaseRequest& request);
  // The worker could not be told of these: they are taken back.
  void not_told(const Worker& worker, const api::LeaseAnswer& leased);
  // Calls `answer` once, with datums, when there are some. It says whether the worker could be
  // told; if not they are taken back. The worker stops waiting when it asks again or leaves
  // (`forget`).
  using Answer = std::function<bool(const api::LeaseAnswer&)>;
  void wait_for_work(const Worker& worker, const api::LeaseRequest& request, Answer answer);
  void stop_waiting(const Worker& worker);
  void work_available(const WorkerGroupId& group);

  // Writes the inputs of datums that the worker holds.
  Status send_inputs(const Worker& worker, const std::string& job,
                     const std::vector<std::string>& datums, api::FileStreamWriter& out);
  // Reads reports with their outputs. When they have been read, `was_read` is called, and what it
  // returned is called once they are durable or cannot be made so: on this thread before the call
  // returns, or later on another. On an error neither was called.
  using ResultsAnswered = std::function<void(const Result<api::ResultsAnswer>&)>;
  Status take_results(const Worker& worker, const std::string& job, api::FileStreamReader& in,
                      const std::function<ResultsAnswered()>& was_read);
  api::RenewAnswer renew(const Worker& worker, const api::RenewRequest& request);
  void add_logs(const Worker& worker, const api::LogPush& push);

  // The runner saw the worker end.
  void worker_ended(const WorkerGroupId& group, const std::string& worker, bool oom,
                    const std::string& reason);

  // The group's workers are removed: nothing is known of them any more.
  void forget(const WorkerGroupId& group);

  struct Count {
    int64_t running = 0;  // have said hello, or spoken since the server started
    int64_t busy = 0;     // hold datums
  };
  Count count(const WorkerGroupId& group) const;

 private:
  WorkerHub(const Services& services, Find find, std::string key);
  std::string sign(std::string_view payload) const;
  void seen(const Worker& worker);
  Result<std::shared_ptr<JobRun>> job(const Worker& worker, const std::string& id) const;

  const Services services_;
  const Find find_;
  const std::string key_;

  struct Parked {
    Worker worker;
    api::LeaseRequest request;
    Answer answer;
  };
  mutable Mutex mutex_;
  std::map<std::string, std::pair<WorkerGroupId, Hash>> credentials_
      GUARDED_BY(mutex_);  // by worker id
  std::map<WorkerGroupId, std::map<std::string, Parked>> parked_ GUARDED_BY(mutex_);
  std::map<WorkerGroupId, std::map<std::string, int64_t>> seen_
      GUARDED_BY(mutex_);  // worker -> monotonic ms
};

}  // namespace qanat::pipeline
