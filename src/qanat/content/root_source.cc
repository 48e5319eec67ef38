#include "qanat/content/root_source.h"

#include "qanat/content/file_ref.h"
#include "qanat/content/references.h"

namespace qanat::content {
namespace {

// A file's chunks; a directory's children, whatever map a directory hangs in.
std::function<Status(const BlobRef&)> children(NodeUse use, const ReferenceVisitor& visit) {
  return [use, &visit](const BlobRef& ref) { return visit({ref, use}); };
}

// Values of a file map. A map's own children are of the map's use; what its values name is content.
std::function<Status(std::string_view)> files(const ReferenceVisitor& visit) {
  return [&visit](std::string_view value) -> Status {
    QANAT_ASSIGN_OR_RETURN(const FileRef file, FileRef::decode(value));
    return file.empty() ? ok_status() : visit({file.blob(), NodeUse::kContent});
  };
}

}  // namespace

Status visit_root_references(const MapRoot& root, NodeUse use, const ReferenceVisitor& visit) {
  return visit_root(root, children(use, visit), files(visit));
}

Status visit_node_references(const Blob& node, NodeUse use, const ReferenceVisitor& visit) {
  return visit_references(node, children(use, visit), files(visit));
}

}  // namespace qanat::content
