// Finds what a datum left in /pfs/out, when none of its processes is alive any more.
//
// Regular files are outputs. Symbolic links are followed, wherever they point (to inputs, mostly),
// and what they lead to is an output under the link's name. Everything else (named pipes, sockets,
// devices), names that no repo takes, and links that lead nowhere fail the datum with an
// explanation.
//
// The worker is root and user code may not be, so links are a way to ask it for a file that the
// user may not read. So everything is opened with the file-system identity (setfsuid(2)) of the
// user; as root only files that the user owns and that no link led to. Links into /proc, /sys and
// the like are refused for everyone: process 1 reads there what no other may.
//
// Errors: kFailedPrecondition is the datum's fault and says what to change; others are the
// machine's.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/worker/account.h"

namespace qanat::worker {

// Called for every file, in ascending order of paths (bytewise). `fd` is open for reading and
// closed by the walk.
using OutputVisitor = std::function<Status(std::string_view path, int fd, std::uint64_t size)>;

// Holds the names of one folder and of those above it in memory, and a descriptor for each level.
// The calling thread's file-system identity is changed meanwhile; it must be root.
Status walk_output(int out_fd, const Account& account, const OutputVisitor& visit);

}  // namespace qanat::worker
