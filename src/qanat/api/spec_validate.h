// What would become of a text of specs, field by field, without creating anything.
#pragma once

#include <string_view>

#include "qanat/api/pipeline_spec.h"
#include "qanat/api/pipelines.h"

namespace qanat::api {

// Never fails: what is wrong is in the response. Does not look at the installation (repos, images).
ValidateResponse validate_pipeline_specs(std::string_view text, const LoadOptions& options = {});

}  // namespace qanat::api
