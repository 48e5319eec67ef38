#include "support/fault_file_system.h"

#include <algorithm>
#include <map>
#include <set>

#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"

namespace qanat::testing {
namespace {

constexpr size_t kSectorSize = 512;

// A change of a file's bytes: writes `bytes` at `offset`, or, when `truncates`, sets the size to
// `offset`.
struct Write {
  bool truncates = false;
  uint64_t offset = 0;
  std::string bytes;

  void apply(std::string& content) const {
    if (truncates) {
      content.resize(offset);
      return;
    }
    if (bytes.empty()) return;
    if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
    content.replace(offset, bytes.size(), bytes);
  }
};

struct Inode {
  std::string content;          // what readers see
  std::string durable;          // what a power cut leaves for certain
  std::vector<Write> unsynced;  // durable + unsynced = content
  bool sync_failed = false;     // later syncs prove nothing
};

// One change of names in one folder: each edit binds a name to a file, or to none. All edits take
// effect, or none.
struct NameChange {
  struct Edit {
    std::string name;
    std::shared_ptr<Inode> inode;
  };
  uint64_t sequence = 0;
  std::vector<Edit> edits;
  // For a rename to another folder: the removal of the old name needs the new name to be there.
  std::string partner_directory;
  std::shared_ptr<bool> landed = std::make_shared<bool>(false);
  std::shared_ptr<bool> needs;
};

using Names = std::map<std::string, std::shared_ptr<Inode>>;

void apply_change(const NameChange& change, Names& names) {
  for (const auto& [name, inode] : change.edits) {
    if (inode) {
      names[name] = inode;
    } else {
      names.erase(name);
    }
  }
  *change.landed = true;
}

struct Directory {
  Names names;
  Names durable;
  std::vector<NameChange> unsynced;
};

std::string normalized(const std::string& path) {
  std::string out = path.starts_with('/') ? "/" : "";
  for (std::string_view part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (!out.empty() && out != "/") out.push_back('/');
    out.append(part);
  }
  return out.empty() ? "." : out;
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// A content that a power cut may leave of the file.
std::string survive(const Inode& inode, SeededRandom& random, uint64_t seed) {
  if (seed == 0 || inode.unsynced.empty()) return inode.durable;
  if (seed == 1) return inode.content;

  // Version v is the content after the first v unsynced changes: one is chosen for the size, and
  // one for each sector.
  const size_t versions = inode.unsynced.size() + 1;
  std::vector<uint64_t> sizes = {inode.durable.size()};
  for (const Write& write : inode.unsynced) {
    const uint64_t end = write.offset + write.bytes.size();
    sizes.push_back(write.truncates ? end : std::max(sizes.back(), end));
  }
  const uint64_t size = sizes[random.below(versions)];
  const uint64_t largest = *std::max_element(sizes.begin(), sizes.end());
  std::vector<size_t> version_of(largest / kSectorSize + 1);
  for (size_t& version : version_of) version = random.below(versions);

  std::string content = inode.durable;
  content.resize(largest);
  for (size_t i = 0; i < inode.unsynced.size(); ++i) {
    const Write& write = inode.unsynced[i];
    const uint64_t end = write.truncates ? largest : write.offset + write.bytes.size();
    for (uint64_t from = write.offset; from < end;) {
      const size_t sector = from / kSectorSize;
      const uint64_t length = std::min(end, (sector + 1) * kSectorSize) - from;
      if (i < version_of[sector] && write.truncates) content.replace(from, length, length, '\0');
      if (i < version_of[sector] && !write.truncates) {
        content.replace(from, length, write.bytes, from - write.offset, length);
      }
      from += length;
    }
  }
  content.resize(size);
  return content;
}

}  // namespace

struct FaultFileSystem::Disk {
  mutable Mutex mutex;
  std::map<std::string, Directory> directories GUARDED_BY(mutex);
  std::set<std::string> locks GUARDED_BY(mutex);
  std::function<Status(Operation, const std::string&)> hook GUARDED_BY(mutex);
  uint64_t operations GUARDED_BY(mutex) = 0;
  uint64_t crash_at GUARDED_BY(mutex) = 0;  // 0: never
  bool crashed GUARDED_BY(mutex) = false;
  uint64_t capacity GUARDED_BY(mutex) = UINT64_MAX;
  uint64_t sequence GUARDED_BY(mutex) = 0;

  Status alive(std::string_view what, const std::string& path) const REQUIRES(mutex) {
    if (!crashed) return ok_status();
    return internal_error(str_cat(what, " ", path, ": the disk has crashed"));
  }

