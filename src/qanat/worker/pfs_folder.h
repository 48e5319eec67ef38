// The folder /pfs in which user code sees a datum: /pfs/<input>/<path>, and /pfs/out for what it
// makes.
//
// User code owns this folder and is hostile: it may have replaced anything in it, /pfs itself
// included, by links or pipes, with names and depths made to hurt. So nothing here goes by path:
// every step is an openat of one part with O_NOFOLLOW, files are only ever created anew (O_EXCL),
// and removal never leaves the folder. All calls are made while no process of the user is alive.
//
// One thread at a time. Errors: kResourceExhausted when the disk is full; others name the path.
// After an error the folder holds a part of the datum; the next prepare() empties it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/worker/account.h"

namespace qanat::worker {

class PfsFolder {
 public:
  // `parent` is "/" but for tests. Everything made belongs to `owner`.
  PfsFolder(std::string parent, Account owner);
  ~PfsFolder();
  PfsFolder(const PfsFolder&) = delete;
  PfsFolder& operator=(const PfsFolder&) = delete;

  // Empties the folder and makes `out` and a folder for each input.
  Status prepare(const std::vector<std::string>& inputs);
  // Empties it.
  Status clear();

  // Makes <input>/<path>. For large files: begin, append*, end.
  Status write_file(std::string_view path, std::string_view bytes);
  Status begin_file(std::string_view path);
  Status append(std::string_view bytes);
  Status end_file();

  // The open folder `out`; the caller closes it. kFailedPrecondition (with words for the datum's
  // owner) when user code has removed it or put something else in its place.
  Result<int> open_out();

 private:
  Status open_root();
  Status open_parent(std::string_view path, std::string_view& name);
  void close_parent();

  const std::string parent_;
  const Account owner_;
  int root_fd_ = -1;         // of /pfs
  int folder_fd_ = -1;       // of the folder last written to
  std::string folder_path_;  // its path below /pfs
  int file_fd_ = -1;         // being written
  std::string file_path_;
};

// Removes everything in the open folder, whatever its depth, following nothing. Uses few
// descriptors and a bounded stack.
Status empty_folder(int folder_fd);

}  // namespace qanat::worker
