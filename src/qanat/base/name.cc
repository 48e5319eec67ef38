#include "qanat/base/name.h"

#include <algorithm>

#include "qanat/base/string.h"

namespace qanat {
namespace {

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

Status check_name(std::string_view kind, std::string_view name, size_t limit) {
  const std::string hint =
      str_cat("Use letters, digits, '_' and '-', between 1 and ", limit, " of them.");
  if (name.empty()) return invalid_argument(str_cat("the name of a ", kind, " is empty"), hint);
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (is_alphanumeric(c) || c == '_' || c == '-') continue;
    const std::string culprit =
        static_cast<unsigned char>(c) < 0x80 ? quoted({&c, 1}) : "a character outside ASCII";
    return invalid_argument(str_cat(quoted(name.substr(0, limit)), " cannot name a ", kind, ": ",
                                    culprit, " at position ", i + 1, " is not allowed"),
                            hint);
  }
  if (name.size() > limit) {
    return invalid_argument(
        str_cat("the name of a ", kind, " has ", name.size(), " characters, over ", limit), hint);
  }
  return ok_status();
}

}  // namespace

Status check_project_name(std::string_view name) {
  return check_name("project", name, kMaxNameLength);
}

Status check_repo_name(std::string_view name) { return check_name("repo", name, kMaxNameLength); }

Status check_branch_name(std::string_view name) {
  QANAT_RETURN_IF_ERROR(check_name("branch", name, kMaxNameLength));
  if (name.size() == 32 && std::all_of(name.begin(), name.end(), is_hex)) {
    return invalid_argument(str_cat(quoted(name), " cannot name a branch: it reads as a commit id"),
                            "Use a name that is not 32 hex digits.");
  }
  return ok_status();
}

Status check_pipeline_name(std::string_view name) {
  QANAT_RETURN_IF_ERROR(check_name("pipeline", name, kMaxPipelineNameLength));
  if (!is_alphanumeric(name.front()) || !is_alphanumeric(name.back())) {
    return invalid_argument(str_cat(quoted(name),
                                    " cannot name a pipeline: it begins or ends "
                                    "with '_' or '-'"),
                            "Begin and end the name with a letter or digit.");
  }
  return ok_status();
}

Status check_description(std::string_view text) {
  if (text.size() <= kMaxDescription) return ok_status();
  return invalid_argument(
      str_cat("the description has ", text.size(), " bytes, over ", kMaxDescription),
      "Put longer texts into a file of the repo.");
}

}  // namespace qanat
