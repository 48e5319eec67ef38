// Pipelines: all pipelines of a server. Creates, changes and deletes them, and keeps a Controller
// and a group of workers for each.
//
// What is wanted lies in meta (PipelineRecord, SpecRecord); controllers and workers follow from it
// and are made again at a start. A change is one transaction that also starts the wave in which it
// takes effect; losing a race against another change means checking and computing anew.
//
// Rights. A pipeline acts with rights of its own (PipelineRecord::rights), granted from those of
// the token it was created or last updated with. When that token is deleted they are withdrawn, and
// the pipeline stops and says so. (A token that expires withdraws nothing: it is a person's or a
// program's way in for a time, and what they have set up goes on.)
//
// Thread safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "qanat/api/pipeline_spec.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/base/thread_pool.h"
#include "qanat/pipeline/controller.h"
#include "qanat/pipeline/dag.h"
#include "qanat/pipeline/services.h"
#include "qanat/pipeline/worker_hub.h"

namespace qanat::pipeline {

// Who asks: the token's name, and whether it has a right ("reader:orders", "operator:clean",
// "network-host").
struct Author {
  std::string token;
  std::function<bool(std::string_view scope)> may;
  // A key that is in meta as long as the token is: a right is granted only while it is there. "":
  // not compared.
  std::string key = {};
};

struct UpdateFlags {
  bool reprocess = false;
  bool keep_results = false;
};

struct PipelineChange {
  std::string name;
  PipelineRecord record;
  std::vector<api::FieldNote> notes;  // reported fields
};

class Pipelines : public version::DagView, private ControllerPeers {
 public:
  // Loads every pipeline of every project, adopts or starts their workers, and goes on with
  // unfinished waves. Registers itself as the DAG of services.versions.
  static Result<std::unique_ptr<Pipelines>> start(const Services& services);
  ~Pipelines() override;

  // A project was created: its waves are followed from now on.
  Status add_project(const std::string& project);

  // Specs of a text; those whose output others read come first. Everything that can be checked is
  // checked for all of them before the first is created; each is then created in a transaction of
  // its own. Errors name the spec.
  Result<std::vector<PipelineChange>> create(const std::string& project, std::string_view text,
                                             const Author& author);
  // The same for specs that may exist.
  Result<std::vector<PipelineChange>> update(const std::string& project, std::string_view text,
                                             const UpdateFlags& flags, const Author& author);
  Status start_pipeline(const std::string& project, const std::string& name);
  Status stop_pipeline(const std::string& project, const std::string& name,
                       const std::string& reason = "stopped by a user");
  Status delete_pipeline(const std::string& project, const std::string& name, bool keep_repo,
                         bool force);
  // A token was deleted: stops the pipelines that act with rights granted by it, and gives their
  // names.
  Result<std::vector<std::string>> withdraw(const std::string& token);
  // The same for every token that is not there: for a server that died between the two deletions.
  Result<std::vector<std::string>> withdraw_lost(
      const std::function<Result<bool>(const std::string& token)>& exists);

  // A repo that came back from the trash without the pipeline that owned it becomes a user's.
  Status release_if_orphan(const std::string& project, const std::string& repo);

  // Tells controllers of the waves that they have not been told of. That happens by itself, soon;
  // who asks what a change of his own has led to calls this first.
  Status tell_waves(const std::string& project);

  // The controllers of a project, by name; null for one that is not there.
  std::vector<std::shared_ptr<Controller>> list(const std::string& project) const;
  std::shared_ptr<Controller> find(const std::string& project, const std::string& name) const;

  WorkerHub& hub() { return *hub_; }
  const Services& services() const { return services_; }

  // version::DagView
  Result<std::vector<std::string>> downstream(std::string_view project,
                                              const std::vector<version::BranchName>& changed,
                                              int64_t revision) override;

 private:
  struct Stored {
    PipelineRecord record;
    int64_t revision = 0;
  };

