#include "qanat/object/caching_object_store.h"

#include <algorithm>
#include <utility>

#include "qanat/base/counters.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/object/block_files.h"

namespace qanat::object {
namespace {

constexpr uint64_t kMinCapacity = 16u << 20;
// Blocks that one request to the store brings.
constexpr int64_t kMaxBlocks = 16;

struct Counters {
  Counter& hits = counter("qanat_cache_hits_total", "Blocks of objects found in the local cache");
  Counter& misses =
      counter("qanat_cache_misses_total", "Blocks of objects read from the store into the cache");
};
Counters& counters() {
  static auto* all = new Counters;
  return *all;
}

}  // namespace

// Caches what is written, block by block. What is given up is taken out again; what a crash leaves
// of it is an object that nothing refers to.
class CachingObjectStore::Writer : public ObjectWriter {
 public:
  Writer(std::unique_ptr<ObjectWriter> writer, BlockFiles* cache, std::string key)
      : writer_(std::move(writer)), cache_(cache), key_(std::move(key)) {}
  ~Writer() override {
    if (!finished_) cache_->forget(key_);
  }

  Status append(std::string_view bytes) override {
    QANAT_RETURN_IF_ERROR(writer_->append(bytes));
    while (!bytes.empty()) {
      const size_t part = std::min(bytes.size(), static_cast<size_t>(kBlock) - block_.size());
      block_ += bytes.substr(0, part);
      bytes.remove_prefix(part);
      if (block_.size() == static_cast<size_t>(kBlock)) end_block(BlockFiles::kUnknownSize);
    }
    return ok_status();
  }

  Status finish() override {
    QANAT_RETURN_IF_ERROR(writer_->finish());
    finished_ = true;
    if (!block_.empty()) end_block(writer_->size());
    cache_->remember_size(key_, writer_->size());
    return ok_status();
  }

  void abort() override { writer_->abort(); }
  int64_t size() const override { return writer_->size(); }

 private:
  void end_block(int64_t object_size) {
    cache_->put(key_, number_++, object_size, block_);
    block_.clear();
  }

  const std::unique_ptr<ObjectWriter> writer_;
  BlockFiles* const cache_;
  const std::string key_;
  std::string block_;
  int64_t number_ = 0;
  bool finished_ = false;
};

CachingObjectStore::CachingObjectStore(std::unique_ptr<ObjectStore> store,
                                       std::unique_ptr<BlockFiles> cache)
    : store_(std::move(store)), cache_(std::move(cache)) {}

CachingObjectStore::~CachingObjectStore() = default;

Result<std::unique_ptr<CachingObjectStore>> CachingObjectStore::open(
    std::unique_ptr<ObjectStore> store, FileSystem& files, std::string folder, uint64_t capacity) {
  if (capacity < kMinCapacity) {
    return invalid_argument(
        str_cat("a cache of ", format_size(capacity), " is too small to be of use"),
        str_cat("give it at least ", format_size(kMinCapacity)));
  }
  QANAT_ASSIGN_OR_RETURN(auto cache, BlockFiles::open(files, std::move(folder), capacity));
  return std::unique_ptr<CachingObjectStore>(
      new CachingObjectStore(std::move(store), std::move(cache)));
}

Result<std::unique_ptr<ObjectWriter>> CachingObjectStore::create(std::string_view key,
                                                                 CreateOptions options) {
  QANAT_ASSIGN_OR_RETURN(auto writer, store_->create(key, options));
  return std::unique_ptr<ObjectWriter>(
      std::make_unique<Writer>(std::move(writer), cache_.get(), std::string(key)));
}

Status CachingObjectStore::fetch(std::string_view key, int64_t first, int64_t last,
                                 int64_t object_size, std::string* bytes) const {
  const int64_t begin = first * kBlock;
  const int64_t end = std::min((last + 1) * kBlock, object_size);
  QANAT_ASSIGN_OR_RETURN(*bytes, store_->read(key, begin, end - begin));
  for (int64_t number = first; number <= last; ++number) {
    const auto at = static_cast<size_t>(number * kBlock - begin);
    cache_->put(key, number, object_size, std::string_view(*bytes).substr(at, kBlock));
    counters().misses.add();
  }
  return ok_status();
}

bool CachingObjectStore::begin_fetch(std::string_view key, int64_t number, bool wait) const {
  if (!cache_->begin_fetch(key, number, wait)) return false;
  // Another may have fetched it since it was looked for.
  if (!cache_->get(key, number)) return true;
  cache_->done(key, number);
  return false;
}

Result<std::string> CachingObjectStore::read(std::string_view key, int64_t offset,
                                             int64_t length) const {
  if (offset < 0 || length <= 0) return store_->read(key, offset, length);
  std::string bytes;
  bytes.reserve(static_cast<size_t>(length));
  const int64_t end = offset + length;
  // Appends what the block of this number has of the range.
  auto take = [&](int64_t number, std::string_view block) {
    const int64_t begin = number * kBlock;
    const int64_t from = std::max(offset - begin, int64_t{0});
    const int64_t to = std::min(end - begin, static_cast<int64_t>(block.size()));
    if (from < to) bytes += block.substr(static_cast<size_t>(from), static_cast<size_t>(to - from));
  };
  const int64_t last = (end - 1) / kBlock;
  for (int64_t number = offset / kBlock; number <= last;) {
    if (auto block = cache_->get(key, number)) {
      counters().hits.add();
      if (block->object_size != BlockFiles::kUnknownSize) {
        cache_->remember_size(key, block->object_size);
      }
      take(number++, block->bytes);
      continue;
    }
    QANAT_ASSIGN_OR_RETURN(const int64_t size, this->size(key));
    if (end > size) return store_->read(key, offset, length);  // says what is wrong
    // This block, and those after it that nobody has or fetches, in one request.
    if (!begin_fetch(key, number, true)) continue;
    int64_t until = number;
    std::string fetched;
    const int64_t most = std::min(last, number + kMaxBlocks - 1);
    while (until < most && begin_fetch(key, until + 1, false)) ++until;
    const Status status = fetch(key, number, until, size, &fetched);
    for (int64_t i = number; i <= until; ++i) cache_->done(key, i);
    QANAT_RETURN_IF_ERROR(status);
    for (const int64_t begin = number; number <= until; ++number) {
      take(number, std::string_view(fetched).substr(static_cast<size_t>((number - begin) * kBlock),
                                                    kBlock));
    }
  }
  if (static_cast<int64_t>(bytes.size()) != length) return store_->read(key, offset, length);
  return bytes;
}

Result<int64_t> CachingObjectStore::size(std::string_view key) const {
  if (auto known = cache_->size_of(key)) return *known;
  QANAT_ASSIGN_OR_RETURN(const int64_t size, store_->size(key));
  cache_->remember_size(key, size);
  return size;
}

Status CachingObjectStore::remove(std::string_view key) {
  const Status status = store_->remove(key);
  cache_->forget(key);
  return status;
}

Status CachingObjectStore::list(std::string_view prefix, const Visitor& each) const {
  return store_->list(prefix, each);
}

std::string CachingObjectStore::describe() const {
  return str_cat(store_->describe(), ", cached in ", cache_->folder(), " (up to ",
                 format_size(cache_->capacity()), ")");
}

uint64_t CachingObjectStore::cached_bytes() const { return cache_->bytes(); }

}  // namespace qanat::object
