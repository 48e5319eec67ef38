#include "qanat/cli/download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "qanat/api/file_stream.h"
#include "qanat/base/file_system.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_pool.h"
#include "qanat/cli/part_file.h"

namespace qanat::cli {
namespace {

constexpr size_t kPiece = 256 << 10;  // of a file; shorter files are gathered into batches
// A batch of small files, which one thread writes.
constexpr size_t kBatchBytes = 1 << 20;
constexpr size_t kBatchFiles = 64;

// Files of a folder, written by several threads. Used by one.
class FolderWriter {
 public:
  explicit FolderWriter(std::string folder)
      : folder_(std::move(folder)),
        pool_("files", std::clamp(std::thread::hardware_concurrency(), 2u, 8u), 64),
        group_(pool_) {}

  std::string place_of(const std::string& path) const { return str_cat(folder_, "/", path); }

  // The folders that lead to the file.
  Status make_parents(const std::string& path) {
    const std::string_view parent = path_parent(path);
    if (parent.empty() || parent == last_made_) return ok_status();
    std::string made = folder_;
    for (const std::string_view part : split_path(parent)) {
      str_append(made, "/", part);
      if (mkdir(made.c_str(), 0777) != 0 && errno != EEXIST) return errno_status(errno, made);
    }
    last_made_ = parent;
    return ok_status();
  }

  // A whole file. Errors of files may come with a later call.
  Status add(const std::string& path, std::string bytes) {
    if (group_.failed()) return group_.wait();
    batch_bytes_ += bytes.size();
    batch_.push_back({place_of(path), std::move(bytes)});
    if (batch_.size() >= kBatchFiles || batch_bytes_ >= kBatchBytes) start_batch();
    return ok_status();
  }

  Status finish() {
    start_batch();
    return group_.wait();
  }

 private:
  struct Whole {
    std::string place;
    std::string bytes;
  };

  void start_batch() {
    if (batch_.empty()) return;
    // Runs one itself when enough are waiting, so that memory is bounded.
    group_.run([batch = std::move(batch_)]() -> Status {
      for (const Whole& file : batch)
        QANAT_RETURN_IF_ERROR(write_whole_file(file.place, file.bytes));
      return ok_status();
    });
    batch_ = {};
    batch_bytes_ = 0;
  }

