#include "qanat/pipeline/pipelines.h"

#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::pipeline {
namespace {

constexpr std::string_view kProjects = "/v1/project/";
constexpr size_t kControllerThreads = 8;
constexpr int kLaterThreads = 4;
constexpr int64_t kTickMs = 250;
constexpr int kTicksToTryAgain = 20;
constexpr int64_t kWavesRead = 1000;      // at a time
constexpr int kCrashingAfter = 3;         // failures of workers in a row
constexpr int64_t kTellIdleAfter = 1000;  // waves

Services with_later(Services services, Later& later) {
  services.later = &later;
  return services;
}

DagPipeline dag_pipeline(const std::string& name, const PipelineRecord& record) {
  DagPipeline pipeline{name, record.output_branch, {}};
  for (const InputBranch& input : record.inputs)
    pipeline.inputs.push_back({input.repo, input.branch});
  return pipeline;
}

}  // namespace

Pipelines::Pipelines(const Services& services)
    : later_(*services.clock, kLaterThreads),
      services_(with_later(services, later_)),
      pool_("pipelines", kControllerThreads, 4096) {}

Result<std::unique_ptr<Pipelines>> Pipelines::start(const Services& services) {
  std::unique_ptr<Pipelines> pipelines(new Pipelines(services));
  QANAT_ASSIGN_OR_RETURN(
      pipelines->hub_, WorkerHub::open(services, [p = pipelines.get()](const WorkerGroupId& group) {
        auto controller = p->find(group.project, group.pipeline);
        return controller && controller->group() == group ? controller : nullptr;
      }));
  services.versions->set_dag(pipelines.get());
  services.runner->set_listener(
      [p = pipelines.get()](const WorkerEvent& event) { p->on_worker_event(event); });
  QANAT_RETURN_IF_ERROR(pipelines->load());
  pipelines->ticker_ = std::thread([p = pipelines.get()] { p->tick_until_stopped(); });
  return pipelines;
}

Pipelines::~Pipelines() {
  services_.runner->set_listener(nullptr);
  std::vector<std::shared_ptr<Controller>> all;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  {
    MutexLock lock(change_mutex_);
    watches_.clear();
  }
  {
    MutexLock lock(mutex_);
    for (const auto& [project, controllers] : controllers_) {
      for (const auto& [name, controller] : controllers) all.push_back(controller);
    }
  }
  wake_.notify_all();
  if (ticker_.joinable()) ticker_.join();
  for (const auto& controller : all) controller->shut_down();
  pool_.wait_idle();
  services_.versions->set_dag(nullptr);
}

// ---- Loading ----

Status Pipelines::load() {
  QANAT_ASSIGN_OR_RETURN(
      const meta::RangeResult found,
      services_.meta->range(meta::KeyRange::prefix(kProjects), {.keys_only = true}));
  for (const meta::KeyValue& item : found.items) {
    const std::string project = item.key.substr(kProjects.size());
    QANAT_RETURN_IF_ERROR(load_project(project).with_context(str_cat("project ", project)));
  }
  const Status stopped = services_.runner->stop_unwanted();
  if (!stopped.ok())
    log_warning("workers that nobody wants may be left running", {{"error", stopped}});
  return ok_status();
}

Status Pipelines::load_project(const std::string& project) {
  QANAT_RETURN_IF_ERROR(watch_project(project));
  QANAT_ASSIGN_OR_RETURN(const auto stored, records(project));
  QANAT_RETURN_IF_ERROR(release_orphans(project, stored));
  std::map<std::string, PipelineRecord> pipelines;
  for (const auto& [name, pipeline] : stored) pipelines.emplace(name, pipeline.record);
  return adopt(project, pipelines);
}

Status Pipelines::release_orphans(const std::string& project,
                                  const std::map<std::string, Stored>& pipelines) {
  version::PageRequest page;
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto repos, services_.versions->list_repos(project, page));
    for (const version::RepoInfo& repo : repos.items) {
      const std::string& owner = repo.record.pipeline;
      if (owner.empty() || pipelines.contains(owner)) continue;
      log_warning("the pipeline of a repo was deleted; the repo is left to its readers",
                  {{"repo", repo.repo}});
      QANAT_RETURN_IF_ERROR(services_.versions->release_repo({repo.project, repo.repo}, owner));
    }
    if (repos.next.empty()) return ok_status();
    page.token = repos.next;
  }
}

