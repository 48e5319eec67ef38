// FolderWalk: the files of a local folder, depth first, names in bytewise order.
//
// So files come in the order of their paths, with '/' before every other byte, whatever the file
// system's own order is. Memory: the names of the folders on the way (20 bytes and the name, each).
// Symbolic links to files are followed; links to folders, and what is neither file nor folder, are
// refused by name. One thread.
#pragma once

#include <sys/stat.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::cli {

// What a file's stat says about whether it changed.
struct FileStamp {
  uint64_t size = 0;
  int64_t modified_ns = 0;  // since 1970
  int64_t changed_ns = 0;   // ctime
  uint64_t inode = 0;

  bool operator==(const FileStamp&) const = default;
};
FileStamp stamp_of(const struct stat& info);

// The order in which the walk gives paths.
std::strong_ordering walk_order(std::string_view a, std::string_view b);

class FolderWalk {
 public:
  explicit FolderWalk(std::string folder);

  struct Found {
    std::string file;  // on disk
    std::string path;  // relative to the folder
    FileStamp stamp;
  };
  // The next file; nothing at the end. A file that vanished since its folder was read is an error.
  Result<std::optional<Found>> next();

 private:
  struct Level {
    std::string folder;
    std::string path;
    std::string names;                                 // one after another
    std::vector<std::pair<size_t, uint32_t>> entries;  // where each lies, sorted by name
    size_t position = 0;
  };

  Status enter(std::string folder, std::string path);

  std::vector<Level> levels_;
  Status failed_;
};

}  // namespace qanat::cli
