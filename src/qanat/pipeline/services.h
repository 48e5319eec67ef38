// What the parts of pipeline/ that run work with: borrowed from the server, which outlives them.
// Everything in it is thread safe.
#pragma once

#include <functional>
#include <string>

#include "qanat/api/pipeline_spec.h"
#include "qanat/base/clock.h"
#include "qanat/base/file_system.h"
#include "qanat/content/content_store.h"
#include "qanat/meta/store.h"
#include "qanat/pipeline/input.h"
#include "qanat/pipeline/later.h"
#include "qanat/pipeline/live_logs.h"
#include "qanat/pipeline/runner.h"
#include "qanat/version/versions.h"

namespace qanat::pipeline {

// Where workers of a group reach the server: a folder that holds `run/worker.sock`, on which it
// listens.
class WorkerGate {
 public:
  virtual ~WorkerGate() = default;
  // The group's folder, absolute; listening there from now on. Idempotent.
  virtual Result<std::string> open(const WorkerGroupId& group) = 0;
  // Stops listening and removes the folder.
  virtual void close(const WorkerGroupId& group) = 0;
};

struct Services {
  meta::Store* meta = nullptr;
  version::Versions* versions = nullptr;
  content::ContentStores* contents = nullptr;
  Runner* runner = nullptr;
  WorkerGate* gate = nullptr;
  LiveLogs* logs = nullptr;
  Clock* clock = nullptr;
  Later* later = nullptr;  // Pipelines has its own
  Scratch scratch;
  api::RunnerKind runner_kind = api::RunnerKind::kDocker;
  std::string default_network = "none";
  std::string default_image;  // as api::LoadOptions has it
};

}  // namespace qanat::pipeline
