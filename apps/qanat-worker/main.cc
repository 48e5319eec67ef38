// qanat-worker: process 1 of a worker's container, in any image. See worker/worker_main.h, and
// worker.cmake for how it is linked.
#include "qanat/worker/worker_main.h"

int main(int argc, char** argv) { return qanat::worker::worker_main(argc, argv); }
