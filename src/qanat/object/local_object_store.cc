#include "qanat/object/local_object_store.h"

#include "qanat/base/counters.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::object {
namespace {

constexpr size_t kBufferBytes = 256 << 10;
constexpr size_t kDirectBytes = 64 << 10;  // not worth copying
constexpr uint64_t kStartWriting = 4 << 20;

struct Counters {
  Counter& file_syncs = counter("qanat_object_file_syncs_total", "Objects' files made durable");
  Counter& directory_syncs =
      counter("qanat_object_directory_syncs_total", "Folders of objects made durable");
  Counter& created = counter("qanat_objects_created_total", "Objects finished");
  Counter& reads = counter("qanat_object_reads_total", "Reads of object stores");
  Counter& written = counter("qanat_object_written_bytes_total", "Bytes of finished objects");
  Counter& read = counter("qanat_object_read_bytes_total", "Bytes read from object stores");
};
Counters& counters() {
  static auto* all = new Counters;
  return *all;
}

}  // namespace

class LocalObjectStore::Writer : public ObjectWriter {
 public:
  Writer(LocalObjectStore& store, std::string key, std::string path, std::unique_ptr<File> file,
         CreateOptions options)
      : store_(store),
        options_(options),
        key_(std::move(key)),
        path_(std::move(path)),
        file_(std::move(file)) {}
  ~Writer() override { abort(); }

  Status append(std::string_view bytes) override {
    if (!file_) return failed_precondition(str_cat("object ", key_, " is closed"));
    size_ += static_cast<int64_t>(bytes.size());
    if (bytes.size() < kDirectBytes && buffer_.size() + bytes.size() < kBufferBytes) {
      buffer_.append(bytes);
      return ok_status();
    }
    QANAT_RETURN_IF_ERROR(write_buffer());
    if (bytes.size() >= kDirectBytes) return write(bytes);
    buffer_.append(bytes);
    return ok_status();
  }

  Status finish() override {
    if (!file_) return failed_precondition(str_cat("object ", key_, " is closed"));
    if (Status status = make_durable(); !status.ok()) {
      abort();
      return status.with_context(str_cat("object ", key_));
    }
    file_.reset();
    counters().created.add();
    counters().written.add(static_cast<uint64_t>(size_));
    return ok_status();
  }

  void abort() override {
    if (!file_) return;
    (void)file_->close();
    file_.reset();
    if (Status status = store_.files_.remove(path_); !status.ok()) {
      log_warning("could not remove an unfinished object",
                  {{"key", key_}, {"error", status.to_string()}});
    }
  }

  int64_t size() const override { return size_; }

 private:
  Status write_buffer() {
    if (buffer_.empty()) return ok_status();
    QANAT_RETURN_IF_ERROR(write(buffer_));
    buffer_.clear();
    return ok_status();
  }

  Status write(std::string_view bytes) {
    QANAT_RETURN_IF_ERROR(store_.check_space(bytes.size(), options_.may_use_reserve));
    QANAT_RETURN_IF_ERROR(file_->pwrite(written_, bytes).with_context(str_cat("object ", key_)));
    written_ += bytes.size();
    if (written_ - on_their_way_ >= kStartWriting) {
      file_->start_writing(on_their_way_, written_ - on_their_way_);
      on_their_way_ = written_;
    }
    return ok_status();
  }

  Status make_durable() {
    QANAT_RETURN_IF_ERROR(write_buffer());
    QANAT_RETURN_IF_ERROR(file_->sync());
    counters().file_syncs.add();
    QANAT_RETURN_IF_ERROR(store_.files_.sync_directory(parent_directory(path_)));
    counters().directory_syncs.add();
    return file_->close();
  }

  LocalObjectStore& store_;
  const CreateOptions options_;
  const std::string key_;
  const std::string path_;
  std::unique_ptr<File> file_;  // null once finished or given up
  std::string buffer_;
  uint64_t written_ = 0;  // bytes in the file
  uint64_t on_their_way_ = 0;
  int64_t size_ = 0;  // bytes appended
};

LocalObjectStore::LocalObjectStore(FileSystem& files, std::string root,
                                   LocalObjectStoreOptions options)
    : files_(files), root_(std::move(root)), options_(options) {}

Result<std::unique_ptr<LocalObjectStore>> LocalObjectStore::open(FileSystem& files,
                                                                 std::string root,
                                                                 LocalObjectStoreOptions options) {
  QANAT_RETURN_IF_ERROR(
      files.make_directories(root).with_context(str_cat("object store in ", root)));
  return std::unique_ptr<LocalObjectStore>(new LocalObjectStore(files, std::move(root), options));
}

std::string LocalObjectStore::path_of(std::string_view key) const {
  return str_cat(root_, "/", key);
}

Status LocalObjectStore::check_space(uint64_t bytes, bool may_use_reserve) const {
  QANAT_ASSIGN_OR_RETURN(SpaceInfo space, files_.free_space(root_));
  uint64_t reserve =
      std::max(options_.reserve_bytes,
               static_cast<uint64_t>(options_.reserve_fraction * static_cast<double>(space.total)));
  if (may_use_reserve) reserve /= 4;
  if (space.available >= bytes && space.available - bytes >= reserve) return ok_status();
  return resource_exhausted(
      str_cat("the disk of ", root_, " is full: ", format_size(space.available), " free, of which ",
              format_size(reserve), " are kept for reading and deleting"),
      "delete repos or branches that are not needed, or make the disk larger");
}

