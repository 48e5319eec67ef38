// Waves, and waiting for them.
//
// A stream of events holds no thread: a watch on meta tells that something moved, and a thread of
// State::events looks and sends.

#include <algorithm>
#include <optional>
#include <set>

#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/http_api.h"

namespace qanat::serve {
namespace {

constexpr int64_t kTroubleMs = 1000;

// Leaves out what the caller may not see.
void redact(const Caller& caller, const std::string& project, api::WaveInfo& wave) {
  std::erase_if(wave.changed,
                [&](const api::CommitRef& c) { return !caller.may_read(project, c.repo); });
  std::erase_if(wave.pipelines,
                [&](const std::string& name) { return !caller.may_observe(project, name); });
}

// How much of a wave is wanted: whether it is finished or failed, its jobs too, its commits too.
enum class Look { kState, kJobs, kAll };

// What of a wave is meant.
struct Scope {
  std::string repo;                 // "": the whole wave
  std::set<std::string> pipelines;  // what lies downstream of `repo`; its own pipeline among it

  bool has(const std::string& pipeline) const {
    return repo.empty() || pipelines.contains(pipeline);
  }
};

// Nothing if the wave neither moved a head of `repo` nor runs its pipeline.
Result<std::optional<Scope>> downstream_in(State& state, const std::string& project,
                                           const version::WaveInfo& wave, const std::string& repo) {
  Scope scope{repo, {}};
  std::set<std::pair<std::string, std::string>> branches;
  for (const version::HeadChange& change : wave.record.changed) {
    if (change.branch.repo == repo) branches.emplace(change.branch.repo, change.branch.branch);
  }
  bool is_in = !branches.empty();
  for (const std::string& member : wave.record.members) {  // upstream first
    const std::string key = pipeline::pipeline_key(project, member);
    QANAT_ASSIGN_OR_RETURN(const auto found, state.meta->get(key));
    if (!found) continue;
    QANAT_ASSIGN_OR_RETURN(const auto record,
                           pipeline::decode<pipeline::PipelineRecord>(key, found->value));
    const bool reads = std::any_of(record.inputs.begin(), record.inputs.end(),
                                   [&](const pipeline::InputBranch& input) {
                                     return branches.contains({input.repo, input.branch});
                                   });
    if (member != repo && !reads) continue;
    is_in = true;
    scope.pipelines.insert(member);
    branches.emplace(member, record.output_branch);
  }
  if (!is_in) return std::optional<Scope>();
  return std::optional<Scope>(std::move(scope));
}

// What has become of a wave. A pipeline that was deleted since has no job in it any more; nor has
// one whose job was taken out with its commit, or that was created under the name of a deleted one.
Result<api::WaveInfo> look_at(State& state, const std::string& project,
                              const version::WaveInfo& wave, Look look, const Scope& scope = {}) {
  api::WaveInfo info = show(project, wave);
  std::erase_if(info.pipelines, [&](const std::string& name) { return !scope.has(name); });
  info.finished = true;
  for (const std::string& member : info.pipelines) {
    const std::string key = pipeline::job_key(project, member, wave.number);
    QANAT_ASSIGN_OR_RETURN(auto found, state.meta->get(key));
    bool waits = false;
    if (!found) {
      // Meta's word, not the controller's: one that is being created has no controller for a
      // moment, and one that was deleted may still have one.
      const std::string pipeline = pipeline::pipeline_key(project, member);
      QANAT_ASSIGN_OR_RETURN(const auto there, state.meta->get(pipeline));
      if (there) {
        QANAT_ASSIGN_OR_RETURN(const auto record,
                               pipeline::decode<pipeline::PipelineRecord>(pipeline, there->value));
        waits = record.last_wave < wave.number;
        if (!waits) {
          QANAT_ASSIGN_OR_RETURN(found, state.meta->get(key));  // it may have ended in between
        }
      }
    }
    const auto controller = look == Look::kState ? nullptr : state.pipelines->find(project, member);
    if (found) {
      QANAT_ASSIGN_OR_RETURN(const auto record,
                             pipeline::decode<pipeline::JobRecord>(key, found->value));
      if (!is_final(record.state)) info.finished = false;
      if (is_final(record.state) && record.state != api::JobState::kSuccess) info.failed = true;
      if (look != Look::kState)
        info.jobs.push_back(show_job(state, project, member, record, controller.get()));
    } else if (waits) {
      info.finished = false;
      if (controller) info.jobs.push_back(show_waiting(*controller, {wave.number, wave.record.id}));
    }
  }
  if (look == Look::kAll) {
    QANAT_ASSIGN_OR_RETURN(const auto commits, state.versions->commits_of_wave(project, wave));
    for (const version::CommitInfo& commit : commits) {
      if (scope.has(commit.repo) || commit.repo == scope.repo) info.commits.push_back(show(commit));
    }
  }
  return info;
}

void redact_all(const Caller& caller, const std::string& project, api::WaveInfo& wave) {
  redact(caller, project, wave);
  std::erase_if(wave.jobs,
                [&](const api::JobInfo& j) { return !caller.may_observe(project, j.pipeline); });
  std::erase_if(wave.commits,
                [&](const api::CommitInfo& c) { return !caller.may_read(project, c.repo); });
}

Status list_waves(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto request, call.page());
  QANAT_ASSIGN_OR_RETURN(const auto page, call.state.versions->list_waves(call.project(), request));
  api::List<api::WaveInfo> list;
  list.next = page.next;
  list.revision = page.revision;
  for (const version::WaveInfo& wave : page.items) {
    if (!may_see(call.caller(), call.project(), wave)) continue;
    QANAT_ASSIGN_OR_RETURN(api::WaveInfo info,
                           look_at(call.state, call.project(), wave, Look::kState));
    redact(call.caller(), call.project(), info);
    list.items.push_back(std::move(info));
  }
  return call.answer(list);
}

Result<version::WaveInfo> wave_of(Call& call) {
  const std::string id = call.path("wave");
  if (!is_id(id))
    return invalid_argument(str_cat(quoted(id), " is not the id of a wave"),
                            "it has 32 hex digits; `qanat list commit` shows them");
  return find_wave(call.state, call.caller(), call.project(), id);
}

Status inspect_wave(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto wave, wave_of(call));
  QANAT_ASSIGN_OR_RETURN(api::WaveInfo info, look_at(call.state, call.project(), wave, Look::kAll));
  redact_all(call.caller(), call.project(), info);
  return call.answer(info);
}

