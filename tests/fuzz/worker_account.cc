// Any bytes as an image's passwd and group: no crash.
#include <cstdint>

#include "qanat/worker/account.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t half = size / 2;
  (void)qanat::worker::find_account("user", bytes.substr(0, half), bytes.substr(half));
  (void)qanat::worker::find_account(bytes.substr(0, half), bytes.substr(half),
                                    "users:x:100:user\n");
  return 0;
}
