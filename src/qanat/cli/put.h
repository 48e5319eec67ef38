// Putting what lies on this machine into a repo: a file, a folder, or standard input; one commit,
// or part of an open one.
//
// Built on the Uploader: parallel, and small puts are one request. What was interrupted is gone on
// with by the same command: the upload's id is kept in the cache folder until the put is
// acknowledged (put_cache.h). When the server stops answering in the middle, the put waits for it
// and goes on by itself. Files that have not changed since they were put there are not read
// again. A file is read once, to its end; one that changes meanwhile is put as it was read, which a
// note on standard error says, and is read again the next time.
#pragma once

#include <cstdint>
#include <string>

#include "qanat/api/address.h"
#include "qanat/base/status.h"
#include "qanat/cli/cli.h"

namespace qanat::cli {

struct LocalPut {
  api::Address address;  // the file's path, or the directory below which a folder's files go
  std::string source;    // a path on this machine; "-": standard input
  bool folder = false;   // put everything in it
  bool append = false;
  std::string description;
  int64_t patience_ms = 0;  // for a server that stops answering and takes nothing in meanwhile
};
Status put_local(Cli& cli, const LocalPut& put);

}  // namespace qanat::cli
