#include <nlohmann/json.hpp>

#include "qanat/api/pipeline_spec.h"
#include "qanat/api/quantity.h"

namespace qanat::api {
namespace {

using Json = nlohmann::ordered_json;

// null stands for "none" and reads back as "not given".
Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }
template <class T>
Json number_or_null(T number) {
  return number == 0 ? Json() : Json(number);
}

Json input_json(const Input& input) {
  if (input.kind == Input::Kind::kPfs) {
    const PfsInput& pfs = input.pfs;
    return {{"pfs",
             {{"name", pfs.name}, {"repo", pfs.repo}, {"branch", pfs.branch}, {"glob", pfs.glob}}}};
  }
  Json arms = Json::array();
  for (const Input& arm : input.arms) arms.push_back(input_json(arm));
  Json out;
  out[input.kind == Input::Kind::kCross ? "cross" : "union"] = std::move(arms);
  return out;
}

Json transform_json(const Transform& transform) {
  Json out;
  out["image"] = or_null(transform.image);
  out["cmd"] = transform.cmd;
  out["stdin"] = transform.stdin_lines;
  out["env"] = transform.env;
  out["user"] = or_null(transform.user);
  out["working_dir"] = or_null(transform.working_dir);
  out["accept_return_code"] = transform.accept_return_code;
  out["err_cmd"] = transform.err_cmd;
  out["err_stdin"] = transform.err_stdin;
  out["network"] = transform.network;
  return out;
}

Json spec_json(const PipelineSpec& spec) {
  Json out;
  out["pipeline"]["project"]["name"] = spec.project;
  out["pipeline"]["name"] = spec.name;
  out["description"] = spec.description;
  out["transform"] = transform_json(spec.transform);
  out["input"] = input_json(spec.input);
  if (spec.parallelism_constant != 0) {
    out["parallelism_spec"]["constant"] = spec.parallelism_constant;
  } else {
    out["parallelism_spec"]["coefficient"] = spec.parallelism_coefficient;
  }
  Json limits;
  limits["cpu"] = number_or_null(spec.resource_limits.cpu);
  limits["memory"] =
      spec.resource_limits.memory == 0 ? Json() : Json(write_size(spec.resource_limits.memory));
  limits["pids"] = number_or_null(spec.resource_limits.pids);
  out["resource_limits"] = std::move(limits);
  out["datum_timeout"] =
      spec.datum_timeout_ms == 0 ? Json() : Json(write_duration(spec.datum_timeout_ms));
  out["datum_tries"] = spec.datum_tries;
  out["job_timeout"] =
      spec.job_timeout_ms == 0 ? Json() : Json(write_duration(spec.job_timeout_ms));
  out["datum_set_spec"]["number"] = number_or_null(spec.datum_set_number);
  out["max_queue_size"] = spec.max_queue_size;
  out["output_branch"] = spec.output_branch;
  out["output_merge"] = output_merge_name(spec.output_merge);
  out["reprocess_spec"] = spec.reprocess_every_job ? "every_job" : "until_success";
  out["share_results"] = spec.share_results;
  out["salt"] = spec.salt;
  return out;
}

}  // namespace

std::string effective_spec(const PipelineSpec& spec, bool pretty) {
  return spec_json(spec).dump(pretty ? 2 : -1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace qanat::api
