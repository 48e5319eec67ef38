// Moving files between this machine and a repo: `put file`, `get file`, and streams of edits.
#pragma once

#include <functional>
#include <string>

#include "qanat/api/address.h"
#include "qanat/api/file_stream.h"
#include "qanat/base/status.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {

void add_transfer_commands(Cli& cli);

// Sends a few edits as one stream: one commit, all or nothing.
Status send_edits(Cli& cli, const api::Address& address, const std::string& description,
                  const std::function<Status(api::FileStreamWriter&)>& write);

// Writes an archive's files below `folder` (which is created), each as its path relative to `base`.
// Existing files are replaced.
Status get_folder(Cli& cli, const api::Address& address, const std::string& folder);

}  // namespace qanat::cli
