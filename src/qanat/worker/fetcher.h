// Brings datums: leases them and fetches their inputs ahead of the running one.
//
// Small inputs are fetched for many datums in one request of about a megabyte and kept in memory;
// at most `max_queue_size` such requests are ahead. Large ones are streamed to /pfs when their
// datum starts. New datums are leased while the last ones run, but no earlier than about 50 ms
// before the worker would be idle, so that long datums go to whoever is free.
//
// A thread of its own, from start() to stop(). next() is for one other thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <thread>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/worker/datum_runner.h"
#include "qanat/worker/datums_in_hand.h"
#include "qanat/worker/server_client.h"

namespace qanat::worker {

class Fetcher {
 public:
  // `fatal` is called with an error after which this worker has no purpose (it is not wanted any
  // more).
  Fetcher(ServerClient& client, DatumsInHand& in_hand, Clock& clock, std::int64_t max_queue_size,
          std::function<void(const Status&)> fatal);
  ~Fetcher();

  void start();
  // Waits for the thread, which may take as long as a call to the server.
  void stop() EXCLUDES(mutex_);
  // next() gives nothing any more. Does not wait; may be called on any thread, the fetcher's own
  // included.
  void wake_to_end() EXCLUDES(mutex_);

  // Waits for the next datum; nothing after stop() or wake_to_end().
  std::optional<FetchedDatum> next() EXCLUDES(mutex_);
  // No datum waits: now is a good time to deliver.
  bool idle() const EXCLUDES(mutex_);
  // How long a datum took, all in all.
  void note_duration(std::int64_t milliseconds) EXCLUDES(mutex_);

  // Writes the input of a datum that is not in memory.
  Status stream_inputs(const FetchedDatum& datum, PfsFolder& pfs, api::DatumReport& report);

 private:
  void run();
  void wait_until_needed() EXCLUDES(mutex_);
  void fetch(const api::LeaseAnswer& lease) EXCLUDES(mutex_);
  Status fetch_group(const std::string& job, std::deque<FetchedDatum>& group);
  void push(std::deque<FetchedDatum> group) EXCLUDES(mutex_);

  ServerClient& client_;
  DatumsInHand& in_hand_;
  Clock& clock_;
  const std::int64_t max_groups_;
  const std::function<void(const Status&)> fatal_;
  std::thread thread_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::deque<FetchedDatum>> groups_ GUARDED_BY(mutex_);
  std::int64_t unstarted_ GUARDED_BY(mutex_) = 0;  // of the current lease, fetched or not
  double average_ms_ GUARDED_BY(mutex_) = 1000;
  std::atomic<bool> stopped_{false};
};

}  // namespace qanat::worker
