// The life of a worker: hello, then lease, fetch, run, collect, deliver, until the server does not
// want it any more.
//
// Threads: the caller's runs user code; one leases and fetches; one delivers; one renews and
// carries live log lines. They meet in DatumsInHand. A server that is away (a restart) is waited
// for with back-off, while the running datum goes on; after an hour without any contact the worker
// ends.
#pragma once

#include <string>

#include "qanat/base/clock.h"
#include "qanat/base/status.h"
#include "qanat/worker/user_process.h"

namespace qanat::worker {

struct WorkerOptions {
  std::string id;
  std::string credential;
  std::string socket = "/qanat/run/worker.sock";
};

// Returns only with the reason why the worker ends; nothing of the user's runs then. Process 1
// only.
Status run_worker(WorkerOptions options, UserProcesses& processes, Clock& clock);

}  // namespace qanat::worker
