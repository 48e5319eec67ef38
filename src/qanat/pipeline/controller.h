// Controller: takes one pipeline through its waves, one job after another.
//
// A row of steps, each of which may find that it has to wait; whatever could change that wakes the
// controller, and a step starts from what it finds (level triggered), so that no event can be lost.
// Steps of one controller never overlap; they run on a pool shared by all.
//
//   next wave -> inputs ended? -> plan -> run (see JobRun) -> fold -> one transaction ends the job
//   -> next wave
//
// The transaction that ends a job writes the output commit, moves the head, and moves the
// PipelineRecord's last wave: a controller that starts after a crash goes on at the first wave
// after that one, from the JobRecord if there is one already.
//
// Thread safe.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "qanat/base/thread_annotations.h"
#include "qanat/base/thread_pool.h"
#include "qanat/pipeline/compiled_spec.h"
#include "qanat/pipeline/fold.h"
#include "qanat/pipeline/job_run.h"
#include "qanat/pipeline/records.h"
#include "qanat/pipeline/services.h"

namespace qanat::pipeline {

// What controllers ask of their neighbours.
class ControllerPeers {
 public:
  virtual ~ControllerPeers() = default;
  // Whether `pipeline` has still to end a job of a wave up to `wave`. False for a pipeline that is
  // not there.
  virtual bool has_unfinished(const std::string& project, const std::string& pipeline,
                              int64_t wave) = 0;
  // A job ended, or a pipeline's work changed: whoever waits may look again.
  virtual void job_ended(const std::string& project) = 0;
  // Datums are to be had.
  virtual void work_available(const WorkerGroupId& group) = 0;
};

class Controller : public std::enable_shared_from_this<Controller> {
 public:
  Controller(const Services& services, ControllerPeers& peers, ThreadPool& pool,
             std::string project, std::string name, PipelineRecord record);

  const std::string& project() const { return project_; }
  const std::string& name() const { return name_; }

  // A wave that this pipeline is a member of; one that was added before, or is ended, is ignored.
  void add_wave(int64_t number, const std::string& id);
  // Every wave up to this one has been added. If none of them waits, and the last job was long ago,
  // the record says that they are ended, so that nobody looks through them again.
  void note_idle(int64_t wave);
  // All waves that were started before now have been added: work may begin.
  void set_loaded();
  // The pipeline's record changed: another spec version, stopped, started, or deleted. A running
  // job is given up: killed when the pipeline stopped or is deleted, else begun again with the new
  // spec.
  void changed(const PipelineRecord& record);
  void remove();
  void wake();
  // Ends all activity; waits for a step in progress.
  void shut_down();

  PipelineRecord record() const;
  WorkerGroupId group() const;
  std::shared_ptr<const CompiledSpec> spec()
      const;  // of the version in force; null until it is loaded
  std::shared_ptr<JobRun> running() const;
  bool has_unfinished(int64_t wave) const;
  struct Waiting {
    int64_t wave = 0;
    std::string id;
  };
  std::vector<Waiting> waiting() const;
  // What keeps it from going on, for people; "" when nothing does.
  std::string trouble() const;
  void set_trouble(std::string text);
  // Trouble with having workers: over once one of them asks for work.
  void set_worker_trouble(std::string text);
  void worker_seen();

  // Kills the job with this id, whether it runs or waits; durable when it returns.
  // kFailedPrecondition if the job has ended.
  Status stop_job(const std::string& id);
  void tick();

 private:
  void step();
  // One step forward. False: nothing can be done now.
  Result<bool> advance();
  // The job that the next one builds on may have been dropped with its commit.
  Status read_base();
  Result<bool> begin(const Waiting& next, const std::shared_ptr<const CompiledSpec>& spec);
  // Goes on after a job that meta says has ended.
  void adopt_end(const JobRecord& job);
  struct Inputs {
    bool ready = false;
    std::vector<JobInput> inputs;
    InputRoots roots;
    std::string failed;  // why the job cannot run
  };
  Result<Inputs> resolve_inputs(const CompiledSpec& spec, int64_t wave) const;
  // `is_output`: the branch is a pipeline's output.
  Status resolve_input(const InputShape::Arm& arm, bool is_output, int64_t wave,
                       Inputs& inputs) const;
  Status plan_and_start(std::shared_ptr<const CompiledSpec> spec, const Waiting& next,
                        Inputs inputs);
  Status start_run(const std::shared_ptr<const CompiledSpec>& spec, JobRecord record,
                   int64_t revision, bool resumed);
  Status finish(JobRun& run);
  // What datums had printed that were under way when their job was killed, as far as it is at hand.
  Status keep_cut_logs(const JobRun& run, content::BlobWriter& writer, Folder& folder) const;
  // Whether results of version `base_version` are accepted as those of `spec`, a later one.
  Result<bool> keeps_results_of(int64_t base_version, SpecRecord spec) const;
  // Makes the results of a job that was begun with another spec reusable.
  Status keep_results(const JobRecord& record, const CompiledSpec& spec);
  // Ends a job without running it.
  Status end_unrun(const Waiting& next, const CompiledSpec& spec, JobState state,
                   const std::string& reason, std::vector<JobInput> inputs);
  Status stop_waiting_job(const Waiting& job);
  struct Ending {
    JobRecord record;
    content::TreeRoot root;               // of the output commit
    std::optional<int64_t> job_revision;  // nothing: the record is new
  };
  // "repo@commit" of an input that is there no more; "" if all are.
  Result<std::string> missing_input(const JobRecord& job) const;
  // kConflict if the pipeline has another version by now; the change is taken up.
  Status check_in_force(const CompiledSpec& spec, const PipelineRecord& stored);
  Status commit_end(Ending ending, const CompiledSpec& spec, content::ContentWriter* writer,
                    std::vector<content::SegmentRegistration> segments);
  Result<std::vector<content::SegmentRegistration>> write_results(content::ContentStore& content,
                                                                  const Hash& journal,
                                                                  const CompiledSpec& spec);
  Result<bool> is_stored_as_stopped() const;
  Result<std::optional<JobRecord>> job_at(int64_t wave, int64_t* revision = nullptr) const;

  const Services services_;
  ControllerPeers& peers_;
  ThreadPool& pool_;
  const std::string project_;
  const std::string name_;

  std::atomic<int> wakes_{0};
  Mutex step_mutex_;  // held by the step in progress

  mutable Mutex mutex_;
  PipelineRecord record_ GUARDED_BY(mutex_);
  std::shared_ptr<const CompiledSpec> spec_ GUARDED_BY(mutex_);
  std::deque<Waiting> waves_ GUARDED_BY(mutex_);  // ascending; the first is the one worked on
  bool loaded_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<JobRun> run_ GUARDED_BY(mutex_);
  std::shared_ptr<const CompiledSpec> run_spec_ GUARDED_BY(mutex_);
  std::string trouble_ GUARDED_BY(mutex_);
  std::string worker_trouble_ GUARDED_BY(mutex_);
  int64_t retry_at_ms_ GUARDED_BY(mutex_) = 0;  // monotonic; after an error
  int64_t retry_delay_ms_ GUARDED_BY(mutex_) = 0;
  bool removed_ GUARDED_BY(mutex_) = false;
  bool shut_down_ GUARDED_BY(mutex_) = false;
};

}  // namespace qanat::pipeline
