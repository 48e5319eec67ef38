#include "qanat/pipeline/job_run.h"

#include <set>

#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::pipeline {
namespace {

// A worker should come back about once a second: less often wastes workers at a job's end, more
// often wastes round trips.
constexpr int64_t kBatchMs = 1000;

// Of a group's transaction, for the packs of reports with many bytes: at most 64 in all, of which
// the group's own pack and the job's record need a few.
constexpr size_t kOperations = 50;
constexpr size_t kReportCost = 512;  // a journal entry and what is kept of it meanwhile

}  // namespace

JobRun::JobRun(const Services& services, std::string project, std::string pipeline,
               const api::PipelineSpec& spec, JobRecord record, int64_t mod_revision,
               content::MapRoot base_table, bool resumed, std::function<void()> on_change)
    : services_(services),
      project_(std::move(project)),
      pipeline_(std::move(pipeline)),
      id_(record.id),
      spec_(spec),
      base_table_(std::move(base_table)),
      plan_(content::MapRoot::from_text(record.plan).value_or({})),
      resumed_(resumed),
      on_change_(std::move(on_change)),
      record_(std::move(record)),
      mod_revision_(mod_revision),
      leases_(kLeaseTtlMs, resumed ? services.clock->monotonic_ms() + kAdoptMs : 0) {
  if (!record_.stopping.empty()) cancelled_ = Cancelled{JobState::kKilled, record_.stopping};
}

Result<std::shared_ptr<JobRun>> JobRun::open(const Services& services, std::string project,
                                             std::string pipeline, const api::PipelineSpec& spec,
                                             JobRecord record, int64_t mod_revision,
                                             content::MapRoot base_table, bool resumed,
                                             std::function<void()> on_change) {
  QANAT_RETURN_IF_ERROR(content::MapRoot::from_text(record.plan).status());
  std::shared_ptr<JobRun> run(new JobRun(services, std::move(project), std::move(pipeline), spec,
                                         std::move(record), mod_revision, std::move(base_table),
                                         resumed, std::move(on_change)));
  Gatherer<Report>::Options gather;
  gather.every_ms = kGatherMs;
  gather.max_cost = kMaxGroupBytes;
  // A run that was given up may end while reports wait; their workers learn it when they ask again.
  gather.handle = [weak = std::weak_ptr<JobRun>(run)](std::vector<Report> group) {
    if (const auto self = weak.lock()) {
      self->commit(std::move(group));
    } else {
      for (Report& report : group) report.answer(unavailable("the job is over", "try again"));
    }
  };
  // When every worker that holds datums has brought something, waiting for more brings nothing.
  gather.complete = [weak = std::weak_ptr<JobRun>(run)](size_t waiting) {
    const auto self = weak.lock();
    if (!self) return true;
    MutexLock lock(self->mutex_);
    return waiting >= self->leases_.holders();
  };
  run->reports_ =
      std::make_shared<Gatherer<Report>>(std::move(gather), *services.clock, services.later);
  QANAT_RETURN_IF_ERROR(run->read_journal_keys());
  MutexLock lock(run->mutex_);
  QANAT_RETURN_IF_ERROR(run->refill());
  return run;
}

Status JobRun::read_journal_keys() {
  MutexLock lock(mutex_);
  if (record_.journal.empty()) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const Hash head, Hash::from_hex(record_.journal));
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, services_.contents->project(project_));
  auto keys = std::make_unique<content::ExternalSorter>(
      *services_.scratch.file_system, services_.scratch.directory, services_.scratch.memory_budget);
  QANAT_RETURN_IF_ERROR(read_journal(content->blobs(), head, [&keys](const JournalEntry& entry) {
    return keys->add(entry.sort_key, "");
  }));
  QANAT_RETURN_IF_ERROR(keys->finish());
  journalled_ = std::move(keys);
  return ok_status();
}

Status JobRun::refill() {
  if (exhausted_ || leases_.waiting() > 0) return ok_status();
  return fill_window();
}

Result<const Ticket*> JobRun::find_in_hand(const std::string& datum) {
  if (cancelled_) {
    if (cancelled_->reason.empty())
      return unavailable(str_cat("job ", id_, " is being opened again"), "try again");
    return nullptr;
  }
  const Ticket* ticket = leases_.find(datum);
  if (ticket == nullptr && resumed_) {
    while (!exhausted_ && ticket == nullptr && leases_.waiting() + leases_.leased() < kMaxInHand) {
      QANAT_RETURN_IF_ERROR(fill_window());
      ticket = leases_.find(datum);
    }
  }
  return ticket;
}