  explicit Pipelines(const Services& services);
  Status load();
  Status load_project(const std::string& project);
  Status watch_project(const std::string& project);
  // A pipeline's repo outlives it if the server died while deleting both: it becomes a user's.
  Status release_orphans(const std::string& project,
                         const std::map<std::string, Stored>& pipelines);

  // One spec to be created or updated, checked.
  struct Draft {
    api::LoadedSpec loaded;
    SpecRecord spec;
    ImageInfo image;
  };
  Result<std::vector<Draft>> check(const std::string& project, std::string_view text,
                                   bool may_exist, const Author& author);
  Status check_one(const std::string& project, Draft& draft, const std::vector<Draft>& before,
                   bool may_exist, const Author& author);
  Status prepare(const std::string& project, Draft& draft, const UpdateFlags& flags,
                 const std::string& token);
  Result<PipelineChange> put(const std::string& project, Draft draft, bool may_exist,
                             const UpdateFlags& flags, const Author& author);
  Result<std::map<std::string, Stored>> records(std::string_view project,
                                                int64_t revision = 0) const;
  Result<Stored> stored(std::string_view project, std::string_view name) const;
  static Result<Dag> make_dag(const std::map<std::string, Stored>& records, bool with_stopped);
  // Changes a record by compare-and-swap; with a wave of the pipeline and everything downstream if
  // `wave`.
  Status change(const std::string& project, const std::string& name, bool wave,
                const std::function<Status(PipelineRecord&)>& edit);

  Result<std::vector<std::string>> withdraw_if(
      const std::function<Result<bool>(const std::string& token)>& is_gone);

  // Makes the controllers of pipelines, with their workers and the waves they have still to do.
  Status adopt(const std::string& project, const std::map<std::string, PipelineRecord>& pipelines);
  void ensure_workers(const std::shared_ptr<Controller>& controller);
  Status try_ensure_workers(const std::shared_ptr<Controller>& controller);
  // What failed and is tried again now and then: workers that could not be asked for, waves that
  // are not seen any more.
  void try_again();
  void remove_workers(const WorkerGroupId& group);
  void on_worker_event(const WorkerEvent& event);
  void tell_waves_or_try_again(const std::string& project);

  bool has_unfinished(const std::string& project, const std::string& pipeline,
                      int64_t wave) override;
  void job_ended(const std::string& project) override;
  void work_available(const WorkerGroupId& group) override;
  void tick_until_stopped();

  Later later_;
  const Services services_;
  ThreadPool pool_;
  std::shared_ptr<WorkerHub> hub_;
  Mutex change_mutex_;  // one change of the DAG at a time in this process; never held by readers
  Mutex waves_mutex_;   // held while controllers are told of waves
  std::map<std::string, int64_t> told_
      GUARDED_BY(waves_mutex_);  // project -> every wave up to this one has been told
  // Project -> the wave at which controllers without work were last told so.
  std::map<std::string, int64_t> told_idle_ GUARDED_BY(waves_mutex_);

  mutable Mutex mutex_ ACQUIRED_AFTER(waves_mutex_);
  std::map<std::string, std::map<std::string, std::shared_ptr<Controller>>> controllers_
      GUARDED_BY(mutex_);  // project -> name
  struct CachedDag {
    int64_t revision = -1;  // mod revision of dag_key
    std::shared_ptr<const Dag> dag;
  };
  std::map<std::string, CachedDag, std::less<>> dags_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::weak_ptr<Controller>> without_workers_ GUARDED_BY(mutex_);
  std::vector<std::string> unwatched_ GUARDED_BY(mutex_);  // projects
  std::vector<std::string> untold_ GUARDED_BY(mutex_);     // projects
  CondVar wake_;
  std::vector<std::unique_ptr<meta::Watch>> watches_;
  std::thread ticker_;
};

}  // namespace qanat::pipeline
