#include "qanat/pipeline/runner.h"

namespace qanat::pipeline {

std::string to_string(const WorkerGroupId& id) {
  return id.project + "/" + id.pipeline + " version " + std::to_string(id.version);
}

std::string_view to_string(WorkerEvent::Kind kind) {
  switch (kind) {
    case WorkerEvent::Kind::kStarted:
      return "started";
    case WorkerEvent::Kind::kExited:
      return "exited";
    case WorkerEvent::Kind::kFailed:
      return "failed";
  }
  return "unknown";
}

}  // namespace qanat::pipeline
