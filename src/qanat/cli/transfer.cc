#include "qanat/cli/transfer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "qanat/api/files.h"
#include "qanat/base/file_system.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"

namespace qanat::cli {
namespace {

Parameters repo_parameters(const api::Address& address) {
  return {{"project", address.project}, {"repo", address.repo}};
}

Parameters edit_query(const api::Address& address, const std::string& description) {
  Parameters query = {{"ref", address.ref.to_string()}};
  if (!description.empty()) query["description"] = description;
  return query;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// Makes the folders that lead to `path` below `folder`.
Status make_parents(const std::string& folder, const std::string& path, std::string& last_made) {
  const std::string parent(path_parent(path));
  if (parent.empty() || parent == last_made) return ok_status();
  std::string made = folder;
  for (const std::string_view part : split_path(parent)) {
    str_append(made, "/", part);
    if (mkdir(made.c_str(), 0777) != 0 && errno != EEXIST) return errno_status(errno, made);
  }
  last_made = parent;
  return ok_status();
}

}  // namespace

Status send_edits(Cli& cli, const api::Address& address, const std::string& description,
                  const std::function<Status(api::FileStreamWriter&)>& write) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  api::FileStreamSource source([&](api::FileStreamWriter& out) -> Result<bool> {
    QANAT_RETURN_IF_ERROR(write(out));
    return false;
  });
  return server
      ->upload(
          "edit_files", repo_parameters(address), edit_query(address, description),
          [&source](char* buffer, size_t size) { return source.read(buffer, size); },
          api::kFileStreamType)
      .status();
}

Status get_folder(Cli& cli, const api::Address& address, const std::string& folder) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  QANAT_ASSIGN_OR_RETURN(
      auto answer, server->download("archive", repo_parameters(address),
                                    {{"ref", address.ref.to_string()}, {"path", address.path}}));
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(folder));
  Progress progress(str_cat("get ", address.to_string()), 0, cli.quiet());
  api::FileStreamReader reader(
      [&answer](char* buffer, size_t size) { return answer->read(buffer, size); });
  std::vector<char> buffer(256 << 10);
  std::string last_made;
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto frame, reader.next());
    if (!frame) return ok_status();
    if (frame->type != api::FrameType::kPut) continue;
    // Paths in an archive are whole; what is written is relative to the folder asked for.
    std::string path = frame->path;
    if (!address.path.empty() && path_is_within(path, address.path)) {
      path = path == address.path ? std::string(path_name(path))
                                  : path.substr(address.path.size() + 1);
    }
    QANAT_RETURN_IF_ERROR(check_path(path));
    QANAT_RETURN_IF_ERROR(make_parents(folder, path, last_made));
    const std::string file = folder + "/" + path;
    const Descriptor out(
        open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (out.get() < 0) return errno_status(errno, file);
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const size_t got, reader.read(buffer.data(), buffer.size()));
      if (got == 0) break;
      for (size_t done = 0; done < got;) {
        const ssize_t wrote = write(out.get(), buffer.data() + done, got - done);
        if (wrote < 0) return errno_status(errno, file);
        done += static_cast<size_t>(wrote);
      }
      progress.add(got);
    }
    progress.add(0, 1);
  }
}

}  // namespace qanat::cli
