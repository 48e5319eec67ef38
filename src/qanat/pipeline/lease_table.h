// LeaseTable: which datums of one running job wait, and which are with which worker.
//
// A pure state machine: it is told what happened and the time, and says what follows; it does no
// I/O and takes no locks. The controller owns one per running job and guards it. Memory is
// proportional to the datums in hand (waiting here plus leased), which the controller bounds by
// refilling it in portions.
//
// A datum may be run twice (a worker was thought lost and was not); the first result wins, the
// second is ignored: `complete` gives a datum out once.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "qanat/pipeline/datum_table.h"

namespace qanat::pipeline {

// A datum to be run: its row in the plan, and where it stands in the order of the job's datums.
struct Ticket {
  std::string sort_key;
  DatumRow row;
  std::string datum_id;  // 64 hex digits
  int32_t restarts = 0;  // leases that ended without a result
  int32_t ooms = 0;  // of them, those in which it alone had a worker that was killed for its memory
};

class LeaseTable {
 public:
  // Before `adopt_until_ms`, a worker that renews a datum which has meanwhile been handed to
  // another is believed and keeps it: it had it from a server that was restarted, and may be far
  // on. 0: there was no such server.
  explicit LeaseTable(int64_t ttl_ms, int64_t adopt_until_ms = 0)
      : ttl_ms_(ttl_ms), adopt_until_ms_(adopt_until_ms) {}

  // Adds a datum at the end of the queue. One that a worker already claims (see `adopt`) is put
  // with that worker at once.
  void add(Ticket ticket, int64_t now_ms);

  // Hands the first `max` waiting datums to `worker`. A datum whose worker was lost before is alone
  // with the next one: it goes to a worker that holds nothing, and nothing else goes there until
  // it is done. If it takes that worker down too, it is known which datum did it.
  std::vector<const Ticket*> lease(const std::string& worker, size_t max, int64_t now_ms);

  // Keeps what `worker` holds. A datum that is still waiting here, or not yet known (a restarted
  // server is still planning), is adopted: it becomes the worker's. Returns the ids among `datums`
  // that the worker should give up: with another worker by now.
  std::vector<std::string> renew(const std::string& worker, const std::vector<std::string>& datums,
                                 int64_t now_ms);

  // The datum's result is in. Nothing if it is not in hand (already completed, or never here).
  // Takes it from whoever has it.
  std::optional<Ticket> complete(const std::string& datum_id);
  const Ticket* find(const std::string& datum_id) const;

  // The worker is gone: what it held waits again, first in the queue. Returns their ids. `oom`: it
  // was killed for its memory, which counts for a datum that was alone with it.
  std::vector<std::string> release(const std::string& worker, bool oom = false);
  // Leases that the worker never heard of: these datums wait again as if they had not been handed
  // out.
  void give_back(const std::string& worker, const std::vector<std::string>& datums);
  // Leases that ran out: their datums wait again, first in the queue. Returns how many.
  size_t expire(int64_t now_ms);
  // When expire() next has something to do; nothing when no datum is leased.
  std::optional<int64_t> next_expiry() const;

  // The next one to be handed out is to be alone with its worker.
  bool one_waits_for_a_free_worker() const;
  size_t waiting() const { return waiting_.size(); }
  size_t leased() const { return entries_.size() - waiting_.size(); }
  bool empty() const { return entries_.empty(); }
  // Workers that hold datums.
  size_t holders() const { return held_.size(); }
  // Datums with a worker: id -> worker.
  std::map<std::string, std::string> running() const;

 private:
  struct Entry {
    Ticket ticket;
    std::string worker;  // empty: waiting
    int64_t expires_ms = 0;
    bool adopted = false;  // the worker said that it has it, rather than was given it
  };
  void give(Entry& entry, const std::string& worker, int64_t now_ms);
  void take_back(const std::string& id);

  const int64_t ttl_ms_;
  const int64_t adopt_until_ms_;
  std::unordered_map<std::string, Entry> entries_;  // by datum id
  std::deque<std::string> waiting_;                 // ids in order
  std::set<std::pair<int64_t, std::string>> expiries_;
  std::unordered_map<std::string, std::set<std::string>> held_;  // worker -> ids
  // Claims of live workers on datums that were not planned yet: id -> worker, until the claim runs
  // out.
  std::unordered_map<std::string, std::pair<std::string, int64_t>> claims_;
};

}  // namespace qanat::pipeline