Status JobRun::fill_window() {
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, services_.contents->project(project_));
  const int64_t now = services_.clock->monotonic_ms();
  size_t added = 0;
  QANAT_ASSIGN_OR_RETURN(
      const bool at_end,
      visit_pending(
          content->blobs(), base_table_, plan_, cursor_,
          [&](std::string_view sort_key, const DatumRow& row) REQUIRES(mutex_) -> Result<bool> {
            if (journalled_) {
              while (journalled_->valid() && journalled_->key() < sort_key) {
                QANAT_RETURN_IF_ERROR(journalled_->next());
              }
            }
            cursor_ = sort_key;  // not before: after an error this one comes again
            if (journalled_ && journalled_->valid() && journalled_->key() == sort_key) return true;
            leases_.add(Ticket{std::string(sort_key), row, datum_id(sort_key).to_hex(), 0}, now);
            return ++added < kWindow;
          }));
  if (at_end) exhausted_ = true;
  return ok_status();
}

size_t JobRun::batch_size(size_t workers) const {
  if (spec_.datum_set_number > 0) return static_cast<size_t>(spec_.datum_set_number);
  const int64_t done = record_.counts.processed + record_.counts.failed + record_.counts.recovered;
  // Before anything is known of how long a datum takes, a few at a time.
  size_t batch = 8;
  if (done >= 8) {
    const int64_t each_ms = std::max<int64_t>(record_.counts.process_ms / done, 1);
    batch = static_cast<size_t>(std::clamp<int64_t>(kBatchMs / each_ms, 1, kMaxBatch));
  }
  // What is left is shared, so that no worker sits idle while another has a queue.
  const int64_t left = record_.counts.to_run - done - static_cast<int64_t>(leases_.leased());
  const auto share =
      static_cast<size_t>(std::max<int64_t>(left, 1) + static_cast<int64_t>(2 * workers) - 1) /
      (2 * std::max<size_t>(workers, 1));
  return std::clamp<size_t>(batch, 1, std::max<size_t>(share, 1));
}

api::LeasedDatum JobRun::leased_datum(const Ticket& ticket) const {
  api::LeasedDatum datum;
  datum.id = ticket.datum_id;
  datum.env = {{"PACH_JOB_ID", id_},
               {"PACH_OUTPUT_COMMIT_ID", id_},
               {"PACH_DATUM_ID", ticket.datum_id},
               {"PPS_PIPELINE_NAME", pipeline_},
               {"PPS_PROJECT_NAME", project_}};
  for (const DatumInput& input : ticket.row.inputs) {
    datum.inputs.push_back({input.name, input.path});
    datum.env[input.name] = str_cat("/pfs/", input.name, "/", input.path);
    datum.bytes += input.entry.bytes();
    datum.files += input.entry.files();
  }
  return datum;
}

Result<api::LeaseAnswer> JobRun::lease(const std::string& worker, size_t max, size_t workers) {
  MutexLock lock(mutex_);
  api::LeaseAnswer answer;
  answer.job = id_;
  if (cancelled_) return answer;
  QANAT_RETURN_IF_ERROR(refill());
  const size_t batch = batch_size(workers);
  const int64_t now = services_.clock->monotonic_ms();
  for (const Ticket* ticket : leases_.lease(worker, max == 0 ? batch : std::min(max, batch), now)) {
    api::LeasedDatum datum = leased_datum(*ticket);
    for (const JobInput& input : record_.inputs) {
      if (datum.env.contains(input.name)) datum.env[input.name + "_COMMIT"] = input.commit;
    }
    datum.index = handed_out_++;
    answer.datums.push_back(std::move(datum));
  }
  answer.batch = str_cat(id_.substr(0, 8), "-", handed_out_);
  return answer;
}

Result<std::vector<DatumInput>> JobRun::inputs_of(const std::string& datum) {
  MutexLock lock(mutex_);
  QANAT_ASSIGN_OR_RETURN(const Ticket* ticket, find_in_hand(datum));
  if (ticket == nullptr) {
    return not_found(str_cat("datum ", datum, " of job ", id_, " is not in hand"));
  }
  return ticket->row.inputs;
}

