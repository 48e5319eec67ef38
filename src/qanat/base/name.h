// The rules for names that users give. Each check returns OK, or kInvalidArgument with a message
// that names the offending character and a hint that states the rule.
#pragma once

#include <string_view>

#include "qanat/base/status.h"

namespace qanat {

inline constexpr size_t kMaxNameLength = 200;
inline constexpr size_t kMaxPipelineNameLength = 50;
inline constexpr size_t kMaxDescription = 10'000;  // bytes

// Letters, digits, `_` and `-`; 1 to 200 of them.
Status check_project_name(std::string_view name);
Status check_repo_name(std::string_view name);
// The same, and not 32 hex digits, which would read as a commit's id.
Status check_branch_name(std::string_view name);
// The same characters, beginning and ending with a letter or digit, at most 50.
Status check_pipeline_name(std::string_view name);
// Free text about a commit, repo or project: at most 10,000 bytes.
Status check_description(std::string_view text);

}  // namespace qanat
