// Any bytes as what a container engine answers: no crash.
#include <cstdint>

#include "qanat/run/docker_engine.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)qanat::run::parse_image(bytes);
  (void)qanat::run::parse_container_state(bytes);
  (void)qanat::run::parse_container_list(bytes);
  (void)qanat::run::plain_log(bytes);
  (void)qanat::run::engine_error(500, bytes);
  return 0;
}
