// The controller's jobs: planning and starting one, and what its end leaves.
#include <span>

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/content/file_writer.h"
#include "qanat/pipeline/controller.h"
#include "qanat/pipeline/fold.h"
#include "qanat/pipeline/journal.h"
#include "qanat/pipeline/result_index.h"
#include "qanat/version/keys.h"

namespace qanat::pipeline {
namespace {

constexpr size_t kResultsInSegment = 100'000;

// Results that a transaction registers beside a writer's packs; a job with more registers the rest
// in transactions before.
constexpr size_t kMaxRegistrations = 16;

// Segments of results on their way into the index; those that did not get there are given up at the
// end.
class UnregisteredResults {
 public:
  UnregisteredResults(content::SegmentIndex& index,
                      std::vector<content::SegmentRegistration> segments)
      : index_(index), segments_(std::move(segments)) {}
  ~UnregisteredResults() {
    if (done_ < segments_.size()) index_.give_up(std::span(segments_).subspan(done_), sent_);
  }
  UnregisteredResults(const UnregisteredResults&) = delete;
  UnregisteredResults& operator=(const UnregisteredResults&) = delete;

  size_t left() const { return segments_.size() - done_; }
  // Adds the next `count` to the transaction.
  void add_to(meta::Transaction& transaction, size_t count) {
    if (count == 0) return;
    transaction.when(index_.guard(segments_[done_]));
    for (size_t i = done_; i < done_ + count; ++i)
      transaction.add(index_.registration(segments_[i]));
    sent_ = true;
  }
  void committed(size_t count, int64_t revision) {
    for (; count > 0; --count) index_.registered(segments_[done_++], revision);
    sent_ = false;
  }
  // All but the last `keep`, in transactions of their own: results are harmless by themselves.
  Status register_all_but(meta::Store& store, size_t keep) {
    while (left() > keep) {
      meta::Transaction transaction;
      const size_t count = std::min(left() - keep, kMaxRegistrations);
      add_to(transaction, count);
      transaction.may_use_reserve = true;
      QANAT_ASSIGN_OR_RETURN(const auto written, store.commit(std::move(transaction)));
      if (!written.succeeded)
        return unavailable("results could not be registered", "this is tried again");
      committed(count, written.revision);
    }
    return ok_status();
  }

 private:
  content::SegmentIndex& index_;
  std::vector<content::SegmentRegistration> segments_;
  size_t done_ = 0;
  bool sent_ = false;  // a transaction with the first of the rest may have been sent
};

std::string describe_failure(const KeyedRow& failure) {
  const auto inputs = describe_sort_key(failure.sort_key);
  return str_cat("datum ", inputs.ok() ? *inputs : datum_id(failure.sort_key).to_hex(),
                 " failed: ", failure.row.message);
}

}  // namespace

// ---- Planning and starting ----

Status Controller::plan_and_start(std::shared_ptr<const CompiledSpec> spec, const Waiting& next,
                                  Inputs inputs) {
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, services_.contents->project(project_));
  PlanRequest request;
  request.job = next.id;
  request.pipeline = name_;
  request.shape = &spec->shape;
  request.roots = inputs.roots;
  request.transform = spec->transform;
  request.mode = spec->spec.reprocess_every_job ? PlanMode::kEveryJob : PlanMode::kNormal;

  JobRecord record;
  record.id = next.id;
  record.wave = next.wave;
  record.state = JobState::kRunning;
  record.spec_version = spec->record.version;
  record.created_ms = services_.clock->wall_ms();
  record.started_ms = record.created_ms;
  record.inputs = std::move(inputs.inputs);
  record.base_wave = this->record().base_wave;

  // Before anything is read that the plan will refer to: the base job's table, the inputs, results.
  const auto writer = content->new_writer();
  QANAT_RETURN_IF_ERROR(writer->rely_on_epoch());
  QANAT_ASSIGN_OR_RETURN(const std::string gone, missing_input(record));
  if (!gone.empty()) return conflict(str_cat("commit ", gone, " was deleted"));

