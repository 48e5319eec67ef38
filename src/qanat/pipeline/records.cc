#include "qanat/pipeline/records.h"

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

namespace qanat::pipeline {

std::string dag_key(std::string_view project) { return str_cat("/v1/dag/", project); }
std::string pipelines_prefix(std::string_view project) {
  return str_cat("/v1/pipeline/", project, "/");
}
std::string pipeline_key(std::string_view project, std::string_view name) {
  return str_cat("/v1/pipeline/", project, "/", name);
}
std::string specs_prefix(std::string_view project, std::string_view name) {
  return str_cat("/v1/spec/", project, "/", name, "/");
}
std::string spec_key(std::string_view project, std::string_view name, int64_t version) {
  return str_cat("/v1/spec/", project, "/", name, "/", to_hex16(static_cast<uint64_t>(version)));
}
std::string jobs_prefix(std::string_view project) { return str_cat("/v1/job/", project, "/"); }
std::string jobs_prefix(std::string_view project, std::string_view pipeline) {
  return str_cat("/v1/job/", project, "/", pipeline, "/");
}
std::string job_key(std::string_view project, std::string_view pipeline, int64_t wave) {
  return str_cat("/v1/job/", project, "/", pipeline, "/", to_hex16(static_cast<uint64_t>(wave)));
}

std::string why_stopped(const PipelineRecord& record) {
  return str_cat("the pipeline was stopped", record.withdrawn ? ": " + record.reason : "");
}

}  // namespace qanat::pipeline
