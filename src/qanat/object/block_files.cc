#include "qanat/object/block_files.h"

#include <algorithm>
#include <vector>

#include "qanat/base/bytes.h"
#include "qanat/base/counters.h"
#include "qanat/base/hash.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::object {
namespace {

constexpr std::string_view kMagic = "QNTCACH1";
constexpr size_t kTrailer = 8 + 4 + 8 + 8;
constexpr uint64_t kMaxFile = (1u << 20) + 2048;
constexpr size_t kMaxSizes = 100'000;
constexpr std::string_view kTemporary = "new-";

// What a file takes on disk.
uint64_t on_disk(uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

std::string trailer_of(std::string_view key, int64_t object_size, std::string_view bytes) {
  std::string tail(key);
  put_u64(tail, static_cast<uint64_t>(object_size));
  put_u32(tail, static_cast<uint32_t>(key.size()));
  Hasher64 hasher;
  hasher.update(bytes);
  hasher.update(tail);
  put_u64(tail, hasher.finish());
  tail += kMagic;
  return tail;
}

}  // namespace

Result<std::unique_ptr<BlockFiles>> BlockFiles::open(FileSystem& files, std::string folder,
                                                     uint64_t capacity) {
  std::unique_ptr<BlockFiles> cache(new BlockFiles(files, std::move(folder), capacity));
  QANAT_RETURN_IF_ERROR(cache->load().with_context(str_cat("cache in ", cache->folder_)));
  return cache;
}

Status BlockFiles::load() {
  QANAT_RETURN_IF_ERROR(files_.make_directories(folder_));
  auto lock = files_.lock_file(folder_ + "/lock");
  if (lock.code() == Code::kFailedPrecondition) {
    return failed_precondition("another server uses this cache folder",
                               "give each server a folder of its own");
  }
  QANAT_RETURN_IF_ERROR(lock.status());
  lock_ = *std::move(lock);
  struct Found {
    int64_t modified_ms;
    Name name;
    uint64_t bytes;
  };
  std::vector<Found> found;
  for (unsigned i = 0; i < 256; ++i) {
    const std::string folder = folder_of({uint64_t{i} << 56, 0});
    const auto entries = files_.list(folder);
    if (entries.code() == Code::kNotFound) continue;  // made when it is needed
    QANAT_RETURN_IF_ERROR(entries.status());
    for (const DirectoryEntry& entry : *entries) {
      const std::string path = str_cat(folder, "/", entry.name);
      const auto [hash_text, number_text] = split_once(entry.name, '-');
      const auto hash = from_hex16(hash_text);
      const auto number = parse_u64(number_text);
      const auto info = files_.stat(path);
      if (!hash.ok() || !number.ok() || !info.ok()) {
        (void)files_.remove(path);  // left by a crash
        continue;
      }
      found.push_back({info->modified_ms, {*hash, static_cast<int64_t>(*number)}, info->size});
    }
  }
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.modified_ms > b.modified_ms; });
  std::vector<Name> gone;
  {
    MutexLock lock_state(mutex_);
    for (const Found& file : found) {
      order_.push_back(file.name);
      items_[file.name] = {on_disk(file.bytes), std::prev(order_.end())};
      bytes_ += on_disk(file.bytes);
    }
    gone = make_room(0);
  }
  remove_files(gone);
  return ok_status();
}

std::string BlockFiles::folder_of(const Name& name) const {
  return str_cat(folder_, "/", to_hex16(name.first).substr(0, 2));
}

std::string BlockFiles::path_of(const Name& name) const {
  return str_cat(folder_of(name), "/", to_hex16(name.first), "-", name.second);
}

std::optional<BlockFiles::Block> BlockFiles::get(std::string_view key, int64_t number) {
  const Name name{hash64(key), number};
  {
    MutexLock lock(mutex_);
    auto item = items_.find(name);
    if (item == items_.end()) return std::nullopt;
    order_.splice(order_.begin(), order_, item->second.place);
  }
  Result<std::string> file = files_.read_file(path_of(name), kMaxFile);
  if (file.ok() && file->size() >= kTrailer + key.size()) {
    const size_t length = file->size() - kTrailer - key.size();
    const std::string_view tail = std::string_view(*file).substr(length);
    Block block;
    block.object_size = static_cast<int64_t>(load_u64(tail.data() + key.size()));
    if (tail == trailer_of(key, block.object_size, std::string_view(*file).substr(0, length))) {
      file->resize(length);
      block.bytes = *std::move(file);
      return block;
    }
  }
  static Counter& damaged = counter("qanat_cache_damaged_total",
                                    "Blocks in the local cache that were not what they should be");
  // It may have gone from the cache meanwhile; or two keys have one hash, and the other wins.
  if (file.ok()) damaged.add();
  erase(name);
  return std::nullopt;
}

