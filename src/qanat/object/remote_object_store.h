// An ObjectStore over requests to a remote one (blob_service.h).
//
// Writing. An object of up to `part_bytes` is buffered and written by one request in finish(). A
// larger one is uploaded in parts while it is being appended: each full part goes to a small pool
// of threads, and append() waits while `parts_in_flight` of this writer are under way, so a writer
// holds at most parts_in_flight + 1 parts in memory. From part 1,000 on, parts are twice as large.
// Giving up cancels what is on its way and aborts the upload; a server that dies leaves an
// unfinished upload, which no list shows: buckets want a lifecycle rule for these
// (docs/object-stores.md).
//
// Counters: as the local store's (created, reads, bytes), and store_client's.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "qanat/base/thread_annotations.h"
#include "qanat/base/thread_pool.h"
#include "qanat/object/blob_service.h"
#include "qanat/object/object_store.h"
#include "qanat/object/presigned_urls.h"

namespace qanat::object {

struct RemoteStoreOptions {
  size_t part_bytes = 8 << 20;  // S3 wants 5 MiB or more of all parts but the last
  int parts_in_flight = 2;      // of one writer
  int upload_threads = 8;       // of all writers
};

class RemoteObjectStore : public ObjectStore, private PresignedUrls {
 public:
  // `prefix`: "" or ending in '/'; before every key.
  RemoteObjectStore(std::unique_ptr<BlobService> service, std::string prefix,
                    RemoteStoreOptions options = {});
  ~RemoteObjectStore() override;

  using ObjectStore::create;
  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key,
                                               CreateOptions options) override;
  Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const override;
  Result<int64_t> size(std::string_view key) const override;
  Status remove(std::string_view key) override;
  // Asks for one page at a time. Keys that are none of ours (check_key) are left out.
  Status list(std::string_view prefix, const Visitor& each) const override;
  std::string describe() const override;
  void cancel() override;
  PresignedUrls* presigned_urls() override { return this; }

 private:
  class Writer;

  bool limits_range() const override { return service_->limits_range(); }
  bool limits_size() const override { return service_->limits_size(); }
  Result<PresignedRequest> presign_read(std::string_view key, int64_t offset, int64_t length,
                                        std::chrono::seconds lifetime) override;
  Result<PresignedRequest> presign_write(std::string_view key, int64_t size,
                                         std::chrono::seconds lifetime) override;
  Result<std::string> whole_key(std::string_view key) const;
  // For one upload in parts.
  std::shared_ptr<net::CancelSignal> new_signal();
  void forget(const std::shared_ptr<net::CancelSignal>& signal);

  const std::unique_ptr<BlobService> service_;
  const std::string prefix_;
  const RemoteStoreOptions options_;
  Mutex mutex_;
  std::set<std::shared_ptr<net::CancelSignal>> signals_ GUARDED_BY(mutex_);  // of uploads
  ThreadPool uploads_;
};

}  // namespace qanat::object
