// Requests that a store will take from whoever holds them, for a while: how a worker reads and
// writes the store without its keys. A capability that an ObjectStore may have
// (ObjectStore::presigned_urls).
//
// A presigned request is a secret as long as it lives: it is for the one it was made for, and for
// no log. Thread safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::object {

struct PresignedRequest {
  std::string method;  // GET or PUT
  std::string url;
  // To be sent exactly so: they are part of what is signed. Content-Length may be among them, which
  // most HTTP clients send by themselves.
  std::vector<std::pair<std::string, std::string>> headers;
  int64_t expires_ms = 0;  // wall clock
};

class PresignedUrls {
 public:
  virtual ~PresignedUrls() = default;

  // Whether the store refuses a presigned request that is used for another range, or for another
  // number of bytes, than it was made for. Where it does not, the holder of presign_read() can read
  // the whole object, and the holder of presign_write() can write any number of bytes: then bytes
  // for those who must not be trusted pass through the server.
  virtual bool limits_range() const = 0;
  virtual bool limits_size() const = 0;

  // Reads [offset, offset + length), length > 0, with the header Range. Whether the object exists
  // is not looked at. `lifetime`: 1 second to 7 days, or kInvalidArgument; it ends earlier with the
  // store's own credentials, if these expire.
  virtual Result<PresignedRequest> presign_read(std::string_view key, int64_t offset,
                                                int64_t length, std::chrono::seconds lifetime) = 0;
  // Writes the whole object of `size` bytes in one request. The key should be one that is given
  // out once: a holder can write it again until the request expires.
  virtual Result<PresignedRequest> presign_write(std::string_view key, int64_t size,
                                                 std::chrono::seconds lifetime) = 0;
};

}  // namespace qanat::object