  // Counts an operation and asks the hook. `*crashes` tells that this is the one that fails half
  // done.
  Status begin(Operation operation, const std::string& path, bool* crashes) REQUIRES(mutex) {
    QANAT_RETURN_IF_ERROR(alive("change", path));
    if (hook) QANAT_RETURN_IF_ERROR(hook(operation, path));
    ++operations;
    *crashes = operations == crash_at;
    return ok_status();
  }

  Status end(bool crashes, const std::string& path) REQUIRES(mutex) {
    crashed = crashed || crashes;
    return alive("change", path);
  }

  Result<Directory*> directory(const std::string& path) REQUIRES(mutex) {
    const auto found = directories.find(path);
    if (found == directories.end()) return not_found(str_cat("folder ", path, " does not exist"));
    return &found->second;
  }

  Result<std::shared_ptr<Inode>> file(const std::string& path) REQUIRES(mutex) {
    QANAT_ASSIGN_OR_RETURN(Directory * parent, directory(parent_directory(path)));
    const auto found = parent->names.find(base_name(path));
    if (found == parent->names.end()) return not_found(str_cat(path, ": No such file"));
    return found->second;
  }

  void change(Directory& directory, NameChange change) REQUIRES(mutex) {
    change.sequence = ++sequence;
    apply_change(change, directory.names);
    *change.landed = false;
    directory.unsynced.push_back(std::move(change));
  }

  void make_durable(Directory& directory) REQUIRES(mutex) {
    std::vector<NameChange> changes;
    changes.swap(directory.unsynced);  // first, since partners may refer to each other
    for (const NameChange& change : changes) {
      const auto partner = directories.find(change.partner_directory);
      if (partner != directories.end()) make_durable(partner->second);
      apply_change(change, directory.durable);
    }
  }

  uint64_t used() const REQUIRES(mutex) {
    uint64_t total = 0;
    for (const auto& [path, directory] : directories) {
      for (const auto& [name, inode] : directory.names) total += inode->content.size();
    }
    return total;
  }

  Status write(Inode& inode, const std::string& path, Write write) REQUIRES(mutex) {
    bool crashes = false;
    QANAT_RETURN_IF_ERROR(
        begin(write.truncates ? Operation::kTruncate : Operation::kWrite, path, &crashes));
    const uint64_t new_size = write.offset + write.bytes.size();
    if (capacity != UINT64_MAX && new_size > inode.content.size() &&
        used() - inode.content.size() + new_size > capacity) {
      return resource_exhausted(str_cat("write ", path, ": No space left on device"));
    }
    write.apply(inode.content);
    inode.unsynced.push_back(std::move(write));
    return end(crashes, path);
  }

  Status sync(Inode& inode, const std::string& path) REQUIRES(mutex) {
    QANAT_RETURN_IF_ERROR(alive("sync", path));
    bool crashes = false;
    const Status status = begin(Operation::kSync, path, &crashes);
    if (!status.ok()) inode.sync_failed = true;
    QANAT_RETURN_IF_ERROR(status);
    if (!crashes && !inode.sync_failed) {
      for (const Write& write : inode.unsynced) write.apply(inode.durable);
      inode.unsynced.clear();
    }
    return end(crashes, path);
  }
};

class FaultFileSystem::OpenFile : public File {
 public:
  OpenFile(std::shared_ptr<Disk> disk, std::shared_ptr<Inode> inode, std::string path,
           bool writable)
      : disk_(std::move(disk)),
        inode_(std::move(inode)),
        path_(std::move(path)),
        writable_(writable) {}

  Result<size_t> pread(uint64_t offset, char* buffer, size_t length) override {
    MutexLock lock(disk_->mutex);
    QANAT_RETURN_IF_ERROR(usable("read"));
    if (offset >= inode_->content.size()) return size_t{0};
    return inode_->content.copy(buffer, length, offset);
  }

  Status pwrite(uint64_t offset, std::string_view bytes) override {
    MutexLock lock(disk_->mutex);
    QANAT_RETURN_IF_ERROR(usable_for_writing());
    return disk_->write(*inode_, path_, {.offset = offset, .bytes = std::string(bytes)});
  }

  Status append(std::string_view bytes) override {
    MutexLock lock(disk_->mutex);
    QANAT_RETURN_IF_ERROR(usable_for_writing());
    const uint64_t end = inode_->content.size();
    return disk_->write(*inode_, path_, {.offset = end, .bytes = std::string(bytes)});
  }

  Status truncate(uint64_t size) override {
    MutexLock lock(disk_->mutex);
    QANAT_RETURN_IF_ERROR(usable_for_writing());
    return disk_->write(*inode_, path_, {.truncates = true, .offset = size, .bytes = {}});
  }

