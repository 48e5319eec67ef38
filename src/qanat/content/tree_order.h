// The order of paths in trees, and keys that sort so.
//
// Tree order compares paths part by part, parts bytewise: "a", "a/b", "a-b" (while '-' sorts before
// '/' as a byte). A directory comes right before what is in it. All of content/ walks, diffs and
// edits in this order.
#pragma once

#include <string>
#include <string_view>

namespace qanat::content {

// Below, equal to or above 0.
int compare_paths(std::string_view a, std::string_view b);
inline bool path_before(std::string_view a, std::string_view b) { return compare_paths(a, b) < 0; }

// The path with 0x01 in place of each '/', which no path holds: bytewise order of these keys,
// and of these keys with 0x00 and anything after it, is tree order.
std::string path_to_key(std::string_view path);
std::string key_to_path(std::string_view key);

}  // namespace qanat::content