  const std::string folder_;
  std::string last_made_;
  std::vector<Whole> batch_;
  size_t batch_bytes_ = 0;
  ThreadPool pool_;
  TaskGroup group_;
};

// HTTP takes a range that is not one for no range at all: better said here.
Status check_range(std::string_view range) {
  const auto [first_text, last_text] = split_once(range, '-');
  const auto first = parse_u64(first_text);
  const auto last = parse_u64(last_text);
  const bool right = range.find('-') != std::string_view::npos &&
                     (first.ok() || first_text.empty()) && (last.ok() || last_text.empty()) &&
                     (first.ok() || last.ok()) && (!first.ok() || !last.ok() || *first <= *last);
  if (right) return ok_status();
  return invalid_argument(str_cat(quoted(range), " is not a range of bytes"),
                          "write FIRST-LAST, FIRST- or -LENGTH, such as 0-99");
}

// Where one file goes: a file that appears when it is whole; or, into what is no file (standard
// output, a pipe, a device), the bytes as they come.
class Output {
 public:
  // "" and "-" are standard output.
  static Result<Output> open(const std::string& name) {
    Output output(name);
    if (name.empty() || name == "-") {
      output.name_ = "standard output";
      output.fd_ = STDOUT_FILENO;
      return output;
    }
    struct stat info{};
    const bool there = stat(name.c_str(), &info) == 0;
    if (there && S_ISDIR(info.st_mode)) {
      return failed_precondition(str_cat(name, " is a folder"),
                                 "Name the file in it that is to be written.");
    }
    if (there && !S_ISREG(info.st_mode)) {
      output.fd_ = ::open(name.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
      if (output.fd_ < 0) return errno_status(errno, name);
      return output;
    }
    // A link is replaced, never followed: somebody else may have put it there.
    const bool file_there = lstat(name.c_str(), &info) == 0 && S_ISREG(info.st_mode);
    QANAT_ASSIGN_OR_RETURN(PartFile file,
                           PartFile::create(name, file_there ? info.st_mode & 0777 : 0));
    output.file_.emplace(std::move(file));
    return output;
  }

  Output(Output&& other) noexcept
      : name_(std::move(other.name_)),
        fd_(std::exchange(other.fd_, -1)),
        file_(std::move(other.file_)) {}
  Output& operator=(Output&&) = delete;
  ~Output() {
    if (fd_ > STDERR_FILENO) close(fd_);
  }

  bool is_file() const { return file_.has_value(); }
  Status write(std::string_view bytes) {
    if (file_) return file_->write(bytes);
    while (!bytes.empty()) {
      const ssize_t wrote = ::write(fd_, bytes.data(), bytes.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0 && errno == EPIPE && fd_ == STDOUT_FILENO) end_by_pipe();
      if (wrote < 0) return errno_status(errno, name_);
      bytes.remove_prefix(static_cast<size_t>(wrote));
    }
    return ok_status();
  }
  Status commit() { return file_ ? file_->commit() : ok_status(); }

 private:
  explicit Output(std::string name) : name_(std::move(name)) {}

  std::string name_;
  int fd_ = -1;
  std::optional<PartFile> file_;
};

}  // namespace

Status get_folder(Cli& cli, const api::Address& address, const std::string& folder) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  QANAT_ASSIGN_OR_RETURN(
      auto answer,
      server->download("archive", {{"project", address.project}, {"repo", address.repo}},
                       {{"ref", address.ref.to_string()}, {"path", address.path}}));
  QANAT_RETURN_IF_ERROR(posix_file_system().make_directories(folder));
  Progress progress(str_cat("get ", address.to_string()), 0, cli.quiet());
  api::FileStreamReader reader(
      [&answer](char* buffer, size_t size) { return answer->read(buffer, size); });
  FolderWriter writer(folder);
  std::vector<char> buffer(kPiece);
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto frame, reader.next());
    if (!frame) return writer.finish();
    if (frame->type != api::FrameType::kPut) continue;
    // Paths in an archive are whole; what is written is relative to the folder asked for.
    std::string path = frame->path;
    if (!address.path.empty() && path_is_within(path, address.path)) {
      path = path == address.path ? std::string(path_name(path))
                                  : path.substr(address.path.size() + 1);
    }
    QANAT_RETURN_IF_ERROR(check_path(path));
    QANAT_RETURN_IF_ERROR(writer.make_parents(path));
    std::string small;
    std::optional<PartFile> large;
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const size_t got, reader.read(buffer.data(), buffer.size()));
      if (got == 0) break;
      const std::string_view bytes(buffer.data(), got);
      progress.add(got);
      if (!large && small.size() + got <= kPiece) {
        small += bytes;
        continue;
      }
      if (!large) {
        QANAT_ASSIGN_OR_RETURN(PartFile file, PartFile::create(writer.place_of(path)));
        large.emplace(std::move(file));
        QANAT_RETURN_IF_ERROR(large->write(small));
        small = {};
      }
      QANAT_RETURN_IF_ERROR(large->write(bytes));
    }
    QANAT_RETURN_IF_ERROR(large ? large->commit() : writer.add(path, std::move(small)));
    progress.add(0, 1);
  }
}

Status get_file(Cli& cli, const api::Address& address, const std::string& range,
                const std::string& output) {
  if (address.path.empty()) {
    return invalid_argument("there is no path in the address",
                            "write REPO@BRANCH:/PATH, or add -r for all files");
  }
  if (!range.empty()) QANAT_RETURN_IF_ERROR(check_range(range));
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  QANAT_ASSIGN_OR_RETURN(
      auto answer,
      server->download(
          "get_file",
          {{"project", address.project}, {"repo", address.repo}, {"path", address.path}},
          {{"ref", address.ref.to_string()}}, range.empty() ? "" : "bytes=" + range));
  QANAT_ASSIGN_OR_RETURN(Output file, Output::open(output));
  Progress progress(str_cat("get ", address.to_string()), answer->content_length().value_or(0),
                    cli.quiet() || !file.is_file());
  std::vector<char> buffer(kPiece);
  uint64_t done = 0;
  while (true) {
    const auto got = answer->read(buffer.data(), buffer.size());
    if (!got.ok()) {
      return Status(got.code(),
                    str_cat("the server broke off after ", format_size(done), " of ",
                            address.to_string(), ": ", got.status().message()),
                    "try again; if it breaks off there again, `qanat fsck --data` looks for "
                    "content that is damaged, and the server's log says why");
    }
    if (*got == 0) break;
    QANAT_RETURN_IF_ERROR(file.write({buffer.data(), *got}));
    progress.add(*got);
    done += *got;
  }
  return file.commit();
}

}  // namespace qanat::cli