  Result<uint64_t> size() override {
    MutexLock lock(disk_->mutex);
    QANAT_RETURN_IF_ERROR(usable("stat"));
    return uint64_t{inode_->content.size()};
  }

  Status sync() override {
    MutexLock lock(disk_->mutex);
    QANAT_RETURN_IF_ERROR(usable("sync"));
    return disk_->sync(*inode_, path_);
  }

  Status close() override {
    MutexLock lock(disk_->mutex);
    closed_ = true;
    return ok_status();
  }

 private:
  Status usable(std::string_view operation) const REQUIRES(disk_->mutex) {
    if (closed_) return internal_error(str_cat(operation, " ", path_, ": the file is closed"));
    return disk_->alive(operation, path_);
  }
  Status usable_for_writing() const REQUIRES(disk_->mutex) {
    if (!writable_) return internal_error(str_cat("write ", path_, ": opened for reading only"));
    return usable("write");
  }

  const std::shared_ptr<Disk> disk_;
  const std::shared_ptr<Inode> inode_;
  const std::string path_;
  const bool writable_;
  bool closed_ = false;
};

class FaultFileSystem::Lock : public FileLock {
 public:
  Lock(std::shared_ptr<Disk> disk, std::string path)
      : disk_(std::move(disk)), path_(std::move(path)) {}
  ~Lock() override {
    MutexLock lock(disk_->mutex);
    disk_->locks.erase(path_);
  }

