// Compression of single blobs: zstd where it helps, else the bytes as they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::chunk {

enum class Codec : uint8_t { kRaw = 0, kZstd = 1 };

struct Encoded {
  Codec codec = Codec::kRaw;
  std::string_view bytes;
};

// Thread-compatible: one per thread that encodes; it keeps a compression context and a buffer.
class Encoder {
 public:
  Encoder();
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  // Long bytes are judged by a sample first, so that what does not compress costs next to nothing;
  // what repeats only over distances longer than the sample's pieces may be taken for such.
  // zstd level 3 if that saves at least one sixteenth, else raw. The result refers to `plain` or to
  // a buffer of this object: valid until the next call.
  Encoded encode(std::string_view plain);

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// The plain bytes. kDataLoss unless `stored` is exactly one encoding of exactly `plain_length`
// bytes; never allocates more than plain_length, which may not be above kMaxBlobLength.
// Thread-safe.
Result<std::string> decode(Codec codec, std::string_view stored, uint64_t plain_length);

}  // namespace qanat::chunk
