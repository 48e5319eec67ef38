// GcService: runs the garbage collections of a server: those that are asked for, and one a project
// every so often in which something has changed.
//
// One thread steps all collections that run, in turns; another keeps their locks, since a step may
// take longer than a lock lasts. A collection that waits for readers goes on by itself; one that
// fails is logged, and gone on with the next time: it never holds up anybody. Thread safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "qanat/api/gc.h"
#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/content_store.h"
#include "qanat/content/gc_collector.h"
#include "qanat/meta/store.h"
#include "qanat/object/object_store.h"

namespace qanat::serve {

// All borrowed; they outlive the service.
struct GcServiceContext {
  meta::Store* meta = nullptr;
  object::ObjectStore* objects = nullptr;
  content::ContentStores* contents = nullptr;
  content::EpochPins* pins = nullptr;
  Clock* clock = nullptr;
  std::vector<content::RootSource*> sources;
  content::GcScratch scratch;
  content::GcOptions options;
  int64_t interval_ms = 24 * 60 * 60 * 1000;  // 0: only when asked
  std::function<bool()> paused;
};

class GcService {
 public:
  explicit GcService(GcServiceContext context);
  ~GcService();

  // Begins one. kConflict: one of the project runs, and does not merely wait for readers.
  Result<api::CollectionInfo> start(const std::string& project, bool dry_run, bool now);
  // The one that runs, or the last one.
  api::CollectionInfo info(const std::string& project) const;

 private:
  struct Run {
    std::string project;
    std::unique_ptr<content::GcCollector> collector;
    api::CollectionInfo info;
    int64_t give_up_ms = 0;  // monotonic: it goes on the next time
    bool waiting = false;
  };

  void run();
  void keep_locks() EXCLUDES(keep_mutex_);
  // Ends a collection's work, and gives its lock back.
  void let_go(Run& run) EXCLUDES(keep_mutex_);
  void step(Run& run);
  void end(Run& run, const Status& status);
  void start_due() EXCLUDES(mutex_);
  Result<std::unique_ptr<Run>> make(const std::string& project, bool dry_run, bool now);
  // Something of a project that changes when there may be garbage.
  Result<std::string> fingerprint(const std::string& project) const;
  void show(Run& run) EXCLUDES(mutex_);

  const GcServiceContext context_;
  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  int64_t last_number_ GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<Run>> asked_ GUARDED_BY(mutex_);
  std::map<std::string, api::CollectionInfo> infos_ GUARDED_BY(mutex_);
  // Of the thread.
  std::vector<std::unique_ptr<Run>> runs_;
  std::map<std::string, std::string> collected_;  // project -> fingerprint of the last one
  int64_t next_ms_ = 0;                           // monotonic

  Mutex keep_mutex_;  // held while locks are kept; after mutex_
  CondVar keep_wake_;
  bool keep_stopping_ GUARDED_BY(keep_mutex_) = false;
  std::vector<content::GcCollector*> kept_ GUARDED_BY(keep_mutex_);  // those of runs_
  std::thread keeper_;
  std::thread thread_;
};

}  // namespace qanat::serve
