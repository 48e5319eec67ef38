#include "qanat/pipeline/job_run.h"

#include <set>

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/pipeline/journal.h"

namespace qanat::pipeline {
namespace {

// A worker should come back about once a second: less often wastes workers at a job's end, more
// often wastes round trips.
constexpr int64_t kBatchMs = 1000;

}  // namespace

JobRun::JobRun(const Services& services, std::string project, std::string pipeline,
               const api::PipelineSpec& spec, JobRecord record, int64_t mod_revision,
               content::MapRoot base_table, bool resumed, std::function<void()> on_idle)
    : services_(services),
      project_(std::move(project)),
      pipeline_(std::move(pipeline)),
      id_(record.id),
      spec_(spec),
      base_table_(std::move(base_table)),
      plan_(content::MapRoot::from_text(record.plan).value_or({})),
      resumed_(resumed),
      on_idle_(std::move(on_idle)),
      record_(std::move(record)),
      mod_revision_(mod_revision),
      leases_(kLeaseTtlMs, resumed ? services.clock->monotonic_ms() + kAdoptMs : 0) {
  if (!record_.stopping.empty()) cancelled_ = Cancelled{JobState::kKilled, record_.stopping};
}

Result<std::shared_ptr<JobRun>> JobRun::open(const Services& services, std::string project,
                                             std::string pipeline, const api::PipelineSpec& spec,
                                             JobRecord record, int64_t mod_revision,
                                             content::MapRoot base_table, bool resumed,
                                             std::function<void()> on_idle) {
  QANAT_RETURN_IF_ERROR(content::MapRoot::from_text(record.plan).status());
  std::shared_ptr<JobRun> run(new JobRun(services, std::move(project), std::move(pipeline), spec,
                                         std::move(record), mod_revision, std::move(base_table),
                                         resumed, std::move(on_idle)));
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
  if (cancelled_) return nullptr;
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
            cursor_ = sort_key;
            if (journalled_) {
              while (journalled_->valid() && journalled_->key() < sort_key) {
                QANAT_RETURN_IF_ERROR(journalled_->next());
              }
              if (journalled_->valid() && journalled_->key() == sort_key) return true;
            }
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

Result<std::vector<std::string>> JobRun::report(std::vector<Reported> reports,
                                                content::ContentWriter& writer) {
  // Many bytes are made durable before the line is entered, so that a big upload holds up nobody.
  if (writer.stats().stored_bytes > (1u << 20)) QANAT_RETURN_IF_ERROR(writer.flush());
  MutexLock journal_lock(journal_mutex_);
  std::vector<std::string> unknown;
  std::vector<std::string> accepted;
  std::vector<JournalEntry> entries;
  std::set<std::string> once;
  JobRecord next;
  int64_t revision = 0;
  {
    MutexLock lock(mutex_);
    next = record_;
    revision = mod_revision_;
    for (Reported& reported : reports) {
      QANAT_ASSIGN_OR_RETURN(const Ticket* ticket, find_in_hand(reported.datum));
      if (ticket == nullptr || !once.insert(reported.datum).second) {
        unknown.push_back(reported.datum);
        continue;
      }
      DatumRow row = ticket->row;
      row.state = reported.row.state;
      row.origin = id_;
      row.output = reported.row.output;
      row.log = reported.row.log;
      row.timings = reported.row.timings;
      row.exit_code = reported.row.exit_code;
      row.attempts = reported.row.attempts;
      row.message = reported.row.message;
      add_counts(next.counts, reported);
      entries.push_back({ticket->sort_key, encode_row(row)});
      accepted.push_back(reported.datum);
    }
  }
  if (entries.empty()) return unknown;

  Hash before;
  if (!next.journal.empty()) {
    QANAT_ASSIGN_OR_RETURN(before, Hash::from_hex(next.journal));
  }
  QANAT_ASSIGN_OR_RETURN(
      const content::BlobRef node,
      writer.add(content::BlobKind::kNode, encode_journal_node(before, entries)));
  next.journal = node.hash.to_hex();
  const std::string key = job_key(project_, pipeline_, next.wave);
  while (true) {
    QANAT_RETURN_IF_ERROR(writer.flush());
    meta::Transaction transaction;
    writer.add_to(&transaction);
    transaction.when(meta::mod_revision_is(key, revision)).put(key, encode(next));
    // What ends work that is under way may use the reserve: a full disk must not strand a running
    // job.
    transaction.may_use_reserve = true;
    QANAT_ASSIGN_OR_RETURN(const meta::TransactionResult result,
                           services_.meta->commit(std::move(transaction)));
    if (result.succeeded) {
      writer.committed(result.revision);
      revision = result.revision;
      break;
    }
    QANAT_ASSIGN_OR_RETURN(const auto now, services_.meta->get(key));
    if (!now || now->mod_revision != revision) {
      journal_lock.unlock();
      cancel(JobState::kKilled, "");
      return unavailable(
          str_cat("the record of job ", pipeline_, "@", id_, " has changed: it is read again"),
          "try again");
    }
    QANAT_RETURN_IF_ERROR(writer.recheck());
  }

  bool idle = false;
  {
    MutexLock lock(mutex_);
    record_.journal = next.journal;
    next.counts.restarts = record_.counts.restarts;  // counted meanwhile
    record_.counts = next.counts;
    mod_revision_ = revision;
    for (const std::string& datum : accepted) leases_.complete(datum);
    // The reports are durable whatever becomes of this: the next lease will tell.
    const Status refilled = refill();
    if (!refilled.ok())
      log_warning("datums of a job cannot be read", {{"job", id_}, {"error", refilled}});
    idle = idle_locked();
  }
  journal_lock.unlock();
  if (idle) on_idle_();
  return unknown;
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
  const auto writer = content->new_writer({.may_use_reserve = true});
  std::vector<Reported> reports;
  reports.push_back(*std::move(failed));
  return report(std::move(reports), *writer).status();
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
  on_idle_();
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

int64_t JobRun::mod_revision() const {
  MutexLock lock(mutex_);
  return mod_revision_;
}

std::map<std::string, std::string> JobRun::running() const {
  MutexLock lock(mutex_);
  return leases_.running();
}

}  // namespace qanat::pipeline
