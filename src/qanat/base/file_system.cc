#include "qanat/base/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "qanat/base/counters.h"
#include "qanat/base/string.h"
#include "qanat/base/tree_removal.h"

namespace qanat {
namespace {

constexpr mode_t kFilePermissions = 0600;
constexpr mode_t kDirectoryPermissions = 0700;

Counter& file_syncs() {
  static Counter& syncs = counter("qanat_file_syncs_total", "Files made durable (fdatasync calls)");
  return syncs;
}

Counter& directory_syncs() {
  static Counter& syncs =
      counter("qanat_directory_syncs_total", "Folders made durable (fsync calls)");
  return syncs;
}

Status failed(std::string_view operation, const std::string& path) {
  const int error = errno;
  return errno_status(error, str_cat(operation, " ", path));
}

// Calls again while a signal interrupts.
template <class Call>
auto retry_interrupted(Call call) {
  while (true) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

class PosixFile : public File {
 public:
  PosixFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}

  Result<size_t> pread(uint64_t offset, char* buffer, size_t length) override {
    size_t done = 0;
    while (done < length) {
      const ssize_t count = retry_interrupted([&] {
        return ::pread(descriptor_.get(), buffer + done, length - done,
                       static_cast<off_t>(offset + done));
      });
      if (count < 0) return failed("read", path_);
      if (count == 0) break;
      done += static_cast<size_t>(count);
    }
    return done;
  }

  Status pwrite(uint64_t offset, std::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t count = retry_interrupted([&] {
        return ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      });
      if (count < 0) return failed("write", path_);
      offset += static_cast<uint64_t>(count);
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    return ok_status();
  }

  void start_writing(uint64_t offset, uint64_t length) override {
    (void)::sync_file_range(descriptor_.get(), static_cast<off_t>(offset),
                            static_cast<off_t>(length), SYNC_FILE_RANGE_WRITE);
  }

  Status append(std::string_view bytes) override {
    QANAT_ASSIGN_OR_RETURN(const uint64_t end, size());
    return pwrite(end, bytes);
  }

  Status truncate(uint64_t size) override {
    const int result =
        retry_interrupted([&] { return ::ftruncate(descriptor_.get(), static_cast<off_t>(size)); });
    return result == 0 ? ok_status() : failed("truncate", path_);
  }

  Result<uint64_t> size() override {
    struct stat info{};
    if (::fstat(descriptor_.get(), &info) != 0) return failed("stat", path_);
    return static_cast<uint64_t>(info.st_size);
  }

  Status sync() override {
    file_syncs().add();
    return ::fdatasync(descriptor_.get()) == 0 ? ok_status() : failed("sync", path_);
  }

  Status close() override {
    const int number = descriptor_.release();
    if (number < 0) return ok_status();
    // On Linux the descriptor is gone even when close is interrupted: no second call.
    return ::close(number) == 0 || errno == EINTR ? ok_status() : failed("close", path_);
  }

 private:
  Descriptor descriptor_;
  const std::string path_;
};

class PosixFileLock : public FileLock {
 public:
  explicit PosixFileLock(int descriptor) : descriptor_(descriptor) {}

 private:
  Descriptor descriptor_;  // closing it frees the lock
};

int flags_of(OpenMode mode) {
  switch (mode) {
    case OpenMode::kReadOnly:
      return O_RDONLY;
    case OpenMode::kReadWrite:
      return O_RDWR;
    case OpenMode::kReadWriteCreate:
      return O_RDWR | O_CREAT;
    case OpenMode::kCreateExclusive:
      return O_RDWR | O_CREAT | O_EXCL;
  }
  return O_RDONLY;
}

int open_descriptor(const std::string& path, int flags) {
  return retry_interrupted(
      [&] { return ::open(path.c_str(), flags | O_CLOEXEC, kFilePermissions); });
}

class PosixFileSystem : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    const int descriptor = open_descriptor(path, flags_of(mode));
    if (descriptor < 0) return failed("open", path);
    return std::unique_ptr<File>(std::make_unique<PosixFile>(descriptor, path));
  }

  Status remove(const std::string& path) override {
    return ::unlink(path.c_str()) == 0 ? ok_status() : failed("remove", path);
  }

