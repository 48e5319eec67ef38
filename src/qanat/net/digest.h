// Checksums that other services ask for. MD5 guards against accidents on the wire here, nothing
// else.
#pragma once

#include <string>
#include <string_view>

namespace qanat::net {

// The 16 bytes of MD5 (RFC 1321).
std::string md5(std::string_view bytes);

}  // namespace qanat::net
