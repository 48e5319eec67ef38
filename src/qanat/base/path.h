// Paths of files in a repo: parts joined by `/`, without a leading or trailing slash; the empty
// path is the root. Nothing here touches a disk.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/base/utf8.h"

namespace qanat {

inline constexpr size_t kMaxPathPart = 255;     // bytes
inline constexpr size_t kMaxPathLength = 3800;  // bytes; fits below PATH_MAX after /pfs/<input>/

// One part: 1 to 255 bytes of UTF-8 without control characters (U+0000-001F, U+007F-009F), no `/`,
// not `.` or `..`.
Status check_path_part(std::string_view part);
// A file's path: at least one part, each valid, at most 3,800 bytes.
Status check_path(std::string_view path);
// What a user typed: one leading and one trailing `/` are dropped, and the rest must be a path. "/"
// and "" give "" (the root).
Result<std::string> parse_path(std::string_view text);

// "a/b/c" -> {"a", "b", "c"}; the root has no parts. The views point into `path`.
std::vector<std::string_view> split_path(std::string_view path);
// "a/b/c" -> "a/b"; "a" -> "".
std::string_view path_parent(std::string_view path);
// "a/b/c" -> "c".
std::string_view path_name(std::string_view path);
// join_path("a", "b") -> "a/b"; the root joined with b is "b".
std::string join_path(std::string_view directory, std::string_view name);
// True for the directory itself and for everything under it; everything is within the root.
bool path_is_within(std::string_view path, std::string_view directory);

}  // namespace qanat
