// Waiting until everything that a change caused has ended, with progress on a terminal.
#pragma once

#include <string>

#include "qanat/api/jobs.h"
#include "qanat/base/status.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {

// `text` is REPO@REF (for a pipeline's repo: its newest job, or the one of this id, also one that
// has not begun): that commit and what is downstream of it; or the id of a wave: all of it.
// Survives a restart of the server: connects again for up to a minute.
Result<api::WaveInfo> wait_for_commit(Cli& cli, const std::string& text);
// The same of PIPELINE@JOB, which must be a job, or an id.
Result<api::WaveInfo> wait_for_job(Cli& cli, const std::string& text);

// OK, or a kFailedPrecondition naming the jobs waited for that did not succeed.
Status wave_outcome(const api::WaveInfo& wave);

}  // namespace qanat::cli
