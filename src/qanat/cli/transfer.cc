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

// Walks a folder depth first in name order, a folder's names in memory at a time.
class FolderWalk {
 public:
  explicit FolderWalk(std::string folder) { enter(std::move(folder), ""); }

  struct Found {
    std::string file;  // on disk
    std::string path;  // relative to the folder
  };
  // The next file; nothing at the end.
  Result<std::optional<Found>> next() {
    QANAT_RETURN_IF_ERROR(failed_);
    while (!levels_.empty()) {
      Level& level = levels_.back();
      if (level.position == level.names.size()) {
        levels_.pop_back();
        continue;
      }
      const std::string name = level.names[level.position++];
      const std::string file = level.folder + "/" + name;
      std::string path = join_path(level.path, name);
      struct stat info{};
      if (lstat(file.c_str(), &info) != 0) return errno_status(errno, file);
      if (S_ISLNK(info.st_mode)) {
        if (stat(file.c_str(), &info) != 0)
          return errno_status(errno, str_cat(file, " (a symbolic link)"));
        if (S_ISDIR(info.st_mode)) {
          return failed_precondition(str_cat(file, " is a symbolic link to a folder"),
                                     "Links to folders are not followed, because they can lead in "
                                     "circles: replace it by what it names.");
        }
      }
      if (S_ISDIR(info.st_mode)) {
        enter(file, path);
        QANAT_RETURN_IF_ERROR(failed_);
        continue;
      }
      if (!S_ISREG(info.st_mode))
        return failed_precondition(str_cat(file, " is neither a file nor a folder"));
      return std::optional<Found>(Found{file, std::move(path)});
    }
    return std::optional<Found>();
  }

 private:
  struct Level {
    std::string folder;
    std::string path;
    std::vector<std::string> names;
    size_t position = 0;
  };

  void enter(std::string folder, std::string path) {
    DIR* directory = opendir(folder.c_str());
    if (directory == nullptr) {
      failed_ = errno_status(errno, folder);
      return;
    }
    Level level{std::move(folder), std::move(path), {}, 0};
    while (const dirent* entry = readdir(directory)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") level.names.emplace_back(name);
    }
    closedir(directory);
    std::sort(level.names.begin(), level.names.end());
    levels_.push_back(std::move(level));
  }

  std::vector<Level> levels_;
  Status failed_;
};

// The body of a folder's put: one file's next piece a step.
class FolderBody {
 public:
  FolderBody(const std::string& folder, std::string below, bool append, std::string description,
             Progress& progress)
      : walk_(folder),
        below_(std::move(below)),
        append_(append),
        description_(std::move(description)),
        progress_(progress) {}

  Result<bool> step(api::FileStreamWriter& out) {
    if (!begun_) {
      begun_ = true;
      QANAT_RETURN_IF_ERROR(out.head(api::json_text(api::EditsHead{description_})));
    }
    if (file_.get() < 0) {
      QANAT_ASSIGN_OR_RETURN(const auto found, walk_.next());
      if (!found) return false;
      file_ = Descriptor(open(found->file.c_str(), O_RDONLY | O_CLOEXEC));
      if (file_.get() < 0) return errno_status(errno, found->file);
      name_ = found->file;
      const std::string path = join_path(below_, found->path);
      Status valid = check_path(path);
      if (!valid.ok()) return valid.with_context(found->file);
      QANAT_RETURN_IF_ERROR(out.begin_put(path, append_));
    }
    const ssize_t got = read(file_.get(), buffer_.data(), buffer_.size());
    if (got < 0) return errno_status(errno, name_);
    if (got == 0) {
      file_ = Descriptor(-1);
      progress_.add(0, 1);
      QANAT_RETURN_IF_ERROR(out.end_put());
      return true;
    }
    progress_.add(static_cast<uint64_t>(got));
    QANAT_RETURN_IF_ERROR(out.data({buffer_.data(), static_cast<size_t>(got)}));
    return true;
  }

 private:
  FolderWalk walk_;
  const std::string below_;
  const bool append_;
  const std::string description_;
  Progress& progress_;
  bool begun_ = false;
  Descriptor file_{-1};
  std::string name_;
  std::vector<char> buffer_ = std::vector<char>(256 << 10);
};

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

Status put_folder(Cli& cli, const api::Address& address, const std::string& folder, bool append,
                  const std::string& description) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  Progress progress(str_cat("put ", folder), 0, cli.quiet());
  FolderBody body(folder, address.path, append, description, progress);
  api::FileStreamSource source([&body](api::FileStreamWriter& out) { return body.step(out); });
  return server
      ->upload(
          "edit_files", repo_parameters(address), edit_query(address, description),
          [&source](char* buffer, size_t size) { return source.read(buffer, size); },
          api::kFileStreamType)
      .status();
}

}  // namespace qanat::cli
