// Delivers results: gathered, so that a thousand small datums are a handful of requests, and sent
// again until the server has acknowledged them.
//
// What is gathered is sent when it has 4 MiB, when its oldest result is 100 ms old, or at once when
// the worker has nothing else to do. A datum stays in hand (and is renewed) until its result is
// acknowledged.
//
// A thread of its own, from start() to stop(). add() and send_large() are for one other thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/worker/datum_runner.h"
#include "qanat/worker/datums_in_hand.h"
#include "qanat/worker/server_client.h"

namespace qanat::worker {

class Uploader {
 public:
  // `fatal` as in Fetcher.
  Uploader(ServerClient& client, DatumsInHand& in_hand, Clock& clock,
           std::function<void(const Status&)> fatal);
  ~Uploader();

  void start();
  // Ends the thread; results not yet sent are lost (the server will lease their datums again).
  void stop() EXCLUDES(mutex_);

  // Takes a result over. Waits while more than 8 MiB are on their way.
  void add(RanDatum ran) EXCLUDES(mutex_);
  // Sends what is gathered without waiting for more.
  void hurry() EXCLUDES(mutex_);
  // Sends a result whose output lies in /pfs/out, on this thread, to the end. An error means that
  // it was not delivered.
  Status send_large(const RanDatum& ran, DatumRunner& runner);

 private:
  void run() EXCLUDES(mutex_);
  // All of one job.
  void deliver(std::deque<RanDatum> results);

  ServerClient& client_;
  DatumsInHand& in_hand_;
  Clock& clock_;
  const std::function<void(const Status&)> fatal_;
  std::thread thread_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<RanDatum> waiting_ GUARDED_BY(mutex_);
  std::uint64_t waiting_bytes_ GUARDED_BY(mutex_) = 0;
  std::int64_t oldest_ms_ GUARDED_BY(mutex_) = 0;
  std::uint64_t sending_bytes_ GUARDED_BY(mutex_) = 0;
  bool hurry_ GUARDED_BY(mutex_) = false;
  std::atomic<bool> stopped_{false};
};

}  // namespace qanat::worker
