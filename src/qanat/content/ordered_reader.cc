#include "qanat/content/ordered_reader.h"

#include <algorithm>
#include <utility>

#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/file_reader.h"

namespace qanat::content {

namespace {

constexpr size_t kFirstBatchBytes = 64u << 10;

}  // namespace

// Shared with the task that reads it.
struct OrderedReader::Batch {
  std::vector<Item> items;
  std::vector<BlobRef> refs;  // of the kData items
  uint64_t bytes = 0;

  Mutex mutex;
  CondVar changed;
  bool done GUARDED_BY(mutex) = false;
  Status status GUARDED_BY(mutex);
  std::vector<Blob> blobs GUARDED_BY(mutex);

  void read(BlobReader& reader) EXCLUDES(mutex) {
    Result<std::vector<Blob>> got = read_all(reader);
    MutexLock lock(mutex);
    if (got.ok()) {
      blobs = *std::move(got);
    } else {
      status = got.status();
    }
    done = true;
    changed.notify_all();
  }

  Result<std::vector<Blob>> read_all(BlobReader& reader) const {
    if (refs.empty()) return std::vector<Blob>();
    if (refs.size() > 1) return reader.read_many(refs);
    // No stream, likely: a small file, which may be wanted again and is kept in the cache.
    QANAT_ASSIGN_OR_RETURN(Blob blob, reader.read(refs[0]));
    return std::vector<Blob>{std::move(blob)};
  }

  Result<std::vector<Blob>> wait() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    while (!done) changed.wait(mutex);
    QANAT_RETURN_IF_ERROR(status);
    return std::move(blobs);
  }
};

OrderedReader::OrderedReader(BlobReader& reader, ThreadPool* pool, Sink& sink)
    : reader_(reader), pool_(pool), sink_(sink), batch_bytes_(kFirstBatchBytes) {}

OrderedReader::~OrderedReader() {
  for (const std::shared_ptr<Batch>& batch : started_) (void)batch->wait();
}

Status OrderedReader::add(std::string_view path, const FileRef& file) {
  return add_range(path, file, 0, file.size);
}

Status OrderedReader::add_range(std::string_view path, const FileRef& file, uint64_t offset,
                                uint64_t length) {
  if (open_ == nullptr) open_ = std::make_shared<Batch>();
  open_->items.push_back({.kind = Item::Kind::kBegin, .path = std::string(path)});
  if (offset < file.size && length > 0) {
    const uint64_t end = offset + std::min(length, file.size - offset);
    QANAT_RETURN_IF_ERROR(visit_chunks(
        reader_, file, offset, length,
        [&](uint64_t begin, uint64_t size, const Hash& hash) -> Status {
          const uint64_t from = std::max(begin, offset) - begin;
          return add_chunk(hash, size, from, std::min(begin + size, end) - begin - from);
        }));
  }
  if (open_ == nullptr) open_ = std::make_shared<Batch>();
  open_->items.push_back({.kind = Item::Kind::kEnd});
  if (open_->items.size() >= kBatchItems) return start_batch();
  return ok_status();
}

Status OrderedReader::add_chunk(const Hash& hash, uint64_t size, uint64_t from, uint64_t length) {
  if (open_ == nullptr) open_ = std::make_shared<Batch>();
  open_->items.push_back(
      {.kind = Item::Kind::kData, .path = {}, .size = size, .from = from, .length = length});
  open_->refs.push_back({BlobKind::kChunk, hash});
  open_->bytes += size;
  if (open_->bytes < batch_bytes_) return ok_status();
  batch_bytes_ = std::min(2 * batch_bytes_, kBatchBytes);
  return start_batch();
}

Status OrderedReader::start_batch() {
  std::shared_ptr<Batch> batch = std::exchange(open_, nullptr);
  if (pool_ == nullptr) {
    batch->read(reader_);
  } else {
    // Reads wait for nothing, so a full queue empties.
    pool_->submit([batch, &reader = reader_] { batch->read(reader); });
  }
  started_.push_back(std::move(batch));
  if (pool_ == nullptr || started_.size() > kDepth) return take_front();
  return ok_status();
}

Status OrderedReader::take_front() {
  const std::shared_ptr<Batch> batch = std::move(started_.front());
  started_.pop_front();
  QANAT_ASSIGN_OR_RETURN(std::vector<Blob> blobs, batch->wait());
  size_t next = 0;
  for (const Item& item : batch->items) {
    switch (item.kind) {
      case Item::Kind::kBegin:
        QANAT_RETURN_IF_ERROR(sink_.begin_file(item.path));
        break;
      case Item::Kind::kEnd:
        QANAT_RETURN_IF_ERROR(sink_.end_file());
        break;
      case Item::Kind::kData: {
        const Blob blob = std::move(blobs[next]);  // let go of as soon as it has been handed on
        if (blob->size() != item.size) {
          return data_loss(str_cat(batch->refs[next].to_string(), " has ", blob->size(),
                                   " bytes; its file says ", item.size));
        }
        ++next;
        QANAT_RETURN_IF_ERROR(sink_.data(std::string_view(*blob).substr(item.from, item.length)));
        break;
      }
    }
  }
  return ok_status();
}

Status OrderedReader::finish() {
  if (open_ != nullptr && started_.empty()) {
    // All there is: not worth the way to another thread.
    open_->read(reader_);
    started_.push_back(std::exchange(open_, nullptr));
  } else if (open_ != nullptr) {
    QANAT_RETURN_IF_ERROR(start_batch());
  }
  while (!started_.empty()) QANAT_RETURN_IF_ERROR(take_front());
  return ok_status();
}

}  // namespace qanat::content
