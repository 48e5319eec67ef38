#include "qanat/pipeline/transform_hash.h"

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

namespace qanat::pipeline {
namespace {

// Raised when what the worker shows to user code changes in a way that could change results.
constexpr std::string_view kSandbox = "1";

Hash hash_list(const std::vector<std::string>& values) {
  std::string bytes;
  for (const std::string& value : values) put_bytes(bytes, value);
  return sha256(bytes);
}

}  // namespace

TransformComponents transform_components(const api::PipelineSpec& spec,
                                         std::string_view image_digest,
                                         std::string_view reprocess_salt) {
  TransformComponents out;
  const auto text = [&](std::string name, std::string_view value) {
    if (!value.empty()) out[std::move(name)] = sha256(value);
  };
  const auto list = [&](std::string name, const std::vector<std::string>& values) {
    if (!values.empty()) out[std::move(name)] = hash_list(values);
  };
  const api::Transform& transform = spec.transform;
  out["sandbox"] = sha256(kSandbox);
  text("transform.image", image_digest);
  list("transform.cmd", transform.cmd);
  list("transform.stdin", transform.stdin_lines);
  for (const auto& [name, value] : transform.env) out["transform.env." + name] = sha256(value);
  text("transform.user", transform.user);
  text("transform.working_dir", transform.working_dir);
  list("transform.err_cmd", transform.err_cmd);
  list("transform.err_stdin", transform.err_stdin);
  if (transform.network != "none") text("transform.network", transform.network);
  std::vector<std::string> codes;
  for (const int code : transform.accept_return_code) codes.push_back(std::to_string(code));
  list("transform.accept_return_code", codes);
  text("pipeline.project", spec.project);
  if (!spec.share_results) text("pipeline.name", spec.name);
  text("salt", spec.salt);
  text("reprocess", reprocess_salt);
  return out;
}

Hash transform_hash(const TransformComponents& components) {
  std::string bytes;
  put_bytes(bytes, "qanat transform 1");
  for (const auto& [name, hash] : components) {
    put_bytes(bytes, name);
    bytes += hash.view();
  }
  return sha256(bytes);
}

std::map<std::string, std::string> components_to_text(const TransformComponents& components) {
  std::map<std::string, std::string> out;
  for (const auto& [name, hash] : components) out[name] = hash.to_hex();
  return out;
}

Result<TransformComponents> components_from_text(const std::map<std::string, std::string>& text) {
  TransformComponents out;
  for (const auto& [name, hex] : text) {
    Result<Hash> hash = Hash::from_hex(hex);
    if (!hash.ok()) return data_loss(str_cat("the record of component ", name, " is damaged"));
    out[name] = *hash;
  }
  return out;
}

std::vector<std::string> changed_components(const TransformComponents& before,
                                            const TransformComponents& now) {
  std::vector<std::string> out;
  auto old = before.begin();
  auto fresh = now.begin();
  while (old != before.end() || fresh != now.end()) {
    if (fresh == now.end() || (old != before.end() && old->first < fresh->first)) {
      out.push_back((old++)->first);
    } else if (old == before.end() || fresh->first < old->first) {
      out.push_back((fresh++)->first);
    } else {
      if (old->second != fresh->second) out.push_back(old->first);
      ++old;
      ++fresh;
    }
  }
  return out;
}

Hash result_key(const Hash& transform, const std::vector<DatumInput>& inputs) {
  std::string bytes;
  put_bytes(bytes, "qanat result 1");
  bytes += transform.view();
  put_varint(bytes, inputs.size());
  for (const DatumInput& input : inputs) {
    put_bytes(bytes, input.name);
    put_bytes(bytes, input.path);
    bytes += input.entry.content_id().view();
  }
  return sha256(bytes);
}

}  // namespace qanat::pipeline
