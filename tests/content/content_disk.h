// What tests of content run on: the embedded meta store and the local object store on one disk in
// memory that can crash.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/base/log.h"
#include "qanat/content/content_store.h"
#include "qanat/meta/sqlite_store.h"
#include "qanat/object/local_object_store.h"
#include "support/fault_file_system.h"

namespace qanat::content {

// No log lines while it lives.
struct QuietLog {
  QuietLog() { set_log_level(LogLevel::kOff); }
  ~QuietLog() { set_log_level(LogLevel::kInfo); }
};

struct ContentDisk {
  explicit ContentDisk(std::unique_ptr<testing::FaultFileSystem> from = nullptr)
      : files(from ? std::move(from) : std::make_unique<testing::FaultFileSystem>()) {}

  // Opens both stores; false (with the reason in `status`) if the disk crashed meanwhile.
  bool open() {
    auto opened_meta = meta::SqliteStore::open(*files, clock, "data/meta");
    if (!opened_meta.ok()) {
      status = opened_meta.status();
      return false;
    }
    meta = *std::move(opened_meta);
    auto opened_objects = object::LocalObjectStore::open(*files, "data/objects");
    if (!opened_objects.ok()) {
      status = opened_objects.status();
      return false;
    }
    objects = *std::move(opened_objects);
    return true;
  }

  std::unique_ptr<ContentStores> stores(std::function<SessionMark()> session = nullptr) {
    ContentOptions options;
    options.now_ms = [this] { return clock.wall_ms(); };
    options.session = std::move(session);
    options.background = false;
    options.write_threads = write_threads;
    return ContentStores::create(meta.get(), objects.get(), std::move(options));
  }

  // All object keys.
  std::set<std::string> object_keys() const {
    std::set<std::string> keys;
    EXPECT_TRUE(objects
                    ->list("",
                           [&](const object::ObjectInfo& info) -> Status {
                             keys.insert(info.key);
                             return ok_status();
                           })
                    .ok());
    return keys;
  }

  int write_threads = 0;  // one thread: the same operations of the disk in every run
  ManualClock clock;
  std::unique_ptr<testing::FaultFileSystem> files;
  std::unique_ptr<meta::SqliteStore> meta;
  std::unique_ptr<object::LocalObjectStore> objects;
  Status status;
};

}  // namespace qanat::content
