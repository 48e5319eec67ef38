// A version of a pipeline's spec, read and compiled: what planning and running need of it.
// Immutable once made.
#pragma once

#include <memory>
#include <string>

#include "qanat/api/pipeline_spec.h"
#include "qanat/meta/store.h"
#include "qanat/pipeline/input.h"
#include "qanat/pipeline/records.h"
#include "qanat/pipeline/transform_hash.h"

namespace qanat::pipeline {

struct CompiledSpec {
  SpecRecord record;
  api::PipelineSpec spec;
  InputShape shape;
  TransformComponents components;
  Hash transform;
};

// kDataLoss if the record's own spec cannot be read any more.
Result<std::shared_ptr<const CompiledSpec>> compile_spec(SpecRecord record, api::RunnerKind runner);
// Reads the record of a version from meta and compiles it. kNotFound if there is none.
Result<std::shared_ptr<const CompiledSpec>> load_spec(meta::Store& meta, std::string_view project,
                                                      std::string_view pipeline, int64_t version,
                                                      api::RunnerKind runner);

}  // namespace qanat::pipeline
