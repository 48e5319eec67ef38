// PartFile: a file that appears under its name only when it is whole.
//
// Its bytes go to a file of the same folder that has no name (O_TMPFILE) until commit() gives it
// one, in place of what was there: whoever is killed before leaves nothing. Where a file system has
// no such files it is called ".qanat-<process>-<number>.part" meanwhile, and a process that is
// killed leaves that. Nothing is made durable. One thread.
#pragma once

#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::cli {

class PartFile {
 public:
  // `permissions`: of a file that is replaced; 0: as of any new file.
  static Result<PartFile> create(std::string path, unsigned permissions = 0);
  ~PartFile();
  PartFile(PartFile&& other) noexcept;
  PartFile& operator=(PartFile&&) = delete;

  Status write(std::string_view bytes);
  // Nothing may follow but the destructor.
  Status commit();

 private:
  PartFile(std::string path, std::string temporary, int fd);

  std::string path_;
  std::string temporary_;  // its name for the time being; empty: it has none, or its own
  int fd_;
};

// All of a file at once, as a PartFile does.
Status write_whole_file(const std::string& path, std::string_view bytes);

}  // namespace qanat::cli
