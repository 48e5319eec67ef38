// Route `upload_file`: the server reads a file that a client on its machine passed to it open, so
// that its bytes travel, and are cut and hashed, once instead of twice.
//
// The client could read the file, as it has it open: the server reads through that descriptor and
// opens nothing itself. Only regular files: a pipe could keep a thread for ever. (So can a file of
// a file system that does not answer; who can pass one can stop this server anyway.)
#pragma once

#include "qanat/serve/call.h"

namespace qanat::serve {

Status upload_file(Call& call);

}  // namespace qanat::serve
