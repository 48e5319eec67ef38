// What meta holds about pipelines and jobs (docs/architecture.md, "Meta"), as structs and JSON.
//
// Times are milliseconds since 1970, 0 is "not yet". Roots of maps and trees are
// content::MapRoot::to_text(). Decoding is strict: a record that cannot be understood is kDataLoss
// naming its key. Plain values; no thread safety of their own.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/jobs.h"
#include "qanat/api/pipelines.h"
#include "qanat/base/status.h"

namespace qanat::pipeline {

using api::JobState;
using api::PipelineState;

// A right that a pipeline has of its own, and the token it came from.
struct GrantedRight {
  std::string scope;       // "reader:orders", "writer:clean", "network-host"
  std::string granted_by;  // name of the token
};
template <class V>
void describe(V& v, GrantedRight& t) {
  v.type("GrantedRight", "");
  v.required("scope", t.scope, "");
  v.required("granted_by", t.granted_by, "");
}

// A branch that a pipeline reads.
struct InputBranch {
  std::string repo;
  std::string branch;
};
template <class V>
void describe(V& v, InputBranch& t) {
  v.type("InputBranch", "");
  v.required("repo", t.repo, "");
  v.required("branch", t.branch, "");
}

struct PipelineRecord {
  int64_t v = 1;
  int64_t version = 1;  // of the spec in force
  std::string output_branch;
  std::vector<InputBranch> inputs;  // each once
  bool stopped = false;    // by a user, or because rights were withdrawn; `reason` says which
  bool withdrawn = false;  // it is stopped only because rights were withdrawn: an update that
                           // grants them starts it
  std::string reason;      // why it is stopped or failing
  int64_t created_ms = 0;
  int64_t updated_ms = 0;
  std::vector<GrantedRight> rights;
  int64_t last_wave =
      0;  // every wave up to this one is ended, as far as this pipeline is concerned
  int64_t base_wave = 0;  // of its last successful job; 0: none
};
template <class V>
void describe(V& v, PipelineRecord& t) {
  v.type("PipelineRecord", "");
  v.required("v", t.v, "");
  v.required("version", t.version, "");
  v.required("output_branch", t.output_branch, "");
  v.optional("inputs", t.inputs, "");
  v.optional("stopped", t.stopped, "");
  v.optional("withdrawn", t.withdrawn, "");
  v.optional("reason", t.reason, "");
  v.required("created_ms", t.created_ms, "");
  v.required("updated_ms", t.updated_ms, "");
  v.optional("rights", t.rights, "");
  v.optional("last_wave", t.last_wave, "");
  v.optional("base_wave", t.base_wave, "");
}

// Why jobs of a stopped pipeline were killed.
std::string why_stopped(const PipelineRecord& record);

// One version of a pipeline's spec. Immutable.
struct SpecRecord {
  int64_t v = 1;
  int64_t version = 1;
  int64_t created_ms = 0;
  std::string created_by;      // name of the token
  std::string user_spec;       // as the user wrote it, JSON
  std::string effective_spec;  // with every default, JSON
  std::string image_digest;    // "" on a runner without images
  std::vector<std::string> image_env;
  std::vector<std::string> image_command;  // entrypoint and command, for a transform without `cmd`
  std::string image_user;
  std::string image_working_dir;
  std::map<std::string, std::string>
      components;              // what user code can see: name -> hash (transform_hash.h)
  std::string transform_hash;  // hex
  std::string reprocess_salt;  // of the last update --reprocess
  bool keep_results = false;   // results of the version before are accepted as they are
  bool reprocess = false;      // everything is run again, once
};
template <class V>
void describe(V& v, SpecRecord& t) {
  v.type("SpecRecord", "");
  v.required("v", t.v, "");
  v.required("version", t.version, "");
  v.required("created_ms", t.created_ms, "");
  v.optional("created_by", t.created_by, "");
  v.required("user_spec", t.user_spec, "");
  v.required("effective_spec", t.effective_spec, "");
  v.optional("image_digest", t.image_digest, "");
  v.optional("image_env", t.image_env, "");
  v.optional("image_command", t.image_command, "");
  v.optional("image_user", t.image_user, "");
  v.optional("image_working_dir", t.image_working_dir, "");
  v.optional("components", t.components, "");
  v.required("transform_hash", t.transform_hash, "");
  v.optional("reprocess_salt", t.reprocess_salt, "");
  v.optional("keep_results", t.keep_results, "");
  v.optional("reprocess", t.reprocess, "");
}

// What an input branch had in the job's wave.
struct JobInput {
  std::string name;  // of the input, as under /pfs
  std::string repo;
  std::string branch;
  std::string commit;  // "" when the branch had none: an empty arm
  int64_t wave = 0;    // of that commit
  std::string root;    // of its tree
};
template <class V>
void describe(V& v, JobInput& t) {
  v.type("JobInputRecord", "");
  v.required("name", t.name, "");
  v.required("repo", t.repo, "");
  v.required("branch", t.branch, "");
  v.optional("commit", t.commit, "");
  v.optional("wave", t.wave, "");
  v.optional("root", t.root, "");
}

struct JobCounts {
  int64_t total = 0;      // datums of the job
  int64_t to_run = 0;     // of them, those the plan wants to run
  int64_t processed = 0;  // ran with success
  int64_t skipped = 0;    // results of earlier jobs, taken over
  int64_t failed = 0;
  int64_t recovered = 0;
  int64_t restarts = 0;  // leases that ended without a result
  int64_t download_bytes = 0;
  int64_t upload_bytes = 0;
  int64_t process_ms = 0;  // of user code, all datums together
};
template <class V>
void describe(V& v, JobCounts& t) {
  v.type("JobCountsRecord", "");
  v.optional("total", t.total, "");
  v.optional("to_run", t.to_run, "");
  v.optional("processed", t.processed, "");
  v.optional("skipped", t.skipped, "");
  v.optional("failed", t.failed, "");
  v.optional("recovered", t.recovered, "");
  v.optional("restarts", t.restarts, "");
  v.optional("download_bytes", t.download_bytes, "");
  v.optional("upload_bytes", t.upload_bytes, "");
  v.optional("process_ms", t.process_ms, "");
}

struct JobRecord {
  int64_t v = 1;
  std::string id;  // the wave's
  int64_t wave = 0;
  JobState state = JobState::kStarting;
  std::string reason;    // why it failed, was killed or cannot run
  std::string stopping;  // why it is to be killed; set once that was promised, so that it survives
                         // a restart
  int64_t spec_version = 0;
  int64_t created_ms = 0;
  int64_t started_ms = 0;
  int64_t finished_ms = 0;
  std::vector<JobInput> inputs;
  int64_t base_wave = 0;  // the job whose results it starts from; 0: none
  std::string plan;       // datum table with what is to run pending
  std::string journal;    // hash of the newest journal node, hex; "" before the first report
  std::string table;      // datum table at the end
  std::string ids;        // datum ids -> sort keys of the plan (planner.h)
  std::string owners;     // owner tree at the end; of successful jobs only
  std::string content;    // content tree at the end; of successful jobs only
  JobCounts counts;
};
template <class V>
void describe(V& v, JobRecord& t) {
  v.type("JobRecord", "");
  v.required("v", t.v, "");
  v.required("id", t.id, "");
  v.required("wave", t.wave, "");
  v.required("state", t.state, "");
  v.optional("reason", t.reason, "");
  v.optional("stopping", t.stopping, "");
  v.required("spec_version", t.spec_version, "");
  v.required("created_ms", t.created_ms, "");
  v.optional("started_ms", t.started_ms, "");
  v.optional("finished_ms", t.finished_ms, "");
  v.optional("inputs", t.inputs, "");
  v.optional("base_wave", t.base_wave, "");
  v.optional("plan", t.plan, "");
  v.optional("journal", t.journal, "");
  v.optional("table", t.table, "");
  v.optional("ids", t.ids, "");
  v.optional("owners", t.owners, "");
  v.optional("content", t.content, "");
  v.required("counts", t.counts, "");
}

// Keys. dag_key's value means nothing: every transaction that changes which pipelines read which
// branches writes it, so its mod revision names a state of the DAG.
std::string dag_key(std::string_view project);
std::string pipelines_prefix(std::string_view project);
std::string pipeline_key(std::string_view project, std::string_view name);
std::string specs_prefix(std::string_view project, std::string_view name);
std::string spec_key(std::string_view project, std::string_view name, int64_t version);
std::string jobs_prefix(std::string_view project);  // of all pipelines
std::string jobs_prefix(std::string_view project, std::string_view pipeline);
std::string job_key(std::string_view project, std::string_view pipeline, int64_t wave);

template <class Record>
std::string encode(const Record& record) {
  return api::json_text(record);
}
template <class Record>
Result<Record> decode(std::string_view key, std::string_view value) {
  auto record = api::parse_json<Record>(value);
  if (!record.ok()) {
    return data_loss("the record " + std::string(key) +
                     " is damaged: " + record.status().message());
  }
  if (record->v != 1) {
    return failed_precondition("the record " + std::string(key) + " has format version " +
                                   std::to_string(record->v) + ", which this program does not know",
                               "run the newer program that wrote it");
  }
  return record;
}

}  // namespace qanat::pipeline
