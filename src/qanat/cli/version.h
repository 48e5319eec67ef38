// The version of this program.
#pragma once

namespace qanat::cli {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace qanat::cli
