#include "qanat/pipeline/controller.h"

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/version/keys.h"

namespace qanat::pipeline {
namespace {

constexpr int64_t kFirstRetryMs = 100;
constexpr int64_t kLastRetryMs = 10'000;
constexpr int64_t kIdleWaves = 500;
constexpr std::string_view kStoppedByUser = "stopped by a user";

}  // namespace

Controller::Controller(const Services& services, ControllerPeers& peers, ThreadPool& pool,
                       std::string project, std::string name, PipelineRecord record)
    : services_(services),
      peers_(peers),
      pool_(pool),
      project_(std::move(project)),
      name_(std::move(name)),
      record_(std::move(record)) {}

// ---- Being told, and telling ----

void Controller::add_wave(int64_t number, const std::string& id) {
  {
    MutexLock lock(mutex_);
    if (number <= record_.last_wave) return;
    const auto place = std::lower_bound(waves_.begin(), waves_.end(), number,
                                        [](const Waiting& w, int64_t n) { return w.wave < n; });
    if (place != waves_.end() && place->wave == number) return;
    waves_.insert(place, {number, id});
    if (!loaded_) return;
  }
  wake();
}

void Controller::note_idle(int64_t wave) {
  {
    MutexLock lock(mutex_);
    if (!loaded_ || removed_ || run_ || !waves_.empty() || wave - record_.last_wave < kIdleWaves)
      return;
  }
  const std::string key = pipeline_key(project_, name_);
  auto write = [&]() -> Result<bool> {
    QANAT_ASSIGN_OR_RETURN(const auto found, services_.meta->get(key));
    if (!found) return false;
    QANAT_ASSIGN_OR_RETURN(PipelineRecord record, decode<PipelineRecord>(key, found->value));
    if (record.last_wave >= wave) return false;
    record.last_wave = wave;
    meta::Transaction transaction;
    transaction.when(meta::mod_revision_is(key, found->mod_revision)).put(key, encode(record));
    QANAT_ASSIGN_OR_RETURN(const auto result, services_.meta->commit(std::move(transaction)));
    return result.succeeded;
  };
  const Result<bool> written = write();
  // It is no more than a saving: the next time will do.
  if (!written.ok() || !*written) return;
  MutexLock lock(mutex_);
  record_.last_wave = std::max(record_.last_wave, wave);
}

void Controller::set_loaded() {
  {
    MutexLock lock(mutex_);
    loaded_ = true;
  }
  wake();
}

void Controller::changed(const PipelineRecord& record) {
  std::shared_ptr<JobRun> run;
  bool stopped = false;
  {
    MutexLock lock(mutex_);
    if (record.version != record_.version) spec_.reset();
    const bool give_up = record.version != record_.version || (record.stopped && !record_.stopped);
    stopped = record.stopped;
    const int64_t last_wave = std::max(record.last_wave, record_.last_wave);
    const int64_t base_wave = std::max(record.base_wave, record_.base_wave);
    record_ = record;
    record_.last_wave = last_wave;
    record_.base_wave = base_wave;
    trouble_.clear();
    worker_trouble_.clear();
    retry_at_ms_ = 0;
    retry_delay_ms_ = 0;
    if (give_up) run = run_;
  }
  if (run) {
    // A reason is what makes a given-up job a killed one; without, its wave is planned anew with
    // the spec in force.
    run->cancel(JobState::kKilled, stopped ? why_stopped(record) : "");
  }
  wake();
}

void Controller::remove() {
  std::shared_ptr<JobRun> run;
  {
    MutexLock lock(mutex_);
    removed_ = true;
    run = run_;
  }
  if (run) run->cancel(JobState::kKilled, "the pipeline was deleted");
}

void Controller::shut_down() {
  {
    MutexLock lock(mutex_);
    shut_down_ = true;
  }
  MutexLock wait_for_step(step_mutex_);
}

PipelineRecord Controller::record() const {
  MutexLock lock(mutex_);
  return record_;
}

WorkerGroupId Controller::group() const {
  MutexLock lock(mutex_);
  return {project_, name_, static_cast<uint64_t>(record_.version)};
}

std::shared_ptr<const CompiledSpec> Controller::spec() const {
  MutexLock lock(mutex_);
  return spec_;
}

std::shared_ptr<JobRun> Controller::running() const {
  MutexLock lock(mutex_);
  return run_;
}

bool Controller::has_unfinished(int64_t wave) const {
  MutexLock lock(mutex_);
  return !removed_ && !waves_.empty() && waves_.front().wave <= wave;
}

std::vector<Controller::Waiting> Controller::waiting() const {
  MutexLock lock(mutex_);
  return {waves_.begin(), waves_.end()};
}

std::string Controller::trouble() const {
  MutexLock lock(mutex_);
  return trouble_.empty() ? worker_trouble_ : trouble_;
}

void Controller::set_worker_trouble(std::string text) {
  MutexLock lock(mutex_);
  worker_trouble_ = std::move(text);
}

void Controller::worker_seen() {
  MutexLock lock(mutex_);
  worker_trouble_.clear();
}

void Controller::set_trouble(std::string text) {
  MutexLock lock(mutex_);
  trouble_ = std::move(text);
}

Status Controller::stop_job(const std::string& id) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::shared_ptr<JobRun> run;
    std::optional<Waiting> waiting;
    {
      MutexLock lock(mutex_);
      if (run_ && run_->id() == id) run = run_;
      for (const Waiting& w : waves_) {
        if (w.id == id) waiting = w;
      }
    }
    if (!waiting) break;
    const Status stopped =
        run ? run->stop(std::string(kStoppedByUser)) : stop_waiting_job(*waiting);
    if (stopped.ok()) {
      wake();
      return ok_status();
    }
    // It began, was opened again, or ended meanwhile.
    if (stopped.code() != Code::kConflict && stopped.code() != Code::kFailedPrecondition)
      return stopped;
    services_.clock->sleep_for_ms(10);
  }
  return failed_precondition(str_cat("job ", name_, "@", id, " has ended already"));
}

