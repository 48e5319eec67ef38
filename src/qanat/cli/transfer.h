// The commands `put file` and `get file` (put.h, download.h), and streams of a few edits.
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

}  // namespace qanat::cli
