// Reads of the embedded store: ranges at a revision, and the events of revisions. Internal to meta.
#pragma once

#include <condition_variable>
#include <memory>
#include <string>
#include <vector>

#include "qanat/base/thread_annotations.h"
#include "qanat/meta/sqlite_connection.h"
#include "qanat/meta/store.h"

namespace qanat::meta {

// The counters of the store, from table `state`.
struct StateRow {
  int64_t revision = 1;
  int64_t compacted = 0;  // reads below it, and watches from it or below, are kGone
  int64_t next_lease = 1;
};
Result<StateRow> read_state(Connection& connection);

// The current value of one key, or nothing.
Result<std::optional<KeyValue>> read_item(Connection& connection, std::string_view key);

// Items of a range, within a transaction of the connection. `options.revision` 0 reads table `item`
// as it is.
Result<RangeResult> read_range(Connection& connection, const KeyRange& range,
                               const RangeOptions& options);

// The events of revisions [from, up_to], whole revisions only, in order.
struct EventPage {
  std::vector<Event> events;
  int64_t up_to = 0;  // the last revision of the page
};
// At least one revision, and then until about `limit` events or 8 MiB of values. kGone if `from` is
// compacted.
Result<EventPage> read_events(Connection& connection, int64_t from, int64_t up_to, int64_t limit);

// A bounded number of read connections, opened when needed. Thread safe.
class ReaderPool {
 public:
  ReaderPool(const SqliteVfs& vfs, std::string path, int limit)
      : vfs_(vfs), path_(std::move(path)), limit_(limit) {}

  // Runs `read` inside a read transaction: everything it reads is of one moment. Waits while all
  // connections are busy.
  Status read(const std::function<Status(Connection&)>& read);

 private:
  Result<std::unique_ptr<Connection>> take();
  void give_back(std::unique_ptr<Connection> connection);

  const SqliteVfs& vfs_;
  const std::string path_;
  const int limit_;
  Mutex mutex_;
  CondVar returned_;
  int opened_ GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<Connection>> idle_ GUARDED_BY(mutex_);
};

}  // namespace qanat::meta
