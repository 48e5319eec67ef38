// Maintenance: whether the installation is paused, that is, read-only.
//
// Durable in meta (/v1/paused) and followed by every server. While it is paused, requests that
// change something are refused, workers are given no datums (those in hand are still taken in), and
// no garbage is collected; reads go on. Thread safe.
#pragma once

#include <memory>
#include <string>

#include "qanat/api/gc.h"
#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/meta/store.h"

namespace qanat::serve {

class Maintenance {
 public:
  // They outlive it.
  static Result<std::unique_ptr<Maintenance>> start(meta::Store& store, Clock& clock);

  bool paused() const;
  api::MaintenanceInfo info() const;
  // kFailedPrecondition with the reason while it is paused.
  Status check_writable() const;

  Status pause(const std::string& reason);  // OK if it is paused already; the reason is replaced
  Status resume();

 private:
  Maintenance(meta::Store& store, Clock& clock) : store_(store), clock_(clock) {}
  Status load();

  meta::Store& store_;
  Clock& clock_;
  mutable Mutex mutex_;
  api::MaintenanceInfo info_ GUARDED_BY(mutex_);
  std::unique_ptr<meta::Watch> watch_;
};

}  // namespace qanat::serve
