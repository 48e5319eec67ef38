// JobRun: a job between its plan and its end. It hands out pending datums and makes their reports
// durable.
//
// Leases live in memory only. A report is acknowledged when the transaction that moves the job's
// journal head is durable; so after a crash a new JobRun of the same JobRecord goes on where the
// journal ends, and live workers keep the datums they hold (renew). Reports that wait together are
// made durable together: one pack, one journal node, one transaction (see gatherer.h).
//
// Locks: `mutex_` guards leases and counts and is never held during I/O that writes;
// `journal_mutex_` is held by whoever writes the job's record: a group of reports, or stop().
// Memory: a window of pending datums, whatever the job's size, and up to kMaxWaitingBytes of
// reports.
//
// Thread safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qanat/api/worker.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/external_sort.h"
#include "qanat/pipeline/gatherer.h"
#include "qanat/pipeline/journal.h"
#include "qanat/pipeline/lease_table.h"
#include "qanat/pipeline/planner.h"
#include "qanat/pipeline/records.h"
#include "qanat/pipeline/report_content.h"
#include "qanat/pipeline/services.h"

namespace qanat::pipeline {

class JobRun : public std::enable_shared_from_this<JobRun> {
 public:
  static constexpr int64_t kLeaseTtlMs = 30'000;
  // After a restart of the server: how long workers have to say what they hold. They do so every
  // few seconds.
  static constexpr int64_t kAdoptMs = 15'000;
  static constexpr size_t kWindow = 2000;  // pending datums kept in memory
  static constexpr size_t kMaxInHand =
      20'000;  // the same while workers report what a server before this one handed out
  static constexpr size_t kMaxBatch = 128;  // datums leased at once
  static constexpr int64_t kGatherMs = 50;  // between groups of reports, under load
  static constexpr size_t kMaxGroupBytes = 8 << 20;
  // Of reports that wait in memory to be made durable; further ones make their content durable
  // before they wait.
  static constexpr size_t kMaxWaitingBytes = 16 << 20;

  // `record` is in state RUNNING and is in meta with `mod_revision`. `base_table` is what its plan
  // was made from. `resumed`: the job was begun before (by a server that was restarted, say); its
  // journal is read, and workers may hold its datums. `on_change` is called, with no lock held,
  // when the last datum is done, and when a worker has become free for one that is to be alone with
  // it.
  static Result<std::shared_ptr<JobRun>> open(const Services& services, std::string project,
                                              std::string pipeline, const api::PipelineSpec& spec,
                                              JobRecord record, int64_t mod_revision,
                                              content::MapRoot base_table, bool resumed,
                                              std::function<void()> on_change);

  const std::string& project() const { return project_; }
  const std::string& pipeline() const { return pipeline_; }
  const std::string& id() const { return id_; }

  // Up to `max` datums (0: as many as fit) for a worker; empty when none is waiting.
  Result<api::LeaseAnswer> lease(const std::string& worker, size_t max, size_t workers);
  // The inputs of a datum in hand. kNotFound: nobody waits for it.
  Result<std::vector<DatumInput>> inputs_of(const std::string& datum);

  // A datum's report as the hub read it: its row's result part, and its output stored in the
  // ReportContent given to report().
  struct Reported {
    std::string datum;
    DatumRow row;
    uint64_t input_bytes = 0;
    uint64_t output_bytes = 0;
  };
  // Given, when everything is durable, the datums that nobody waits for. kUnavailable: what meta
  // holds is not what this expected (a transaction whose answer was lost, say); the run is given
  // up, to be opened again from the record.
  using Answer = std::function<void(Result<std::vector<std::string>> unknown)>;
  // Makes a worker's reports durable, with their content, and calls `answer` once; on this thread
  // before it returns, or later on another's. It must not block for long: other reports wait.
  void report(std::vector<Reported> reports, std::unique_ptr<ReportContent> content, Answer answer);
  // The same, and waits for it.
  Result<std::vector<std::string>> report(std::vector<Reported> reports,
                                          std::unique_ptr<ReportContent> content);

