// The process runner's sandbox: starts the worker as process 1 of namespaces of its own, with a
// view of the machine's files in which only /pfs and /tmp can be written and the server's data
// cannot be found.
//
// What is inside: every folder of / read-only (nosuid), but proc, sys and dev made anew (the usual
// harmless devices; the dangerous parts of /proc read-only or hidden), tmp, pfs and run private,
// root and home empty, the hidden paths empty, and the worker's program and socket under /qanat.
// Capabilities are cut to those of a container's worker; no_new_privs. No network but loopback
// unless asked for: Unix sockets go through the file system and still work.
//
// It is a weaker cage than a container engine's: the kernel's system calls are not filtered, and
// the machine's programs are visible.
#pragma once

#include <string>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::worker {

struct PrivateRootSpec {
  std::string state_folder;  // exists, empty, of this worker alone; holds mount points and its /pfs
                             // and /tmp
  std::string program;       // the worker's, on the machine
  std::string socket_folder;        // seen as /qanat/run
  std::vector<std::string> hidden;  // folders that shall look empty
  std::string
      exit_file;         // where the supervisor writes how the worker ended: "exit 3" or "signal 9"
  bool network = false;  // the machine's, else none
};

// Forks the worker into its namespaces with the arguments given and the variables of the
// environment that begin with QANAT_; waits for its end, writes the exit file and returns the exit
// code for this process (128 + signal). For a process with one thread, running as root. If this
// process dies, so does the worker.
int run_in_private_root(const PrivateRootSpec& spec, const std::vector<std::string>& arguments);

// The capabilities that a worker needs, in the kernel's numbers: those that let root change owners,
// read and remove files of others and become another user. User code running as root keeps them.
const std::vector<int>& worker_capabilities();

}  // namespace qanat::worker
