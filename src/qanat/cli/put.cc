#include "qanat/cli/put.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <set>
#include <thread>
#include <utility>

#include "qanat/api/commits.h"
#include "qanat/api/files.h"
#include "qanat/base/clock.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/cli/folder_walk.h"
#include "qanat/cli/put_cache.h"
#include "qanat/cli/uploader.h"

namespace qanat::cli {
namespace {

constexpr int kAttempts = 3;
// A single file shorter than this is put faster than it is looked up.
constexpr uint64_t kRemembered = 1u << 20;
// A file of this size is read by the server itself if that is on this machine. (Of shorter ones
// several are on their way at a time.)
constexpr uint64_t kPassed = 64u << 20;
// Files of several chunks whose content ids are asked for after a put, for the next one.
constexpr size_t kMaxAsked = 10'000;
// Paths that others changed on the branch; beyond it nothing that was put before is trusted.
constexpr size_t kMaxChanged = 100'000;
constexpr size_t kMaxNotes = 10;  // of files that changed while they were read
constexpr const char* kGoOn = "Run the same command again: it goes on where this one stopped.";

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ > STDIN_FILENO) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

std::string absolute(const std::string& source) {
  if (source == "-") return source;
  char resolved[PATH_MAX];
  return realpath(source.c_str(), resolved) == nullptr ? source : resolved;
}

// What Ctrl-C says. The upload is known to the server and to the cache folder at every moment, so
// there is nothing to do but to go.
std::atomic<bool> interrupted_goes_on{false};

void on_interrupt(int) {
  const std::string_view text =
      interrupted_goes_on ? "\ninterrupted; the same command goes on where this one stopped\n"
                          : "\ninterrupted; nothing was put\n";
  (void)!write(STDERR_FILENO, text.data(), text.size());
  _exit(130);
}

class InterruptNotice {
 public:
  InterruptNotice() {
    struct sigaction action{};
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptNotice() { sigaction(SIGINT, &before_, nullptr); }
  InterruptNotice(const InterruptNotice&) = delete;
  InterruptNotice& operator=(const InterruptNotice&) = delete;

 private:
  struct sigaction before_{};
};

// Adds up what a folder holds, beside the put, so that it can say how long it will take. Only for a
// terminal. Errors are the put's to find.
class Census {
 public:
  Census(const std::string& folder, Progress& progress) {
    thread_ = std::thread([this, folder, &progress] {
      FolderWalk walk(folder);
      uint64_t total = 0;
      while (!stop_) {
        const auto found = walk.next();
        if (!found.ok()) return;
        if (!*found) break;
        total += (*found)->stamp.size;
      }
      if (!stop_) progress.set_total(total);
    });
  }
  ~Census() {
    stop_ = true;
    thread_.join();
  }
  Census(const Census&) = delete;
  Census& operator=(const Census&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// One try of a put.
class Attempt {
 public:
  struct Memory {
    std::string key;  // "": nothing is remembered
    bool trust_stamps = true;
    std::set<std::string, std::less<>> changed;  // paths whose stamps are not trusted all the same
    std::string upload_id;                       // of an interrupted run
    bool ask_for_all = false;
  };

  Attempt(Connection& server, const LocalPut& put, Memory memory, Progress& progress)
      : server_(server),
        put_(put),
        memory_(std::move(memory)),
        progress_(progress),
        scan_ns_(now_ns()),
        uploader_(server, put.address, uploader_options()) {
    if (!memory_.key.empty() && !put_.append) {
      if (memory_.trust_stamps) old_stamps_ = std::make_unique<StatCacheReader>(memory_.key);
      new_stamps_ = std::make_unique<StatCacheWriter>(memory_.key, scan_ns_);
    }
    uploader_.on_file([this](const UploadedFile& file) { note(file); });
  }

  Status run() {
    QANAT_RETURN_IF_ERROR(put_.folder ? give_folder() : give_one());
    QANAT_ASSIGN_OR_RETURN(const std::string answer, uploader_.commit(put_.description));
    keep_stamps(answer);
    tell_changed();
    return ok_status();
  }

  bool has_session() const { return uploader_.has_session(); }
  bool has_sent() const { return sent_; }  // something, durably

 private:
  UploaderOptions uploader_options() {
    UploaderOptions options;
    options.upload_id = memory_.upload_id;
    options.resumed = memory_.ask_for_all || !memory_.upload_id.empty();
    options.on_begin = [this](const std::string& id) {
      if (memory_.key.empty()) return;
      save_upload(memory_.key, id);
      interrupted_goes_on = true;
    };
    options.on_durable = [this](uint64_t sent, uint64_t there) {
      if (sent > 0) sent_ = true;
      progress_.add_sent(sent, there);
    };
    return options;
  }

  Status give_folder() {
    FolderWalk walk(put_.source);
    for (bool empty = true;; empty = false) {
      QANAT_ASSIGN_OR_RETURN(const auto found, walk.next());
      if (!found && empty) {
        return invalid_argument(
            str_cat("there is nothing to put: ", put_.source, " holds no files"),
            "Folders exist through their files.");
      }
      if (!found) return ok_status();
      const std::string path = join_path(put_.address.path, found->path);
      Status valid = check_path(path);
      if (!valid.ok()) return valid.with_context(found->file);
      QANAT_RETURN_IF_ERROR(give(found->file, path, found->stamp));
    }
  }

  Status give_one() {
    if (put_.source == "-")
      return read(STDIN_FILENO, "standard input", put_.address.path, std::nullopt);
    struct stat info{};
    if (stat(put_.source.c_str(), &info) != 0) return errno_status(errno, put_.source);
    return give(put_.source, put_.address.path,
                S_ISREG(info.st_mode) ? std::optional(stamp_of(info)) : std::nullopt);
  }

  // `stamp`: none if it is no regular file (a pipe that was named, say).
  Status give(const std::string& file, const std::string& path,
              const std::optional<FileStamp>& stamp) {
    if (old_stamps_ != nullptr && stamp && !memory_.changed.contains(path)) {
      if (const auto id = old_stamps_->find(path, *stamp)) {
        progress_.add_sent(0, stamp->size);
        progress_.add(stamp->size);
        return uploader_.same_file(path, *id, *stamp);
      }
    }
    const Descriptor in(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (in.get() < 0) {
      if (errno != ENOENT || !put_.folder) return errno_status(errno, file);
      return failed_precondition(str_cat(file, " vanished while its folder was put"),
                                 "Nothing was put. Put the folder again when nothing changes it.");
    }
    return read(in.get(), file, path, stamp);
  }

  // `before`: what is known of the file from before it was opened.
  Status read(int fd, const std::string& name, const std::string& path,
              const std::optional<FileStamp>& before) {
    QANAT_RETURN_IF_ERROR(uploader_.begin_file(path, put_.append));
    struct stat opened{};
    const bool watched = fstat(fd, &opened) == 0 && S_ISREG(opened.st_mode);
    uint64_t size = 0;
    bool ended = false;
    if (before && before->size >= kPassed) {
      QANAT_ASSIGN_OR_RETURN(const auto passed,
                             uploader_.pass(fd, [&](uint64_t bytes) { progress_.add(bytes); }));
      size = passed.bytes;
      ended = passed.ended;
      if (!ended && size > 0 && lseek(fd, static_cast<off_t>(size), SEEK_SET) < 0)
        return errno_status(errno, name);
    }
    while (!ended) {
      QANAT_ASSIGN_OR_RETURN(const bool more,
                             uploader_.fill([&](char* buffer, size_t room) -> Result<size_t> {
                               ssize_t got = 0;
                               do {
                                 got = ::read(fd, buffer, room);
                               } while (got < 0 && errno == EINTR);
                               if (got < 0) return errno_status(errno, name);
                               progress_.add(static_cast<uint64_t>(got));
                               size += static_cast<uint64_t>(got);
                               // Saves asking once more for the end. Less than was asked for is no
                               // end by itself: files of /proc and some of network file systems
                               // come in pieces.
                               ended = before && before->size > 0 && size >= before->size &&
                                       static_cast<size_t>(got) < room;
                               return static_cast<size_t>(got);
                             }));
      if (!more) break;
    }
    // Only what stayed as it was while it was read is known by its stamp.
    std::optional<FileStamp> stamp;
    struct stat after{};
    if (fstat(fd, &after) == 0) {
      if (before && stamp_of(after) == *before && before->size == size) stamp = before;
      if (watched && was_written(opened, after)) {
        if (changed_files_++ < kMaxNotes) changed_names_.push_back(name);
      }
    }
    return uploader_.end_file(stamp);
  }

  // (A file that was replaced or renamed meanwhile was read whole all the same.)
  static bool was_written(const struct stat& opened, const struct stat& after) {
    const FileStamp first = stamp_of(opened);
    const FileStamp last = stamp_of(after);
    return first.size != last.size || first.modified_ns != last.modified_ns;
  }

  void tell_changed() const {
    for (const std::string& name : changed_names_) {
      print_note(str_cat("note: ", printable(name),
                         " changed while it was read: what was put may be a mixture of before and "
                         "after. Put it again when nothing writes to it."));
    }
    if (changed_files_ > changed_names_.size()) {
      print_note(str_cat("note: ", changed_files_ - changed_names_.size(),
                         " more files changed while they were read"));
    }
  }

  // From the uploader, in walk order.
  void note(const UploadedFile& file) {
    progress_.add(0, 1);
    if (new_stamps_ == nullptr || !file.stamp) return;
    if (file.content_id) {
      new_stamps_->add(file.path, *file.stamp, *file.content_id);
    } else if (unknown_ids_.size() < kMaxAsked) {
      unknown_ids_.emplace_back(file.path, new_stamps_->add(file.path, *file.stamp, Hash{}));
    }
  }

  // Of files that are lists of chunks the server says the content ids, from the commit that the put
  // made, in which nobody else can have changed them. An open commit is not asked.
  void keep_stamps(const std::string& answer) {
    if (new_stamps_ == nullptr) return;
    const auto commit = api::parse_json<api::CommitInfo>(answer, {.ignore_unknown = true});
    if (commit.ok() && commit->state == api::CommitState::kFinished) {
      for (const auto& [path, record] : unknown_ids_) {
        const auto info = server_.get<api::FileInfo>(
            "stat_file", {{"project", put_.address.project}, {"repo", put_.address.repo}},
            {{"ref", commit->id}, {"path", path}});
        if (!info.ok()) break;
        const auto id = Hash::from_hex(info->hash);
        if (id.ok()) new_stamps_->set(record, *id);
      }
      new_stamps_->set_commit(commit->id);
    }
    new_stamps_->keep();
  }

  Connection& server_;
  const LocalPut& put_;
  const Memory memory_;
  Progress& progress_;
  const int64_t scan_ns_;
  std::atomic<bool> sent_{false};
  std::unique_ptr<StatCacheReader> old_stamps_;
  std::unique_ptr<StatCacheWriter> new_stamps_;
  size_t changed_files_ = 0;                                   // while they were read
  std::vector<std::string> changed_names_;                     // the first of them
  std::vector<std::pair<std::string, uint64_t>> unknown_ids_;  // path, record of new_stamps_
  Uploader uploader_;                                          // last: its threads call note()
};

// The upload of an interrupted run, if the server still has it; `ended`, if given: whether there
// was one that it has not any more.
std::string find_live_upload(Connection& server, const LocalPut& put, const std::string& key,
                             bool* ended = nullptr) {
  const auto id = find_upload(key);
  if (!id) return "";
  const auto answer =
      server.exchange_bytes("upload_have", {{"project", put.address.project}, {"upload", *id}}, "");
  if (answer.code() != Code::kNotFound) return *id;
  forget_upload(key);
  if (ended != nullptr) *ended = true;
  return "";
}

bool is_lost(Code code) { return code == Code::kUnavailable || code == Code::kDeadlineExceeded; }

// Until the server answers again; false when it has not by `deadline_ms` (monotonic).
bool wait_for_server(Connection& server, const LocalPut& put, const std::string& key,
                     int64_t deadline_ms) {
  const auto id = find_upload(key);
  if (!id) return false;
  for (int64_t pause = 250;; pause = std::min<int64_t>(2 * pause, 5000)) {
    const int64_t left = deadline_ms - real_clock().monotonic_ms();
    if (left <= 0) return false;
    real_clock().sleep_for_ms(std::min(pause, left));
    const auto answer = server.exchange_bytes(
        "upload_have", {{"project", put.address.project}, {"upload", *id}}, "");
    if (!is_lost(answer.code())) return true;
  }
}

Status appended_already(const LocalPut& put, std::string_view how) {
  return failed_precondition(str_cat(how, ": its bytes may have been appended already"),
                             str_cat("Look at ", put.address.to_string(),
                                     ". If they are not there, run the same command again."));
}

// What differs on the branch from what the put left there that the stat cache is of. Nothing: it is
// not known, or too much.
std::optional<std::set<std::string, std::less<>>> changed_since(Connection& server,
                                                                const LocalPut& put,
                                                                const std::string& key) {
  const std::string commit = StatCacheReader(key).commit();
  if (commit.empty()) return std::nullopt;
  std::set<std::string, std::less<>> paths;
  Parameters query = {
      {"ref", put.address.ref.to_string()}, {"base", commit}, {"path", put.address.path}};
  while (paths.size() <= kMaxChanged) {
    const auto page = server.get<api::List<api::FileDiff>>(
        "diff_files", {{"project", put.address.project}, {"repo", put.address.repo}}, query);
    if (!page.ok()) return std::nullopt;
    for (const api::FileDiff& diff : page->items) paths.insert(diff.path.substr(1));
    if (page->next.empty()) return paths;
    query["page"] = page->next;
  }
  return std::nullopt;
}

}  // namespace

Status put_local(Cli& cli, const LocalPut& put) {
  QANAT_ASSIGN_OR_RETURN(Connection * server, cli.connection());
  const bool from_stdin = put.source == "-";
  uint64_t total = 0;
  struct stat info{};
  if (!put.folder &&
      (from_stdin ? fstat(STDIN_FILENO, &info) : stat(put.source.c_str(), &info)) == 0 &&
      S_ISREG(info.st_mode)) {
    total = static_cast<uint64_t>(info.st_size);
  }
  Attempt::Memory memory;
  const bool remember = put.folder || from_stdin || total >= kRemembered;
  if (remember) {
    memory.key = put_key({server->server(), put.address.project, put.address.repo,
                          put.address.ref.to_string(), put.address.path, absolute(put.source),
                          put.append ? "append" : "", put.folder ? "folder" : ""});
    bool ended = false;
    memory.upload_id = find_live_upload(*server, put, memory.key, &ended);
    if (ended && put.append) {
      return appended_already(put,
                              "an earlier run of this command was cut off after it had sent "
                              "everything, or more than a day ago");
    }
    memory.trust_stamps = !from_stdin;
  }
  const InterruptNotice notice;
  interrupted_goes_on = !memory.upload_id.empty();
  Progress progress(str_cat("put ", from_stdin ? "standard input" : put.source), total,
                    cli.quiet());
  std::optional<Census> census;
  if (put.folder && stderr_is_terminal() && !cli.quiet()) census.emplace(put.source, progress);
  std::optional<int64_t> deadline_ms;  // while the server does not answer
  for (int attempt = 1;; ++attempt) {
    Attempt run(*server, put, memory, progress);
    const Status status = run.run();
    if (status.ok()) {
      forget_upload(memory.key);
      return status;
    }
    const bool again = attempt < kAttempts && !from_stdin;
    if (again && status.code() == Code::kConflict) {
      // Something that was counted on is there no more. Asks for all chunks, and reads the files
      // again that others changed on the branch; all files, if these are not known, or that was not
      // it.
      auto changed = attempt == 1 ? changed_since(*server, put, memory.key) : std::nullopt;
      memory.trust_stamps = memory.trust_stamps && changed.has_value();
      if (changed) memory.changed = *std::move(changed);
      memory.ask_for_all = true;
      memory.upload_id = find_live_upload(*server, put, memory.key);
      continue;
    }
    if (status.code() == Code::kNotFound && run.has_session()) {
      // The upload expired, or another command that puts the same has ended it.
      const std::string before = memory.upload_id;
      memory.upload_id = find_live_upload(*server, put, memory.key);
      if (again && (memory.upload_id.empty() || memory.upload_id != before)) continue;
    }
    if (is_lost(status.code()) && run.has_session() && !memory.key.empty() && !from_stdin) {
      const int64_t now = real_clock().monotonic_ms();
      if (!deadline_ms || run.has_sent()) deadline_ms = now + put.patience_ms;
      if (now < *deadline_ms) {
        print_note(str_cat(status.message(), "\nwaiting up to ", (*deadline_ms - now + 999) / 1000,
                           " s for the server; the put goes on by itself then"));
        if (wait_for_server(*server, put, memory.key, *deadline_ms)) {
          bool ended = false;
          memory.upload_id = find_live_upload(*server, put, memory.key, &ended);
          if (ended && put.append) {
            return appended_already(put, "the server stopped answering after the put was sent");
          }
          progress.restart();
          attempt = 0;
          continue;
        }
      }
    }
    if (!run.has_session() || memory.key.empty() || status.code() == Code::kFailedPrecondition ||
        status.code() == Code::kPermissionDenied) {
      return status;
    }
    return status.with_hint(status.hint().empty() ? kGoOn : str_cat(status.hint(), "\n", kGoOn));
  }
}

}  // namespace qanat::cli
