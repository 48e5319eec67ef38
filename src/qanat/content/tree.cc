#include "qanat/content/tree.h"

#include "qanat/base/bytes.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/chunk/chunker.h"
#include "qanat/content/node.h"
#include "qanat/content/prolly.h"
#include "qanat/content/tree_order.h"
#include "qanat/content/tree_walk.h"

namespace qanat::content {

using internal::After;
using internal::after_entry;
using internal::EntryAfter;
using internal::first_part;
using internal::PathPart;

namespace {

constexpr uint8_t kStoredDirectory = 3;
constexpr uint8_t kInlinedDirectory = 4;

// The checks of TreeEntry::decode, without building anything: it runs for every entry read.
bool directory_totals(std::string_view name, std::string_view value, Totals* totals) {
  if (name.empty() || value.empty()) return false;
  const auto what = static_cast<uint8_t>(value[0]);
  const char* at = value.data() + 1;
  const char* const end = value.data() + value.size();
  if (what == 0) {
    *totals = {.count = 1, .bytes = 0};
    return value.size() == 1;
  }
  totals->count = 1;
  if (what == kStoredDirectory || what == kInlinedDirectory) {
    if ((at = decode_varint(at, end, &totals->count)) == nullptr || totals->count == 0)
      return false;
  } else if (what > kInlinedDirectory) {
    return false;
  }
  if ((at = decode_varint(at, end, &totals->bytes)) == nullptr) return false;
  const auto left = static_cast<size_t>(end - at);
  if (what == kInlinedDirectory) return left > 0 && left <= kMaxInlinedRoot;
  if (what != kStoredDirectory && totals->bytes == 0) return false;
  if (what == static_cast<uint8_t>(BlobKind::kChunk) && totals->bytes > chunk::kMaxChunk) {
    return false;
  }
  return left == Hash::kSize;
}

}  // namespace

constinit const MapType kDirectoryMap{.leaf_type = static_cast<uint8_t>(NodeType::kDirectoryLeaf),
                                      .inner_type = static_cast<uint8_t>(NodeType::kDirectoryInner),
                                      .totals = directory_totals,
                                      .name = "directory"};

Hash tree_hash(const TreeRoot& root) { return root.root_hash(kDirectoryMap); }

Hash TreeEntry::content_id() const {
  return is_directory ? tree_hash(directory) : file.content_id();
}

void TreeEntry::encode_to(std::string& out) const {
  if (!is_directory) {
    file.encode_to(out);
    return;
  }
  const bool inlined = !directory.inlined.empty();
  put_u8(out, inlined ? kInlinedDirectory : kStoredDirectory);
  put_varint(out, directory.totals.count);
  put_varint(out, directory.totals.bytes);
  out += inlined ? std::string_view(directory.inlined) : directory.hash.view();
}

Result<TreeEntry> TreeEntry::decode(std::string_view bytes) {
  Reader in(bytes);
  TreeEntry entry;
  QANAT_ASSIGN_OR_RETURN(uint8_t what, in.u8());
  if (what < kStoredDirectory) {
    QANAT_ASSIGN_OR_RETURN(entry.file, FileRef::decode_after(what, in));
    QANAT_RETURN_IF_ERROR(in.expect_end());
    return entry;
  }
  if (what > kInlinedDirectory) {
    return data_loss(str_cat("an entry of a directory of unknown kind ", what));
  }
  entry.is_directory = true;
  QANAT_ASSIGN_OR_RETURN(entry.directory.totals.count, in.varint());
  QANAT_ASSIGN_OR_RETURN(entry.directory.totals.bytes, in.varint());
  if (entry.directory.totals.count == 0) return data_loss("a directory without files");
  if (what == kInlinedDirectory) {
    entry.directory.inlined = in.rest();
    if (entry.directory.inlined.empty() || entry.directory.inlined.size() > kMaxInlinedRoot) {
      return data_loss("an inlined directory that is empty or too long");
    }
    return entry;
  }
  QANAT_ASSIGN_OR_RETURN(entry.directory.hash, Hash::from_bytes(in.rest()));
  if (entry.directory.hash.is_zero()) return data_loss("a directory without a node");
  return entry;
}

Result<std::optional<TreeEntry>> Tree::find(std::string_view path) const {
  TreeEntry entry{.is_directory = true, .directory = root_};
  for (std::string_view part : split_path(path)) {
    if (!entry.is_directory) return std::optional<TreeEntry>();
    QANAT_ASSIGN_OR_RETURN(std::optional<std::string> value,
                           map_get(kDirectoryMap, *reader_, entry.directory, part));
    if (!value.has_value()) return std::optional<TreeEntry>();
    QANAT_ASSIGN_OR_RETURN(entry, TreeEntry::decode(*value));
  }
  return std::optional<TreeEntry>(std::move(entry));
}

Result<TreeEntry> Tree::stat(std::string_view path) const {
  QANAT_ASSIGN_OR_RETURN(std::optional<TreeEntry> entry, find(path));
  if (!entry.has_value()) return not_found(str_cat("no file or directory at /", path));
  return *std::move(entry);
}

Result<std::vector<NamedEntry>> Tree::list(std::string_view directory, std::string_view after,
                                           size_t limit) const {
  QANAT_ASSIGN_OR_RETURN(TreeEntry entry, stat(directory));
  if (!entry.is_directory) {
    return failed_precondition(str_cat("/", directory, " is a file, not a directory"));
  }
  std::vector<NamedEntry> entries;
  MapCursor cursor(kDirectoryMap, *reader_, std::move(entry.directory));
  QANAT_RETURN_IF_ERROR(cursor.seek(after));
  if (!after.empty() && cursor.valid() && cursor.key() == after) {
    QANAT_RETURN_IF_ERROR(cursor.next());
  }
  while (cursor.valid() && entries.size() < limit) {
    QANAT_ASSIGN_OR_RETURN(TreeEntry child, TreeEntry::decode(cursor.value()));
    entries.push_back({std::string(cursor.key()), std::move(child)});
    QANAT_RETURN_IF_ERROR(cursor.next());
  }
  return entries;
}

namespace internal {

Status check_length(const std::string& path) {
  if (path.size() <= kMaxPathLength) return ok_status();
  return too_large(str_cat("a path of ", path.size(), " bytes: /", path.substr(0, 80), "..."),
                   "a directory was copied to a place too deep for it: delete that copy");
}

bool after_within(std::string_view after, std::string_view directory, After* below) {
  *below = std::nullopt;
  if (after.empty()) return true;
  if (path_is_within(after, directory)) {
    if (after.size() > directory.size()) {
      *below = directory.empty() ? after : after.substr(directory.size() + 1);
    }
    return true;
  }
  return path_before(after, directory);
}

KeyRange names_for(const Glob& glob, std::string_view directory) {
  const std::string_view prefix = glob.literal_prefix();
  const size_t skip = directory.empty() ? 0 : directory.size() + 1;
  if (prefix.size() <= skip) return {};
  const std::string_view rest = prefix.substr(skip);
  const size_t slash = rest.find('/');
  if (slash == std::string_view::npos) return KeyRange::with_prefix(rest);
  const std::string_view name = rest.substr(0, slash);
  return {std::string(name), std::string(name) + '\0'};
}

Result<bool> walk_files(BlobReader& reader, const TreeRoot& root, std::string& path, After after,
                        const TreeVisitor& visit) {
  MapCursor cursor(kDirectoryMap, reader, root);
  QANAT_RETURN_IF_ERROR(cursor.seek(after ? first_part(*after) : std::string_view()));
  while (cursor.valid()) {
    const EntryAfter wanted = after_entry(after, cursor.key());
    QANAT_ASSIGN_OR_RETURN(TreeEntry entry, TreeEntry::decode(cursor.value()));
    PathPart part(path, cursor.key());
    QANAT_RETURN_IF_ERROR(check_length(path));
    if (entry.is_directory) {
      QANAT_ASSIGN_OR_RETURN(bool more,
                             walk_files(reader, entry.directory, path, wanted.below, visit));
      if (!more) return false;
    } else if (wanted.itself) {
      QANAT_ASSIGN_OR_RETURN(bool more, visit(path, entry));
      if (!more) return false;
    }
    QANAT_RETURN_IF_ERROR(cursor.next());
  }
  return true;
}

}  // namespace internal

Result<bool> Tree::walk(std::string_view prefix, const TreeVisitor& visit,
                        std::string_view after) const {
  QANAT_ASSIGN_OR_RETURN(std::optional<TreeEntry> start, find(prefix));
  if (!start.has_value()) return true;
  if (!start->is_directory) {
    return after.empty() || path_before(after, prefix) ? visit(prefix, *start) : Result<bool>(true);
  }
  After below;
  if (!internal::after_within(after, prefix, &below)) return true;
  std::string path(prefix);
  return internal::walk_files(*reader_, start->directory, path, below, visit);
}

namespace {

struct GlobWalk {
  BlobReader& reader;
  const Glob& glob;
  const TreeVisitor& visit;
  std::string path = {};