Status Pipelines::watch_project(const std::string& project) {
  QANAT_ASSIGN_OR_RETURN(const int64_t last, services_.versions->last_wave(project));
  {
    MutexLock lock(waves_mutex_);
    told_.try_emplace(project, last);
  }
  QANAT_ASSIGN_OR_RETURN(
      auto watch,
      services_.versions->watch_waves(
          project, 0,
          [this, project](const Status& status, int64_t, const std::vector<version::WaveInfo>&) {
            if (!status.ok()) {
              if (status.code() == Code::kCancelled) return;
              log_warning("waves are not seen any more; they will be looked for again",
                          {{"project", project}, {"error", status}});
              MutexLock lock(mutex_);
              unwatched_.push_back(project);
              return;
            }
            tell_waves_or_try_again(project);
          }));
  watches_.push_back(std::move(watch));
  return ok_status();
}

// Every controller is told of every wave that it is a member of, in ascending order and upstream
// first: then whoever reads another's output sees that it is not done yet.
Status Pipelines::tell_waves(const std::string& project) {
  MutexLock lock(waves_mutex_);
  int64_t& told = told_[project];
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto waves,
                           services_.versions->waves_after(project, told, kWavesRead));
    for (const version::WaveInfo& wave : waves) {
      for (const std::string& member : wave.record.members) {
        if (auto controller = find(project, member))
          controller->add_wave(wave.number, wave.record.id);
      }
      told = wave.number;
    }
    if (static_cast<int64_t>(waves.size()) < kWavesRead) break;
  }
  // Those that have long been members of none need not look at all of these again after a restart.
  if (int64_t& idle = told_idle_[project]; told - idle >= kTellIdleAfter) {
    // Not here: it writes, and this may be the thread that tells of what was written.
    const bool submitted = pool_.try_submit([wave = told, controllers = list(project)] {
      for (const auto& controller : controllers) controller->note_idle(wave);
    });
    if (submitted) idle = told;
  }
  return ok_status();
}

void Pipelines::tell_waves_or_try_again(const std::string& project) {
  const Status status = tell_waves(project);
  if (status.ok()) return;
  log_warning("waves cannot be read; this is tried again",
              {{"project", project}, {"error", status}});
  MutexLock lock(mutex_);
  untold_.push_back(project);
}

Status Pipelines::add_project(const std::string& project) {
  MutexLock lock(change_mutex_);
  return watch_project(project);
}

Status Pipelines::adopt(const std::string& project,
                        const std::map<std::string, PipelineRecord>& pipelines) {
  std::map<std::string, std::shared_ptr<Controller>> adopted;
  int64_t after = INT64_MAX;
  for (const auto& [name, record] : pipelines) {
    adopted[name] = std::make_shared<Controller>(services_, static_cast<ControllerPeers&>(*this),
                                                 pool_, project, name, record);
    after = std::min(after, record.last_wave);
  }
  {
    // Up to the wave that the others have been told of; from there on, together with them.
    MutexLock lock(waves_mutex_);
    const int64_t told = told_[project];
    while (after < told) {
      QANAT_ASSIGN_OR_RETURN(const auto waves,
                             services_.versions->waves_after(project, after, kWavesRead));
      if (waves.empty()) break;
      for (const version::WaveInfo& wave : waves) {
        after = wave.number;
        if (wave.number > told) break;
        for (const std::string& member : wave.record.members) {
          const auto found = adopted.find(member);
          if (found != adopted.end()) found->second->add_wave(wave.number, wave.record.id);
        }
      }
    }
    MutexLock map_lock(mutex_);
    for (const auto& [name, controller] : adopted) controllers_[project][name] = controller;
  }
  for (const auto& [name, controller] : adopted) {
    if (!controller->record().stopped) ensure_workers(controller);
  }
  // None begins before all are there and know their waves.
  for (const auto& [name, controller] : adopted) controller->set_loaded();
  job_ended(project);  // whoever waited for one that was not there looks again
  return ok_status();
}

// ---- Workers ----

