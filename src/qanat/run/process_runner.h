// The Runner without containers, "--runner process": a worker is a process of this machine in
// namespaces of its own, which sees the machine's programs read-only, its own /pfs and /tmp, and
// nothing of the server's data (worker/private_root.h). For tests and for machines without an
// engine. Images are not used: a pipeline's command is looked up on this machine.
//
// State of a worker is in <run_folder>/workers/<id>/: `state` (pid, start time, labels), `exit`,
// `log`, its /pfs and /tmp. The supervisor has a session of its own, so workers outlive the server
// and are found again by these files.
//
// Limits of a spec are not applied. The kernel's limits of a process (setrlimit) are no substitute:
// RLIMIT_DATA is of each process alone, RLIMIT_NPROC counts all that the user has on the machine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/pipeline/runner.h"
#include "qanat/run/worker_keeper.h"

namespace qanat::run {

struct ProcessRunnerOptions {
  std::string data_folder;             // absolute; hidden from workers, with everything in it
  std::string worker_program;          // qanat-worker
  std::vector<std::string> arguments;  // before "sandbox"; for a test's own program
  std::vector<std::string> hidden;     // further folders to hide
};

// Thread safe.
class ProcessRunner : public pipeline::Runner, private WorkerBackend {
 public:
  ProcessRunner(ProcessRunnerOptions options, Clock& clock);
  ~ProcessRunner() override;

  // Starts keeping workers. They live on when this is destroyed. kFailedPrecondition unless root.
  Status start();

  std::string_view name() const override { return "process"; }
  // Takes any name; the digest is empty, since nothing of the image is used.
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
  void end_strays();
  Result<std::vector<ObservedWorker>> observe() override;
  Status start(const pipeline::WorkerGroupSpec& spec, const std::string& worker_id,
               const std::string& fingerprint, const std::string& credential) override;
  WorkerEnd ended(const ObservedWorker& worker) override;
  Status remove(const ObservedWorker& worker) override;

  const ProcessRunnerOptions options_;
  Clock& clock_;
  WorkerKeeper keeper_;  // last: its thread uses all the others
};

}  // namespace qanat::run