  Status remove_directory(const std::string& path) override {
    if (::rmdir(path.c_str()) == 0) return ok_status();
    if (errno == ENOTEMPTY || errno == EEXIST) {
      return failed_precondition(str_cat("remove folder ", path, ": it is not empty"));
    }
    return failed("remove folder", path);
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) == 0) return ok_status();
    return failed(str_cat("rename ", from, " to"), to);
  }

  Result<std::vector<DirectoryEntry>> list(const std::string& directory) override {
    DIR* stream = ::opendir(directory.c_str());
    if (stream == nullptr) return failed("list", directory);
    const auto close_stream = [](DIR* open_stream) { ::closedir(open_stream); };
    const std::unique_ptr<DIR, decltype(close_stream)> owner(stream, close_stream);
    std::vector<DirectoryEntry> entries;
    while (true) {
      errno = 0;
      const dirent* entry = ::readdir(stream);
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      bool is_directory = entry->d_type == DT_DIR;
      if (entry->d_type == DT_UNKNOWN) {
        struct stat info{};
        is_directory = ::fstatat(::dirfd(stream), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                       S_ISDIR(info.st_mode);
      }
      entries.push_back({std::string(name), is_directory});
    }
    if (errno != 0) return failed("list", directory);
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return entries;
  }

  Status make_directories(const std::string& path) override {
    if (::mkdir(path.c_str(), kDirectoryPermissions) == 0) {
      return sync_directory(parent_directory(path));
    }
    if (errno == ENOENT && parent_directory(path) != path) {
      QANAT_RETURN_IF_ERROR(make_directories(parent_directory(path)));
      // Another thread may have made it meanwhile; then this sync is one too many, and harmless.
      if (::mkdir(path.c_str(), kDirectoryPermissions) == 0 || errno == EEXIST) {
        return sync_directory(parent_directory(path));
      }
      return failed("make folder", path);
    }
    if (errno == EEXIST) {
      QANAT_ASSIGN_OR_RETURN(const FileInfo info, stat(path));
      if (info.is_directory) return ok_status();
      return already_exists(str_cat("make folder ", path, ": a file of that name is in the way"));
    }
    return failed("make folder", path);
  }

  Status sync_directory(const std::string& directory) override {
    const Descriptor descriptor(open_descriptor(directory, O_RDONLY | O_DIRECTORY));
    if (descriptor.get() < 0) return failed("open folder", directory);
    directory_syncs().add();
    return ::fsync(descriptor.get()) == 0 ? ok_status() : failed("sync folder", directory);
  }

  Result<FileInfo> stat(const std::string& path) override {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) return failed("stat", path);
    return FileInfo{static_cast<uint64_t>(info.st_size), S_ISDIR(info.st_mode),
                    int64_t{info.st_mtim.tv_sec} * 1000 + info.st_mtim.tv_nsec / 1'000'000};
  }

  Result<SpaceInfo> free_space(const std::string& path) override {
    struct statvfs info{};
    const int result = retry_interrupted([&] { return ::statvfs(path.c_str(), &info); });
    if (result != 0) return failed("look up free space of", path);
    return SpaceInfo{uint64_t{info.f_blocks} * info.f_frsize,
                     uint64_t{info.f_bavail} * info.f_frsize};
  }

  Result<std::unique_ptr<FileLock>> lock_file(const std::string& path) override {
    Descriptor descriptor(open_descriptor(path, O_RDWR | O_CREAT));
    if (descriptor.get() < 0) return failed("open", path);
    const int result =
        retry_interrupted([&] { return ::flock(descriptor.get(), LOCK_EX | LOCK_NB); });
    if (result != 0 && errno == EWOULDBLOCK) {
      return failed_precondition(str_cat(path, " is locked by another process"));
    }
    if (result != 0) return failed("lock", path);
    return std::unique_ptr<FileLock>(std::make_unique<PosixFileLock>(descriptor.release()));
  }

  Status remove_tree(const std::string& path) override { return remove_directory_tree(path); }
};

}  // namespace

FileSystem& posix_file_system() {
  // Never destroyed, so that it outlives every user.
  static PosixFileSystem* const instance = new PosixFileSystem;
  return *instance;
}

std::string parent_directory(const std::string& path) {
  size_t end = path.size();
  while (end > 1 && path[end - 1] == '/') --end;
  const size_t slash = path.rfind('/', end - 1);
  if (path.empty() || slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool FileSystem::exists(const std::string& path) { return stat(path).ok(); }

Result<std::string> FileSystem::read_file(const std::string& path, uint64_t limit) {
  QANAT_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, open(path, OpenMode::kReadOnly));
  QANAT_ASSIGN_OR_RETURN(const uint64_t size, file->size());
  if (size > limit) {
    return too_large(str_cat(path, " has ", size, " bytes, over the limit of ", limit));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  QANAT_ASSIGN_OR_RETURN(const size_t count, file->pread(0, bytes.data(), bytes.size()));
  bytes.resize(count);
  // Files of the kernel (/proc, cgroups) say that they are empty, and are not.
  while (size == 0 && bytes.size() < limit) {
    char piece[4096];
    QANAT_ASSIGN_OR_RETURN(const size_t more, file->pread(bytes.size(), piece, sizeof piece));
    if (more == 0) break;
    bytes.append(piece, more);
  }
  return bytes;
}

Status FileSystem::write_file_durably(const std::string& path, std::string_view bytes) {
  const std::string fresh = path + ".new";
  const auto write = [&]() -> Status {
    // Whatever an earlier crash left under this name is overwritten.
    QANAT_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                           open(fresh, OpenMode::kReadWriteCreate));
    QANAT_RETURN_IF_ERROR(file->truncate(0));
    QANAT_RETURN_IF_ERROR(file->pwrite(0, bytes));
    QANAT_RETURN_IF_ERROR(file->sync());
    QANAT_RETURN_IF_ERROR(file->close());
    return rename(fresh, path);
  };
  if (Status status = write(); !status.ok()) {
    (void)remove(fresh);  // the first error is the one to tell
    return status;
  }
  return sync_directory(parent_directory(path));
}

Status FileSystem::remove_tree(const std::string& path) {
  Result<std::vector<DirectoryEntry>> entries = list(path);
  if (entries.code() == Code::kNotFound) return ok_status();
  if (!entries.ok()) return entries.status();
  for (const DirectoryEntry& entry : *entries) {
    const std::string child = str_cat(path, "/", entry.name);
    QANAT_RETURN_IF_ERROR(entry.is_directory ? remove_tree(child) : remove(child));
  }
  return remove_directory(path);
}

}  // namespace qanat
