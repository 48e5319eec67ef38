// Tells watches what changed, from one thread. Internal to meta.
//
// A watch is a position in the sequence of revisions and nothing else: there are no queues that
// could grow. When the store has moved on, the thread reads the events behind each watch's position
// from the database (once for all watches that stand at the same place) and calls.
#pragma once

#include <list>
#include <memory>
#include <thread>

#include "qanat/base/thread_annotations.h"
#include "qanat/meta/sqlite_reader.h"
#include "qanat/meta/store.h"

namespace qanat::meta {

// Thread safe.
class WatchHub {
 public:
  // `readers` must outlive the hub.
  explicit WatchHub(ReaderPool& readers);
  // Ends every watch with kCancelled.
  ~WatchHub();

  // The store is durable up to `revision` now.
  void advance(int64_t revision);
  // Tells of events from `from_revision` on.
  std::unique_ptr<Watch> add(const KeyRange& range, int64_t from_revision, WatchCallback callback);

 private:
  struct Entry;
  class Handle;

  void run();
  void serve(const std::shared_ptr<Entry>& entry, int64_t revision);
  void remove(const std::shared_ptr<Entry>& entry);

  ReaderPool& readers_;
  Mutex mutex_;
  CondVar changed_;
  int64_t revision_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::list<std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);
  // Of the thread only: the page read last, and the revision it begins with.
  EventPage page_;
  int64_t page_from_ = 0;
  std::thread thread_;
};

}  // namespace qanat::meta
