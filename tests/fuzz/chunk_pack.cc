// Any bytes as a pack, a trailer, a location, a key, and a compressed blob: no read past the end,
// no allocation beyond the stated length, and what is accepted encodes to itself.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "qanat/chunk/chunker.h"
#include "qanat/chunk/pack.h"

using namespace qanat;         // NOLINT(google-build-using-namespace)
using namespace qanat::chunk;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  (void)verify_pack(input);
  (void)parse_pack_trailer(input.substr(0, kPackTrailerLength), size);
  if (Result<BlobRef> ref = parse_blob_key(input); ref.ok() && blob_key(*ref) != input)
    std::abort();
  if (Result<BlobLocation> location = parse_location(input);
      location.ok() && encode_location(*location) != input) {
    std::abort();
  }
  if (size > 1) {
    std::string_view stored = input.substr(1);
    for (uint64_t plain : {uint64_t{data[0]}, uint64_t{data[0]} * 64, uint64_t{stored.size()}}) {
      Result<std::string> decoded = decode(static_cast<Codec>(data[0] % 3), stored, plain);
      if (decoded.ok() && decoded->size() != plain) std::abort();
    }
  }
  (void)is_natural_cut(input);
  (void)is_valid_last(input);

  // A pack of the input's pieces is a pack, and its bytes with one byte changed are none, or hold
  // the same blobs.
  std::string bytes;
  Encoder encoder;
  PackWriter writer(
      [&](std::string_view piece) -> Status {
        bytes += piece;
        return ok_status();
      },
      &encoder);
  for (size_t at = 0; at < size; at += 1 + data[at]) {
    std::string_view plain = input.substr(at, 1 + data[at]);
    if (!writer.add(name_blob(BlobKind::kChunk, plain), plain).ok()) std::abort();
  }
  if (!writer.finish().ok() || !verify_pack(bytes).ok()) std::abort();
  return 0;
}