// Notes it in the job's record, which planning respects.
Status Controller::stop_waiting_job(const Waiting& job) {
  int64_t revision = 0;
  QANAT_ASSIGN_OR_RETURN(const auto existing, job_at(job.wave, &revision));
  JobRecord record;
  if (existing) {
    record = *existing;
  } else {
    record.id = job.id;
    record.wave = job.wave;
    record.state = JobState::kCreated;
    record.spec_version = this->record().version;
    record.created_ms = services_.clock->wall_ms();
  }
  if (is_final(record.state))
    return failed_precondition(str_cat("job ", name_, "@", job.id, " has ended already"));
  record.stopping = kStoppedByUser;
  const std::string key = job_key(project_, name_, job.wave);
  meta::Transaction transaction;
  transaction.when(meta::mod_revision_is(key, revision))
      .when(meta::key_present(pipeline_key(project_, name_)))
      .put(key, encode(record));
  transaction.may_use_reserve = true;
  QANAT_ASSIGN_OR_RETURN(const meta::TransactionResult result,
                         services_.meta->commit(std::move(transaction)));
  return result.succeeded ? ok_status() : conflict("the job has moved on");
}

void Controller::tick() {
  const auto run = running();
  if (run && run->tick()) peers_.work_available(group());
  bool retry = run && run->idle();  // its wake may have been lost with an error
  {
    MutexLock lock(mutex_);
    retry = retry || (retry_at_ms_ != 0 && services_.clock->monotonic_ms() >= retry_at_ms_);
  }
  if (retry) wake();
}

// ---- Steps ----

void Controller::wake() {
  if (wakes_.fetch_add(1) > 0) return;  // whoever runs, or is queued, will see it
  if (!pool_.try_submit([self = shared_from_this()] { self->step(); })) {
    // The pool is full: the next tick tries again.
    wakes_ = 0;
    MutexLock lock(mutex_);
    if (retry_at_ms_ == 0) retry_at_ms_ = services_.clock->monotonic_ms();
  }
}

void Controller::step() {
  MutexLock step_lock(step_mutex_);
  int seen = wakes_.load();
  while (true) {
    {
      MutexLock lock(mutex_);
      if (shut_down_) return;
      if (retry_at_ms_ > services_.clock->monotonic_ms()) {
        wakes_ = 0;
        return;
      }
      retry_at_ms_ = 0;
    }
    const Result<bool> moved = advance();
    if (!moved.ok()) {
      log_warning("a pipeline cannot go on; it will be tried again",
                  {{"pipeline", project_ + "/" + name_}, {"error", moved.status().to_string()}});
      MutexLock lock(mutex_);
      trouble_ = moved.status().message();
      retry_delay_ms_ = std::clamp(retry_delay_ms_ * 2, kFirstRetryMs, kLastRetryMs);
      retry_at_ms_ = services_.clock->monotonic_ms() + retry_delay_ms_;
      wakes_ = 0;
      return;
    }
    if (*moved) {
      MutexLock lock(mutex_);
      retry_delay_ms_ = 0;
      continue;
    }
    // Nothing to do, unless somebody woke us meanwhile.
    if (wakes_.compare_exchange_strong(seen, 0)) return;
  }
}