void BlockFiles::put(std::string_view key, int64_t number, int64_t object_size,
                     std::string_view bytes) {
  const Name name{hash64(key), number};
  const std::string trailer = trailer_of(key, object_size, bytes);
  const uint64_t size = on_disk(bytes.size() + trailer.size());
  std::string temporary;
  std::vector<Name> gone;
  {
    MutexLock lock(mutex_);
    gone = make_room(size);
    temporary = str_cat(folder_of(name), "/", kTemporary, next_temporary_++);
  }
  remove_files(gone);
  auto write = [&]() -> Status {
    auto file = files_.open(temporary, OpenMode::kCreateExclusive);
    if (file.code() == Code::kNotFound) {
      QANAT_RETURN_IF_ERROR(files_.make_directories(folder_of(name)));
      file = files_.open(temporary, OpenMode::kCreateExclusive);
    }
    QANAT_RETURN_IF_ERROR(file.status());
    QANAT_RETURN_IF_ERROR((*file)->append(bytes));
    QANAT_RETURN_IF_ERROR((*file)->append(trailer));
    QANAT_RETURN_IF_ERROR((*file)->close());
    return files_.rename(temporary, path_of(name));
  };
  if (Status status = write(); !status.ok()) {
    (void)files_.remove(temporary);
    log_debug("not cached", {{"key", key}, {"error", status}});
    return;
  }
  MutexLock lock(mutex_);
  if (auto old = items_.find(name); old != items_.end()) take_out(old);
  order_.push_front(name);
  items_[name] = {size, order_.begin()};
  bytes_ += size;
}

void BlockFiles::take_out(std::map<Name, Item>::iterator item) {
  bytes_ -= item->second.bytes;
  order_.erase(item->second.place);
  items_.erase(item);
}

std::vector<BlockFiles::Name> BlockFiles::make_room(uint64_t bytes) {
  std::vector<Name> gone;
  while (!order_.empty() && bytes_ + bytes > capacity_) {
    gone.push_back(order_.back());
    take_out(items_.find(order_.back()));
  }
  return gone;
}

void BlockFiles::remove_files(const std::vector<Name>& names) {
  for (const Name& name : names) (void)files_.remove(path_of(name));
}

void BlockFiles::erase(const Name& name) {
  {
    MutexLock lock(mutex_);
    auto item = items_.find(name);
    if (item == items_.end()) return;
    take_out(item);
  }
  (void)files_.remove(path_of(name));
}

void BlockFiles::forget(std::string_view key) {
  const uint64_t hash = hash64(key);
  std::vector<Name> gone;
  {
    MutexLock lock(mutex_);
    sizes_.erase(hash);
    for (auto item = items_.lower_bound({hash, 0});
         item != items_.end() && item->first.first == hash;) {
      gone.push_back(item->first);
      take_out(item++);
    }
  }
  remove_files(gone);
}

std::optional<int64_t> BlockFiles::size_of(std::string_view key) {
  MutexLock lock(mutex_);
  auto found = sizes_.find(hash64(key));
  return found == sizes_.end() ? std::nullopt : std::optional<int64_t>(found->second);
}

void BlockFiles::remember_size(std::string_view key, int64_t size) {
  MutexLock lock(mutex_);
  if (sizes_.size() >= kMaxSizes) sizes_.clear();
  sizes_[hash64(key)] = size;
}

bool BlockFiles::begin_fetch(std::string_view key, int64_t number, bool wait) {
  const Name name{hash64(key), number};
  MutexLock lock(mutex_);
  if (fetching_.insert(name).second) return true;
  while (wait && fetching_.contains(name)) fetched_.wait(mutex_);
  return false;
}

void BlockFiles::done(std::string_view key, int64_t number) {
  MutexLock lock(mutex_);
  fetching_.erase({hash64(key), number});
  fetched_.notify_all();
}

uint64_t BlockFiles::bytes() const {
  MutexLock lock(mutex_);
  return bytes_;
}

}  // namespace qanat::object
