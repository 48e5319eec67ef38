#include "qanat/run/worker_program.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "qanat/base/file_system.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"

namespace qanat::run {
namespace {

Status copy_file(const std::string& from, const std::string& to) {
  int in = ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
  if (in < 0) return errno_status(errno, str_cat("open ", from));
  int out = ::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
  Status status = out < 0 ? errno_status(errno, str_cat("create ", to)) : ok_status();
  while (status.ok()) {
    ssize_t n = ::sendfile(out, in, nullptr, 1 << 20);
    if (n == 0) break;
    if (n < 0 && errno != EINTR) status = errno_status(errno, str_cat("write ", to));
  }
  ::close(in);
  if (out >= 0) {
    ::fchmod(out, 0755);
    if (::close(out) != 0 && status.ok()) status = errno_status(errno, str_cat("write ", to));
  }
  return status;
}

}  // namespace

Status install_worker_program(const std::string& program, const std::string& run_folder) {
  struct stat source;
  if (::stat(program.c_str(), &source) != 0) {
    return not_found(str_cat("the worker's program ", program, " does not exist"),
                     "qanat-worker belongs beside qanat; build or install both");
  }
  const std::string folder = str_cat(run_folder, "/bin");
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(folder));
  // User code that is not root must be able to look in (and finds nothing secret).
  ::chmod(run_folder.c_str(), 0755);
  ::chmod(folder.c_str(), 0755);
  const std::string target = str_cat(folder, "/qanat-worker");
  struct stat installed;
  if (::stat(target.c_str(), &installed) == 0 && installed.st_size == source.st_size &&
      (installed.st_ino == source.st_ino || (installed.st_mtim.tv_sec > source.st_mtim.tv_sec))) {
    return ok_status();
  }
  const std::string fresh = str_cat(target, ".", random_id());
  Status status =
      ::link(program.c_str(), fresh.c_str()) == 0 ? ok_status() : copy_file(program, fresh);
  if (status.ok() && ::rename(fresh.c_str(), target.c_str()) != 0) {
    status = errno_status(errno, str_cat("rename to ", target));
  }
  ::unlink(fresh.c_str());  // rename() of two links to one file does nothing and leaves both
  return status;
}

}  // namespace qanat::run
