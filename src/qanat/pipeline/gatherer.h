// Gatherer: group commit. What many threads bring is handled in groups, one group at a time.
//
// Whoever brings something while no group is being handled handles it himself, at once, together
// with whatever came meanwhile; whoever comes while one is handled leaves his item and goes. So an
// idle gatherer adds no delay, and under load the cost of a group (fsyncs, a transaction) is shared
// by all its items. Groups begin at least `every_ms` apart, unless `complete` says that waiting
// brings nothing; the wait holds no thread (see later.h).
//
// Every item added is given to `handle` once. Thread safe. Owned through a shared_ptr, which a wait
// keeps alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/pipeline/later.h"

namespace qanat::pipeline {

template <class Item>
class Gatherer : public std::enable_shared_from_this<Gatherer<Item>> {
 public:
  struct Options {
    int64_t every_ms = 50;
    // Of one group, as sum of its items' costs; a single item may have more.
    size_t max_cost = SIZE_MAX;
    // Takes a group, in the order in which its items came; on one thread at a time, with no lock
    // held. Calls of one group are seen by the next.
    std::function<void(std::vector<Item>)> handle;
    // Whether so many waiting items are all that can come for now. Called under the gatherer's
    // lock: must not call back. Null: never.
    std::function<bool(size_t waiting)> complete;
  };

  // `later` outlives it; null: groups are not kept apart.
  Gatherer(Options options, Clock& clock, Later* later)
      : options_(std::move(options)), clock_(clock), later_(later) {}

  void add(Item item, size_t cost = 1) {
    {
      MutexLock lock(mutex_);
      waiting_.emplace_back(std::move(item), cost);
      waiting_cost_ += cost;
    }
    handle_what_is_due();
  }

  // Of all that wait, those being handled not counted.
  size_t waiting_cost() const {
    MutexLock lock(mutex_);
    return waiting_cost_;
  }

 private:
  void handle_what_is_due() {
    MutexLock lock(mutex_);
    while (!handling_ && !waiting_.empty()) {
      const int64_t now = clock_.monotonic_ms();
      if (later_ != nullptr && now < next_ms_ &&
          !(options_.complete && options_.complete(waiting_.size()))) {
        if (std::exchange(scheduled_, true)) return;
        const int64_t at_ms = next_ms_;
        lock.unlock();
        later_->run_at(at_ms, [self = this->shared_from_this(), at_ms] { self->end_wait(at_ms); });
        return;
      }
      std::vector<Item> group = take_group();
      handling_ = true;
      next_ms_ = now + options_.every_ms;
      lock.unlock();
      options_.handle(std::move(group));
      lock.lock();
      handling_ = false;
    }
  }

  void end_wait(int64_t until_ms) {
    {
      MutexLock lock(mutex_);
      scheduled_ = false;
      // Over also when it was cut short because the server stops; unless a group went meanwhile.
      if (next_ms_ == until_ms) next_ms_ = 0;
    }
    handle_what_is_due();
  }

  std::vector<Item> take_group() REQUIRES(mutex_) {
    std::vector<Item> group;
    size_t cost = 0;
    while (!waiting_.empty() &&
           (group.empty() || waiting_.front().second <= options_.max_cost - cost)) {
      cost += waiting_.front().second;
      waiting_cost_ -= waiting_.front().second;
      group.push_back(std::move(waiting_.front().first));
      waiting_.pop_front();
      if (cost >= options_.max_cost) break;
    }
    return group;
  }

  const Options options_;
  Clock& clock_;
  Later* const later_;
  mutable Mutex mutex_;
  std::deque<std::pair<Item, size_t>> waiting_ GUARDED_BY(mutex_);
  size_t waiting_cost_ GUARDED_BY(mutex_) = 0;
  bool handling_ GUARDED_BY(mutex_) = false;
  bool scheduled_ GUARDED_BY(mutex_) = false;
  int64_t next_ms_ GUARDED_BY(mutex_) = 0;  // no group before, unless complete
};

}  // namespace qanat::pipeline
