#include "qanat/object/remote_object_store.h"

#include <vector>

#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"

namespace qanat::object {
namespace {

constexpr int kSmallParts = 1000;
constexpr size_t kGrowUpTo = 1 << 20;
constexpr std::chrono::seconds kLongestLifetime{7 * 24 * 3600};

struct Counters {
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

class RemoteObjectStore::Writer : public ObjectWriter {
 public:
  Writer(RemoteObjectStore& store, std::string key, std::string whole_key)
      : store_(store), key_(std::move(key)), whole_key_(std::move(whole_key)), id_(random_id()) {}
  ~Writer() override { abort(); }

  Status append(std::string_view bytes) override {
    if (closed_) return closed();
    if (Status status = take(bytes); !status.ok()) return give_up(status);
    return ok_status();
  }

  Status finish() override {
    if (closed_) return closed();
    Status status = upload_.empty() ? put() : complete();
    if (!status.ok()) return give_up(status);
    closed_ = true;
    if (cancel_) store_.forget(cancel_);
    counters().created.add();
    counters().written.add(static_cast<uint64_t>(size_));
    return ok_status();
  }

  void abort() override {
    if (closed_) return;
    closed_ = true;
    if (cancel_) {
      cancel_->cancel();
      wait_for_parts(0);
      if (!upload_.empty()) store_.service_->abort_upload(whole_key_, upload_);
      store_.forget(cancel_);
    }
    // A request that seemed to fail may have made the object all the same, or may do so yet.
    if (sent_) (void)store_.service_->remove(whole_key_, /*hurried=*/true);
    buffer_ = {};
  }

  int64_t size() const override { return size_; }

 private:
  Status closed() const { return failed_precondition(str_cat("object ", key_, " is closed")); }

  Status give_up(const Status& status) {
    // Another's object is not ours to remove; and what the store refused is not there.
    const Code code = status.code();
    if (code == Code::kAlreadyExists || code == Code::kFailedPrecondition ||
        code == Code::kResourceExhausted) {
      sent_ = false;
    }
    abort();
    return status.with_context(str_cat("object ", key_));
  }

  size_t part_size() const {
    return next_part_ <= kSmallParts ? store_.options_.part_bytes : store_.options_.part_bytes * 2;
  }

  Status take(std::string_view bytes) {
    size_ += static_cast<int64_t>(bytes.size());
    while (!bytes.empty()) {
      // Only once more bytes come, so that an object of exactly one part is one request.
      if (buffer_.size() >= part_size()) QANAT_RETURN_IF_ERROR(send_part());
      const size_t piece = std::min(bytes.size(), part_size() - buffer_.size());
      // Once it is not small any more, a whole part at once: doubling would take up to two.
      if (buffer_.size() + piece > kGrowUpTo) buffer_.reserve(part_size());
      buffer_.append(bytes.substr(0, piece));
      bytes.remove_prefix(piece);
    }
    return ok_status();
  }

  Status put() {
    sent_ = true;
    return store_.service_->put(whole_key_, buffer_, id_);
  }

  Status complete() {
    if (!buffer_.empty()) QANAT_RETURN_IF_ERROR(send_part());
    wait_for_parts(0);
    MutexLock lock(mutex_);
    QANAT_RETURN_IF_ERROR(failed_);
    sent_ = true;
    return store_.service_->complete_upload(whole_key_, upload_, parts_, id_);
  }

  // Hands the buffer to the pool.
  Status send_part() {
    if (next_part_ > store_.service_->max_parts()) {
      return too_large(str_cat("it has more than ", store_.service_->max_parts(), " parts"));
    }
    if (upload_.empty()) {
      cancel_ = store_.new_signal();
      QANAT_ASSIGN_OR_RETURN(upload_, store_.service_->begin_upload(whole_key_, id_));
    }
    wait_for_parts(store_.options_.parts_in_flight - 1);
    const int number = next_part_++;
    auto bytes = std::make_shared<std::string>(std::move(buffer_));
    buffer_ = {};
    {
      MutexLock lock(mutex_);
      QANAT_RETURN_IF_ERROR(failed_);
      parts_.resize(static_cast<size_t>(number));
      ++under_way_;
    }
    store_.uploads_.submit([this, number, bytes] {
      auto part = store_.service_->put_part(whole_key_, upload_, number, *bytes, cancel_);
      MutexLock lock(mutex_);
      if (part.ok()) {
        parts_[static_cast<size_t>(number) - 1] = *std::move(part);
      } else if (failed_.ok()) {
        failed_ = part.status().with_context(str_cat("part ", number));
      }
      --under_way_;
      ended_.notify_all();  // under the lock: the writer may be gone right after it
    });
    return ok_status();
  }

  void wait_for_parts(int most) {
    MutexLock lock(mutex_);
    while (under_way_ > most) ended_.wait(mutex_);
  }

