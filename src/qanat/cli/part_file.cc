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

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

std::string next_name(const std::string& folder) {
  static std::atomic<uint64_t> next{0};
  return str_cat(folder, ".qanat-", getpid(), "-", next.fetch_add(1), ".part");
}

}  // namespace

Result<PartFile> PartFile::create(std::string path, unsigned permissions) {
  // Never open to more people than in the end.
  const mode_t mode = permissions == 0 ? 0666 : permissions & 0600;
  const std::string folder = folder_of(path);
  std::string temporary;
  int fd = open(folder.empty() ? "." : folder.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, mode);
  while (fd < 0) {  // a name may be left from a process of the same number
    temporary = next_name(folder);
    fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0 && errno != EEXIST) return errno_status(errno, path);
  }
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
  if (temporary_.empty()) {
    // A link replaces nothing, so what is there already is replaced by way of a second name.
    const std::string self = str_cat("/proc/self/fd/", fd_);
    auto link_as = [&](const std::string& name) {
      return linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
    };
    if (!link_as(path_)) {
      if (errno != EEXIST) return errno_status(errno, path_);
      std::string name = next_name(folder_of(path_));
      while (!link_as(name)) {
        if (errno != EEXIST) return errno_status(errno, path_);
        name = next_name(folder_of(path_));
      }
      temporary_ = std::move(name);
    }
  }
  if (close(std::exchange(fd_, -1)) != 0) return errno_status(errno, path_);
  if (temporary_.empty()) return ok_status();
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
