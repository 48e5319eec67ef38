// Logs: the durable ones of datums that are done, and the lines of running ones as they come.
#pragma once

#include "qanat/base/status.h"
#include "qanat/serve/call.h"

namespace qanat::serve {

Status logs(Call& call);

}  // namespace qanat::serve
