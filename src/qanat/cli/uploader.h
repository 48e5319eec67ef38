// Uploader: files on their way into a repo, in pieces, by several threads.
//
// The caller's thread gives it files one after another and their bytes; it cuts them into chunks
// (chunk/) in blocks of 4 MiB. A few threads take blocks: hash their chunks, ask the server which
// of them it has, send the others in requests of 32 MiB. A file is done when all its chunks are
// durable at the server; done files are written, in the order in which they were given, as frames
// of an edit that names their chunks (api/file_stream.h). The edit waits in memory, beyond 8 MiB in
// an unnamed temporary file, until everything is durable: sending it is the commit.
//
// While everything so far fits into 4 MiB nothing is sent; if that is all, the edit holds the bytes
// themselves, and the put is one request.
//
// A large file is passed open to a server on the same machine, which reads and cuts it itself.
//
// Hashing is adaptive: after 32 MiB of which the server had nothing, one chunk in 16 is hashed and
// asked for, until there is one; the names of the others come with the server's answer. A resumed
// upload always asks for all.
//
// Memory: (threads + 2) blocks of 6 MiB, whatever the number and size of files; of a file that is
// on its way, 36 bytes a chunk. The caller's side is for one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/api/address.h"
#include "qanat/api/file_stream.h"
#include "qanat/base/status.h"
#include "qanat/cli/connection.h"
#include "qanat/cli/folder_walk.h"

namespace qanat::cli {

struct UploaderOptions {
  size_t threads = 0;     // 0: one a core, at least 2, at most 4
  bool resumed = false;   // `upload_id` was begun by an earlier run
  std::string upload_id;  // "": begun when it is needed
  // Told the id of an upload that was begun here, before anything is sent.
  std::function<void(const std::string& id)> on_begin;
  // Told, on any thread but never two at a time, of bytes that are durable at the server.
  std::function<void(uint64_t sent, uint64_t there)> on_durable;
};

// A file that is done: all of it is named in the edit.
struct UploadedFile {
  std::string path;  // in the repo
  uint64_t size = 0;
  std::optional<FileStamp> stamp;  // as given to end_file() or same_file()
  // Its content id, if that is known here: files of one chunk at most, and those that are the same.
  std::optional<Hash> content_id;
};

class Uploader {
 public:
  // `server` must outlive it.
  Uploader(Connection& server, api::Address target, UploaderOptions options);
  // Ends the threads; what was sent stays with the upload.
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  // Called for each file in the order in which they were given, when it is done; on any thread, but
  // never two at a time.
  void on_file(std::function<void(const UploadedFile& file)> each);

  // A file: begin_file, fill*, end_file.
  Status begin_file(std::string path, bool append);
  // Reads the next bytes of the file with `read` (0: its end); false at its end.
  using Read = std::function<Result<size_t>(char* buffer, size_t size)>;
  Result<bool> fill(const Read& read);
  // Instead of fill(), of a regular file that is open: where the server is on this machine it reads
  // the file itself, from the beginning. How far it came, which `progress` is told of as well; with
  // less than the whole file the caller fills in the rest.
  struct Passed {
    uint64_t bytes = 0;
    bool ended = false;  // the file did
  };
  Result<Passed> pass(int file, const std::function<void(uint64_t bytes)>& progress);
  Status end_file(std::optional<FileStamp> stamp);
  // A file that the target holds already, by its content id.
  Status same_file(const std::string& path, const Hash& content_id, const FileStamp& stamp);

  // Waits for everything to be durable and sends the edit: the answer (a CommitInfo). kConflict:
  // the server does not have something any more that it was counted on to have; nothing was put.
  Result<std::string> commit(const std::string& description);

  // True once an upload was begun or used.
  bool has_session() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qanat::cli
