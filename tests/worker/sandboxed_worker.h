// A real worker, process 1 of namespaces of its own, talking to a FakeServer. Needs root, as the
// process runner does.
#pragma once

#include <sys/types.h>

#include <string>

#include "worker/fake_server.h"

namespace qanat::testing {

class SandboxedWorker {
 public:
  SandboxedWorker();
  ~SandboxedWorker();

  // Both in a fresh folder; set up `server.hello` before.
  void start();
  // Waits for the worker to end by itself; its exit code.
  int wait();

  FakeServer& server() { return server_; }
  const std::string& sockets() const { return sockets_; }
  std::string output() const;  // of the worker itself
  std::string exit_file() const;

  // The command is `sh` with this script.
  void run_script(const std::string& script);

 private:
  const std::string folder_;
  const std::string sockets_;
  FakeServer server_;
  pid_t pid_ = 0;
};

}  // namespace qanat::testing