  std::shared_ptr<const CompiledSpec> base_spec;
  if (record.base_wave != 0) {
    QANAT_ASSIGN_OR_RETURN(const auto base, job_at(record.base_wave));
    if (!base)
      return data_loss(
          str_cat("the record of job ", record.base_wave, " of pipeline ", name_, " is missing"));
    PlanBase plan_base;
    QANAT_ASSIGN_OR_RETURN(plan_base.table, content::MapRoot::from_text(base->table));
    QANAT_ASSIGN_OR_RETURN(plan_base.ids, content::MapRoot::from_text(base->ids));
    for (const JobInput& input : base->inputs) {
      QANAT_ASSIGN_OR_RETURN(plan_base.roots.emplace_back(),
                             content::TreeRoot::from_text(input.root));
    }
    base_spec = spec;
    if (base->spec_version != spec->record.version) {
      QANAT_ASSIGN_OR_RETURN(base_spec, load_spec(*services_.meta, project_, name_,
                                                  base->spec_version, services_.runner_kind));
      QANAT_ASSIGN_OR_RETURN(const bool keeps, keeps_results_of(base->spec_version, spec->record));
      if (keeps) request.mode = PlanMode::kKeepResults;
      if (spec->record.reprocess) request.mode = PlanMode::kReprocess;
    }
    plan_base.shape = &base_spec->shape;
    plan_base.transform = base_spec->transform;
    plan_base.has_recovered = base->counts.recovered > 0;
    request.base = std::move(plan_base);
  }

  SegmentResultIndex results(content->results());
  QANAT_ASSIGN_OR_RETURN(const Plan plan, make_plan(*writer, request, results, services_.scratch));
  record.plan = plan.table.to_text();
  record.ids = plan.ids.to_text();
  record.counts.total = static_cast<int64_t>(plan.counts.total);
  record.counts.to_run = static_cast<int64_t>(plan.counts.pending);
  record.counts.skipped = static_cast<int64_t>(plan.counts.reused + plan.counts.unchanged);

  int64_t revision = 0;
  QANAT_ASSIGN_OR_RETURN(const auto existing, job_at(next.wave, &revision));
  if (existing && (is_final(existing->state) || !existing->stopping.empty()))
    return conflict("the job was ended meanwhile");
  if (existing) record.created_ms = existing->created_ms;
  const std::string key = job_key(project_, name_, next.wave);
  const std::string pipeline = pipeline_key(project_, name_);
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto stored, services_.meta->get(pipeline));
    if (!stored) return conflict(str_cat("pipeline ", name_, " was deleted"));
    QANAT_ASSIGN_OR_RETURN(const auto in_force, decode<PipelineRecord>(pipeline, stored->value));
    QANAT_RETURN_IF_ERROR(check_in_force(*spec, in_force));
    QANAT_RETURN_IF_ERROR(writer->flush());
    meta::Transaction transaction;
    writer->add_to(&transaction);
    transaction.when(meta::mod_revision_is(key, revision))
        .when(meta::mod_revision_is(pipeline, stored->mod_revision))
        .put(key, encode(record));
    QANAT_ASSIGN_OR_RETURN(const meta::TransactionResult result,
                           services_.meta->commit(std::move(transaction)));
    if (result.succeeded) {
      writer->committed(result.revision);
      return start_run(spec, std::move(record), result.revision, false);
    }
    int64_t now = 0;
    QANAT_RETURN_IF_ERROR(job_at(next.wave, &now).status());
    if (now != revision)
      return conflict(str_cat("the record of job ", name_, "@", next.id, " has changed"));
    QANAT_RETURN_IF_ERROR(writer->recheck());
  }
}

// An update --keep-results holds for as long as the code stays what it was then, also if the first
// job after it failed and others updated the rest of the spec since.
Result<bool> Controller::keeps_results_of(int64_t base_version, SpecRecord spec) const {
  while (!spec.keep_results) {
    const std::string key = spec_key(project_, name_, spec.version - 1);
    if (spec.version - 1 <= base_version) return false;
    QANAT_ASSIGN_OR_RETURN(const auto found, services_.meta->get(key));
    if (!found) return false;
    QANAT_ASSIGN_OR_RETURN(auto before, decode<SpecRecord>(key, found->value));
    if (before.transform_hash != spec.transform_hash) return false;
    spec = std::move(before);
  }
  return true;
}

Status Controller::start_run(const std::shared_ptr<const CompiledSpec>& spec, JobRecord record,
                             int64_t revision, bool resumed) {
  content::MapRoot base_table;
  if (record.base_wave != 0) {
    QANAT_ASSIGN_OR_RETURN(const auto base, job_at(record.base_wave));
    if (!base)
      return data_loss(
          str_cat("the record of job ", record.base_wave, " of pipeline ", name_, " is missing"));
    QANAT_ASSIGN_OR_RETURN(base_table, content::MapRoot::from_text(base->table));
  }
  QANAT_ASSIGN_OR_RETURN(
      auto run, JobRun::open(services_, project_, name_, spec->spec, std::move(record), revision,
                             std::move(base_table), resumed, [weak = weak_from_this()] {
                               if (auto self = weak.lock()) self->wake();
                             }));
  bool superseded = false;
  std::string stopped;
  {
    MutexLock lock(mutex_);
    run_ = run;
    run_spec_ = spec;
    trouble_.clear();
    superseded = record_.version != spec->record.version || record_.stopped || removed_;
    if (removed_) stopped = "the pipeline was deleted";
    if (record_.stopped) stopped = why_stopped(record_);
  }
  // What changed while the plan was made did not see a run to cancel.
  if (superseded) run->cancel(JobState::kKilled, stopped);
  if (run->has_waiting()) peers_.work_available(group());
  return ok_status();
}