// What is waited for.
struct Awaited {
  version::WaveInfo wave;
  Scope scope;
  std::optional<api::JobInfo> job;  // the one that was named, if one was
};

// Tells a stream about the jobs of a wave, or of what of it is meant, until all have ended. One
// that was seen and then went without an end (its pipeline was deleted, say) is told as killed: who
// waits for it is not to take that for a success. Owns itself through the callbacks that refer to
// it.
class WaveWait : public std::enable_shared_from_this<WaveWait> {
 public:
  WaveWait(State& state, std::string project, Awaited awaited, std::shared_ptr<const Caller> caller,
           std::shared_ptr<net::EventStream> stream)
      : state_(state),
        project_(std::move(project)),
        wave_(std::move(awaited.wave)),
        scope_(std::move(awaited.scope)),
        caller_(std::move(caller)),
        stream_(std::move(stream)) {
    if (awaited.job && !is_final(awaited.job->state))
      unfinished_[awaited.job->pipeline] = *std::move(awaited.job);
  }

  Status begin() {
    const std::string suffix = "/" + to_hex16(static_cast<uint64_t>(wave_.number));
    auto self = shared_from_this();
    auto on_change = [weak = weak_from_this(), suffix](const meta::WatchBatch& batch) {
      const auto wait = weak.lock();
      if (!wait) return;
      if (!batch.status.ok()) {
        wait->stream_->close();
        return;
      }
      for (const meta::Event& event : batch.events) {
        if (event.item.key.ends_with(suffix) || event.deleted) {
          wait->look_soon();
          return;
        }
      }
    };
    QANAT_ASSIGN_OR_RETURN(
        auto jobs,
        state_.meta->watch(meta::KeyRange::prefix(pipeline::jobs_prefix(project_)), 0, on_change));
    QANAT_ASSIGN_OR_RETURN(
        auto pipelines,
        state_.meta->watch(meta::KeyRange::prefix(pipeline::pipelines_prefix(project_)), 0,
                           on_change));
    {
      MutexLock lock(mutex_);
      watches_.push_back(std::move(jobs));
      watches_.push_back(std::move(pipelines));
    }
    // Until the stream ends, it keeps this alive; then the watches go, on a thread that may wait
    // for them.
    stream_->on_closed([self]() mutable {
      auto* events = self->state_.events;
      events->submit([self = std::move(self)] { self->end(); });
    });
    look_soon();
    watch_troubles();
    return ok_status();
  }