void JobRun::add_counts(JobCounts& counts, const Reported& report) const {
  switch (report.row.state) {
    case DatumState::kSuccess:
      ++counts.processed;
      break;
    case DatumState::kRecovered:
      ++counts.recovered;
      break;
    default:
      ++counts.failed;
  }
  counts.process_ms += report.row.timings.process_ms;
  counts.download_bytes += static_cast<int64_t>(report.input_bytes);
  counts.upload_bytes += static_cast<int64_t>(report.output_bytes);
}

void JobRun::report(std::vector<Reported> reports, std::unique_ptr<ReportContent> content,
                    Answer answer) {
  // Many bytes are made durable before the line is entered, so that a big upload holds up nobody.
  if (content->writer() != nullptr || reports_->waiting_cost() > kMaxWaitingBytes) {
    const Status durable = content->make_durable();
    if (!durable.ok()) return answer(durable);
  }
  size_t cost = content->bytes_in_memory() + reports.size() * kReportCost;
  if (content->writer() != nullptr) {
    const size_t operations =
        std::min<size_t>(content->writer()->stats().packs, content::ContentWriter::kMaxOperations) +
        content::ContentWriter::kMaxCompares;
    cost = std::max(cost, operations * kMaxGroupBytes / kOperations);
  }
  Report report;
  report.datums = std::move(reports);
  report.content = std::move(content);
  report.answer = std::move(answer);
  reports_->add(std::move(report), cost);
}

Result<std::vector<std::string>> JobRun::report(std::vector<Reported> reports,
                                                std::unique_ptr<ReportContent> content) {
  struct Waiter {
    Mutex mutex;
    CondVar changed;
    std::optional<Result<std::vector<std::string>>> answer GUARDED_BY(mutex);
  };
  const auto waiter = std::make_shared<Waiter>();
  report(std::move(reports), std::move(content),
         [waiter](Result<std::vector<std::string>> unknown) {
           MutexLock lock(waiter->mutex);
           waiter->answer = std::move(unknown);
           waiter->changed.notify_all();
         });
  MutexLock lock(waiter->mutex);
  while (!waiter->answer) waiter->changed.wait(waiter->mutex);
  return *std::move(waiter->answer);
}

JobRun::Next JobRun::next_record(std::vector<Report>& group) {
  Next next;
  std::set<std::string_view> once;
  MutexLock lock(mutex_);
  next.record = record_;
  next.revision = mod_revision_;
  for (Report& report : group) {
    report.unknown.clear();
    report.accepted.clear();
    for (const Reported& reported : report.datums) {
      if (!report.status.ok()) break;
      const auto ticket = find_in_hand(reported.datum);
      if (!ticket.ok()) {
        report.status = ticket.status();
        break;
      }
      if (*ticket == nullptr || !once.insert(reported.datum).second) {
        report.unknown.push_back(reported.datum);
        continue;
      }
      DatumRow row = (*ticket)->row;
      row.state = reported.row.state;
      row.origin = id_;
      row.output = reported.row.output;
      row.log = reported.row.log;
      row.timings = reported.row.timings;
      row.exit_code = reported.row.exit_code;
      row.attempts = reported.row.attempts;
      row.message = reported.row.message;
      add_counts(next.record.counts, reported);
      next.entries.push_back({(*ticket)->sort_key, encode_row(row)});
      report.accepted.push_back(reported.datum);
    }
  }
  return next;
}

