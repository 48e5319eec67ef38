// The ContentWriter of a ContentStore; see content_writer.h.
#pragma once

#include <functional>
#include <memory>

#include "qanat/base/thread_pool.h"
#include "qanat/content/blob_store.h"
#include "qanat/content/content_store.h"
#include "qanat/content/content_writer.h"
#include "qanat/content/epoch.h"

namespace qanat::content {

// What a writer works with; all borrowed, and they outlive it.
struct WriterContext {
  meta::Store* meta = nullptr;
  object::ObjectStore* objects = nullptr;
  BlobStore* blobs = nullptr;
  EpochReader* epochs = nullptr;
  std::function<SessionMark()> session;  // null: no session
  ThreadPool* encoders = nullptr;  // hash and compress; null: the writer's own thread does it all
  ThreadPool* syncers = nullptr;   // make closed packs durable
};

std::unique_ptr<ContentWriter> make_packing_writer(WriterContext context,
                                                   ContentStore::WriterOptions options);

}  // namespace qanat::content