  RemoteObjectStore& store_;
  const std::string key_;
  const std::string whole_key_;
  const WriteId id_;
  std::string buffer_;
  int64_t size_ = 0;
  bool closed_ = false;
  bool sent_ = false;   // the object may exist
  std::string upload_;  // "" until there is more than one part
  int next_part_ = 1;
  std::shared_ptr<net::CancelSignal> cancel_;
  Mutex mutex_;
  CondVar ended_;
  int under_way_ GUARDED_BY(mutex_) = 0;
  std::vector<UploadedPart> parts_ GUARDED_BY(mutex_);
  Status failed_ GUARDED_BY(mutex_);
};

RemoteObjectStore::RemoteObjectStore(std::unique_ptr<BlobService> service, std::string prefix,
                                     RemoteStoreOptions options)
    : service_(std::move(service)),
      prefix_(std::move(prefix)),
      options_(options),
      uploads_("uploads", static_cast<size_t>(options.upload_threads),
               static_cast<size_t>(options.upload_threads)) {}

RemoteObjectStore::~RemoteObjectStore() = default;

Result<std::string> RemoteObjectStore::whole_key(std::string_view key) const {
  QANAT_RETURN_IF_ERROR(check_key(key));
  std::string whole = str_cat(prefix_, key);
  if (whole.size() > kMaxKeyBytes) {
    return invalid_argument(str_cat("object key ", key, " is too long with its prefix"));
  }
  return whole;
}

Result<std::unique_ptr<ObjectWriter>> RemoteObjectStore::create(std::string_view key,
                                                                CreateOptions /*options*/) {
  QANAT_ASSIGN_OR_RETURN(std::string whole, whole_key(key));
  return std::unique_ptr<ObjectWriter>(new Writer(*this, std::string(key), std::move(whole)));
}

Result<std::string> RemoteObjectStore::read(std::string_view key, int64_t offset,
                                            int64_t length) const {
  QANAT_ASSIGN_OR_RETURN(const std::string whole, whole_key(key));
  if (offset < 0 || length < 0) {
    return invalid_argument(str_cat("object ", key, ": range of ", length, " bytes at ", offset));
  }
  if (length == 0) {
    QANAT_RETURN_IF_ERROR(size(key).status());
    return std::string();
  }
  Result<std::string> bytes = service_->get(whole, offset, length);
  if (!bytes.ok()) return bytes.status().with_context(str_cat("object ", key));
  counters().reads.add();
  counters().read.add(bytes->size());
  return bytes;
}

Result<int64_t> RemoteObjectStore::size(std::string_view key) const {
  QANAT_ASSIGN_OR_RETURN(const std::string whole, whole_key(key));
  Result<int64_t> size = service_->size(whole);
  if (!size.ok()) return size.status().with_context(str_cat("object ", key));
  return size;
}

Status RemoteObjectStore::remove(std::string_view key) {
  QANAT_ASSIGN_OR_RETURN(const std::string whole, whole_key(key));
  return service_->remove(whole, /*hurried=*/false).with_context(str_cat("object ", key));
}

Status RemoteObjectStore::list(std::string_view prefix, const Visitor& each) const {
  std::string last;
  std::string from;
  do {
    Result<ListPage> page = service_->list(str_cat(prefix_, prefix), from);
    if (!page.ok()) return page.status().with_context(str_cat("list of objects ", prefix));
    if (page->next == from && !from.empty()) {
      return data_loss("the object store's list does not go on");
    }
    for (const ObjectInfo& info : page->objects) {
      if (!info.key.starts_with(prefix_)) {
        return data_loss("the object store lists keys that were not asked for");
      }
      ObjectInfo ours{info.key.substr(prefix_.size()), info.size};
      if (!ours.key.starts_with(prefix) || !check_key(ours.key).ok()) continue;
      if (ours.key <= last) {
        return failed_precondition(
            "the object store does not list its keys in order",
            "use a bucket that does; directory buckets of S3 Express do not");
      }
      last = ours.key;
      QANAT_RETURN_IF_ERROR(each(ours));
    }
    from = page->next;
  } while (!from.empty());
  return ok_status();
}

Result<PresignedRequest> RemoteObjectStore::presign_read(std::string_view key, int64_t offset,
                                                         int64_t length,
                                                         std::chrono::seconds lifetime) {
  QANAT_ASSIGN_OR_RETURN(const std::string whole, whole_key(key));
  if (offset < 0 || length <= 0 || lifetime.count() < 1 || lifetime > kLongestLifetime) {
    return invalid_argument(
        "a presigned read has a range that is not empty, and lives from a "
        "second to 7 days");
  }
  return service_->presign_read(whole, offset, length, lifetime);
}

Result<PresignedRequest> RemoteObjectStore::presign_write(std::string_view key, int64_t size,
                                                          std::chrono::seconds lifetime) {
  QANAT_ASSIGN_OR_RETURN(const std::string whole, whole_key(key));
  if (size < 0 || lifetime.count() < 1 || lifetime > kLongestLifetime) {
    return invalid_argument("a presigned write has a size, and lives from a second to 7 days");
  }
  return service_->presign_write(whole, size, lifetime);
}

std::shared_ptr<net::CancelSignal> RemoteObjectStore::new_signal() {
  auto signal = std::make_shared<net::CancelSignal>();
  MutexLock lock(mutex_);
  signals_.insert(signal);
  return signal;
}

void RemoteObjectStore::forget(const std::shared_ptr<net::CancelSignal>& signal) {
  MutexLock lock(mutex_);
  signals_.erase(signal);
}

// An upload that begins afterwards ends with its first request.
void RemoteObjectStore::cancel() {
  service_->cancel();
  MutexLock lock(mutex_);
  for (const auto& signal : signals_) signal->cancel();
}

std::string RemoteObjectStore::describe() const { return service_->describe(); }

}  // namespace qanat::object
