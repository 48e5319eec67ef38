// The checks of a spec that look at more than one field, each problem told with the field it is
// about.
#pragma once

#include <functional>
#include <string_view>

#include "qanat/api/pipeline_spec.h"

namespace qanat::api {

inline constexpr std::int64_t kMaxWorkers = 10000;
inline constexpr std::size_t kMaxInputs = 64;  // pfs inputs of a spec

// Calls `problem(field, message)` for each; fields are canonical paths like
// "input.cross[1].pfs.glob". Pure.
void check_spec(
    const PipelineSpec& spec, RunnerKind runner,
    const std::function<void(std::string_view field, std::string_view message)>& problem);

}  // namespace qanat::api
