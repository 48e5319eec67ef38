// ContentStore: everything about the content of one project; ContentStores: all projects of a
// server.
//
// Compactions and removals run on one background thread of ContentStores. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "qanat/content/blob_store.h"
#include "qanat/content/content_writer.h"
#include "qanat/content/epoch.h"
#include "qanat/content/epoch_pins.h"
#include "qanat/content/segment_index.h"
#include "qanat/meta/store.h"
#include "qanat/object/object_store.h"

namespace qanat::content {

struct ContentOptions {
  size_t index_cache_bytes = 32u << 20;
  size_t blob_cache_bytes = 48u << 20;
  // Asked by each writer that begins. Null: no session.
  std::function<SessionMark()> session;
  // Told of each writer, which then takes its session from there. Null: garbage collection must not
  // run beside writers. Outlives the stores and their writers.
  EpochPins* pins = nullptr;
  std::function<int64_t()> now_ms;  // wall clock; required
  bool background = true;           // compact and remove by itself
  // Threads that hash and compress for all writers; 0: each writer's own thread does it. -1: one a
  // core.
  int write_threads = -1;
};

class ContentStore {
 public:
  virtual ~ContentStore() = default;
  virtual const std::string& project() const = 0;
  virtual BlobStore& blobs() = 0;       // reads
  virtual SegmentIndex& results() = 0;  // the index of reusable datum results
  virtual EpochReader& epochs() = 0;
  struct WriterOptions {
    bool deduplicate = true;  // ask the index before writing
    // Instead: only for copies in these packs. Borrowed, outlives the writer; null: none.
    const std::set<chunk::PackId>* only_from = nullptr;
    // For what ends work under way or removes something: goes on when the disk is full, and lets
    // the caller's transaction do so.
    bool may_use_reserve = false;
  };
  virtual std::unique_ptr<ContentWriter> new_writer(WriterOptions options) = 0;
  std::unique_ptr<ContentWriter> new_writer() { return new_writer(WriterOptions{}); }
};

class ContentStores {
 public:
  // Borrowed: meta and objects; they outlive it.
  static std::unique_ptr<ContentStores> create(meta::Store* meta, object::ObjectStore* objects,
                                               ContentOptions options);
  virtual ~ContentStores() = default;

  // Opens it at the first call. Valid as long as the ContentStores. Whether the project exists is
  // the caller's business.
  virtual Result<ContentStore*> project(std::string_view name) = 0;
  virtual const ContentOptions& options() const = 0;
  // One round of compaction and removal in all open projects, now, in this thread.
  virtual Status maintain() = 0;
};

}  // namespace qanat::content