Status LocalObjectStore::make_folder(const std::string& folder) {
  MutexLock lock(mutex_);
  return make_known(folder);
}

// A folder that is there already may have been made by a process that was killed before it could
// make it durable: so its entry is synced here once, whoever made it.
Status LocalObjectStore::make_known(const std::string& folder) {
  if (folder.size() <= root_.size() || folders_.contains(folder)) return ok_status();
  const std::string parent = parent_directory(folder);
  QANAT_RETURN_IF_ERROR(make_known(parent));
  const auto found = files_.stat(folder);
  QANAT_RETURN_IF_ERROR(files_.make_directories(folder));
  if (found.ok()) QANAT_RETURN_IF_ERROR(files_.sync_directory(parent));
  folders_.insert(folder);
  return ok_status();
}

Result<std::unique_ptr<ObjectWriter>> LocalObjectStore::create(std::string_view key,
                                                               CreateOptions options) {
  QANAT_RETURN_IF_ERROR(check_key(key));
  QANAT_RETURN_IF_ERROR(check_space(0, options.may_use_reserve));
  std::string path = path_of(key);
  QANAT_RETURN_IF_ERROR(make_folder(parent_directory(path)).with_context(str_cat("object ", key)));
  auto file = files_.open(path, OpenMode::kCreateExclusive);
  if (!file.ok()) return file.status().with_context(str_cat("object ", key));
  return std::unique_ptr<ObjectWriter>(
      new Writer(*this, std::string(key), std::move(path), *std::move(file), options));
}

Result<std::string> LocalObjectStore::read(std::string_view key, int64_t offset,
                                           int64_t length) const {
  QANAT_RETURN_IF_ERROR(check_key(key));
  if (offset < 0 || length < 0) {
    return invalid_argument(str_cat("object ", key, ": range of ", length, " bytes at ", offset));
  }
  auto file = files_.open(path_of(key), OpenMode::kReadOnly);
  if (!file.ok()) return file.status().with_context(str_cat("object ", key));
  std::string bytes(static_cast<size_t>(length), '\0');
  QANAT_ASSIGN_OR_RETURN(size_t got,
                         (*file)->pread(static_cast<uint64_t>(offset), bytes.data(), bytes.size()));
  if (got < bytes.size()) {
    return data_loss(str_cat("object ", key, " ends at ", offset + static_cast<int64_t>(got),
                             ", before the end of a read of ", length, " bytes at ", offset));
  }
  counters().reads.add();
  counters().read.add(got);
  return bytes;
}

Result<int64_t> LocalObjectStore::size(std::string_view key) const {
  QANAT_RETURN_IF_ERROR(check_key(key));
  auto info = files_.stat(path_of(key));
  if (!info.ok()) return info.status().with_context(str_cat("object ", key));
  if (info->is_directory) return not_found(str_cat("object ", key, " does not exist"));
  return static_cast<int64_t>(info->size);
}

Status LocalObjectStore::remove(std::string_view key) {
  QANAT_RETURN_IF_ERROR(check_key(key));
  Status status = files_.remove(path_of(key));
  if (status.code() == Code::kNotFound) return ok_status();
  return status.with_context(str_cat("object ", key));
}

Status LocalObjectStore::list(std::string_view prefix, const Visitor& each) const {
  // The folders that the prefix names in full are entered directly; its last part filters.
  size_t slash = prefix.rfind('/');
  std::string folder_key(slash == std::string_view::npos ? "" : prefix.substr(0, slash + 1));
  if (!folder_key.empty()) {
    QANAT_RETURN_IF_ERROR(check_key(std::string_view(folder_key).substr(0, slash)));
  }
  return list_folder(folder_key.empty() ? root_ : path_of(folder_key.substr(0, slash)), folder_key,
                     prefix, each);
}

Status LocalObjectStore::list_folder(const std::string& folder, const std::string& key_prefix,
                                     std::string_view prefix, const Visitor& each) const {
  auto entries = files_.list(folder);
  if (entries.code() == Code::kNotFound) return ok_status();
  QANAT_RETURN_IF_ERROR(entries.status());
  // Keys ascend bytewise: a folder sorts as its name with the '/' that follows in its keys.
  for (DirectoryEntry& entry : *entries) {
    if (entry.is_directory) entry.name += '/';
  }
  std::sort(entries->begin(), entries->end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  for (const DirectoryEntry& entry : *entries) {
    std::string key = key_prefix + entry.name;
    size_t common = std::min(key.size(), prefix.size());
    if (key.compare(0, common, prefix, 0, common) != 0) continue;
    if (entry.is_directory) {
      QANAT_RETURN_IF_ERROR(list_folder(path_of(key.substr(0, key.size() - 1)), key, prefix, each));
      continue;
    }
    if (key.size() < prefix.size()) continue;
    auto info = files_.stat(path_of(key));
    if (info.code() == Code::kNotFound) continue;  // removed meanwhile
    QANAT_RETURN_IF_ERROR(info.status());
    QANAT_RETURN_IF_ERROR(each({key, static_cast<int64_t>(info->size)}));
  }
  return ok_status();
}

std::string LocalObjectStore::describe() const {
  return str_cat("local folder ", root_, " (fsync of file and folder on finish)");
}

}  // namespace qanat::object
