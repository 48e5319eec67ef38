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

// Puts a local folder's files under address.path, streamed: memory does not depend on their number.
// Symbolic links are followed where they name files; links to folders, and what is neither file nor
// folder, are refused by name.
Status put_folder(Cli& cli, const api::Address& address, const std::string& folder, bool append,
                  const std::string& description);

}  // namespace qanat::cli
