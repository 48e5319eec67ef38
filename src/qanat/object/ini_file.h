// INI files as AWS's tools and gsutil keep credentials in: [section], name = value, lines that
// begin with '#' or ';' are comments. Indented lines (nested settings) are skipped.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::object {

// Section -> name (lower case) -> value. A later line of the same name wins, as with AWS's tools.
using IniFile = std::map<std::string, std::map<std::string, std::string>>;

// kInvalidArgument names the line, never its content, which may be secret.
Result<IniFile> parse_ini(std::string_view text);

}  // namespace qanat::object
