#include "qanat/meta/sqlite_vfs.h"

#include <sqlite3.h>

#include <cstring>
#include <map>
#include <new>

#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"

// See https://sqlite.org/c3ref/io_methods.html and c3ref/vfs.html for the contracts kept here.
namespace qanat::meta {
namespace {

thread_local bool in_checkpoint = false;

Counter& log_syncs() {
  static Counter& syncs = counter("qanat_meta_log_syncs_total", "Syncs that made commits durable");
  return syncs;
}
Counter& checkpoint_syncs() {
  static Counter& syncs =
      counter("qanat_meta_checkpoint_syncs_total",
              "Syncs of the metadata's checkpoints: database file, log header, set-up");
  return syncs;
}

constexpr int kSectorSize = 4096;
constexpr size_t kLogHeaderSize = 32;

// What all connections of a file share: the lock levels and the wal-index.
struct SharedFile {
  int users = 0;
  int readers = 0;                 // holders of SHARED or more
  const void* reserved = nullptr;  // the holder of RESERVED or more
  const void* pending = nullptr;   // the holder of PENDING or EXCLUSIVE
  int index_users = 0;
  std::vector<std::unique_ptr<char[]>> index;
  int slots[SQLITE_SHM_NLOCK] = {};  // n readers, or -1 for a writer
};

}  // namespace

struct SqliteVfs::Impl {
  explicit Impl(FileSystem& file_system) : files(file_system) {}

  void note(const Status& status) {
    MutexLock lock(mutex);
    error = status;
  }