 private:
  void look_soon() {
    if (looking_.exchange(true)) return;
    if (!state_.events->try_submit([self = shared_from_this()] { self->look(); })) looking_ = false;
  }

  // What keeps jobs from going on is in no record: it is looked for now and then.
  void watch_troubles() {
    state_.pipelines->services().later->run_at(state_.clock->monotonic_ms() + kTroubleMs,
                                               [weak = weak_from_this()] {
                                                 const auto wait = weak.lock();
                                                 if (!wait || wait->stream_->closed()) return;
                                                 if (wait->troubles_changed()) wait->look_soon();
                                                 wait->watch_troubles();
                                               });
  }

  bool troubles_changed() {
    MutexLock lock(mutex_);
    std::string troubles;
    for (const auto& [name, job] : unfinished_) {
      const auto controller = state_.pipelines->find(project_, name);
      if (controller) str_append(troubles, name, ": ", controller->trouble(), "\n");
    }
    if (troubles == troubles_) return false;
    troubles_ = std::move(troubles);
    return true;
  }

  // Adds the jobs that went without an end.
  Status add_lost(api::WaveInfo& wave) REQUIRES(mutex_) {
    for (auto& [name, job] : unfinished_) {
      const auto same = [&](const api::JobInfo& j) { return j.pipeline == name; };
      if (std::any_of(wave.jobs.begin(), wave.jobs.end(), same)) continue;
      QANAT_ASSIGN_OR_RETURN(const auto there,
                             state_.meta->get(pipeline::pipeline_key(project_, name)));
      job.state = api::JobState::kKilled;
      job.reason = there ? "its commit was squashed or dropped before it ended"
                         : str_cat("pipeline ", name, " was deleted before it ended");
      wave.jobs.push_back(job);
      wave.failed = true;
    }
    return ok_status();
  }

  void look() {
    looking_ = false;
    MutexLock lock(mutex_);
    if (ended_) return;
    auto info = look_at(state_, project_, wave_, Look::kJobs, scope_);
    if (!info.ok()) {
      log_warning("a wave cannot be looked at",
                  {{"wave", wave_.record.id}, {"error", info.status()}});
      (void)begun(*stream_, info.status());
      return;
    }
    if (first_) {
      first_ = false;
      api::ChangeEvent event;
      event.type = "wave";
      event.wave = *info;
      event.wave->jobs.clear();
      redact(*caller_, project_, *event.wave);
      (void)stream_->send({"wave", api::json_text(event), ""});
    }
    for (const api::JobInfo& job : info->jobs) {
      if (is_final(job.state)) {
        unfinished_.erase(job.pipeline);
      } else {
        unfinished_[job.pipeline] = job;
      }
      if (!caller_->may_observe(project_, job.pipeline)) continue;
      std::string shown = str_cat(api::enum_name(job.state), job.datums.processed, "/",
                                  job.datums.failed, "/", job.datums.total, " ", job.reason);
      if (shown == shown_[job.pipeline]) continue;
      shown_[job.pipeline] = std::move(shown);
      api::ChangeEvent event;
      event.type = "job";
      event.job = job;
      (void)stream_->send({"job", api::json_text(event), ""});
    }
    if (!info->finished) return;
    auto whole = look_at(state_, project_, wave_, Look::kAll, scope_);
    const Status lost = whole.ok() ? add_lost(*whole) : whole.status();
    if (!lost.ok()) {
      (void)begun(*stream_, lost);
    } else {
      api::ChangeEvent event;
      event.type = "done";
      event.revision = state_.meta->current_revision();
      event.wave = *std::move(whole);
      redact_all(*caller_, project_, *event.wave);
      (void)stream_->send({"done", api::json_text(event), ""});
    }
    ended_ = true;
    stream_->close();
  }