  // What a worker holds; gives what it should give up.
  std::vector<std::string> renew(const std::string& worker, const std::vector<std::string>& datums);
  // The worker ended; its datums wait again. If it was killed for its memory (`oom`), that counts
  // as an attempt of a datum that was alone with it, and after datum_tries of them the datum has
  // failed with `reason`.
  Status worker_lost(const std::string& worker, bool oom, const std::string& reason);
  // Takes back what was leased to a worker that could not be told of it.
  void take_back(const std::string& worker, const api::LeaseAnswer& leased);
  // Takes back leases that ran out, and notices the job's time-out. True if datums became
  // available.
  bool tick();

  // No more datums are handed out, and workers are told to give up theirs; then on_change is
  // called. The first reason stays. Without a reason the run is over but the job is not: it will be
  // opened or planned again.
  void cancel(JobState state, std::string reason);
  // Cancels as KILLED, durably. kFailedPrecondition if the job has ended.
  Status stop(const std::string& reason);
  struct Cancelled {
    JobState state = JobState::kKilled;
    std::string reason;
  };
  std::optional<Cancelled> cancelled() const;
  // Every datum is done, or the job is cancelled.
  bool idle() const;
  bool has_waiting() const;

  // The record as it is now in meta (or about to be), and the number of datums with workers.
  JobRecord record(int64_t* running = nullptr) const;
  // The record, and the revision in meta that it has.
  struct Stored {
    JobRecord record;
    int64_t mod_revision = 0;
  };
  Stored stored() const;
  // Datum id -> worker.
  std::map<std::string, std::string> running() const;
  // Of a datum in hand, also when the run is cancelled.
  std::optional<std::string> sort_key_in_hand(const std::string& datum) const;

 private:
  JobRun(const Services& services, std::string project, std::string pipeline,
         const api::PipelineSpec& spec, JobRecord record, int64_t mod_revision,
         content::MapRoot base_table, bool resumed, std::function<void()> on_change);
  Status read_journal_keys();
  // Fills the window if no datum waits.
  Status refill() REQUIRES(mutex_);
  Status fill_window() REQUIRES(mutex_);
  // Null: nobody waits for it. Looks beyond the window for what workers hold since before a
  // restart.
  Result<const Ticket*> find_in_hand(const std::string& datum) REQUIRES(mutex_);
  api::LeasedDatum leased_datum(const Ticket& ticket) const;
  bool idle_locked() const REQUIRES(mutex_);
  size_t batch_size(size_t workers) const REQUIRES(mutex_);
  void add_counts(JobCounts& counts, const Reported& report) const;

  // One worker's request, waiting to be made durable.
  struct Report {
    std::vector<Reported> datums;
    std::unique_ptr<ReportContent> content;
    Answer answer;
    // What became of it; filled in by commit().
    Status status;
    std::vector<std::string> unknown;
    std::vector<std::string> accepted;
  };
  // What a group's transaction will make of the record.
  struct Next {
    JobRecord record;
    int64_t revision = 0;
    std::vector<JournalEntry> entries;
  };
  void commit(std::vector<Report> group);
  Next next_record(std::vector<Report>& group);
  // Tries the group's transaction until it has succeeded, or one of them must be left out or all
  // have failed (their `status`).
  enum class Outcome { kDurable, kTryAgain, kFailed };
  Outcome try_commit(std::vector<Report>& group, Next& next);

  const Services services_;
  const std::string project_;
  const std::string pipeline_;
  const std::string id_;
  const api::PipelineSpec spec_;
  const content::MapRoot base_table_;
  const content::MapRoot plan_;
  const bool resumed_;
  const std::function<void()> on_change_;

  Mutex journal_mutex_;
  mutable Mutex mutex_ ACQUIRED_AFTER(journal_mutex_);
  JobRecord record_ GUARDED_BY(mutex_);
  int64_t mod_revision_ GUARDED_BY(mutex_);
  LeaseTable leases_ GUARDED_BY(mutex_);
  std::string cursor_ GUARDED_BY(mutex_);      // the last sort key put into leases_
  bool exhausted_ GUARDED_BY(mutex_) = false;  // everything pending has been
  int64_t handed_out_ GUARDED_BY(mutex_) = 0;
  std::unique_ptr<content::ExternalSorter> journalled_
      GUARDED_BY(mutex_);  // keys reported before a restart, ascending
  std::optional<Cancelled> cancelled_ GUARDED_BY(mutex_);
  std::shared_ptr<Gatherer<Report>> reports_;
};

}  // namespace qanat::pipeline
