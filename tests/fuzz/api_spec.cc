// Any text as a pipeline spec: no crash, no hang; and what loads has an effective spec that loads
// to the same, without notes.
#include <cstdint>
#include <cstdlib>

#include "qanat/api/pipeline_spec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto loaded = qanat::api::load_pipeline_specs(text);
  if (!loaded.ok()) return 0;
  for (const qanat::api::LoadedSpec& spec : *loaded) {
    const auto again = qanat::api::load_pipeline_specs(qanat::api::effective_spec(spec.spec));
    if (!again.ok() || again->size() != 1) std::abort();
    if (!(again->front().spec == spec.spec) || !again->front().notes.empty()) std::abort();
    if (!qanat::api::load_pipeline_specs(spec.user_json).ok()) std::abort();
  }
  return 0;
}
