// The embedded metadata store: SQLite in WAL mode behind a group-commit queue.
//
// One thread writes. It takes every waiting transaction, executes them one after another in one
// SQLite transaction, makes that durable with one sync of the log, and then acknowledges all of
// them; so the cost of a sync is shared by everyone who waited for it. Reads use connections of
// their own, which see the last durable state and never wait for a write.
//
// Tables: `item` (the current values), `past` (values that were replaced, for reads at older
// revisions and for watches), `event` (which keys a revision changed), `lease`, `state` (counters).
// Past values and events are dropped once they are both older than `history_ms` and not among the
// last `history_revisions`, or when there are more than `history_revisions_limit`.
//
// A full disk: transactions with puts are refused with kResourceExhausted when the reserve is
// reached; the batch in which the disk itself says so is rolled back whole. When a sync fails,
// nothing is known about what the disk holds: from then on every commit gets kUnavailable until the
// store is opened anew.
//
// Counters: qanat_meta_transactions_total (that changed something), qanat_meta_batches_total,
// qanat_meta_log_syncs_total, qanat_meta_checkpoint_syncs_total.
#pragma once

#include <memory>
#include <string>

#include "qanat/base/clock.h"
#include "qanat/base/file_system.h"
#include "qanat/meta/store.h"

namespace qanat::meta {

struct SqliteOptions {
  int64_t history_ms = 10 * 60'000;
  int64_t history_revisions = 1'000;
  int64_t history_revisions_limit = 100'000;
  // Kept free for reading, deleting and ending what is under way: max(bytes, fraction of the disk).
  uint64_t reserve_bytes = 64u << 20;
  double reserve_fraction = 0.01;
  // The log is moved into the database when it has this many pages (of 4 KiB) and nobody waits, and
  // in any case at four times that.
  int checkpoint_pages = 2'000;
  // How often leases are looked at, in real time.
  int64_t lease_poll_ms = 500;
  // When the clock jumped this far between two looks, the whole machine slept, the holders of
  // leases too: the leases' time starts anew.
  int64_t sleep_gap_ms = 10'000;
  int readers = 4;  // connections for reads
  // Opens the database also if its log is damaged: without what was acknowledged behind the damage.
  bool accept_damaged_log = false;
};

class SqliteStore : public Store {
 public:
  // Opens or creates the database in `folder` (created if need be). kFailedPrecondition if another
  // process has it open. kDataLoss: see check_log(). `files` and `clock` must outlive the store.
  static Result<std::unique_ptr<SqliteStore>> open(FileSystem& files, Clock& clock,
                                                   const std::string& folder,
                                                   SqliteOptions options = {});
  // Commits what is queued, ends the watches (kCancelled), waits for the threads, and moves the log
  // into the database, so that one file is all of it.
  ~SqliteStore() override;

  Result<RangeResult> range(const KeyRange& range, const RangeOptions& options = {}) const override;
  Result<TransactionResult> commit(Transaction transaction) override;
  Result<std::unique_ptr<Watch>> watch(const KeyRange& range, int64_t from_revision,
                                       WatchCallback callback) override;
  Result<int64_t> grant_lease(int64_t ttl_ms) override;
  Status keep_alive(int64_t lease) override;
  Status revoke_lease(int64_t lease) override;
  Result<LeaseInfo> lease_info(int64_t lease) const override;
  int64_t current_revision() const override;
  Status wait_revision(int64_t revision, std::chrono::milliseconds timeout) const override;

  // Reads the whole database and checks it, page by page and table against table. May run at any
  // time. kDataLoss says what is wrong.
  Status check_integrity() const;

 private:
  struct Impl;
  explicit SqliteStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qanat::meta
