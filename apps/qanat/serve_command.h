// `qanat serve`: wires the embedded meta store, the local object store, a runner and the API into
// one process.
#pragma once

#include "qanat/cli/cli.h"

namespace qanat {

void add_serve_command(cli::Cli& cli);

}  // namespace qanat