Result<bool> Controller::advance() {
  std::shared_ptr<JobRun> run;
  std::optional<Waiting> next;
  PipelineRecord record;
  {
    MutexLock lock(mutex_);
    if (!loaded_ || (removed_ && !run_)) return false;
    run = run_;
    record = record_;
    if (!waves_.empty()) next = waves_.front();
  }
  if (run) {
    if (!run->idle()) {
      if (run->has_waiting()) peers_.work_available(group());
      return false;
    }
    // Given up without a reason: its wave is planned again, with the spec in force now (see begin).
    const auto cancelled = run->cancelled();
    if (!cancelled || !cancelled->reason.empty()) {
      // A transaction of ours whose answer was lost may have ended the job, or moved its journal:
      // then what meta says is taken up below.
      int64_t revision = 0;
      const JobRun::Stored known = run->stored();
      QANAT_ASSIGN_OR_RETURN(const auto stored, job_at(known.record.wave, &revision));
      if (stored && !is_final(stored->state) && revision == known.mod_revision)
        QANAT_RETURN_IF_ERROR(finish(*run));
    }
    {
      MutexLock lock(mutex_);
      run_.reset();
      run_spec_.reset();
    }
    // After it is known to be over: lines of such jobs are not kept any more.
    services_.logs->forget(project_, name_, run->id());
    return true;
  }
  // Also for a stopped pipeline: its spec is shown, and it may have waves left to end.
  std::shared_ptr<const CompiledSpec> current = spec();
  if (!current || current->record.version != record.version) {
    QANAT_ASSIGN_OR_RETURN(current, load_spec(*services_.meta, project_, name_, record.version,
                                              services_.runner_kind));
    MutexLock lock(mutex_);
    if (record_.version == record.version) spec_ = current;
  }
  if (!next) return false;
  int64_t revision = 0;
  QANAT_ASSIGN_OR_RETURN(auto existing, job_at(next->wave, &revision));
  if (existing && is_final(existing->state)) {
    adopt_end(*existing);
    return true;
  }
  if (existing && !existing->stopping.empty()) {
    QANAT_RETURN_IF_ERROR(end_unrun(*next, *current, JobState::kKilled, existing->stopping, {}));
    return true;
  }
  if (record.stopped) {
    // The wave that starts a pipeline again may be heard of before the change itself, which wakes
    // this controller when it is.
    QANAT_ASSIGN_OR_RETURN(const bool stopped, is_stored_as_stopped());
    if (!stopped) return false;
    QANAT_RETURN_IF_ERROR(end_unrun(*next, *current, JobState::kKilled, why_stopped(record), {}));
    return true;
  }
  if (existing && existing->state == JobState::kRunning &&
      existing->spec_version == current->record.version) {
    // The server was restarted while it ran.
    QANAT_RETURN_IF_ERROR(start_run(current, *std::move(existing), revision, true));
    return true;
  }
  return begin(*next, current);
}

void Controller::adopt_end(const JobRecord& job) {
  {
    MutexLock lock(mutex_);
    record_.last_wave = std::max(record_.last_wave, job.wave);
    if (job.state == JobState::kSuccess) record_.base_wave = std::max(record_.base_wave, job.wave);
    if (!waves_.empty() && waves_.front().wave == job.wave) waves_.pop_front();
  }
  peers_.job_ended(project_);
}

Result<std::optional<JobRecord>> Controller::job_at(int64_t wave, int64_t* revision) const {
  const std::string key = job_key(project_, name_, wave);
  QANAT_ASSIGN_OR_RETURN(const auto found, services_.meta->get(key));
  if (!found) return std::optional<JobRecord>();
  if (revision != nullptr) *revision = found->mod_revision;
  QANAT_ASSIGN_OR_RETURN(JobRecord record, decode<JobRecord>(key, found->value));
  return std::optional<JobRecord>(std::move(record));
}

Result<bool> Controller::is_stored_as_stopped() const {
  const std::string key = pipeline_key(project_, name_);
  QANAT_ASSIGN_OR_RETURN(const auto found, services_.meta->get(key));
  if (!found) return true;  // deleted: remove() comes
  QANAT_ASSIGN_OR_RETURN(const PipelineRecord record, decode<PipelineRecord>(key, found->value));
  return record.stopped;
}

