// TarReader: the files of a tar stream, strictly.
//
// Reads what tars are made of today: v7, ustar (POSIX.1-1988), pax (POSIX.1-2001: path, linkpath,
// size) and GNU (long names, base-256 numbers). Folders are passed over: here they exist through
// their files. What cannot become a file is refused by name, not left out: symbolic links, devices,
// pipes, sparse files, parts of several volumes; and so are absolute paths, "..", and whatever
// check_path refuses. A tar that is cut off, has a wrong checksum, or goes on after its end (two
// tars in one) is an error: what was read of it must not be used.
//
// Written here because a strict reader of the four formats that occur is smaller than a library's
// build would be to audit, refuses what libraries guess at, and holds 64 KiB, whatever it is sent.
// Fuzzed by tests/fuzz/connect_tar.cc. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::connect {

// Media type of such a body.
inline constexpr std::string_view kTarType = "application/x-tar";

struct TarEntry {
  std::string path;  // checked (base/path.h)
  uint64_t size = 0;
  // A hard link: the path, checked, of the file before it whose content this file has too. Else "".
  std::string link;
};

class TarReader {
 public:
  // Gives the next bytes, 0 at the end.
  using Source = std::function<Result<size_t>(char* buffer, size_t size)>;
  explicit TarReader(Source source);

  // The next file or hard link; nothing after a correct end. Content of the one before that was not
  // read is skipped. kInvalidArgument: what is wrong, where. After an error only destruction is
  // allowed.
  Result<std::optional<TarEntry>> next();
  // Content of the current file: up to `size` bytes; 0 at its end.
  Result<size_t> read(char* buffer, size_t size);

 private:
  struct Extensions {
    std::optional<std::string> path;
    std::optional<std::string> link;
    std::optional<uint64_t> size;
  };

  Status error(std::string_view what, std::string_view hint = {}) const;
  Status refuse(std::string_view path, std::string_view what, std::string_view hint) const;
  // Exactly `size` bytes, or false at the very end of the stream.
  Result<bool> read_exactly(char* buffer, size_t size);
  Status refuse_compressed();
  Status skip(uint64_t bytes);
  Result<std::string> read_payload(uint64_t size, size_t limit, std::string_view what);
  Status read_pax(uint64_t size, bool global, Extensions* extensions);
  Status read_end();
  Result<std::optional<TarEntry>> read_entry(std::string_view header, uint64_t size, char type,
                                             Extensions extensions);

  Source source_;
  std::vector<char> buffer_;
  size_t begin_ = 0;  // what is unread in buffer_
  size_t end_ = 0;
  uint64_t position_ = 0;  // in the stream
  uint64_t left_ = 0;      // of the current file's content
  uint64_t padding_ = 0;   // after it
  bool ended_ = false;
};

}  // namespace qanat::connect
