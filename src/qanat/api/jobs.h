// Bodies about jobs, datums and waves.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "qanat/api/commits.h"
#include "qanat/api/describe.h"
#include "qanat/api/list.h"
#include "qanat/api/log_line.h"
#include "qanat/api/time.h"

namespace qanat::api {

enum class JobState {
  kCreated,
  kStarting,
  kRunning,
  kFinishing,
  kEgressing,
  kSuccess,
  kFailure,
  kKilled,
  kUnrunnable,
};
inline std::vector<EnumValue> enum_values(JobState) {
  return {{0, "CREATED"}, {1, "STARTING"}, {2, "RUNNING"}, {3, "FINISHING"}, {4, "EGRESSING"},
          {5, "SUCCESS"}, {6, "FAILURE"},  {7, "KILLED"},  {8, "UNRUNNABLE"}};
}
inline bool is_final(JobState state) { return state >= JobState::kSuccess; }

struct JobInput {
  std::string name;
  std::string repo;
  std::string branch;
  std::string commit;
};
template <class V>
void describe(V& v, JobInput& t) {
  v.type("JobInput", "One input of a job.");
  v.required("name", t.name, "Its name: the folder under /pfs.");
  v.required("repo", t.repo, "The repo.");
  v.required("branch", t.branch, "The branch.");
  v.optional("commit", t.commit,
             "The commit; absent when the branch has none or it is not known yet.");
}

struct DatumCounts {
  int64_t total = 0;
  int64_t waiting = 0;
  int64_t running = 0;
  int64_t processed = 0;
  int64_t skipped = 0;
  int64_t failed = 0;
  int64_t recovered = 0;
};
template <class V>
void describe(V& v, DatumCounts& t) {
  v.type("DatumCounts", "How many datums of a job are in which state.");
  v.required("total", t.total, "All.");
  v.required("waiting", t.waiting, "Not begun.");
  v.required("running", t.running, "With a worker.");
  v.required("processed", t.processed, "Run with success in this job.");
  v.required("skipped", t.skipped, "Not run, because an earlier result has the same key.");
  v.required("failed", t.failed, "Failed after all tries.");
  v.required("recovered", t.recovered, "Failed, and err_cmd succeeded: no output, no failure.");
}

struct JobInfo {
  std::string project;
  std::string pipeline;
  std::string id;
  JobState state = JobState::kCreated;
  std::string reason;
  int64_t pipeline_version = 0;
  std::string image_digest;
  Timestamp created;
  Timestamp started;
  Timestamp finished;
  std::vector<JobInput> inputs;
  std::string output_branch;
  std::string output_commit;
  DatumCounts datums;
  int64_t download_bytes = 0;
  int64_t upload_bytes = 0;
  int64_t restarts = 0;
  std::string parent_job;
  std::map<std::string, std::string> key_components;
  int64_t wave = 0;
};
template <class V>
void describe(V& v, JobInfo& t) {
  v.type("JobInfo", "One run of one pipeline for one wave.");
  v.optional("project", t.project, "Its project.");
  v.required("pipeline", t.pipeline, "Its pipeline.");
  v.required("id", t.id, "The id of its wave.");
  v.required("state", t.state, "CREATED waits for its inputs; the last four are final.");
  v.optional("reason", t.reason, "Why it failed, was killed, cannot run, or does not go on.");
  v.required("pipeline_version", t.pipeline_version, "Version of the spec it runs.");
  v.optional("image_digest", t.image_digest, "Config digest of its image.");
  v.required("created", t.created, "When its wave began.");
  v.optional("started", t.started, "When its inputs were ready.");
  v.optional("finished", t.finished, "When it ended.");
  v.required("inputs", t.inputs, "What it reads.");
  v.optional("output_branch", t.output_branch, "The branch its output goes to.");
  v.optional("output_commit", t.output_commit, "Its output, in the repo of the pipeline's name.");
  v.required("datums", t.datums, "Counts of its datums.");
  v.optional("download_bytes", t.download_bytes, "Bytes its workers read.");
  v.optional("upload_bytes", t.upload_bytes, "Bytes its workers wrote.");
  v.optional("restarts", t.restarts, "Datums begun again because their worker was lost.");
  v.optional("parent_job", t.parent_job, "The job whose results it starts from.");
  v.optional("key_components", t.key_components, "What enters the key of its results, by name.");
  v.optional("wave", t.wave, "Number of its wave.");
}

enum class DatumState { kStarting, kRunning, kSuccess, kSkipped, kFailed, kRecovered, kUnrun };
inline std::vector<EnumValue> enum_values(DatumState) {
  return {{0, "STARTING"}, {1, "RUNNING"},   {2, "SUCCESS"}, {3, "SKIPPED"},
          {4, "FAILED"},   {5, "RECOVERED"}, {6, "UNRUN"}};
}

struct DatumInputInfo {
  std::string name;
  std::string repo;
  std::string branch;
  std::string commit;
  std::string path;
  int64_t size_bytes = 0;
  std::string hash;
};
template <class V>
void describe(V& v, DatumInputInfo& t) {
  v.type("DatumInputInfo", "One input of a datum.");
  v.required("name", t.name, "The input's name.");
  v.required("repo", t.repo, "The repo.");
  v.optional("branch", t.branch, "The branch.");
  v.optional("commit", t.commit, "The commit.");
  v.required("path", t.path, "The path that its glob matched.");
  v.optional("size_bytes", t.size_bytes, "Bytes under that path.");
  v.optional("hash", t.hash, "Content id of what is there.");
}

struct DatumInfo {
  std::string id;
  std::string job;
  int64_t index = 0;
  DatumState state = DatumState::kStarting;
  std::vector<DatumInputInfo> inputs;
  std::string result_job;
  std::string worker;
  int64_t attempts = 0;
  Timestamp started;
  int64_t download_ms = 0;
  int64_t process_ms = 0;
  int64_t upload_ms = 0;
  int64_t download_bytes = 0;
  int64_t upload_bytes = 0;
  int64_t exit_code = 0;
  std::string message;
  std::string key;
  std::string reason;
};
template <class V>
void describe(V& v, DatumInfo& t) {
  v.type("DatumInfo",
         "What one combination of input matches gave to one run of the user's command.");
  v.required("id", t.id, "64 hex digits, a function of its inputs' names and paths.");
  v.required("job", t.job, "The job.");
  v.optional("index", t.index, "Its place in the order of the job's datums, from 0.");
  v.required("state", t.state,
             "Its state in this job; UNRUN: the job was killed before it was done.");
  v.required("inputs", t.inputs, "What it reads.");
  v.optional("result_job", t.result_job, "The job that computed its result, for a skipped one.");
  v.optional("worker", t.worker, "The worker that ran or runs it.");
  v.optional("attempts", t.attempts, "Runs of the command.");
  v.optional("started", t.started, "When its last attempt began.");
  v.optional("download_ms", t.download_ms, "Time to bring the inputs.");
  v.optional("process_ms", t.process_ms, "Time the command ran.");
  v.optional("upload_ms", t.upload_ms, "Time to take the outputs.");
  v.optional("download_bytes", t.download_bytes, "Bytes of inputs.");
  v.optional("upload_bytes", t.upload_bytes, "Bytes of outputs.");
  v.optional("exit_code", t.exit_code, "Of the command's last run; 128 + signal when killed.");
  v.optional("message", t.message, "Why it failed.");
  v.optional("key", t.key, "Key of its result: equal keys, equal results.");
  v.optional("reason", t.reason, "In a word, why it runs or was skipped; see explain.");
}

struct DatumReason {
  std::string what;
  std::string before;
  std::string now;
  std::string text;
};
template <class V>
void describe(V& v, DatumReason& t) {
  v.type("DatumReason", "One thing that did or did not change for a datum.");
  v.required("what", t.what, "input, image, cmd, env, spec, tries, new, reprocess, ...");
  v.optional("before", t.before, "As it was recorded for the earlier result.");
  v.optional("now", t.now, "As this job has it.");
  v.required("text", t.text, "In a sentence.");
}

struct DatumExplanation {
  DatumInfo datum;
  std::string decision;
  std::string compared_with;
  std::vector<DatumReason> reasons;
};
template <class V>
void describe(V& v, DatumExplanation& t) {
  v.type("DatumExplanation", "Why a datum ran or was skipped, from records.");
  v.required("datum", t.datum, "The datum.");
  v.required("decision", t.decision, "ran, skipped, will run, not run, or gone.");
  v.optional("compared_with", t.compared_with, "The job whose record it is compared with.");
  v.required("reasons", t.reasons, "Why.");
}

enum class WaveCause { kCommit, kHeadMoved, kPipeline };
inline std::vector<EnumValue> enum_values(WaveCause) {
  return {{0, "commit"}, {1, "head_moved"}, {2, "pipeline"}};
}

struct WaveInfo {
  std::string project;
  std::string id;
  int64_t number = 0;
  WaveCause cause = WaveCause::kCommit;
  Timestamp created;
  std::vector<CommitRef> changed;
  std::vector<std::string> pipelines;
  std::vector<CommitInfo> commits;
  std::vector<JobInfo> jobs;
  bool finished = false;
  bool failed = false;
};
template <class V>
void describe(V& v, WaveInfo& t) {
  v.type("WaveInfo", "All commits and jobs that one change caused; they share its id.");
  v.optional("project", t.project, "Its project.");
  v.required("id", t.id, "32 hex digits.");
  v.required("number", t.number, "Its place in the order of waves.");
  v.required("cause", t.cause, "What started it.");
  v.required("created", t.created, "When.");
  v.required("changed", t.changed, "The heads that moved.");
  v.required("pipelines", t.pipelines, "The pipelines that run in it, upstream first.");
  v.optional("commits", t.commits, "Its commits so far (in answers about one wave).");
  v.optional("jobs", t.jobs, "Its jobs so far (in answers about one wave).");
  v.required("finished", t.finished, "All its jobs have ended.");
  v.required("failed", t.failed, "A job of it failed, was killed, or could not run.");
}

// Data of the events of `…/wait` and `/events`: exactly one member beside `type` and `revision`.
struct ChangeEvent {
  std::string type;
  int64_t revision = 0;
  std::optional<WaveInfo> wave;
  std::optional<CommitInfo> commit;
  std::optional<JobInfo> job;
};
template <class V>
void describe(V& v, ChangeEvent& t) {
  v.type("ChangeEvent", "Something that happened.");
  v.required("type", t.type, "wave, commit, job, or done (the wave waited for has ended).");
  v.optional("revision", t.revision, "The revision that has it; also the event's id.");
  v.optional("wave", t.wave, "For wave and done.");
  v.optional("commit", t.commit, "For commit.");
  v.optional("job", t.job, "For job.");
}

}  // namespace qanat::api
