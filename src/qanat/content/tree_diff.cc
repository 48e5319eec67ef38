#include "qanat/base/path.h"
#include "qanat/content/path_difference.h"
#include "qanat/content/prolly.h"
#include "qanat/content/tree.h"
#include "qanat/content/tree_order.h"
#include "qanat/content/tree_walk.h"

namespace qanat::content {

using internal::After;
using internal::after_entry;
using internal::EntryAfter;
using internal::first_part;
using internal::PathPart;

namespace {

Result<std::optional<TreeEntry>> decode_side(const std::optional<std::string_view>& value) {
  if (!value.has_value()) return std::optional<TreeEntry>();
  QANAT_ASSIGN_OR_RETURN(TreeEntry entry, TreeEntry::decode(*value));
  return std::optional<TreeEntry>(std::move(entry));
}

// The directory that `entry` is; the empty one if it is a file or nothing.
const TreeRoot& directory_of(const std::optional<TreeEntry>& entry) {
  static const TreeRoot kEmpty;
  return entry.has_value() && entry->is_directory ? entry->directory : kEmpty;
}

std::optional<TreeEntry> file_of(const std::optional<TreeEntry>& entry) {
  return entry.has_value() && !entry->is_directory ? entry : std::nullopt;
}

struct FileDiff {
  BlobReader& reader;
  const TreeDiffVisitor& visit;
  std::string path = {};

  // Two entries that differ, at `path`.
  Result<bool> entries(const std::optional<TreeEntry>& a, const std::optional<TreeEntry>& b,
                       const EntryAfter& wanted) {
    TreeDifference difference{path, file_of(a), file_of(b)};
    if (wanted.itself && (difference.before || difference.after)) {
      QANAT_ASSIGN_OR_RETURN(bool more, visit(difference));
      if (!more) return false;
    }
    return directories(directory_of(a), directory_of(b), wanted.below);
  }

  Result<bool> directories(const TreeRoot& a, const TreeRoot& b, After after) {
    KeyRange names;
    if (after.has_value()) names.from = first_part(*after);
    return diff_maps(kDirectoryMap, reader, a, b, names,
                     [&](const MapDifference& difference) -> Result<bool> {
                       PathPart part(path, difference.key);
                       QANAT_RETURN_IF_ERROR(internal::check_length(path));
                       QANAT_ASSIGN_OR_RETURN(auto before, decode_side(difference.before));
                       QANAT_ASSIGN_OR_RETURN(auto after_it, decode_side(difference.after));
                       return entries(before, after_it, after_entry(after, difference.key));
                     });
  }
};

struct MatchDiff {
  BlobReader& reader;
  const Glob& glob;
  const TreeDiffVisitor& visit;
  std::string path = {};

  Result<bool> directories(const TreeRoot& a, const TreeRoot& b) {
    return diff_maps(kDirectoryMap, reader, a, b, internal::names_for(glob, path),
                     [&](const MapDifference& difference) -> Result<bool> {
                       PathPart part(path, difference.key);
                       QANAT_RETURN_IF_ERROR(internal::check_length(path));
                       const bool found = glob.match(path);
                       const bool below = glob.could_match_below(path);
                       if (!found && !below) return true;
                       QANAT_ASSIGN_OR_RETURN(auto before, decode_side(difference.before));
                       QANAT_ASSIGN_OR_RETURN(auto after, decode_side(difference.after));
                       if (found) {
                         QANAT_ASSIGN_OR_RETURN(bool more, visit({path, before, after}));
                         if (!more) return false;
                       }
                       if (!below) return true;
                       return directories(directory_of(before), directory_of(after));
                     });
  }
};

}  // namespace

Result<bool> diff_trees(BlobReader& reader, const TreeRoot& a, const TreeRoot& b,
                        std::string_view prefix, const TreeDiffVisitor& visit,
                        std::string_view after) {
  FileDiff diff{reader, visit, std::string(prefix)};
  EntryAfter wanted{after.empty() || path_before(after, prefix), std::nullopt};
  if (!internal::after_within(after, prefix, &wanted.below)) return true;
  QANAT_ASSIGN_OR_RETURN(auto before, Tree(reader, a).find(prefix));
  QANAT_ASSIGN_OR_RETURN(auto after_it, Tree(reader, b).find(prefix));
  if (before == after_it) return true;
  return diff.entries(before, after_it, wanted);
}

Result<bool> differs_at(BlobReader& reader, const TreeRoot& a, const TreeRoot& b,
                        std::string_view path) {
  TreeRoot before = a;
  TreeRoot after = b;
  while (!(before == after)) {
    if (path.empty()) return true;
    const std::string_view name = first_part(path);
    std::optional<TreeEntry> entry_before;
    std::optional<TreeEntry> entry_after;
    const KeyRange only{std::string(name), std::string(name) + '\0'};
    QANAT_ASSIGN_OR_RETURN(
        const bool same,
        diff_maps(kDirectoryMap, reader, before, after, only,
                  [&](const MapDifference& difference) -> Result<bool> {
                    QANAT_ASSIGN_OR_RETURN(entry_before, decode_side(difference.before));
                    QANAT_ASSIGN_OR_RETURN(entry_after, decode_side(difference.after));
                    return false;
                  }));
    if (same) return false;
    if (name.size() == path.size()) return true;
    path.remove_prefix(name.size() + 1);
    before = directory_of(entry_before);
    after = directory_of(entry_after);
  }
  return false;
}

Result<bool> diff_matches(BlobReader& reader, const TreeRoot& a, const TreeRoot& b,
                          const Glob& glob, const TreeDiffVisitor& visit) {
  if (a == b) return true;
  if (glob.matches_root()) {
    TreeDifference difference;
    if (!a.empty()) difference.before = TreeEntry{.is_directory = true, .directory = a};
    if (!b.empty()) difference.after = TreeEntry{.is_directory = true, .directory = b};
    return visit(difference);
  }
  return MatchDiff{reader, glob, visit}.directories(a, b);
}

}  // namespace qanat::content
