// Addresses and JSON bodies from strangers: no crash, and what is accepted comes back when written
// and read again.
#include <cstdint>
#include <cstdlib>

#include "qanat/api/address.h"
#include "qanat/api/routes.h"
#include "qanat/api/types.h"

using namespace qanat::api;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (auto address = parse_address(input); address.ok()) {
    auto again = parse_address(address->to_string());
    if (!again.ok() || !(*again == *address)) std::abort();
  }
  if (auto ref = parse_ref(input); ref.ok()) {
    auto again = parse_ref(ref->to_string());
    if (!again.ok() || !(*again == *ref)) std::abort();
  }
  if (auto job = parse_job_address(input); job.ok()) {
    auto again = parse_job_address(job->to_string());
    if (!again.ok() || !(*again == *job)) std::abort();
  }
  std::string allowed;
  (void)match_route(qanat::net::Method::kGet, input, &allowed);
  for (bool lenient : {false, true}) {
    const ReadOptions options{lenient, lenient, lenient};
    if (auto wave = parse_json<WaveInfo>(input, options); wave.ok()) {
      auto again = parse_json<WaveInfo>(json_text(*wave));
      if (!again.ok() || !described_equal(*again, *wave)) std::abort();
    }
  }
  return 0;
}