JobRun::Outcome JobRun::try_commit(std::vector<Report>& group, Next& next) {
  auto in_it = [](const Report& report) { return report.status.ok() && !report.accepted.empty(); };
  auto fail_all = [&](const Status& status) {
    for (Report& report : group) {
      if (in_it(report)) report.status = status;
    }
    return Outcome::kFailed;
  };
  const auto content = services_.contents->project(project_);
  if (!content.ok()) return fail_all(content.status());
  // What ends work that is under way may use the reserve: a full disk must not strand a running
  // job.
  const auto writer = (*content)->new_writer({.may_use_reserve = true});
  auto write = [&]() -> Status {
    for (const Report& report : group) {
      if (in_it(report)) QANAT_RETURN_IF_ERROR(report.content->copy_to(*writer));
    }
    Hash before;
    if (!next.record.journal.empty()) {
      QANAT_ASSIGN_OR_RETURN(before, Hash::from_hex(next.record.journal));
    }
    QANAT_ASSIGN_OR_RETURN(
        const content::BlobRef node,
        writer->add(content::BlobKind::kNode, encode_journal_node(before, next.entries)));
    next.record.journal = node.hash.to_hex();
    return writer->flush();
  };
  const Status written = write();
  if (!written.ok()) return fail_all(written);
  const std::string key = job_key(project_, pipeline_, next.record.wave);
  while (true) {
    meta::Transaction transaction;
    writer->add_to(&transaction);
    for (const Report& report : group) {
      if (in_it(report) && report.content->writer() != nullptr)
        report.content->writer()->add_to(&transaction);
    }
    transaction.when(meta::mod_revision_is(key, next.revision)).put(key, encode(next.record));
    transaction.may_use_reserve = true;
    const auto result = services_.meta->commit(std::move(transaction));
    if (!result.ok()) return fail_all(result.status());
    if (result->succeeded) {
      writer->committed(result->revision);
      for (const Report& report : group) {
        if (in_it(report) && report.content->writer() != nullptr)
          report.content->writer()->committed(result->revision);
      }
      next.revision = result->revision;
      return Outcome::kDurable;
    }
    const auto now = services_.meta->get(key);
    if (!now.ok()) return fail_all(now.status());
    if (!*now || (*now)->mod_revision != next.revision) {
      cancel(JobState::kKilled, "");
      return fail_all(unavailable(
          str_cat("the record of job ", pipeline_, "@", id_, " has changed: it is read again"),
          "try again"));
    }
    // Garbage collection moved on. A report whose content was streamed out must come again if it
    // relied on something condemned; what waits in memory is written anew.
    bool left_out = false;
    for (Report& report : group) {
      if (!in_it(report) || report.content->writer() == nullptr) continue;
      const Status still = report.content->writer()->recheck();
      if (still.ok()) continue;
      report.status = unavailable(still.message(), "the results are to be sent again");
      left_out = true;
    }
    const Status again = writer->recheck();
    if (!again.ok() && again.code() != Code::kConflict) return fail_all(again);
    if (left_out || !again.ok()) return Outcome::kTryAgain;
  }
}

void JobRun::commit(std::vector<Report> group) {
  bool changed = false;
  {
    MutexLock journal_lock(journal_mutex_);
    while (true) {
      Next next = next_record(group);
      if (next.entries.empty()) break;
      const Outcome outcome = try_commit(group, next);
      if (outcome == Outcome::kFailed) break;
      if (outcome == Outcome::kTryAgain) continue;
      MutexLock lock(mutex_);
      record_.journal = next.record.journal;
      next.record.counts.restarts = record_.counts.restarts;  // counted meanwhile
      record_.counts = next.record.counts;
      mod_revision_ = next.revision;
      for (const Report& report : group) {
        if (!report.status.ok()) continue;
        for (const std::string& datum : report.accepted) leases_.complete(datum);
      }
      // The reports are durable whatever becomes of this: the next lease will tell.
      const Status refilled = refill();
      if (!refilled.ok())
        log_warning("datums of a job cannot be read", {{"job", id_}, {"error", refilled}});
      changed = idle_locked() || leases_.one_waits_for_a_free_worker();
      break;
    }
  }
  for (Report& report : group) {
    if (report.status.ok()) {
      report.answer(std::move(report.unknown));
    } else {
      report.answer(report.status);
    }
  }
  if (changed) on_change_();
}

std::vector<std::string> JobRun::renew(const std::string& worker,
                                       const std::vector<std::string>& datums) {
  MutexLock lock(mutex_);
  if (cancelled_) return cancelled_->reason.empty() ? std::vector<std::string>() : datums;
  return leases_.renew(worker, datums, services_.clock->monotonic_ms());
}

void JobRun::take_back(const std::string& worker, const api::LeaseAnswer& leased) {
  std::vector<std::string> ids;
  for (const api::LeasedDatum& datum : leased.datums) ids.push_back(datum.id);
  MutexLock lock(mutex_);
  leases_.give_back(worker, ids);
}

