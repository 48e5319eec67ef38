// Downloads: files and folders of a repo to this machine. A file appears under its name only when
// it is whole (part_file.h): a download that fails leaves the files that were complete, and no half
// ones.
#pragma once

#include <string>

#include "qanat/api/address.h"
#include "qanat/base/status.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {

// Writes an archive's files below `folder` (which is created), each as its path relative to the
// address's. Existing files are replaced. Small files are written by several threads; memory is a
// few MiB.
Status get_folder(Cli& cli, const api::Address& address, const std::string& folder);

// Writes a file's bytes, or a range of them ("FIRST-LAST", "FIRST-" or "-LENGTH"; "": all), to
// `output`; "" or "-" is standard output. A pipe or device is written to as it is; of a file that
// is replaced, the permissions stay.
Status get_file(Cli& cli, const api::Address& address, const std::string& range,
                const std::string& output);

}  // namespace qanat::cli