// ---- Ending ----

Result<std::vector<content::SegmentRegistration>> Controller::write_results(
    content::ContentStore& content, const Hash& journal, const CompiledSpec& spec) {
  std::vector<content::SegmentRegistration> segments;
  content::SegmentIndex::Entries entries;
  auto flush = [&]() -> Status {
    if (entries.empty()) return ok_status();
    QANAT_ASSIGN_OR_RETURN(auto segment,
                           content.results().write_segment(std::exchange(entries, {})));
    segments.push_back(std::move(segment));
    return ok_status();
  };
  if (spec.spec.reprocess_every_job) return segments;  // never looked up
  QANAT_RETURN_IF_ERROR(
      read_journal(content.blobs(), journal, [&](const JournalEntry& entry) -> Status {
        QANAT_ASSIGN_OR_RETURN(const DatumRow row, decode_row(entry.row));
        if (auto result = result_entry(row, name_)) {
          entries.emplace_back(std::move(result->first), std::move(result->second));
          if (entries.size() >= kResultsInSegment) QANAT_RETURN_IF_ERROR(flush());
        }
        return ok_status();
      }));
  QANAT_RETURN_IF_ERROR(flush());
  return segments;
}

Status Controller::keep_cut_logs(const JobRun& run, content::BlobWriter& writer,
                                 Folder& folder) const {
  std::map<std::string, std::string> logs;  // by datum
  for (const LiveLine& line : services_.logs->kept(project_, name_, run.id()))
    str_append(logs[line.datum], line.line, "\n");
  for (const auto& [datum, text] : logs) {
    const auto sort_key = run.sort_key_in_hand(datum);
    if (!sort_key) continue;  // done: its log came with its result
    DatumRow row;
    QANAT_ASSIGN_OR_RETURN(row.log, content::write_file(writer, text));
    QANAT_RETURN_IF_ERROR(folder.add_result(*sort_key, row));
  }
  return ok_status();
}

