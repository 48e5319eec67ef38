// Any bytes as each record of pipelines and jobs: no crash, and what is read reads the same again.
#include <cstdint>
#include <cstdlib>

#include "qanat/pipeline/records.h"

namespace {

template <class Record>
void check(std::string_view bytes) {
  const auto record = qanat::pipeline::decode<Record>("key", bytes);
  if (!record.ok()) return;
  const std::string text = qanat::pipeline::encode(*record);
  const auto again = qanat::pipeline::decode<Record>("key", text);
  if (!again.ok() || qanat::pipeline::encode(*again) != text) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check<qanat::pipeline::PipelineRecord>(bytes);
  check<qanat::pipeline::SpecRecord>(bytes);
  check<qanat::pipeline::JobRecord>(bytes);
  return 0;
}
