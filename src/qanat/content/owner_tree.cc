#include "qanat/content/owner_tree.h"

#include "qanat/content/tree_order.h"

namespace qanat::content {

std::string owner_key(std::string_view path, std::string_view sort_key) {
  std::string key = path_to_key(path);
  key += '\0';
  key += sort_key;
  return key;
}

Result<OwnerKey> parse_owner_key(std::string_view key) {
  const size_t end = key.find('\0');
  if (end == std::string_view::npos) return data_loss("an owner tree's key names no datum");
  return OwnerKey{key_to_path(key.substr(0, end)), key.substr(end + 1)};
}

namespace {

using EntryVisitor = std::function<Result<bool>(const OwnerKey&, const FileRef&)>;

// Entries whose keys begin with `prefix`.
Result<bool> visit_prefix(BlobReader& reader, const MapRoot& root, std::string_view prefix,
                          const EntryVisitor& visit) {
  MapCursor cursor(kPlainMap, reader, root);
  QANAT_RETURN_IF_ERROR(cursor.seek(prefix));
  while (cursor.valid() && cursor.key().starts_with(prefix)) {
    QANAT_ASSIGN_OR_RETURN(OwnerKey key, parse_owner_key(cursor.key()));
    QANAT_ASSIGN_OR_RETURN(FileRef file, FileRef::decode(cursor.value()));
    QANAT_ASSIGN_OR_RETURN(bool more, visit(key, file));
    if (!more) return false;
    QANAT_RETURN_IF_ERROR(cursor.next());
  }
  return true;
}

}  // namespace

Result<bool> OwnerTree::visit_owners(std::string_view path, const OwnerVisitor& visit) const {
  return visit_prefix(
      *reader_, root_, owner_key(path, {}),
      [&visit](const OwnerKey& key, const FileRef& file) { return visit(key.sort_key, file); });
}

Result<bool> OwnerTree::visit_under(std::string_view prefix, const EntryVisitor& visit) const {
  if (prefix.empty()) return visit_prefix(*reader_, root_, {}, visit);
  // The path itself, then what is below it: neighbours, since 0x00 and 0x01 begin what may follow.
  const std::string key = path_to_key(prefix);
  QANAT_ASSIGN_OR_RETURN(bool more, visit_prefix(*reader_, root_, key + '\0', visit));
  if (!more) return false;
  return visit_prefix(*reader_, root_, key + '\x01', visit);
}

Status OwnerTreeEditor::put(std::string_view path, std::string_view sort_key, const FileRef& file) {
  return editor_.put(owner_key(path, sort_key), file.encode());
}

Status OwnerTreeEditor::erase(std::string_view path, std::string_view sort_key) {
  return editor_.erase(owner_key(path, sort_key));
}

}  // namespace qanat::content
