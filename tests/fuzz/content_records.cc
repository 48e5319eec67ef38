// Any bytes as each record of collections and uploads: no crash, and what is accepted has one
// spelling.
#include <cstdint>
#include <cstdlib>

#include "qanat/content/gc_records.h"
#include "qanat/content/uploads.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qanat::content;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto record = parse_collection(bytes);
      record.ok() && encode_collection(*record) != bytes) {
    std::abort();
  }
  if (const auto record = parse_upload(bytes); record.ok() && encode_upload(*record) != bytes) {
    std::abort();
  }
  return 0;
}
