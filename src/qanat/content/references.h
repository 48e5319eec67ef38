// What a node refers to: the walk of garbage collection and fsck.
#pragma once

#include <functional>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/map_root.h"

namespace qanat::content {

// Calls `visit` with each blob that a node of any type refers to directly, for garbage collection
// and fsck: children, files' chunks and chunk lists, directories; an inlined directory's own
// references are visited in its place. Values of plain maps are opaque here: `visit_value` (may be
// null) gets each. A journal node (type 7) is not for this function.
Status visit_references(const Blob& node, const std::function<Status(const BlobRef&)>& visit,
                        const std::function<Status(std::string_view value)>& visit_value);

// The same from a map's root: its node, or what an inlined root refers to.
Status visit_root(const MapRoot& root, const std::function<Status(const BlobRef&)>& visit,
                  const std::function<Status(std::string_view value)>& visit_value);

}  // namespace qanat::content
