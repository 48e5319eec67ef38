// Parts shared by the walks and diffs of trees; private to content/.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/glob.h"
#include "qanat/base/status.h"
#include "qanat/content/prolly.h"
#include "qanat/content/tree.h"

namespace qanat::content::internal {

// Appends "/name" (or "name", at the root) to a path for as long as it lives.
class PathPart {
 public:
  PathPart(std::string& path, std::string_view name) : path_(path), length_(path.size()) {
    if (!path.empty()) path += '/';
    path += name;
  }
  ~PathPart() { path_.resize(length_); }
  PathPart(const PathPart&) = delete;
  PathPart& operator=(const PathPart&) = delete;

 private:
  std::string& path_;
  const size_t length_;
};

// Copies of directories into one another can make paths longer than anyone may write. Walks refuse
// these (kTooLarge), and so never recurse deeper than a path has parts.
Status check_length(const std::string& path);

// "Only what comes after this path", seen from inside a directory: nullopt when that is everything.
using After = std::optional<std::string_view>;

inline std::string_view first_part(std::string_view path) { return path.substr(0, path.find('/')); }

// What `after` means for the entry `name`, which does not sort before first_part(*after).
struct EntryAfter {
  bool itself;  // the entry comes after
  After below;  // for what is in it
};
inline EntryAfter after_entry(const After& after, std::string_view name) {
  if (!after.has_value()) return {true, std::nullopt};
  const std::string_view first = first_part(*after);
  if (name != first) return {true, std::nullopt};
  if (first.size() == after->size()) return {false, std::nullopt};
  return {false, after->substr(first.size() + 1)};
}

// For a whole tree: the part of `after` below `directory`. False if the whole directory comes
// before it.
bool after_within(std::string_view after, std::string_view directory, After* below);

// The names in `directory` that a match of the glob can begin with, by its literal prefix.
KeyRange names_for(const Glob& glob, std::string_view directory);

// The files below a directory, in path order. `path` is the directory's, and is restored.
Result<bool> walk_files(BlobReader& reader, const TreeRoot& root, std::string& path, After after,
                        const TreeVisitor& visit);

}  // namespace qanat::content::internal