 private:
  const std::shared_ptr<Disk> disk_;
  const std::string path_;
};

FaultFileSystem::FaultFileSystem() : FaultFileSystem(std::make_shared<Disk>()) {
  MutexLock lock(disk_->mutex);
  disk_->directories["/"];
  disk_->directories["."];
}
FaultFileSystem::FaultFileSystem(std::shared_ptr<Disk> disk) : disk_(std::move(disk)) {}
FaultFileSystem::~FaultFileSystem() = default;

Result<std::unique_ptr<File>> FaultFileSystem::open(const std::string& raw_path, OpenMode mode) {
  const std::string path = normalized(raw_path);
  MutexLock lock(disk_->mutex);
  QANAT_RETURN_IF_ERROR(disk_->alive("open", path));
  if (disk_->directories.contains(path)) {
    return internal_error(str_cat("open ", path, ": Is a directory"));
  }
  Result<std::shared_ptr<Inode>> inode = disk_->file(path);
  if (inode.ok() && mode == OpenMode::kCreateExclusive) {
    return already_exists(str_cat("open ", path, ": File exists"));
  }
  if (!inode.ok()) {
    if (mode == OpenMode::kReadOnly || mode == OpenMode::kReadWrite) return inode.status();
    QANAT_ASSIGN_OR_RETURN(Directory * parent, disk_->directory(parent_directory(path)));
    bool crashes = false;
    QANAT_RETURN_IF_ERROR(disk_->begin(Operation::kCreate, path, &crashes));
    inode = std::make_shared<Inode>();
    disk_->change(*parent, {.edits = {{base_name(path), *inode}}});
    QANAT_RETURN_IF_ERROR(disk_->end(crashes, path));
  }
  return std::unique_ptr<File>(
      std::make_unique<OpenFile>(disk_, *inode, path, mode != OpenMode::kReadOnly));
}

Status FaultFileSystem::remove(const std::string& raw_path) {
  const std::string path = normalized(raw_path);
  MutexLock lock(disk_->mutex);
  QANAT_RETURN_IF_ERROR(disk_->alive("remove", path));
  QANAT_RETURN_IF_ERROR(disk_->file(path).status());
  QANAT_ASSIGN_OR_RETURN(Directory * parent, disk_->directory(parent_directory(path)));
  bool crashes = false;
  QANAT_RETURN_IF_ERROR(disk_->begin(Operation::kRemove, path, &crashes));
  disk_->change(*parent, {.edits = {{base_name(path), nullptr}}});
  return disk_->end(crashes, path);
}

Status FaultFileSystem::remove_directory(const std::string& raw_path) {
  const std::string path = normalized(raw_path);
  MutexLock lock(disk_->mutex);
  QANAT_RETURN_IF_ERROR(disk_->alive("remove folder", path));
  QANAT_ASSIGN_OR_RETURN(Directory * directory, disk_->directory(path));
  const auto below = disk_->directories.lower_bound(path + "/");
  const bool has_folders =
      below != disk_->directories.end() && below->first.starts_with(path + "/");
  if (!directory->names.empty() || has_folders) {
    return failed_precondition(str_cat("remove folder ", path, ": it is not empty"));
  }
  bool crashes = false;
  QANAT_RETURN_IF_ERROR(disk_->begin(Operation::kRemoveDirectory, path, &crashes));
  disk_->directories.erase(path);
  return disk_->end(crashes, path);
}

Status FaultFileSystem::rename(const std::string& raw_from, const std::string& raw_to) {
  const std::string from = normalized(raw_from);
  const std::string to = normalized(raw_to);
  const std::string from_directory = parent_directory(from);
  const std::string to_directory = parent_directory(to);
  MutexLock lock(disk_->mutex);
  QANAT_RETURN_IF_ERROR(disk_->alive("rename", from));
  if (disk_->directories.contains(from) || disk_->directories.contains(to)) {
    return internal_error(str_cat("rename ", from, " to ", to, ": one is a folder"));
  }
  QANAT_ASSIGN_OR_RETURN(const std::shared_ptr<Inode> inode, disk_->file(from));
  QANAT_ASSIGN_OR_RETURN(Directory * source, disk_->directory(from_directory));
  QANAT_ASSIGN_OR_RETURN(Directory * target, disk_->directory(to_directory));
  bool crashes = false;
  QANAT_RETURN_IF_ERROR(disk_->begin(Operation::kRename, to, &crashes));
  if (from == to) return disk_->end(crashes, to);
  if (source == target) {
    disk_->change(*source, {.edits = {{base_name(from), nullptr}, {base_name(to), inode}}});
  } else {
    NameChange arrival = {.edits = {{base_name(to), inode}}};
    NameChange departure = {.edits = {{base_name(from), nullptr}},
                            .partner_directory = to_directory,
                            .needs = arrival.landed};
    disk_->change(*target, std::move(arrival));
    disk_->change(*source, std::move(departure));
  }
  return disk_->end(crashes, to);
}

Result<std::vector<DirectoryEntry>> FaultFileSystem::list(const std::string& raw_path) {
  const std::string path = normalized(raw_path);
  MutexLock lock(disk_->mutex);
  QANAT_RETURN_IF_ERROR(disk_->alive("list", path));
  QANAT_ASSIGN_OR_RETURN(Directory * directory, disk_->directory(path));
  std::vector<DirectoryEntry> entries;
  for (const auto& [name, inode] : directory->names) entries.push_back({name, false});
  for (const auto& [child, unused] : disk_->directories) {
    if (child != path && child != "." && child != "/" && parent_directory(child) == path) {
      entries.push_back({base_name(child), true});
    }
  }
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return entries;
}

Status FaultFileSystem::make_directories(const std::string& raw_path) {
  const std::string path = normalized(raw_path);
  {
    MutexLock lock(disk_->mutex);
    QANAT_RETURN_IF_ERROR(disk_->alive("make folder", path));
    if (disk_->directories.contains(path)) return ok_status();
  }
  const std::string parent = parent_directory(path);
  QANAT_RETURN_IF_ERROR(make_directories(parent));
  MutexLock lock(disk_->mutex);
  if (disk_->file(path).ok()) {
    return already_exists(str_cat("make folder ", path, ": a file of that name is in the way"));
  }
  bool crashes = false;
  QANAT_RETURN_IF_ERROR(disk_->begin(Operation::kMakeDirectory, path, &crashes));
  disk_->directories.try_emplace(path);
  // Its parent was synced for it, which makes durable what else changed there.
  if (!crashes) disk_->make_durable(disk_->directories[parent]);
  return disk_->end(crashes, path);
}

Status FaultFileSystem::sync_directory(const std::string& raw_path) {
  const std::string path = normalized(raw_path);
  MutexLock lock(disk_->mutex);
  QANAT_RETURN_IF_ERROR(disk_->alive("sync folder", path));
  QANAT_ASSIGN_OR_RETURN(Directory * directory, disk_->directory(path));
  bool crashes = false;
  QANAT_RETURN_IF_ERROR(disk_->begin(Operation::kSyncDirectory, path, &crashes));
  if (!crashes) disk_->make_durable(*directory);
  return disk_->end(crashes, path);
}

Result<FileInfo> FaultFileSystem::stat(const std::string& raw_path) {
  const std::string path = normalized(raw_path);
  MutexLock lock(disk_->mutex);
  QANAT_RETURN_IF_ERROR(disk_->alive("stat", path));
  if (disk_->directories.contains(path)) return FileInfo{.is_directory = true};
  QANAT_ASSIGN_OR_RETURN(const std::shared_ptr<Inode> inode, disk_->file(path));
  return FileInfo{.size = inode->content.size()};
}

Result<SpaceInfo> FaultFileSystem::free_space(const std::string& path) {
  MutexLock lock(disk_->mutex);
  QANAT_RETURN_IF_ERROR(disk_->alive("look up free space of", path));
  const uint64_t total = std::min(disk_->capacity, uint64_t{1} << 40);
  return SpaceInfo{total, total - std::min(total, disk_->used())};
}

Result<std::unique_ptr<FileLock>> FaultFileSystem::lock_file(const std::string& raw_path) {
  const std::string path = normalized(raw_path);
  QANAT_RETURN_IF_ERROR(open(path, OpenMode::kReadWriteCreate).status());
  MutexLock lock(disk_->mutex);
  if (!disk_->locks.insert(path).second) {
    return failed_precondition(str_cat(path, " is locked by another process"));
  }
  return std::unique_ptr<FileLock>(std::make_unique<Lock>(disk_, path));
}

void FaultFileSystem::crash_at(uint64_t n) {
  MutexLock lock(disk_->mutex);
  disk_->crash_at = disk_->operations + n;
}

void FaultFileSystem::crash() {
  MutexLock lock(disk_->mutex);
  disk_->crashed = true;
}

bool FaultFileSystem::crashed() const {
  MutexLock lock(disk_->mutex);
  return disk_->crashed;
}

uint64_t FaultFileSystem::operations() const {
  MutexLock lock(disk_->mutex);
  return disk_->operations;
}

std::unique_ptr<FaultFileSystem> FaultFileSystem::reboot(uint64_t seed) const {
  SeededRandom random(seed);
  MutexLock lock(disk_->mutex);

  // Names first: the changes of all folders in the order in which they were made, each kept or
  // lost.
  std::map<std::string, Names> survivors;
  std::vector<std::pair<const NameChange*, Names*>> changes;
  for (const auto& [path, directory] : disk_->directories) {
    Names& names = survivors[path] = directory.durable;
    for (const NameChange& change : directory.unsynced) changes.emplace_back(&change, &names);
  }
  std::sort(changes.begin(), changes.end(),
            [](const auto& a, const auto& b) { return a.first->sequence < b.first->sequence; });
  for (const auto& [change, names] : changes) {
    const bool possible = !change->needs || *change->needs;
    const bool kept = seed != 0 && (seed == 1 || random.below(2) == 0);
    if (possible && kept) apply_change(*change, *names);
  }
  for (const auto& [change, names] : changes) *change->landed = false;  // for the next reboot

  // Then each file's bytes, once, whatever number of names it has.
  auto fresh = std::make_shared<Disk>();
  std::map<const Inode*, std::shared_ptr<Inode>> files;
  MutexLock fresh_lock(fresh->mutex);
  for (const auto& [path, names] : survivors) {
    Directory& directory = fresh->directories[path];
    for (const auto& [name, inode] : names) {
      std::shared_ptr<Inode>& copy = files[inode.get()];
      if (!copy) {
        copy = std::make_shared<Inode>();
        copy->content = copy->durable = survive(*inode, random, seed);
      }
      directory.names[name] = directory.durable[name] = copy;
    }
  }
  return std::unique_ptr<FaultFileSystem>(new FaultFileSystem(std::move(fresh)));
}

void FaultFileSystem::fail_with(std::function<Status(Operation, const std::string&)> hook) {
  MutexLock lock(disk_->mutex);
  disk_->hook = std::move(hook);
}

void FaultFileSystem::set_capacity(uint64_t bytes) {
  MutexLock lock(disk_->mutex);
  disk_->capacity = bytes;
}

Status FaultFileSystem::flip_bit(const std::string& raw_path, uint64_t bit) {
  const std::string path = normalized(raw_path);
  MutexLock lock(disk_->mutex);
  QANAT_ASSIGN_OR_RETURN(const std::shared_ptr<Inode> inode, disk_->file(path));
  if (bit / 8 >= inode->content.size()) {
    return invalid_argument(str_cat(path, " has only ", inode->content.size(), " bytes"));
  }
  const auto flip = [bit](std::string& content) {
    if (bit / 8 < content.size()) content[bit / 8] ^= static_cast<char>(1U << (bit % 8));
  };
  flip(inode->content);
  flip(inode->durable);
  for (Write& write : inode->unsynced) {
    if (write.truncates || write.offset > bit / 8) continue;
    const uint64_t within = bit / 8 - write.offset;
    if (within < write.bytes.size()) {
      write.bytes[within] ^= static_cast<char>(1U << (bit % 8));
    }
  }
  return ok_status();
}

}  // namespace qanat::testing