  void end() {
    std::vector<std::unique_ptr<meta::Watch>> watches;
    {
      MutexLock lock(mutex_);
      ended_ = true;
      watches.swap(watches_);
    }
  }

  State& state_;
  const std::string project_;
  const version::WaveInfo wave_;
  const Scope scope_;
  const std::shared_ptr<const Caller> caller_;
  const std::shared_ptr<net::EventStream> stream_;
  std::atomic<bool> looking_{false};
  Mutex mutex_;
  bool first_ GUARDED_BY(mutex_) = true;
  bool ended_ GUARDED_BY(mutex_) = false;
  std::map<std::string, std::string> shown_ GUARDED_BY(mutex_);  // pipeline -> what was last told
  std::map<std::string, api::JobInfo> unfinished_ GUARDED_BY(mutex_);  // by pipeline, as last seen
  std::string troubles_ GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<meta::Watch>> watches_ GUARDED_BY(mutex_);
};

Status wait_for(Call& call, Awaited awaited) {
  const auto stream = call.stream();
  return begun(*stream, std::make_shared<WaveWait>(call.state, call.project(), std::move(awaited),
                                                   call.shared_caller(), stream)
                            ->begin());
}

Status wait_wave(Call& call) {
  Awaited awaited;
  QANAT_ASSIGN_OR_RETURN(awaited.wave, wave_of(call));
  if (const std::string repo = call.query_or("repo"); !repo.empty()) {
    if (!call.caller().may_read(call.project(), repo) &&
        !call.caller().may_observe(call.project(), repo))
      return denied(call.caller(), "reader:" + repo);
    QANAT_ASSIGN_OR_RETURN(auto scope,
                           downstream_in(call.state, call.project(), awaited.wave, repo));
    if (!scope)
      return not_found(
          str_cat("the wave ", awaited.wave.record.id, " has no commit of repo ", repo),
          "`qanat list commit " + awaited.wave.record.id + "` shows what it has");
    awaited.scope = *std::move(scope);
  }
  return wait_for(call, std::move(awaited));
}

Result<Awaited> await_job(State& state, const std::string& project, const std::string& pipeline,
                          const std::string& id) {
  // A job of a change that was acknowledged just now is there, though nobody was told of it yet.
  QANAT_RETURN_IF_ERROR(state.pipelines->tell_waves(project));
  Awaited awaited;
  QANAT_ASSIGN_OR_RETURN(awaited.job, find_job_info(state, project, pipeline, id));
  QANAT_ASSIGN_OR_RETURN(awaited.wave, state.versions->inspect_wave(project, id));
  QANAT_ASSIGN_OR_RETURN(auto scope, downstream_in(state, project, awaited.wave, pipeline));
  awaited.scope = scope ? *std::move(scope) : Scope{pipeline, {pipeline}};
  return awaited;
}

Status wait_job(Call& call) {
  QANAT_ASSIGN_OR_RETURN(
      auto awaited, await_job(call.state, call.project(), call.path("pipeline"), call.path("job")));
  return wait_for(call, std::move(awaited));
}

