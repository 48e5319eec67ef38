// Removes a folder whatever user code has made in it: any depth, any number of names. Through
// descriptors, so that no path grows too long and no symbolic link is followed; with a bounded
// number of them and of names in memory.
#pragma once

#include <string>

#include "qanat/base/status.h"

namespace qanat {

// The folder and everything in it; OK if it does not exist. What is mounted below it is not
// entered: that is an error. After an error part of it is left, perhaps with folders from its
// depths moved to its top.
Status remove_directory_tree(const std::string& path);

}  // namespace qanat