void Pipelines::ensure_workers(const std::shared_ptr<Controller>& controller) {
  const Status status = try_ensure_workers(controller);
  if (status.ok()) return;
  log_warning("no workers can be had; this is tried again",
              {{"pipeline", controller->name()}, {"error", status}});
  controller->set_worker_trouble(status.message());
  MutexLock lock(mutex_);
  without_workers_.push_back(controller);
}

Status Pipelines::try_ensure_workers(const std::shared_ptr<Controller>& controller) {
  const PipelineRecord record = controller->record();
  QANAT_ASSIGN_OR_RETURN(const auto spec,
                         load_spec(*services_.meta, controller->project(), controller->name(),
                                   record.version, services_.runner_kind));
  const api::PipelineSpec& s = spec->spec;
  WorkerGroupSpec group;
  group.id = {controller->project(), controller->name(), static_cast<uint64_t>(record.version)};
  group.image = s.transform.image;
  group.image_digest = spec->record.image_digest;
  group.env = s.transform.env;
  group.limits = {s.resource_limits.cpu, s.resource_limits.memory, s.resource_limits.pids};
  group.network = s.transform.network == "host" ? Network::kHost : Network::kNone;
  group.count = static_cast<int>(api::worker_count(s, 1));
  QANAT_ASSIGN_OR_RETURN(group.run_folder, services_.gate->open(group.id));
  // The runner may outlive this.
  group.new_credential = [hub = std::weak_ptr(hub_),
                          id = group.id](const std::string& worker) -> Result<std::string> {
    const auto alive = hub.lock();
    if (!alive) return cancelled("the server is stopping");
    return alive->new_credential(id, worker);
  };
  return services_.runner->ensure(group);
}

void Pipelines::try_again() {
  MutexLock change_lock(change_mutex_);
  std::vector<std::weak_ptr<Controller>> controllers;
  std::vector<std::string> projects;
  std::vector<std::string> untold;
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    controllers.swap(without_workers_);
    projects.swap(unwatched_);
    untold.swap(untold_);
  }
  for (const auto& weak : controllers) {
    const auto controller = weak.lock();
    // Only if it is still there and wants them.
    if (!controller || find(controller->project(), controller->name()) != controller ||
        controller->record().stopped)
      continue;
    ensure_workers(controller);
  }
  for (const std::string& project : projects) {
    const Status status = watch_project(project);
    if (status.ok()) {
      untold.push_back(project);
      continue;
    }
    log_warning("waves are not seen yet", {{"project", project}, {"error", status}});
    MutexLock lock(mutex_);
    unwatched_.push_back(project);
  }
  for (const std::string& project : untold) tell_waves_or_try_again(project);
}

void Pipelines::remove_workers(const WorkerGroupId& group) {
  const Status status = services_.runner->stop(group);
  if (!status.ok())
    log_warning("workers cannot be stopped", {{"pipeline", group.pipeline}, {"error", status}});
  services_.gate->close(group);
  hub_->forget(group);
}

void Pipelines::on_worker_event(const WorkerEvent& event) {
  if (event.kind == WorkerEvent::Kind::kStarted) return;
  log_info(
      "worker ended",
      {{"pipeline", event.group.pipeline}, {"worker", event.worker_id}, {"reason", event.reason}});
  const auto controller = find(event.group.project, event.group.pipeline);
  if (controller && controller->group() == event.group) {
    if (event.failures_in_a_row >= kCrashingAfter || event.kind == WorkerEvent::Kind::kFailed)
      controller->set_worker_trouble(event.reason);
  }
  // On a thread of the pool: recording a failed datum writes, which the runner's thread should not
  // wait for.
  if (!pool_.try_submit([this, event] {
        hub_->worker_ended(event.group, event.worker_id, event.oom, event.reason);
      })) {
    hub_->worker_ended(event.group, event.worker_id, event.oom, event.reason);
  }
}

// ---- Records and the DAG ----

Result<std::map<std::string, Pipelines::Stored>> Pipelines::records(std::string_view project,
                                                                    int64_t revision) const {
  const std::string prefix = pipelines_prefix(project);
  QANAT_ASSIGN_OR_RETURN(
      const meta::RangeResult found,
      services_.meta->range(meta::KeyRange::prefix(prefix), {.revision = revision}));
  std::map<std::string, Stored> records;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(PipelineRecord record, decode<PipelineRecord>(item.key, item.value));
    records[item.key.substr(prefix.size())] = {std::move(record), item.mod_revision};
  }
  return records;
}

