#include "qanat/cli/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"

namespace qanat::cli {
namespace {

Status write_all(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return errno_status(errno, path);
    bytes.remove_prefix(static_cast<size_t>(wrote));
  }
  return ok_status();
}

}  // namespace

Result<PartFile> PartFile::create(std::string path, unsigned permissions) {
  static std::atomic<uint64_t> next{0};
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  std::string temporary;
  int fd = -1;
  do {  // a name may be left from a process of the same number
    temporary = str_cat(folder, ".qanat-", getpid(), "-", next.fetch_add(1), ".part");
    // Never open to more people than in the end.
    fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
              permissions == 0 ? 0666 : permissions & 0600);
  } while (fd < 0 && errno == EEXIST);
  if (fd < 0) return errno_status(errno, path);
  PartFile file(std::move(path), std::move(temporary), fd);
  if (permissions != 0 && fchmod(fd, permissions) != 0) return errno_status(errno, file.path_);
  return file;
}

PartFile::PartFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

PartFile::PartFile(PartFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      fd_(std::exchange(other.fd_, -1)) {}

PartFile::~PartFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

Status PartFile::write(std::string_view bytes) { return write_all(fd_, bytes, path_); }

Status PartFile::commit() {
  if (close(std::exchange(fd_, -1)) != 0) return errno_status(errno, path_);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return errno_status(errno, path_);
  temporary_.clear();
  return ok_status();
}

Status write_whole_file(const std::string& path, std::string_view bytes) {
  QANAT_ASSIGN_OR_RETURN(PartFile file, PartFile::create(path));
  QANAT_RETURN_IF_ERROR(file.write(bytes));
  return file.commit();
}

}  // namespace qanat::cli