Status Controller::read_base() {
  const std::string pipeline = pipeline_key(project_, name_);
  QANAT_ASSIGN_OR_RETURN(const auto stored, services_.meta->get(pipeline));
  if (!stored) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const auto now, decode<PipelineRecord>(pipeline, stored->value));
  MutexLock lock(mutex_);
  record_.base_wave = now.base_wave;
  return ok_status();
}

Result<bool> Controller::begin(const Waiting& next,
                               const std::shared_ptr<const CompiledSpec>& spec) {
  QANAT_RETURN_IF_ERROR(read_base());
  QANAT_ASSIGN_OR_RETURN(Inputs inputs, resolve_inputs(*spec, next.wave));
  if (!inputs.ready) return false;
  if (!inputs.failed.empty()) {
    QANAT_RETURN_IF_ERROR(
        end_unrun(next, *spec, JobState::kUnrunnable, inputs.failed, std::move(inputs.inputs)));
    return true;
  }
  // Begun with another version of the spec: its datums that are done stay reusable by key.
  QANAT_ASSIGN_OR_RETURN(const auto existing, job_at(next.wave));
  if (existing) QANAT_RETURN_IF_ERROR(keep_results(*existing, *spec));
  QANAT_RETURN_IF_ERROR(plan_and_start(spec, next, std::move(inputs)));
  return true;
}

// ---- Inputs ----

Result<Controller::Inputs> Controller::resolve_inputs(const CompiledSpec& spec,
                                                      int64_t wave) const {
  Inputs inputs;
  for (const InputShape::Arm& arm : spec.shape.arms()) {
    const auto repo = services_.versions->inspect_repo({project_, arm.repo});
    if (repo.code() == Code::kNotFound) {
      inputs.inputs.push_back({arm.name, arm.repo, arm.branch, "", 0, ""});
      inputs.roots.emplace_back();
      if (inputs.failed.empty())
        inputs.failed = str_cat("its input repo ", arm.repo, " was deleted");
      continue;
    }
    if (!repo.ok()) return repo.status();
    // Other branches of a pipeline's repo are moved by users, and wait for no job.
    bool is_output = false;
    if (!repo->record.pipeline.empty()) {
      const auto branch = services_.versions->inspect_branch({project_, arm.repo}, arm.branch);
      if (!branch.ok() && branch.code() != Code::kNotFound) return branch.status();
      is_output = branch.ok() && !branch->record.pipeline.empty();
    }
    if (is_output && peers_.has_unfinished(project_, repo->record.pipeline, wave)) {
      return Inputs{};  // not ready
    }
    QANAT_RETURN_IF_ERROR(resolve_input(arm, is_output, wave, inputs));
  }
  inputs.ready = true;
  return inputs;
}

Status Controller::resolve_input(const InputShape::Arm& arm, bool is_output, int64_t wave,
                                 Inputs& inputs) const {
  JobInput input{arm.name, arm.repo, arm.branch, "", 0, ""};
  // Of a pipeline's output the newest job up to this wave decides, not the newest success.
  meta::RangeResult jobs;
  if (is_output) {
    QANAT_ASSIGN_OR_RETURN(
        jobs, services_.meta->range(meta::KeyRange::between(jobs_prefix(project_, arm.repo),
                                                            job_key(project_, arm.repo, wave + 1)),
                                    {.limit = 1, .descending = true}));
  }
  if (!jobs.items.empty()) {
    QANAT_ASSIGN_OR_RETURN(const JobRecord job,
                           decode<JobRecord>(jobs.items[0].key, jobs.items[0].value));
    if (job.state != JobState::kSuccess && inputs.failed.empty()) {
      inputs.failed = str_cat("its input ", arm.repo, "@", arm.branch, " has no result: job ",
                              arm.repo, "@", job.id, " ended as ", api::enum_name(job.state),
                              job.reason.empty() ? "" : " (" + job.reason + ")");
    }
  }
  QANAT_ASSIGN_OR_RETURN(const auto head,
                         services_.versions->head_at_wave({project_, arm.repo}, arm.branch, wave));
  content::TreeRoot root;
  if (head && !head->commit.empty()) {
    QANAT_ASSIGN_OR_RETURN(const version::CommitInfo commit,
                           services_.versions->resolve({project_, arm.repo}, head->commit));
    input.commit = commit.id;
    input.wave = head->wave;
    root = commit.record.root;
    input.root = root.to_text();
  }
  inputs.inputs.push_back(std::move(input));
  inputs.roots.push_back(std::move(root));
  return ok_status();
}

}  // namespace qanat::pipeline