Result<Pipelines::Stored> Pipelines::stored(std::string_view project, std::string_view name) const {
  const std::string key = pipeline_key(project, name);
  QANAT_ASSIGN_OR_RETURN(const auto found, services_.meta->get(key));
  if (!found)
    return not_found(str_cat("there is no pipeline ", name),
                     "`qanat list pipeline` shows the pipelines there are");
  QANAT_ASSIGN_OR_RETURN(PipelineRecord record, decode<PipelineRecord>(key, found->value));
  return Stored{std::move(record), found->mod_revision};
}

Result<Dag> Pipelines::make_dag(const std::map<std::string, Stored>& records, bool with_stopped) {
  std::vector<DagPipeline> pipelines;
  for (const auto& [name, stored] : records) {
    if (with_stopped || !stored.record.stopped)
      pipelines.push_back(dag_pipeline(name, stored.record));
  }
  return Dag::make(std::move(pipelines));
}

Result<std::vector<std::string>> Pipelines::downstream(
    std::string_view project, const std::vector<version::BranchName>& changed, int64_t revision) {
  QANAT_ASSIGN_OR_RETURN(const auto marker, services_.meta->get(dag_key(project), revision));
  const int64_t state = marker ? marker->mod_revision : 0;
  std::shared_ptr<const Dag> dag;
  {
    MutexLock lock(mutex_);
    const auto cached = dags_.find(project);
    if (cached != dags_.end() && cached->second.revision == state) dag = cached->second.dag;
  }
  if (!dag) {
    QANAT_ASSIGN_OR_RETURN(const auto stored, records(project, revision));
    QANAT_ASSIGN_OR_RETURN(Dag made, make_dag(stored, false));
    dag = std::make_shared<const Dag>(std::move(made));
    MutexLock lock(mutex_);
    CachedDag& cached = dags_[std::string(project)];
    if (cached.revision < state) cached = {state, dag};
  }
  std::vector<RepoBranch> branches;
  for (const version::BranchName& branch : changed)
    branches.push_back({branch.repo, branch.branch});
  return dag->downstream(branches);
}

// ---- Looking up, and controllers among each other ----

std::vector<std::shared_ptr<Controller>> Pipelines::list(const std::string& project) const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<Controller>> list;
  const auto found = controllers_.find(project);
  if (found == controllers_.end()) return list;
  for (const auto& [name, controller] : found->second) list.push_back(controller);
  return list;
}

std::shared_ptr<Controller> Pipelines::find(const std::string& project,
                                            const std::string& name) const {
  MutexLock lock(mutex_);
  const auto found = controllers_.find(project);
  if (found == controllers_.end()) return nullptr;
  const auto controller = found->second.find(name);
  return controller == found->second.end() ? nullptr : controller->second;
}

bool Pipelines::has_unfinished(const std::string& project, const std::string& pipeline,
                               int64_t wave) {
  const auto controller = find(project, pipeline);
  if (controller) return controller->has_unfinished(wave);
  // One that is being created has no controller for a moment.
  const auto found = services_.meta->get(pipeline_key(project, pipeline), 0);
  return !found.ok() || found->has_value();
}

void Pipelines::job_ended(const std::string& project) {
  for (const auto& controller : list(project)) {
    if (controller->has_unfinished(INT64_MAX)) controller->wake();
  }
}

void Pipelines::work_available(const WorkerGroupId& group) { hub_->work_available(group); }

void Pipelines::tick_until_stopped() {
  for (int ticks = 1;; ++ticks) {
    std::vector<std::shared_ptr<Controller>> all;
    bool trouble = false;
    {
      MutexLock lock(mutex_);
      if (!stopping_) wake_.wait_for_ms(mutex_, kTickMs);
      if (stopping_) return;
      trouble = !without_workers_.empty() || !unwatched_.empty() || !untold_.empty();
      for (const auto& [project, controllers] : controllers_) {
        for (const auto& [name, controller] : controllers) all.push_back(controller);
      }
    }
    for (const auto& controller : all) controller->tick();
    if (trouble && ticks % kTicksToTryAgain == 0) (void)pool_.try_submit([this] { try_again(); });
  }
}

}  // namespace qanat::pipeline
