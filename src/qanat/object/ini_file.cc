#include "qanat/object/ini_file.h"

#include "qanat/base/string.h"

namespace qanat::object {

Result<IniFile> parse_ini(std::string_view text) {
  IniFile file;
  std::map<std::string, std::string>* section = nullptr;
  int number = 0;
  for (std::string_view raw : split(text, '\n')) {
    ++number;
    const std::string_view line = trim(raw);
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line[0] == '[') {
      const size_t end = line.find(']');
      if (end == std::string_view::npos) {
        return invalid_argument(str_cat("line ", number, ": a section's name does not end"));
      }
      section = &file[std::string(trim(line.substr(1, end - 1)))];
      continue;
    }
    if (raw[0] == ' ' || raw[0] == '\t') continue;
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos || section == nullptr) {
      return invalid_argument(str_cat(
          "line ", number, section == nullptr ? ": it is in no section" : ": there is no '='"));
    }
    (*section)[to_lower(trim(line.substr(0, equals)))] = trim(line.substr(equals + 1));
  }
  return file;
}

}  // namespace qanat::object