  FileSystem& files;
  std::string name;
  sqlite3_vfs vfs = {};
  Mutex mutex;
  std::map<std::string, SharedFile> shared GUARDED_BY(mutex);
  Status error GUARDED_BY(mutex);
};

namespace {

using Impl = SqliteVfs::Impl;

// SQLite allocates these bytes and calls through the first member.
struct VfsFile {
  sqlite3_file base;
  struct Body {
    Impl* impl;
    std::string path;
    std::unique_ptr<File> file;
    SharedFile* shared;  // in impl->shared, under impl->mutex
    bool is_log;
    bool sync_folder;  // just created: its name is not durable yet
    bool header_only;  // a log to which nothing but its header was written since the last sync
    bool remove_on_close;
    int level = SQLITE_LOCK_NONE;
    uint8_t shared_slots = 0;
    uint8_t exclusive_slots = 0;
    bool has_index = false;
  };
  Body* body;
};

VfsFile::Body& body(sqlite3_file* file) { return *reinterpret_cast<VfsFile*>(file)->body; }

int fail(Impl* impl, const Status& status, int code) {
  impl->note(status);
  return status.code() == Code::kResourceExhausted ? SQLITE_FULL : code;
}

int file_read(sqlite3_file* f, void* to, int length, sqlite3_int64 offset) {
  auto& b = body(f);
  auto got = b.file->pread(static_cast<uint64_t>(offset), static_cast<char*>(to),
                           static_cast<size_t>(length));
  if (!got.ok()) return fail(b.impl, got.status(), SQLITE_IOERR_READ);
  if (*got == static_cast<size_t>(length)) return SQLITE_OK;
  std::memset(static_cast<char*>(to) + *got, 0, static_cast<size_t>(length) - *got);
  return SQLITE_IOERR_SHORT_READ;
}

int file_write(sqlite3_file* f, const void* from, int length, sqlite3_int64 offset) {
  auto& b = body(f);
  b.header_only = b.is_log && offset == 0 && length == static_cast<int>(kLogHeaderSize);
  Status status = b.file->pwrite(static_cast<uint64_t>(offset),
                                 {static_cast<const char*>(from), static_cast<size_t>(length)});
  return status.ok() ? SQLITE_OK : fail(b.impl, status, SQLITE_IOERR_WRITE);
}

int file_truncate(sqlite3_file* f, sqlite3_int64 size) {
  auto& b = body(f);
  Status status = b.file->truncate(static_cast<uint64_t>(size));
  return status.ok() ? SQLITE_OK : fail(b.impl, status, SQLITE_IOERR_TRUNCATE);
}

int file_sync(sqlite3_file* f, int) {
  auto& b = body(f);
  Status status = b.file->sync();
  if (!status.ok()) return fail(b.impl, status, SQLITE_IOERR_FSYNC);
  bool commits = b.is_log && !in_checkpoint && !b.header_only;
  (commits ? log_syncs() : checkpoint_syncs()).add();
  if (!b.sync_folder) return SQLITE_OK;
  status = b.impl->files.sync_directory(parent_directory(b.path));
  if (!status.ok()) return fail(b.impl, status, SQLITE_IOERR_DIR_FSYNC);
  checkpoint_syncs().add();
  b.sync_folder = false;
  return SQLITE_OK;
}

int file_size(sqlite3_file* f, sqlite3_int64* size) {
  auto& b = body(f);
  auto got = b.file->size();
  if (!got.ok()) return fail(b.impl, got.status(), SQLITE_IOERR_FSTAT);
  *size = static_cast<sqlite3_int64>(*got);
  return SQLITE_OK;
}

int file_unlock(sqlite3_file* f, int level) {
  auto& b = body(f);
  MutexLock lock(b.impl->mutex);
  if (b.level <= level) return SQLITE_OK;
  if (b.shared->reserved == b.file.get()) b.shared->reserved = nullptr;
  if (b.shared->pending == b.file.get()) b.shared->pending = nullptr;
  if (level == SQLITE_LOCK_NONE) --b.shared->readers;
  b.level = level;
  return SQLITE_OK;
}

int file_lock(sqlite3_file* f, int level) {
  auto& b = body(f);
  MutexLock lock(b.impl->mutex);
  if (b.level >= level) return SQLITE_OK;
  const void* self = b.file.get();
  SharedFile& shared = *b.shared;
  if (b.level == SQLITE_LOCK_NONE) {
    if (shared.pending != nullptr) return SQLITE_BUSY;
    ++shared.readers;
    b.level = SQLITE_LOCK_SHARED;
  }
  if (level == SQLITE_LOCK_SHARED) return SQLITE_OK;
  if (shared.reserved != nullptr && shared.reserved != self) return SQLITE_BUSY;
  shared.reserved = self;
  b.level = std::max(b.level, SQLITE_LOCK_RESERVED);
  if (level == SQLITE_LOCK_RESERVED) return SQLITE_OK;
  shared.pending = self;  // no new readers
  b.level = SQLITE_LOCK_PENDING;
  if (shared.readers > 1) return SQLITE_BUSY;
  b.level = SQLITE_LOCK_EXCLUSIVE;
  return SQLITE_OK;
}

int file_check_reserved(sqlite3_file* f, int* out) {
  auto& b = body(f);
  MutexLock lock(b.impl->mutex);
  *out = b.shared->reserved != nullptr;
  return SQLITE_OK;
}

int file_control(sqlite3_file*, int operation, void* argument) {
  // The log stays when the last connection closes: one name less to create and make durable.
  if (operation == SQLITE_FCNTL_PERSIST_WAL) {
    *static_cast<int*>(argument) = 1;
    return SQLITE_OK;
  }
  return SQLITE_NOTFOUND;
}

int file_sector_size(sqlite3_file*) { return kSectorSize; }
// A write cut short by a power loss changes no byte outside its range.
int file_characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

int index_map(sqlite3_file* f, int region, int size, int extend, void volatile** out) {
  auto& b = body(f);
  MutexLock lock(b.impl->mutex);
  auto& index = b.shared->index;
  if (!b.has_index) {
    b.has_index = true;
    ++b.shared->index_users;
  }
  *out = nullptr;
  if (static_cast<size_t>(region) >= index.size() && !extend) return SQLITE_OK;
  while (index.size() <= static_cast<size_t>(region)) {
    index.push_back(std::make_unique<char[]>(static_cast<size_t>(size)));
  }
  *out = index[static_cast<size_t>(region)].get();
  return SQLITE_OK;
}

int index_lock(sqlite3_file* f, int offset, int count, int flags) {
  auto& b = body(f);
  MutexLock lock(b.impl->mutex);
  int* slots = b.shared->slots;
  const auto mask = static_cast<uint8_t>(((1 << count) - 1) << offset);
  if (flags & SQLITE_SHM_UNLOCK) {
    for (int i = offset; i < offset + count; ++i) {
      const auto bit = static_cast<uint8_t>(1 << i);
      if (b.exclusive_slots & bit) slots[i] = 0;
      if (b.shared_slots & bit) --slots[i];
    }
    b.exclusive_slots &= static_cast<uint8_t>(~mask);
    b.shared_slots &= static_cast<uint8_t>(~mask);
    return SQLITE_OK;
  }
  const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
  for (int i = offset; i < offset + count; ++i) {
    if (exclusive ? slots[i] != 0 : slots[i] < 0) return SQLITE_BUSY;
  }
  for (int i = offset; i < offset + count; ++i) {
    const auto bit = static_cast<uint8_t>(1 << i);
    if (exclusive) {
      slots[i] = -1;
      b.exclusive_slots |= bit;
    } else if (!(b.shared_slots & bit)) {
      ++slots[i];
      b.shared_slots |= bit;
    }
  }
  return SQLITE_OK;
}

void index_barrier(sqlite3_file* f) {
  // A full barrier in a form that thread analysers know, unlike a fence; and the mutex, as SQLite's
  // own files take it.
  static std::atomic<int> barrier;
  barrier.fetch_add(1, std::memory_order_seq_cst);
  MutexLock lock(body(f).impl->mutex);
}

int index_unmap(sqlite3_file* f, int) {
  auto& b = body(f);
  MutexLock lock(b.impl->mutex);
  if (!b.has_index) return SQLITE_OK;
  b.has_index = false;
  if (--b.shared->index_users == 0) b.shared->index.clear();
  return SQLITE_OK;
}

int file_close(sqlite3_file* f) {
  auto& b = body(f);
  file_unlock(f, SQLITE_LOCK_NONE);
  index_unmap(f, 0);
  {
    MutexLock lock(b.impl->mutex);
    if (--b.shared->users == 0) b.impl->shared.erase(b.path);
  }
  (void)b.file->close();
  if (b.remove_on_close) (void)b.impl->files.remove(b.path);
  delete reinterpret_cast<VfsFile*>(f)->body;
  return SQLITE_OK;
}

const sqlite3_io_methods kMethods = {
    2,  // with a wal-index, without memory-mapped pages
    file_close,
    file_read,
    file_write,
    file_truncate,
    file_sync,
    file_size,
    file_lock,
    file_unlock,
    file_check_reserved,
    file_control,
    file_sector_size,
    file_characteristics,
    index_map,
    index_lock,
    index_barrier,
    index_unmap,
    nullptr,
    nullptr,
};

Impl* impl_of(sqlite3_vfs* vfs) { return static_cast<Impl*>(vfs->pAppData); }

int vfs_open(sqlite3_vfs* vfs, const char* name, sqlite3_file* f, int flags, int* out_flags) {
  f->pMethods = nullptr;  // SQLite closes the file only if this is set
  Impl* impl = impl_of(vfs);
  if (name == nullptr) return SQLITE_CANTOPEN;  // temporary files stay in memory
  const bool existed = impl->files.exists(name);
  OpenMode mode = (flags & SQLITE_OPEN_READONLY) != 0    ? OpenMode::kReadOnly
                  : (flags & SQLITE_OPEN_EXCLUSIVE) != 0 ? OpenMode::kCreateExclusive
                  : (flags & SQLITE_OPEN_CREATE) != 0    ? OpenMode::kReadWriteCreate
                                                         : OpenMode::kReadWrite;
  auto file = impl->files.open(name, mode);
  if (!file.ok()) return fail(impl, file.status(), SQLITE_CANTOPEN);
  MutexLock lock(impl->mutex);
  SharedFile* shared = &impl->shared[name];
  ++shared->users;
  auto* b = new VfsFile::Body{.impl = impl,
                              .path = name,
                              .file = *std::move(file),
                              .shared = shared,
                              .is_log = (flags & SQLITE_OPEN_WAL) != 0,
                              .sync_folder = !existed,
                              .header_only = false,
                              .remove_on_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0};
  reinterpret_cast<VfsFile*>(f)->body = b;
  f->pMethods = &kMethods;
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int vfs_delete(sqlite3_vfs* vfs, const char* name, int sync_folder) {
  Impl* impl = impl_of(vfs);
  Status status = impl->files.remove(name);
  if (status.code() == Code::kNotFound) return SQLITE_IOERR_DELETE_NOENT;
  if (!status.ok()) return fail(impl, status, SQLITE_IOERR_DELETE);
  if (!sync_folder) return SQLITE_OK;
  checkpoint_syncs().add();
  status = impl->files.sync_directory(parent_directory(name));
  return status.ok() ? SQLITE_OK : fail(impl, status, SQLITE_IOERR_DIR_FSYNC);
}

int vfs_access(sqlite3_vfs* vfs, const char* name, int, int* out) {
  *out = impl_of(vfs)->files.exists(name);
  return SQLITE_OK;
}

int vfs_full_path(sqlite3_vfs*, const char* name, int size, char* out) {
  size_t length = std::strlen(name) + 1;
  if (length > static_cast<size_t>(size)) return SQLITE_CANTOPEN;
  std::memcpy(out, name, length);
  return SQLITE_OK;
}

sqlite3_vfs* system_vfs() { return sqlite3_vfs_find(nullptr); }
int vfs_randomness(sqlite3_vfs*, int length, char* out) {
  return system_vfs()->xRandomness(system_vfs(), length, out);
}
int vfs_sleep(sqlite3_vfs*, int microseconds) {
  return system_vfs()->xSleep(system_vfs(), microseconds);
}
int vfs_time(sqlite3_vfs*, double* out) { return system_vfs()->xCurrentTime(system_vfs(), out); }
int vfs_last_error(sqlite3_vfs*, int, char*) { return 0; }

}  // namespace

SqliteVfs::SqliteVfs(FileSystem& files) : impl_(std::make_unique<Impl>(files)) {
  impl_->name = str_cat("qanat-", random_id());
  sqlite3_vfs& vfs = impl_->vfs;
  vfs.iVersion = 1;
  vfs.szOsFile = sizeof(VfsFile);
  vfs.mxPathname = 4096;
  vfs.zName = impl_->name.c_str();
  vfs.pAppData = impl_.get();
  vfs.xOpen = vfs_open;
  vfs.xDelete = vfs_delete;
  vfs.xAccess = vfs_access;
  vfs.xFullPathname = vfs_full_path;
  vfs.xRandomness = vfs_randomness;
  vfs.xSleep = vfs_sleep;
  vfs.xCurrentTime = vfs_time;
  vfs.xGetLastError = vfs_last_error;
  sqlite3_initialize();
  sqlite3_vfs_register(&vfs, 0);
}

SqliteVfs::~SqliteVfs() { sqlite3_vfs_unregister(&impl_->vfs); }

const std::string& SqliteVfs::name() const { return impl_->name; }

Status SqliteVfs::last_error() const {
  MutexLock lock(impl_->mutex);
  return impl_->error;
}

CheckpointScope::CheckpointScope() { in_checkpoint = true; }
CheckpointScope::~CheckpointScope() { in_checkpoint = false; }

}  // namespace qanat::meta
