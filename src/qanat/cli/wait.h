// Waiting until everything that a change caused has ended, with progress on a terminal.
#pragma once

#include <string>

#include "qanat/api/jobs.h"
#include "qanat/base/status.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {

// `text` is REPO@REF (for a pipeline's repo: its newest job, also one that has not begun) or the id
// of a wave, in `project` ("": --project's). Survives a restart of the server: connects again for
// up to a minute.
Result<api::WaveInfo> wait_for_wave(Cli& cli, const std::string& text,
                                    const std::string& project = "");

// OK, or a kFailedPrecondition naming the jobs that did not succeed.
Status wave_outcome(const api::WaveInfo& wave);

}  // namespace qanat::cli
