#include "qanat/content/references.h"

#include "qanat/base/string.h"
#include "qanat/content/node.h"
#include "qanat/content/tree.h"

namespace qanat::content {

namespace {

Status visit_directory_entry(std::string_view value,
                             const std::function<Status(const BlobRef&)>& visit) {
  QANAT_ASSIGN_OR_RETURN(TreeEntry entry, TreeEntry::decode(value));
  if (!entry.is_directory) {
    return entry.file.empty() ? ok_status() : visit(entry.file.blob());
  }
  // Inlining nests within 256 bytes, so this recursion ends soon.
  return visit_root(entry.directory, visit, {});
}

}  // namespace

Status visit_references(const Blob& node, const std::function<Status(const BlobRef&)>& visit,
                        const std::function<Status(std::string_view value)>& visit_value) {
  if (node->size() < 2) return data_loss("a node: too short");
  const auto type = static_cast<NodeType>((*node)[1]);
  const MapType* map = nullptr;
  switch (type) {
    case NodeType::kDirectoryLeaf:
    case NodeType::kDirectoryInner:
      map = &kDirectoryMap;
      break;
    case NodeType::kMapLeaf:
    case NodeType::kMapInner:
      map = &kPlainMap;
      break;
    case NodeType::kChunkListLeaf:
    case NodeType::kChunkListInner:
      break;
    default:
      return data_loss(str_cat("a node of unknown type ", static_cast<int>((*node)[1])));
  }
  QANAT_ASSIGN_OR_RETURN(NodePtr parsed,
                         map ? Node::parse_map(*map, node) : Node::parse_chunk_list(node));
  for (const NodeEntry& entry : parsed->entries()) {
    if (!parsed->is_leaf()) {
      QANAT_RETURN_IF_ERROR(visit({BlobKind::kNode, entry.hash()}));
    } else if (map == nullptr) {
      QANAT_RETURN_IF_ERROR(visit({BlobKind::kChunk, entry.hash()}));
    } else if (map == &kDirectoryMap) {
      QANAT_RETURN_IF_ERROR(visit_directory_entry(entry.value, visit));
    } else if (visit_value) {
      QANAT_RETURN_IF_ERROR(visit_value(entry.value));
    }
  }
  return ok_status();
}

Status visit_root(const MapRoot& root, const std::function<Status(const BlobRef&)>& visit,
                  const std::function<Status(std::string_view value)>& visit_value) {
  if (root.empty()) return ok_status();
  if (root.inlined.empty()) return visit({BlobKind::kNode, root.hash});
  return visit_references(std::make_shared<const std::string>(root.inlined), visit, visit_value);
}

}  // namespace qanat::content
