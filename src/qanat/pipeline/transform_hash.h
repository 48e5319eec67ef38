// The hash of everything, beside its inputs, that user code can see: equal hashes mean that a
// datum's result may be reused.
//
// It is made of named components, one for each field of the spec (and each variable), so that
// `explain` can say which one changed. Not in it: parallelism, resource limits, timeouts, tries,
// descriptions, output_merge, and the ids of jobs, datums and commits. All of this is pure.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/pipeline_spec.h"
#include "qanat/base/hash.h"
#include "qanat/pipeline/input.h"

namespace qanat::pipeline {

// Component name -> hash of its value, e.g. "transform.cmd", "transform.env.LANG",
// "transform.image". Fields at their default have no component, so that fields which later versions
// add change no hash.
using TransformComponents = std::map<std::string, Hash>;

// `image_digest` names the image's configuration ("" on a runner without images). `reprocess_salt`
// is "" until a pipeline was updated with --reprocess, then that update's random text, carried over
// by later versions of the spec.
TransformComponents transform_components(const api::PipelineSpec& spec,
                                         std::string_view image_digest,
                                         std::string_view reprocess_salt);

Hash transform_hash(const TransformComponents& components);

// For records (SpecRecord::components): hashes in hex, and back.
std::map<std::string, std::string> components_to_text(const TransformComponents& components);
Result<TransformComponents> components_from_text(const std::map<std::string, std::string>& text);

// Names of components that differ, in order.
std::vector<std::string> changed_components(const TransformComponents& before,
                                            const TransformComponents& now);

// SHA-256 of the transform hash and each input's name, path and content id, in order.
Hash result_key(const Hash& transform, const std::vector<DatumInput>& inputs);

}  // namespace qanat::pipeline
