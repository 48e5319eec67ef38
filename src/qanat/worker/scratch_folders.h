// ScratchFolders: the places where every user may leave something: /tmp, /var/tmp, /dev/shm,
// /dev/mqueue, /run/lock, and System V shared memory, semaphores and queues. Each attempt of a
// datum finds them as the image has them, so that one datum cannot hand anything to the next.
//
// What the image itself has there stays, by name: a datum that changes such a file changes it for
// the next one too. So does whatever user code may write elsewhere in the container: all of it for
// a transform that runs as root, its home folder for another user. A worker has no right to mount,
// so a fresh file system for each datum is not to be had.
//
// User code is hostile: nothing is followed, every step is an openat with O_NOFOLLOW. clean() is
// called while no process of the user is alive. One thread at a time.
#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::worker {

class ScratchFolders {
 public:
  // Looks at what the image has; before any user code runs. `root` is "" but for tests, which have
  // no System V objects of their own to be removed either.
  explicit ScratchFolders(const std::string& root = "");

  // Removes what is not the image's. kInternal: user code has put something into a folder's place
  // that cannot be put right; this container is not to be used any more.
  Status clean() const;

 private:
  struct Folder {
    std::string path;  // without links
    mode_t mode = 0;
    uid_t uid = 0;
    gid_t gid = 0;
    std::set<std::string> kept;  // paths below it that are the image's
    bool keep_trees = false;     // too many to remember: top names, with all below them
  };
  static Status clean_folder(const Folder& folder);
  static Status clean_below(const Folder& folder, int fd, const std::string& prefix);

  std::vector<Folder> folders_;
  bool own_ipc_ = false;  // an IPC namespace of this container's own, as far as can be seen
};

}  // namespace qanat::worker
