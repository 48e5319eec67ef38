// Bodies about pipelines. Specs travel as the user wrote them (JSON or YAML); see pipeline_spec.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/jobs.h"
#include "qanat/api/list.h"
#include "qanat/api/time.h"

namespace qanat::api {

enum class PipelineState { kStarting, kRunning, kStandby, kPaused, kFailure, kCrashing };
inline std::vector<EnumValue> enum_values(PipelineState) {
  return {{0, "STARTING"}, {1, "RUNNING"}, {2, "STANDBY"},
          {3, "PAUSED"},   {4, "FAILURE"}, {5, "CRASHING"}};
}

struct WorkersInfo {
  int64_t wanted = 0;
  int64_t running = 0;
  int64_t busy = 0;
};
template <class V>
void describe(V& v, WorkersInfo& t) {
  v.type("WorkersInfo", "A pipeline's workers.");
  v.required("wanted", t.wanted, "How many the spec asks for.");
  v.required("running", t.running, "How many have said hello.");
  v.required("busy", t.busy, "How many have datums.");
}

struct FieldReport {
  std::string field;
  std::string why;
  int64_t line = 0;
};
template <class V>
void describe(V& v, FieldReport& t) {
  v.type("FieldReport", "What becomes of a field of a spec.");
  v.required("field", t.field, "As written, with indexes.");
  v.required("why", t.why, "Why it has no effect, or is refused.");
  v.optional("line", t.line, "In the text, from 1.");
}

struct PipelineInfo {
  std::string project;
  std::string name;
  std::string description;
  int64_t version = 0;
  PipelineState state = PipelineState::kStarting;
  std::string reason;
  Timestamp created;
  Timestamp updated;
  std::string image;
  std::string image_digest;
  RawJson spec;
  RawJson effective_spec;
  std::vector<std::string> input_repos;
  std::string output_branch;
  WorkersInfo workers;
  std::optional<JobInfo> last_job;
  std::vector<std::string> rights;
  std::string created_by;
  std::vector<FieldReport> reported;
};
template <class V>
void describe(V& v, PipelineInfo& t) {
  v.type("PipelineInfo", "A pipeline.");
  v.optional("project", t.project, "Its project.");
  v.required("name", t.name, "Its name, and that of its output repo.");
  v.optional("description", t.description, "Free text.");
  v.required("version", t.version, "Version of its spec, from 1.");
  v.required("state", t.state,
             "PAUSED: stopped by a user or by withdrawn rights; CRASHING: its workers cannot be "
             "kept alive.");
  v.optional("reason", t.reason, "Why it is in that state.");
  v.required("created", t.created, "When it was created.");
  v.optional("updated", t.updated, "When its spec was last changed.");
  v.optional("image", t.image, "As the spec names it.");
  v.optional("image_digest", t.image_digest, "Config digest it was resolved to.");
  v.optional("spec", t.spec, "As the user wrote it (in answers about one pipeline).");
  v.optional("effective_spec", t.effective_spec,
             "With every default written out (in answers about one pipeline).");
  v.required("input_repos", t.input_repos, "The repos it reads.");
  v.required("output_branch", t.output_branch, "The branch it writes.");
  v.required("workers", t.workers, "Its workers.");
  v.optional("last_job", t.last_job, "Its newest job.");
  v.optional("rights", t.rights, "The scopes it acts with.");
  v.optional("created_by", t.created_by, "Name of the token it was created or last updated with.");
  v.optional("reported", t.reported,
             "Fields of the spec that have no effect (in answers to create and update).");
}

struct ValidatedPipeline {
  std::string name;
  std::vector<std::string> honoured;
  std::vector<FieldReport> reported;
  std::vector<FieldReport> refused;
};
template <class V>
void describe(V& v, ValidatedPipeline& t) {
  v.type("ValidatedPipeline", "What becomes of each field of a spec.");
  v.required("name", t.name, "The pipeline's name.");
  v.required("honoured", t.honoured, "Fields that have their effect.");
  v.required("reported", t.reported, "Fields without meaning here, accepted.");
  v.required("refused", t.refused, "Fields that make the spec unusable here.");
}

struct ValidateResponse {
  bool ok = false;
  std::vector<ValidatedPipeline> pipelines;
  std::vector<std::string> errors;
};
template <class V>
void describe(V& v, ValidateResponse& t) {
  v.type("ValidateResponse", "Whether specs could be created.");
  v.required("ok", t.ok, "They could.");
  v.required("pipelines", t.pipelines, "Field by field.");
  v.optional("errors", t.errors, "What is wrong beyond single fields.");
}

}  // namespace qanat::api