Status Controller::finish(JobRun& run) {
  std::shared_ptr<const CompiledSpec> spec;
  {
    MutexLock lock(mutex_);
    spec = run_spec_;
  }
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, services_.contents->project(project_));
  auto [record, revision] = run.stored();

  FoldRequest request;
  request.job = record.id;
  QANAT_ASSIGN_OR_RETURN(request.plan, content::MapRoot::from_text(record.plan));
  request.merge = spec->spec.output_merge;
  // Before the base job's trees are read, which the new ones share nodes with. A full disk must not
  // strand a running job.
  const auto writer = content->new_writer({.may_use_reserve = true});
  QANAT_RETURN_IF_ERROR(writer->rely_on_epoch());
  if (record.base_wave != 0) {
    QANAT_ASSIGN_OR_RETURN(const auto base, job_at(record.base_wave));
    if (!base)
      return data_loss(
          str_cat("the record of job ", record.base_wave, " of pipeline ", name_, " is missing"));
    QANAT_ASSIGN_OR_RETURN(request.base.table, content::MapRoot::from_text(base->table));
    QANAT_ASSIGN_OR_RETURN(request.base.owners, content::MapRoot::from_text(base->owners));
    QANAT_ASSIGN_OR_RETURN(request.base.content, content::TreeRoot::from_text(base->content));
    if (base->spec_version != record.spec_version) {
      QANAT_ASSIGN_OR_RETURN(
          const auto base_spec,
          load_spec(*services_.meta, project_, name_, base->spec_version, services_.runner_kind));
      request.base_merge = base_spec->spec.output_merge;
    }
  }
  Folder folder(*writer, std::move(request), services_.scratch);
  Hash journal;
  if (!record.journal.empty()) {
    QANAT_ASSIGN_OR_RETURN(journal, Hash::from_hex(record.journal));
  }
  QANAT_RETURN_IF_ERROR(
      read_journal(content->blobs(), journal, [&folder](const JournalEntry& entry) -> Status {
        QANAT_ASSIGN_OR_RETURN(const DatumRow row, decode_row(entry.row));
        return folder.add_result(entry.sort_key, row);
      }));
  const auto cancelled = run.cancelled();
  if (cancelled) QANAT_RETURN_IF_ERROR(keep_cut_logs(run, *writer, folder));
  QANAT_ASSIGN_OR_RETURN(const FoldOutcome outcome, folder.finish());

  record.state = JobState::kSuccess;
  if (cancelled) {
    record.state = cancelled->state;
    record.reason = cancelled->reason;
  } else if (outcome.problem) {
    record.state = JobState::kFailure;
    record.reason = outcome.problem->message();
    if (!outcome.problem->hint().empty()) str_append(record.reason, ". ", outcome.problem->hint());
  } else if (outcome.first_failure) {
    record.state = JobState::kFailure;
    record.reason = describe_failure(*outcome.first_failure);
    if (outcome.counts.failed > 1)
      str_append(record.reason, " (and ", outcome.counts.failed - 1, " more)");
  } else if (!outcome.succeeded()) {
    return internal_error(str_cat("job ", name_, "@", record.id, " was thought done with ",
                                  outcome.counts.pending, " datums pending"));
  }
  record.counts.total = static_cast<int64_t>(outcome.counts.total);
  record.counts.processed = static_cast<int64_t>(outcome.counts.processed);
  record.counts.skipped = static_cast<int64_t>(outcome.counts.skipped);
  record.counts.failed = static_cast<int64_t>(outcome.counts.failed);
  record.counts.recovered = static_cast<int64_t>(outcome.counts.recovered);
  record.table = outcome.trees.table.to_text();
  if (record.state == JobState::kSuccess) {
    record.owners = outcome.trees.owners.to_text();
    record.content = outcome.trees.content.to_text();
  }
  record.plan.clear();
  record.journal.clear();
  record.stopping.clear();
  auto results = write_results(*content, journal, *spec);
  if (results.code() == Code::kResourceExhausted) {
    log_warning("results of a job are not kept for reuse",
                {{"pipeline", name_}, {"job", record.id}, {"error", results.status()}});
    results = std::vector<content::SegmentRegistration>();
  }
  QANAT_RETURN_IF_ERROR(results.status());
  return commit_end({std::move(record), outcome.trees.content, revision}, *spec, writer.get(),
                    *std::move(results));
}

Status Controller::keep_results(const JobRecord& record, const CompiledSpec& spec) {
  if (record.journal.empty()) return ok_status();
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, services_.contents->project(project_));
  QANAT_ASSIGN_OR_RETURN(const Hash journal, Hash::from_hex(record.journal));
  // So that what is written is not taken for garbage before it is registered.
  const auto writer = content->new_writer({.may_use_reserve = true});
  QANAT_RETURN_IF_ERROR(writer->rely_on_epoch());
  QANAT_ASSIGN_OR_RETURN(auto segments, write_results(*content, journal, spec));
  UnregisteredResults results(content->results(), std::move(segments));
  return results.register_all_but(*services_.meta, 0);
}

Status Controller::end_unrun(const Waiting& next, const CompiledSpec& spec, JobState state,
                             const std::string& reason, std::vector<JobInput> inputs) {
  JobRecord record;
  int64_t revision = 0;
  QANAT_ASSIGN_OR_RETURN(const auto existing, job_at(next.wave, &revision));
  if (existing) {
    record = *existing;
    // What it did before a restart stays reusable.
    QANAT_RETURN_IF_ERROR(keep_results(*existing, spec));
  }
  record.id = next.id;
  record.wave = next.wave;
  record.state = state;
  record.reason = reason;
  record.spec_version = spec.record.version;
  if (record.created_ms == 0) record.created_ms = services_.clock->wall_ms();
  if (!inputs.empty()) record.inputs = std::move(inputs);
  record.plan.clear();
  record.ids.clear();
  record.journal.clear();
  record.stopping.clear();
  content::TreeRoot root;
  QANAT_RETURN_IF_ERROR(read_base());
  const int64_t base_wave = this->record().base_wave;
  if (base_wave != 0) {
    QANAT_ASSIGN_OR_RETURN(const auto base, job_at(base_wave));
    if (base) {
      QANAT_ASSIGN_OR_RETURN(root, content::TreeRoot::from_text(base->content));
    }
  }
  return commit_end({std::move(record), std::move(root), revision}, spec, nullptr, {});
}

Result<std::string> Controller::missing_input(const JobRecord& job) const {
  for (const JobInput& input : job.inputs) {
    if (input.commit.empty()) continue;
    QANAT_ASSIGN_OR_RETURN(const auto commit, services_.meta->get(version::commit_key(
                                                  project_, input.repo, input.commit)));
    if (!commit) return str_cat(input.repo, "@", input.commit);
  }
  return std::string();
}