Status JobRun::worker_lost(const std::string& worker, bool oom, const std::string& reason) {
  std::optional<Reported> failed;
  {
    MutexLock lock(mutex_);
    const std::vector<std::string> ids = leases_.release(worker, oom);
    record_.counts.restarts += static_cast<int64_t>(ids.size());
    if (oom && ids.size() == 1 && leases_.find(ids[0])->ooms >= spec_.datum_tries) {
      failed.emplace();
      failed->datum = ids[0];
      failed->row.state = DatumState::kFailed;
      failed->row.attempts = static_cast<uint64_t>(spec_.datum_tries);
      failed->row.exit_code = 137;
      failed->row.message = reason;
    }
  }
  if (!failed) return ok_status();
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, services_.contents->project(project_));
  std::vector<Reported> reports;
  reports.push_back(*std::move(failed));
  report(std::move(reports), std::make_unique<ReportContent>(*content),
         [id = id_](const Result<std::vector<std::string>>& unknown) {
           if (!unknown.ok())
             log_warning("a lost worker's datum could not be recorded",
                         {{"job", id}, {"error", unknown.status()}});
         });
  return ok_status();
}

bool JobRun::tick() {
  bool timed_out = false;
  bool available = false;
  {
    MutexLock lock(mutex_);
    const auto expired = static_cast<int64_t>(leases_.expire(services_.clock->monotonic_ms()));
    record_.counts.restarts += expired;
    available = leases_.waiting() > 0;
    timed_out = !cancelled_ && spec_.job_timeout_ms > 0 &&
                record_.started_ms + spec_.job_timeout_ms <= services_.clock->wall_ms();
  }
  if (timed_out) {
    cancel(JobState::kKilled, str_cat("the job took longer than job_timeout (",
                                      format_duration(spec_.job_timeout_ms), ")"));
  }
  return available && !timed_out;
}

void JobRun::cancel(JobState state, std::string reason) {
  {
    MutexLock lock(mutex_);
    if (cancelled_) return;
    cancelled_ = Cancelled{state, std::move(reason)};
  }
  on_change_();
}

Status JobRun::stop(const std::string& reason) {
  MutexLock journal_lock(journal_mutex_);
  JobRecord next;
  int64_t revision = 0;
  {
    MutexLock lock(mutex_);
    next = record_;
    revision = mod_revision_;
  }
  next.stopping = reason;
  const std::string key = job_key(project_, pipeline_, next.wave);
  meta::Transaction transaction;
  transaction.when(meta::mod_revision_is(key, revision)).put(key, encode(next));
  transaction.may_use_reserve = true;
  QANAT_ASSIGN_OR_RETURN(const meta::TransactionResult result,
                         services_.meta->commit(std::move(transaction)));
  if (!result.succeeded) {
    return failed_precondition(str_cat("job ", pipeline_, "@", id_, " has ended already"));
  }
  {
    MutexLock lock(mutex_);
    record_.stopping = reason;
    mod_revision_ = result.revision;
  }
  journal_lock.unlock();
  cancel(JobState::kKilled, reason);
  return ok_status();
}

std::optional<JobRun::Cancelled> JobRun::cancelled() const {
  MutexLock lock(mutex_);
  return cancelled_;
}

bool JobRun::idle_locked() const {
  return cancelled_.has_value() || (exhausted_ && leases_.empty());
}

bool JobRun::idle() const {
  MutexLock lock(mutex_);
  return idle_locked();
}

bool JobRun::has_waiting() const {
  MutexLock lock(mutex_);
  return !cancelled_ && (!exhausted_ || leases_.waiting() > 0);
}

JobRecord JobRun::record(int64_t* running) const {
  MutexLock lock(mutex_);
  if (running != nullptr) *running = static_cast<int64_t>(leases_.leased());
  return record_;
}

JobRun::Stored JobRun::stored() const {
  MutexLock lock(mutex_);
  return {record_, mod_revision_};
}

std::optional<std::string> JobRun::sort_key_in_hand(const std::string& datum) const {
  MutexLock lock(mutex_);
  const Ticket* ticket = leases_.find(datum);
  if (ticket == nullptr) return std::nullopt;
  return ticket->sort_key;
}

std::map<std::string, std::string> JobRun::running() const {
  MutexLock lock(mutex_);
  return leases_.running();
}

}  // namespace qanat::pipeline