  Result<bool> enter(const TreeRoot& root, After after) {
    KeyRange names = internal::names_for(glob, path);
    if (after.has_value() && first_part(*after) > names.from) names.from = first_part(*after);
    MapCursor cursor(kDirectoryMap, reader, root);
    QANAT_RETURN_IF_ERROR(cursor.seek(names.from));
    for (; cursor.valid() && (names.to.empty() || cursor.key() < names.to);) {
      const EntryAfter wanted = after_entry(after, cursor.key());
      const bool is_directory = static_cast<uint8_t>(cursor.value()[0]) >= kStoredDirectory;
      PathPart part(path, cursor.key());
      QANAT_RETURN_IF_ERROR(internal::check_length(path));
      const bool found = wanted.itself && glob.match(path);
      const bool below = is_directory && glob.could_match_below(path);
      if (found || below) {
        QANAT_ASSIGN_OR_RETURN(TreeEntry entry, TreeEntry::decode(cursor.value()));
        if (found) {
          QANAT_ASSIGN_OR_RETURN(bool more, visit(path, entry));
          if (!more) return false;
        }
        if (below) {
          QANAT_ASSIGN_OR_RETURN(bool more, enter(entry.directory, wanted.below));
          if (!more) return false;
        }
      }
      QANAT_RETURN_IF_ERROR(cursor.next());
    }
    return true;
  }
};

}  // namespace

Result<bool> Tree::glob(const Glob& glob, const TreeVisitor& visit, std::string_view after) const {
  if (glob.matches_root()) {
    if (root_.empty() || !after.empty()) return true;
    return visit({}, TreeEntry{.is_directory = true, .directory = root_});
  }
  After below;
  internal::after_within(after, {}, &below);
  return GlobWalk{*reader_, glob, visit}.enter(root_, below);
}

}  // namespace qanat::content
