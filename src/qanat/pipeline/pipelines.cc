#include "qanat/pipeline/pipelines.h"

#include <set>

#include "qanat/base/id.h"
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

constexpr std::string_view kStoppedBefore = "stopped by a user";

Services with_later(Services services, Later& later) {
  services.later = &later;
  return services;
}

std::vector<InputBranch> input_branches(const api::PipelineSpec& spec) {
  std::set<std::pair<std::string, std::string>> seen;
  std::vector<InputBranch> branches;
  for (const api::PfsInput* input : api::pfs_inputs(spec.input)) {
    if (seen.insert({input->repo, input->branch}).second)
      branches.push_back({input->repo, input->branch});
  }
  return branches;
}

std::vector<version::BranchName> provenance_of(const PipelineRecord& record) {
  std::vector<version::BranchName> branches;
  for (const InputBranch& input : record.inputs) branches.push_back({input.repo, input.branch});
  return branches;
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
  group.new_credential = [this, id = group.id](const std::string& worker) -> Result<std::string> {
    return hub_->new_credential(id, worker);
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

// ---- Creating and updating ----

Result<std::vector<Pipelines::Draft>> Pipelines::check(const std::string& project,
                                                       std::string_view text, bool may_exist,
                                                       const Author& author) {
  QANAT_ASSIGN_OR_RETURN(
      auto loaded, api::load_pipeline_specs(text, {.runner = services_.runner_kind,
                                                   .project = project,
                                                   .default_network = services_.default_network,
                                                   .default_image = services_.default_image}));
  std::vector<Draft> drafts;
  for (api::LoadedSpec& spec : loaded) {
    Draft draft;
    draft.loaded = std::move(spec);
    const Status status = check_one(project, draft, drafts, may_exist, author);
    if (!status.ok()) return status.with_context(str_cat("pipeline ", draft.loaded.spec.name));
    drafts.push_back(std::move(draft));
  }
  return drafts;
}

Status Pipelines::check_one(const std::string& project, Draft& draft,
                            const std::vector<Draft>& before, bool may_exist,
                            const Author& author) {
  const api::PipelineSpec& spec = draft.loaded.spec;
  if (spec.project != project) {
    return invalid_argument(
        str_cat("the spec says project ", spec.project, ", the request ", project),
        str_cat("give --project ", spec.project));
  }
  auto require = [&](const std::string& scope) -> Status {
    if (author.may(scope)) return ok_status();
    return permission_denied(
        str_cat("the token ", author.token, " lacks ", scope),
        "A pipeline gets its rights from the token it is created with: use one that has them.");
  };
  QANAT_RETURN_IF_ERROR(require("operator:" + spec.name));
  if (spec.transform.network == "host") QANAT_RETURN_IF_ERROR(require("network-host"));
  QANAT_ASSIGN_OR_RETURN(auto stored, records(project));
  const bool exists = stored.contains(spec.name);
  if (exists && !may_exist)
    return already_exists("it exists already",
                          str_cat("change it with `qanat update pipeline`, or delete it first with "
                                  "`qanat delete pipeline ",
                                  spec.name, "`"));
  for (const InputBranch& input : input_branches(spec)) {
    QANAT_RETURN_IF_ERROR(require("reader:" + input.repo));
    const bool in_text = std::any_of(before.begin(), before.end(), [&](const Draft& d) {
      return d.loaded.spec.name == input.repo;
    });
    if (in_text) continue;
    const auto repo = services_.versions->inspect_repo({project, input.repo});
    if (repo.code() == Code::kNotFound) {
      return not_found(str_cat("its input repo ", input.repo, " does not exist"),
                       str_cat("create it first: `qanat create repo ", input.repo, "`"));
    }
    if (!repo.ok()) return repo.status();
  }
  // The DAG with this spec, and those before it in the text.
  auto add = [&stored](const api::PipelineSpec& s) {
    PipelineRecord record;
    record.output_branch = s.output_branch;
    record.inputs = input_branches(s);
    stored[s.name] = {std::move(record), 0};
  };
  for (const Draft& other : before) add(other.loaded.spec);
  add(spec);
  QANAT_RETURN_IF_ERROR(make_dag(stored, true).status());
  QANAT_ASSIGN_OR_RETURN(draft.image, services_.runner->resolve_image(spec.transform.image));
  const std::vector<std::string>& cmd = spec.transform.cmd;
  if (cmd.empty() && draft.image.entrypoint.empty() && draft.image.cmd.empty()) {
    return invalid_argument(
        "transform.cmd is empty, and the image has no entrypoint or command of its own",
        "give transform.cmd");
  }
  if (!cmd.empty())
    QANAT_RETURN_IF_ERROR(services_.runner->check_command(draft.image, cmd, spec.transform.env,
                                                          spec.transform.working_dir));
  return ok_status();
}

// The record of the next version.
Status Pipelines::prepare(const std::string& project, Draft& draft, const UpdateFlags& flags,
                          const std::string& token) {
  const api::PipelineSpec& spec = draft.loaded.spec;
  SpecRecord& record = draft.spec;
  record.created_ms = services_.clock->wall_ms();
  record.created_by = token;
  record.user_spec = draft.loaded.user_json;
  record.effective_spec = api::effective_spec(spec);
  record.image_digest = draft.image.digest;
  record.image_env = draft.image.env;
  record.image_command = draft.image.entrypoint;
  record.image_command.insert(record.image_command.end(), draft.image.cmd.begin(),
                              draft.image.cmd.end());
  record.image_user = draft.image.user;
  record.image_working_dir = draft.image.working_dir;
  record.keep_results = flags.keep_results;
  record.reprocess = flags.reprocess;
  record.reprocess_salt.clear();
  record.version = 1;
  const auto before = stored(project, spec.name);
  if (before.ok()) {
    record.version = before->record.version + 1;
    QANAT_ASSIGN_OR_RETURN(const auto last,
                           load_spec(*services_.meta, project, spec.name, before->record.version,
                                     services_.runner_kind));
    record.reprocess_salt = last->record.reprocess_salt;
  } else if (before.code() != Code::kNotFound) {
    return before.status();
  }
  if (flags.reprocess) record.reprocess_salt = random_id();
  const TransformComponents components =
      transform_components(spec, record.image_digest, record.reprocess_salt);
  record.components = components_to_text(components);
  record.transform_hash = transform_hash(components).to_hex();
  return ok_status();
}

Result<PipelineChange> Pipelines::put(const std::string& project, Draft draft, bool may_exist,
                                      const UpdateFlags& flags, const Author& author) {
  const api::PipelineSpec spec = draft.loaded.spec;
  const std::string key = pipeline_key(project, spec.name);
  PipelineRecord record;
  bool existed = false;
  WorkerGroupId old_group{project, spec.name, 0};
  QANAT_RETURN_IF_ERROR(
      services_.versions
          ->start_wave(
              project,
              [&](int64_t revision) -> Result<version::WaveDraft> {
                QANAT_ASSIGN_OR_RETURN(auto all, records(project, revision));
                const auto old = all.find(spec.name);
                existed = old != all.end();
                if (existed && !may_exist)
                  return already_exists(str_cat("pipeline ", spec.name, " exists already"));
                QANAT_RETURN_IF_ERROR(prepare(project, draft, flags, author.token));
                record = existed ? old->second.record : PipelineRecord{};
                if (existed) old_group.version = static_cast<uint64_t>(record.version);
                const std::string old_branch = record.output_branch;
                if (existed && old_branch != spec.output_branch) {
                  return failed_precondition(str_cat("output_branch cannot change from ",
                                                     old_branch, " to ", spec.output_branch),
                                             "delete the pipeline and create it anew");
                }
                record.version = draft.spec.version;
                record.output_branch = spec.output_branch;
                record.inputs = input_branches(spec);
                record.updated_ms = services_.clock->wall_ms();
                if (!existed) {
                  record.created_ms = record.updated_ms;
                  QANAT_ASSIGN_OR_RETURN(record.last_wave, services_.versions->last_wave(project));
                }
                if (record.withdrawn) {
                  record.stopped = record.withdrawn = false;
                  record.reason.clear();
                } else if (record.stopped && record.rights.empty()) {
                  record.reason = kStoppedBefore;
                }
                if (!author.key.empty()) {
                  QANAT_ASSIGN_OR_RETURN(const auto token, services_.meta->get(author.key));
                  if (!token) {
                    return permission_denied(
                        str_cat("the token ", author.token, " was deleted meanwhile"),
                        "use one that is there");
                  }
                }
                record.rights.clear();
                for (const InputBranch& input : record.inputs)
                  record.rights.push_back({"reader:" + input.repo, author.token});
                record.rights.push_back({"writer:" + spec.name, author.token});
                if (spec.transform.network == "host")
                  record.rights.push_back({"network-host", author.token});
                const int64_t old_revision = existed ? old->second.revision : 0;
                all[spec.name] = {record, old_revision};
                QANAT_ASSIGN_OR_RETURN(const Dag dag, make_dag(all, false));
                version::WaveDraft out;
                out.cause = version::WaveCause::kPipeline;
                out.needs_wave = !record.stopped;
                out.members = {spec.name};
                const RepoBranch output{spec.name, spec.output_branch};
                for (std::string& name : dag.downstream({&output, 1}))
                  out.members.push_back(std::move(name));
                QANAT_ASSIGN_OR_RETURN(out.with, services_.versions->output_branch_transaction(
                                                     project, {spec.name, spec.output_branch},
                                                     spec.name, provenance_of(record)));
                if (!author.key.empty()) out.with.when(meta::key_present(author.key));
                out.with.when(meta::mod_revision_is(key, old_revision))
                    .put(key, encode(record))
                    .put(spec_key(project, spec.name, record.version), encode(draft.spec))
                    .put(dag_key(project), "");
                return out;
              })
          .status());
  if (existed) {
    if (auto controller = find(project, spec.name)) {
      controller->changed(record);
      remove_workers(old_group);
      if (!record.stopped) ensure_workers(controller);
    }
  } else {
    // Not undone when this fails: the pipeline exists, and a restart adopts it.
    QANAT_RETURN_IF_ERROR(adopt(project, {{spec.name, record}}));
  }
  if (!record.stopped) tell_waves_or_try_again(project);
  return PipelineChange{spec.name, record, draft.loaded.notes};
}

Result<std::vector<PipelineChange>> Pipelines::create(const std::string& project,
                                                      std::string_view text, const Author& author) {
  // It may pull images, for which nobody else shall wait. What can change meanwhile is looked at
  // again in put().
  QANAT_ASSIGN_OR_RETURN(auto drafts, check(project, text, false, author));
  MutexLock lock(change_mutex_);
  std::vector<PipelineChange> changes;
  for (Draft& draft : drafts) {
    const std::string name = draft.loaded.spec.name;
    auto change = put(project, std::move(draft), false, {}, author);
    if (!change.ok()) return change.status().with_context(str_cat("pipeline ", name));
    changes.push_back(*std::move(change));
  }
  return changes;
}

Result<std::vector<PipelineChange>> Pipelines::update(const std::string& project,
                                                      std::string_view text,
                                                      const UpdateFlags& flags,
                                                      const Author& author) {
  if (flags.reprocess && flags.keep_results)
    return invalid_argument("--reprocess and --keep-results contradict each other");
  QANAT_ASSIGN_OR_RETURN(auto drafts, check(project, text, true, author));  // as in create()
  MutexLock lock(change_mutex_);
  std::vector<PipelineChange> changes;
  for (Draft& draft : drafts) {
    const std::string name = draft.loaded.spec.name;
    auto change = put(project, std::move(draft), true, flags, author);
    if (!change.ok()) return change.status().with_context(str_cat("pipeline ", name));
    changes.push_back(*std::move(change));
  }
  return changes;
}

// ---- Starting, stopping, deleting ----

Status Pipelines::change(const std::string& project, const std::string& name, bool wave,
                         const std::function<Status(PipelineRecord&)>& edit) {
  PipelineRecord record;
  QANAT_RETURN_IF_ERROR(
      services_.versions
          ->start_wave(project,
                       [&](int64_t revision) -> Result<version::WaveDraft> {
                         QANAT_ASSIGN_OR_RETURN(auto all, records(project, revision));
                         const auto found = all.find(name);
                         if (found == all.end())
                           return not_found(str_cat("there is no pipeline ", name),
                                            "`qanat list pipeline` shows the pipelines there are");
                         record = found->second.record;
                         const int64_t old_revision = found->second.revision;
                         QANAT_RETURN_IF_ERROR(edit(record));
                         found->second.record = record;
                         version::WaveDraft out;
                         out.cause = version::WaveCause::kPipeline;
                         out.needs_wave = wave;
                         if (wave) {
                           QANAT_ASSIGN_OR_RETURN(const Dag dag, make_dag(all, false));
                           out.members = {name};
                           const RepoBranch output{name, record.output_branch};
                           for (std::string& member : dag.downstream({&output, 1}))
                             out.members.push_back(std::move(member));
                         }
                         const std::string key = pipeline_key(project, name);
                         out.with.when(meta::mod_revision_is(key, old_revision))
                             .put(key, encode(record))
                             .put(dag_key(project), "");
                         out.with.may_use_reserve =
                             true;  // stopping must be possible when the disk is full
                         return out;
                       })
          .status());
  const auto controller = find(project, name);
  if (!controller) return ok_status();
  controller->changed(record);
  if (record.stopped) {
    remove_workers(controller->group());
  } else {
    ensure_workers(controller);
  }
  if (wave) tell_waves_or_try_again(project);
  return ok_status();
}

Status Pipelines::start_pipeline(const std::string& project, const std::string& name) {
  MutexLock lock(change_mutex_);
  return change(project, name, true, [&](PipelineRecord& record) -> Status {
    if (!record.stopped) return failed_precondition(str_cat("pipeline ", name, " is not stopped"));
    if (record.rights.empty()) {
      return failed_precondition(
          str_cat("pipeline ", name, " has lost its rights: ", record.reason),
          "update it with a token that has them: `qanat update pipeline -f SPEC`");
    }
    record.stopped = false;
    record.reason.clear();
    return ok_status();
  });
}

Status Pipelines::stop_pipeline(const std::string& project, const std::string& name,
                                const std::string& reason) {
  MutexLock lock(change_mutex_);
  return change(project, name, false, [&](PipelineRecord& record) -> Status {
    if (record.stopped)
      return failed_precondition(str_cat("pipeline ", name, " is stopped already"));
    record.stopped = true;
    record.reason = reason;
    return ok_status();
  });
}

Status Pipelines::delete_pipeline(const std::string& project, const std::string& name,
                                  bool keep_repo, bool force) {
  MutexLock lock(change_mutex_);
  QANAT_RETURN_IF_ERROR(
      services_.versions
          ->start_wave(
              project,
              [&](int64_t revision) -> Result<version::WaveDraft> {
                QANAT_ASSIGN_OR_RETURN(auto all, records(project, revision));
                const auto found = all.find(name);
                if (found == all.end())
                  return not_found(str_cat("there is no pipeline ", name),
                                   "`qanat list pipeline` shows the pipelines there are");
                QANAT_ASSIGN_OR_RETURN(const Dag dag, make_dag(all, true));
                const auto readers = dag.readers(name);
                if (!readers.empty() && !force) {
                  return failed_precondition(
                      str_cat("pipeline ", name, " cannot be deleted: its output is read by ",
                              join(readers, ", ")),
                      "delete those first, or add --force");
                }
                if (!force && !keep_repo) {
                  // Also branches of users. Before anything is gone: the repo goes last.
                  QANAT_ASSIGN_OR_RETURN(const auto derived,
                                         services_.versions->derived_from({project, name}));
                  if (!derived.empty()) {
                    return failed_precondition(
                        str_cat("pipeline ", name, " cannot be deleted: ", join(derived, ", "),
                                derived.size() == 1 ? " derives" : " derive", " from its output"),
                        "delete those first, keep the output with --keep-repo, or add --force");
                  }
                }
                version::WaveDraft out;
                out.needs_wave = false;
                const std::string key = pipeline_key(project, name);
                out.with.may_use_reserve = true;  // it removes
                out.with.when(meta::mod_revision_is(key, found->second.revision))
                    .erase(key)
                    .add(meta::erase_range(meta::KeyRange::prefix(specs_prefix(project, name))))
                    .add(meta::erase_range(meta::KeyRange::prefix(jobs_prefix(project, name))))
                    .put(dag_key(project), "");
                return out;
              })
          .status());
  std::shared_ptr<Controller> controller;
  {
    MutexLock map_lock(mutex_);
    auto& controllers = controllers_[project];
    const auto found = controllers.find(name);
    if (found != controllers.end()) {
      controller = found->second;
      controllers.erase(found);
    }
  }
  if (controller) {
    controller->remove();
    remove_workers(controller->group());
    controller->shut_down();
    if (const auto run = controller->running()) services_.logs->forget(project, name, run->id());
  }
  job_ended(project);
  return keep_repo ? services_.versions->release_repo({project, name}, name)
                   : services_.versions->delete_repo({project, name}, force, name);
}

Result<std::vector<std::string>> Pipelines::withdraw(const std::string& token) {
  return withdraw_if([&](const std::string& name) -> Result<bool> { return name == token; });
}

Result<std::vector<std::string>> Pipelines::withdraw_lost(
    const std::function<Result<bool>(const std::string& token)>& exists) {
  return withdraw_if([&](const std::string& name) -> Result<bool> {
    QANAT_ASSIGN_OR_RETURN(const bool there, exists(name));
    return !there;
  });
}

// By the records, not by the controllers: what is not running yet must not begin, either.
Result<std::vector<std::string>> Pipelines::withdraw_if(
    const std::function<Result<bool>(const std::string& token)>& is_gone) {
  MutexLock lock(change_mutex_);
  std::vector<std::string> stopped;
  std::map<std::string, bool> gone;
  QANAT_ASSIGN_OR_RETURN(
      const meta::RangeResult projects,
      services_.meta->range(meta::KeyRange::prefix(kProjects), {.keys_only = true}));
  for (const meta::KeyValue& item : projects.items) {
    const std::string project = item.key.substr(kProjects.size());
    QANAT_ASSIGN_OR_RETURN(const auto all, records(project));
    for (const auto& [name, found] : all) {
      std::string token;
      for (const GrantedRight& right : found.record.rights) {
        if (!gone.contains(right.granted_by)) {
          QANAT_ASSIGN_OR_RETURN(gone[right.granted_by], is_gone(right.granted_by));
        }
        if (gone[right.granted_by]) token = right.granted_by;
      }
      if (token.empty()) continue;
      QANAT_RETURN_IF_ERROR(change(project, name, false, [&](PipelineRecord& record) -> Status {
        std::erase_if(record.rights, [&](const GrantedRight& r) { return r.granted_by == token; });
        record.withdrawn = record.withdrawn || !record.stopped;
        record.stopped = true;
        record.reason =
            str_cat("its rights were withdrawn: the token ", token,
                    ", which granted them, was deleted; update it with a token that has them");
        return ok_status();
      }));
      stopped.push_back(name);
    }
  }
  return stopped;
}

Status Pipelines::release_if_orphan(const std::string& project, const std::string& repo) {
  MutexLock lock(change_mutex_);
  QANAT_ASSIGN_OR_RETURN(const auto info, services_.versions->inspect_repo({project, repo}));
  const std::string& owner = info.record.pipeline;
  if (owner.empty()) return ok_status();
  const auto pipeline = stored(project, owner);
  if (pipeline.ok()) return ok_status();
  if (pipeline.code() != Code::kNotFound) return pipeline.status();
  return services_.versions->release_repo({project, repo}, owner);
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
