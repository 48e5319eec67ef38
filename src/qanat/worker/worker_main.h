// What apps/qanat-worker does, as a function, so that a test's own program can play the worker.
#pragma once

namespace qanat::worker {

// `qanat-worker` alone is a worker: process 1 of a container, told by QANAT_WORKER_ID,
// QANAT_WORKER_CREDENTIAL and QANAT_WORKER_SOCKET (default /qanat/run/worker.sock). `qanat-worker
// sandbox ...` is the process runner's supervisor (private_root.h). `qanat-worker version` prints
// the version. Returns the exit code: 0 when the server no longer wants this worker, 1 on other
// errors (said on stderr), 2 on wrong usage.
int worker_main(int argc, char** argv);

}  // namespace qanat::worker
