// The worker's program in a group's folder, where containers see it as /qanat/bin/qanat-worker.
#pragma once

#include <string>

#include "qanat/base/status.h"

namespace qanat::run {

// Puts `program` at <run_folder>/bin/qanat-worker, by hard link where that works, else as a copy. A
// running older one is replaced, not written to. kNotFound with a hint when there is no such
// program.
Status install_worker_program(const std::string& program, const std::string& run_folder);

}  // namespace qanat::run
