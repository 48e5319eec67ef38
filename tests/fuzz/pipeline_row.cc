// Any bytes as a datum row: no crash, and what decodes encodes to itself.
#include <cstdint>
#include <cstdlib>

#include "qanat/pipeline/datum_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto row = qanat::pipeline::decode_row(bytes);
  if (row.ok() && qanat::pipeline::encode_row(*row) != bytes) std::abort();
  (void)qanat::pipeline::describe_sort_key(bytes);
  return 0;
}