// The id of the newest job of a pipeline, ended or not; "" if it has had none.
Result<std::string> newest_job(State& state, const pipeline::Controller& controller) {
  QANAT_RETURN_IF_ERROR(state.pipelines->tell_waves(controller.project()));
  const auto waiting = controller.waiting();
  if (!waiting.empty()) return waiting.back().id;
  const std::string prefix = pipeline::jobs_prefix(controller.project(), controller.name());
  QANAT_ASSIGN_OR_RETURN(const auto jobs, state.meta->range(meta::KeyRange::prefix(prefix),
                                                            {.limit = 1, .descending = true}));
  if (jobs.items.empty()) return std::string();
  QANAT_ASSIGN_OR_RETURN(const auto record, pipeline::decode<pipeline::JobRecord>(
                                                jobs.items[0].key, jobs.items[0].value));
  return record.id;
}

// What to wait for at `repo@ref`: of a pipeline's repo the job that `ref` names, or the newest one,
// ended or not, for its output branch; else the commit's own wave. And what is downstream of that.
Result<Awaited> await_commit(Call& call) {
  const version::RepoName repo{call.project(), call.path("repo")};
  const std::string ref = call.path("ref");
  QANAT_ASSIGN_OR_RETURN(const auto info, call.state.versions->inspect_repo(repo));
  const std::string& pipeline = info.record.pipeline;
  const auto controller =
      pipeline.empty() ? nullptr : call.state.pipelines->find(repo.project, pipeline);
  if (controller && ref == controller->record().output_branch) {
    QANAT_ASSIGN_OR_RETURN(const std::string id, newest_job(call.state, *controller));
    if (!id.empty()) return await_job(call.state, repo.project, pipeline, id);
    return not_found(
        str_cat("pipeline ", pipeline, " has had no job yet"),
        controller->record().last_wave == 0 ? "it has one once its inputs have a commit" : "");
  }
  if (controller && is_id(ref)) {
    // Its commit comes with its end.
    auto job = await_job(call.state, repo.project, pipeline, ref);
    if (job.ok() || job.code() != Code::kNotFound) return job;
  }
  QANAT_ASSIGN_OR_RETURN(const auto commit, call.state.versions->resolve(repo, ref));
  if (!commit.record.finished())
    return failed_precondition(
        str_cat("commit ", commit.id, " is open: nothing can follow from it yet"),
        "finish it first");
  // The id of a commit is its wave's; but a head that was moved here started a wave of its own.
  if (commit.record.wave == 0) return not_found(str_cat("commit ", commit.id, " started no wave"));
  const auto branch = call.state.versions->inspect_branch(repo, ref);
  const int64_t number =
      branch.ok() ? std::max(branch->record.head_wave, commit.record.wave) : commit.record.wave;
  Awaited awaited;
  QANAT_ASSIGN_OR_RETURN(awaited.wave, call.state.versions->inspect_wave(repo.project, number));
  QANAT_ASSIGN_OR_RETURN(auto scope,
                         downstream_in(call.state, repo.project, awaited.wave, repo.repo));
  if (scope) awaited.scope = *std::move(scope);
  return awaited;
}

Status wait_commit(Call& call) {
  QANAT_ASSIGN_OR_RETURN(auto awaited, await_commit(call));
  return wait_for(call, std::move(awaited));
}

// ---- Everything as it happens ----

class EventFeed : public std::enable_shared_from_this<EventFeed> {
 public:
  EventFeed(State& state, std::string project, std::shared_ptr<const Caller> caller,
            std::shared_ptr<net::EventStream> stream)
      : state_(state),
        project_(std::move(project)),
        caller_(std::move(caller)),
        stream_(std::move(stream)) {}

