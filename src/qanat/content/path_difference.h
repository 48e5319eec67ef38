// What happened to one path between two trees.
#pragma once

#include <string_view>

#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/tree.h"

namespace qanat::content {

// Whether what is at `path` (a file, a directory, nothing) differs. Reads no further than to where
// the ways to it are the same in both trees: what a history asks of one commit after another.
Result<bool> differs_at(BlobReader& reader, const TreeRoot& a, const TreeRoot& b,
                        std::string_view path);

}  // namespace qanat::content
