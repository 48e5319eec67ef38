// ReportContent: the blobs of one worker's request (outputs and logs of datums), until they are
// registered together with those of other requests.
//
// While they are few (1 MiB) they wait in memory, so that many requests share one pack. With more
// they go through a ContentWriter of their own, which streams them into packs.
//
// Thread-compatible: one thread at a time. Dropped before its content was registered, it leaves
// nothing behind.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "qanat/content/content_store.h"

namespace qanat::pipeline {

class ReportContent : public content::BlobWriter {
 public:
  static constexpr size_t kMaxInMemory = 1 << 20;

  // The store outlives it.
  explicit ReportContent(content::ContentStore& store) : store_(store) {}

  Result<content::BlobRef> add(content::BlobKind kind, std::string_view plain,
                               const Hash* known) override;
  Result<content::Blob> read(const content::BlobRef& ref) override;
  Result<std::vector<content::Blob>> read_many(std::span<const content::BlobRef> refs) override;

  // Gives what waits in memory to a writer of its own, and makes that durable. Afterwards the
  // memory is free.
  Status make_durable();

  // Null while all is in memory.
  content::ContentWriter* writer() { return writer_.get(); }
  size_t bytes_in_memory() const { return bytes_; }
  // What waits in memory, into another writer. May be called again, with another.
  Status copy_to(content::ContentWriter& writer) const;

 private:
  Status spill();

  content::ContentStore& store_;
  std::unique_ptr<content::ContentWriter> writer_;
  std::vector<std::pair<content::BlobRef, content::Blob>> blobs_;  // in the order they came
  std::unordered_map<content::BlobRef, size_t, chunk::BlobRefHasher> places_;  // in blobs_
  size_t bytes_ = 0;
};

}  // namespace qanat::pipeline
