// A Docker engine of our own, for machines where Docker is installed but no engine runs: dockerd
// with its folder, socket, session and cgroup, so that neither a restart of the server nor a limit
// on it touches running workers. It stays until it is stopped, and is found again through its
// socket.
//
// DATA/engine/{root, pid, log}; the socket and dockerd's own run-time files are in
// DATA/engine too, or, where that path is too long for a Unix socket (107 bytes), under
// /run/qanat-<hash>. Containers of such an engine have no network but none and host: it makes no
// bridge and no firewall rules.
//
// Thread safe. One server per data folder (its lock sees to that).
#pragma once

#include <atomic>
#include <string>

#include "qanat/base/clock.h"
#include "qanat/base/status.h"

namespace qanat::run {

class PrivateEngine {
 public:
  // `data_folder` is absolute and exists.
  PrivateEngine(const std::string& data_folder, Clock& clock);

  const std::string& socket() const { return socket_; }
  // Whether one that was started earlier answers.
  bool running() const;
  // Whether one was started earlier and has not ended, though it may be too busy to answer.
  bool lives() const { return living_pid() != 0; }
  // Whether one could be started: running as root, and dockerd is installed.
  Status possible() const;
  // Starts it unless it lives, and waits (up to 20 s) until it answers. One that lives is left as
  // it is, however slow: a second one with the same folders would ruin both. The error has the last
  // lines of its log, or says which process is waited for.
  Status start();
  // Ends it and all its containers (up to 15 s), and leaves its images. OK if there is none.
  Status stop();

 private:
  Status spawn(const std::string& dockerd);
  std::string cgroup_name() const;
  void remove_cgroups() const;  // those that are empty by now
  std::string log_tail() const;
  // 0: none.
  int living_pid() const;
  bool is_this_engine(int pid) const;

  const std::string folder_;
  Clock& clock_;
  std::string exec_root_;
  std::string socket_;
  std::atomic<int> child_ = 0;  // the last one that was started from here
};

}  // namespace qanat::run
