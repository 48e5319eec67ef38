// Any bytes through Reader and the decoders of text: no read past the end, and what decodes encodes
// to itself.
#include <cstdint>
#include <cstdlib>

#include "qanat/base/bytes.h"
#include "qanat/base/clock.h"
#include "qanat/base/path.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  qanat::Reader reader(input);
  std::string again;
  while (!reader.at_end()) {
    const size_t before = reader.position();
    const qanat::Result<uint64_t> number = reader.varint();
    if (!number.ok()) break;
    again.clear();
    qanat::put_varint(again, *number);
    if (again != input.substr(before, reader.position() - before)) std::abort();
    (void)reader.bytes();
  }
  if (auto bytes = qanat::from_base64url(input); bytes.ok()) {
    if (qanat::to_base64url(*bytes) != input) std::abort();
  }
  if (auto time = qanat::parse_rfc3339(input); time.ok()) {
    const auto same = qanat::parse_rfc3339(qanat::format_rfc3339(*time));
    if (*time >= 0 && (!same.ok() || *same != *time)) std::abort();
  }
  if (auto path = qanat::parse_path(input); path.ok() && !path->empty()) {
    if (!qanat::check_path(*path).ok()) std::abort();
  }
  return 0;
}
