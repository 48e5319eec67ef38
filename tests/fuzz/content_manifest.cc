// Any bytes as each record of an index: no crash, and what is accepted has one spelling.
#include <cstdint>
#include <cstdlib>

#include "qanat/content/index_manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qanat::content;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto location = parse_segment_location(bytes);
      location.ok() && encode_segment_location(*location) != bytes) {
    std::abort();
  }
  if (const auto manifest = parse_manifest(bytes);
      manifest.ok() && encode_manifest(*manifest) != bytes) {
    std::abort();
  }
  if (const auto removal = parse_removal(bytes);
      removal.ok() && encode_removal(*removal) != bytes) {
    std::abort();
  }
  return 0;
}
