#include "qanat/base/path.h"

#include "qanat/base/string.h"

namespace qanat {

Status check_path_part(std::string_view part) {
  const auto refuse = [&](std::string_view why) {
    return invalid_argument(str_cat("the path part ", quoted(part.substr(0, 80)), " ", why));
  };
  if (part.empty()) return invalid_argument("a path has an empty part (two slashes in a row)");
  if (part == "." || part == "..") return refuse("is not allowed: paths are absolute and plain");
  if (part.size() > kMaxPathPart) {
    return refuse(str_cat("has ", part.size(), " bytes, over the limit of ", kMaxPathPart));
  }
  for (size_t position = 0; position < part.size();) {
    const char32_t character = decode_utf8(part, position);
    if (character == kInvalidCharacter) return refuse("is not UTF-8");
    if (character < 0x20 || (character >= 0x7F && character < 0xA0)) {
      return refuse("has a control character");
    }
    if (character == '/') return refuse("has a slash");
  }
  return ok_status();
}

Status check_path(std::string_view path) {
  if (path.empty()) return invalid_argument("the path of a file is empty");
  if (path.size() > kMaxPathLength) {
    return invalid_argument(str_cat("the path ", quoted(path.substr(0, 80)), "... has ",
                                    path.size(), " bytes, over the limit of ", kMaxPathLength));
  }
  size_t start = 0;
  while (true) {
    const size_t end = path.find('/', start);
    if (end == std::string_view::npos) return check_path_part(path.substr(start));
    QANAT_RETURN_IF_ERROR(check_path_part(path.substr(start, end - start)));
    start = end + 1;
  }
}

Result<std::string> parse_path(std::string_view text) {
  if (text.starts_with('/')) text.remove_prefix(1);
  if (text.ends_with('/')) text.remove_suffix(1);
  if (text.empty()) return std::string();
  QANAT_RETURN_IF_ERROR(check_path(text));
  return std::string(text);
}

std::vector<std::string_view> split_path(std::string_view path) {
  if (path.empty()) return {};
  return split(path, '/');
}

std::string_view path_parent(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

std::string_view path_name(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::string join_path(std::string_view directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  if (name.empty()) return std::string(directory);
  return str_cat(directory, "/", name);
}

bool path_is_within(std::string_view path, std::string_view directory) {
  if (directory.empty()) return true;
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

}  // namespace qanat