Status Controller::check_in_force(const CompiledSpec& spec, const PipelineRecord& stored) {
  if (stored.version == spec.record.version) return ok_status();
  changed(stored);
  return conflict(str_cat("pipeline ", name_, " was updated meanwhile"));
}

Status Controller::commit_end(Ending ending, const CompiledSpec& spec,
                              content::ContentWriter* writer,
                              std::vector<content::SegmentRegistration> segments) {
  JobRecord& job = ending.record;
  job.finished_ms = services_.clock->wall_ms();
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, services_.contents->project(project_));
  UnregisteredResults results(content->results(), std::move(segments));
  QANAT_RETURN_IF_ERROR(results.register_all_but(*services_.meta, kMaxRegistrations));

  version::OutputCommit output;
  output.branch = {name_, spec.spec.output_branch};
  output.id = job.id;
  output.wave = job.wave;
  output.started_ms = job.started_ms == 0 ? job.created_ms : job.started_ms;
  output.root = ending.root;
  if (job.state != JobState::kSuccess)
    output.error = job.reason.empty() ? std::string(api::enum_name(job.state)) : job.reason;
  output.pipeline = name_;
  output.spec_version = spec.record.version;
  output.image = spec.record.image_digest;
  for (const JobInput& input : job.inputs)
    output.inputs.push_back({input.name, input.repo, input.branch, input.commit, input.wave});

  const std::string key = job_key(project_, name_, job.wave);
  const std::string pipeline = pipeline_key(project_, name_);
  while (true) {
    if (writer != nullptr) QANAT_RETURN_IF_ERROR(writer->flush());
    QANAT_ASSIGN_OR_RETURN(const auto pipeline_value, services_.meta->get(pipeline));
    if (!pipeline_value) {
      // Deleted meanwhile, with all its jobs: there is nothing to end.
      MutexLock lock(mutex_);
      waves_.clear();
      removed_ = true;
      return ok_status();
    }
    QANAT_ASSIGN_OR_RETURN(PipelineRecord record,
                           decode<PipelineRecord>(pipeline, pipeline_value->value));
    QANAT_RETURN_IF_ERROR(check_in_force(spec, record));
    if (job.state == JobState::kSuccess) {
      // Another change's commit that this job reads may be dropped while it runs; what was taken
      // out of history is not to live on in a new head.
      QANAT_ASSIGN_OR_RETURN(const std::string gone, missing_input(job));
      if (!gone.empty()) {
        job.state = JobState::kKilled;
        job.reason = str_cat("its input ", gone, " was taken out of history while it ran");
        job.owners.clear();
        job.content.clear();
        output.root = {};
        output.error = job.reason;
      }
    }
    record.last_wave = std::max(record.last_wave, job.wave);
    if (job.state == JobState::kSuccess) record.base_wave = job.wave;
    QANAT_ASSIGN_OR_RETURN(meta::Transaction transaction,
                           services_.versions->output_transaction(project_, output));
    if (writer != nullptr) writer->add_to(&transaction);
    results.add_to(transaction, results.left());
    transaction.when(meta::mod_revision_is(key, ending.job_revision.value_or(0)))
        .when(meta::mod_revision_is(pipeline, pipeline_value->mod_revision))
        .put(key, encode(job))
        .put(pipeline, encode(record));
    transaction.may_use_reserve = true;
    QANAT_ASSIGN_OR_RETURN(const meta::TransactionResult result,
                           services_.meta->commit(std::move(transaction)));
    if (!result.succeeded) {
      int64_t revision = 0;
      QANAT_ASSIGN_OR_RETURN(const auto now, job_at(job.wave, &revision));
      if (revision != ending.job_revision.value_or(0))
        return conflict(str_cat("the record of job ", name_, "@", job.id, " has changed"));
      if (writer != nullptr) QANAT_RETURN_IF_ERROR(writer->recheck());
      continue;
    }
    if (writer != nullptr) writer->committed(result.revision);
    results.committed(results.left(), result.revision);
    {
      MutexLock lock(mutex_);
      record_.last_wave = record.last_wave;
      record_.base_wave = record.base_wave;
      if (!waves_.empty() && waves_.front().wave == job.wave) waves_.pop_front();
      trouble_.clear();
    }
    log_info("job ended", {{"pipeline", project_ + "/" + name_},
                           {"job", job.id},
                           {"state", std::string(api::enum_name(job.state))}});
    peers_.job_ended(project_);
    return ok_status();
  }
}

}  // namespace qanat::pipeline