  Status begin(int64_t from_revision) {
    auto self = shared_from_this();
    QANAT_ASSIGN_OR_RETURN(
        waves_, state_.versions->watch_waves(
                    project_, from_revision,
                    [weak = weak_from_this()](const Status& status, int64_t revision,
                                              const std::vector<version::WaveInfo>& waves) {
                      const auto feed = weak.lock();
                      if (!feed || !feed->usable(status)) return;
                      for (const version::WaveInfo& wave : waves) {
                        if (!may_see(*feed->caller_, feed->project_, wave)) continue;
                        api::ChangeEvent event;
                        event.type = "wave";
                        event.wave = show(feed->project_, wave);
                        redact(*feed->caller_, feed->project_, *event.wave);
                        feed->send(event, revision);
                      }
                    }));
    QANAT_ASSIGN_OR_RETURN(
        commits_, state_.versions->watch_commits(
                      {project_, ""}, from_revision,
                      [weak = weak_from_this()](const Status& status, int64_t revision,
                                                const std::vector<version::CommitInfo>& commits) {
                        const auto feed = weak.lock();
                        if (!feed || !feed->usable(status)) return;
                        for (const version::CommitInfo& commit : commits) {
                          if (!feed->caller_->may_read(commit.project, commit.repo)) continue;
                          api::ChangeEvent event;
                          event.type = "commit";
                          event.commit = show(commit);
                          feed->send(event, revision);
                        }
                      }));
    const std::string prefix = pipeline::jobs_prefix(project_);
    QANAT_ASSIGN_OR_RETURN(
        jobs_,
        state_.meta->watch(
            meta::KeyRange::prefix(prefix), from_revision,
            [weak = weak_from_this(), prefix](const meta::WatchBatch& batch) {
              const auto feed = weak.lock();
              if (!feed || !feed->usable(batch.status)) return;
              for (const meta::Event& change : batch.events) {
                if (change.deleted) continue;
                const std::string name(
                    split_once(std::string_view(change.item.key).substr(prefix.size()), '/').first);
                if (!feed->caller_->may_observe(feed->project_, name)) continue;
                const auto record =
                    pipeline::decode<pipeline::JobRecord>(change.item.key, change.item.value);
                if (!record.ok()) continue;
                api::ChangeEvent event;
                event.type = "job";
                event.job = show_job(feed->state_, feed->project_, name, *record, nullptr);
                feed->send(event, batch.revision);
              }
            }));
    stream_->on_closed([self]() mutable {
      auto* events = self->state_.events;
      events->submit([self = std::move(self)] { self->end(); });
    });
    return ok_status();
  }

 private:
  bool usable(const Status& status) {
    if (status.ok()) return true;
    stream_->close();
    return false;
  }
  void send(api::ChangeEvent& event, int64_t revision) {
    event.revision = revision;
    (void)stream_->send({event.type, api::json_text(event), std::to_string(revision)});
  }
  void end() {
    waves_.reset();
    commits_.reset();
    jobs_.reset();
  }

  State& state_;
  const std::string project_;
  const std::shared_ptr<const Caller> caller_;
  const std::shared_ptr<net::EventStream> stream_;
  std::unique_ptr<meta::Watch> waves_;
  std::unique_ptr<meta::Watch> commits_;
  std::unique_ptr<meta::Watch> jobs_;
};

Status events(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const uint64_t after, call.query().get_uint("revision", 0));
  const int64_t from = after == 0 ? 0 : static_cast<int64_t>(after) + 1;
  if (after != 0) {
    // One that is too old, or not there yet, is an answer of its own.
    QANAT_RETURN_IF_ERROR(
        call.state.meta
            ->range(meta::KeyRange::single("/v1/format"), {.revision = static_cast<int64_t>(after)})
            .status());
  }
  const auto stream = call.stream();
  return begun(*stream,
               std::make_shared<EventFeed>(call.state, call.project(), call.shared_caller(), stream)
                   ->begin(from));
}

}  // namespace

void add_wave_handlers(Handlers& handlers) {
  handlers["list_waves"] = list_waves;
  handlers["inspect_wave"] = inspect_wave;
  handlers["wait_wave"] = wait_wave;
  handlers["wait_job"] = wait_job;
  handlers["wait_commit"] = wait_commit;
  handlers["events"] = events;
}

}  // namespace qanat::serve
