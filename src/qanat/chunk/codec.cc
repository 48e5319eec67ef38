#include "qanat/chunk/codec.h"

#include <zstd.h>

#include <cstdlib>
#include <vector>

#include "qanat/base/string.h"
#include "qanat/chunk/blob_ref.h"

namespace qanat::chunk {
namespace {

// Below this, a frame's header eats what it saves.
constexpr size_t kSmallest = 64;

// The most that an encoding of `plain` bytes may take to be worth it.
size_t worthwhile(size_t plain) { return plain - (plain + 15) / 16; }

// From kSampled bytes on, kSamples pieces of kSample bytes, evenly spread, are compressed first.
constexpr size_t kSampled = 64u << 10;
constexpr size_t kSample = 4u << 10;
constexpr size_t kSamples = 4;

struct DecompressContext {
  ZSTD_DCtx* context = ZSTD_createDCtx();
  ~DecompressContext() { ZSTD_freeDCtx(context); }
};

}  // namespace

struct Encoder::Context {
  ZSTD_CCtx* zstd = ZSTD_createCCtx();
  std::string buffer;

  Context() {
    if (zstd == nullptr) std::abort();  // out of memory
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, 3);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_contentSizeFlag, 1);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 0);  // the blob's name is its checksum
  }
  ~Context() { ZSTD_freeCCtx(zstd); }

  // False if the sample says that nothing is to be saved. Kinder than worthwhile(): pieces compress
  // less well than the whole.
  bool promising(std::string_view plain) {
    if (plain.size() < kSampled) return true;
    char sample[kSample * kSamples];
    for (size_t i = 0; i < kSamples; ++i) {
      const size_t at = (plain.size() - kSample) / (kSamples - 1) * i;
      plain.copy(sample + i * kSample, kSample, at);
    }
    const size_t room = sizeof sample - sizeof sample / 64;
    if (buffer.size() < room) buffer.resize(room);
    return !ZSTD_isError(ZSTD_compress2(zstd, buffer.data(), room, sample, sizeof sample));
  }
};

Encoder::Encoder() : context_(std::make_unique<Context>()) {}
Encoder::~Encoder() = default;

Encoded Encoder::encode(std::string_view plain) {
  if (plain.size() < kSmallest) return {Codec::kRaw, plain};
  if (!context_->promising(plain)) return {Codec::kRaw, plain};
  // Room for what is worthwhile only: zstd stops as soon as it would not be.
  size_t room = worthwhile(plain.size());
  if (context_->buffer.size() < room) context_->buffer.resize(room);
  size_t size =
      ZSTD_compress2(context_->zstd, context_->buffer.data(), room, plain.data(), plain.size());
  if (ZSTD_isError(size)) return {Codec::kRaw, plain};
  return {Codec::kZstd, std::string_view(context_->buffer).substr(0, size)};
}

Result<std::string> decode(Codec codec, std::string_view stored, uint64_t plain_length) {
  if (plain_length > kMaxBlobLength) {
    return data_loss(str_cat("a blob claims ", plain_length, " bytes, more than any may have"));
  }
  switch (codec) {
    case Codec::kRaw:
      if (stored.size() != plain_length) {
        return data_loss(
            str_cat("a raw blob has ", stored.size(), " bytes instead of ", plain_length));
      }
      return std::string(stored);
    case Codec::kZstd: {
      if (plain_length < kSmallest || stored.size() > worthwhile(plain_length) ||
          ZSTD_findFrameCompressedSize(stored.data(), stored.size()) != stored.size() ||
          ZSTD_getFrameContentSize(stored.data(), stored.size()) != plain_length) {
        return data_loss("a compressed blob has a wrong length");
      }
      thread_local DecompressContext decompress;
      std::string plain(plain_length, '\0');
      size_t size = ZSTD_decompressDCtx(decompress.context, plain.data(), plain.size(),
                                        stored.data(), stored.size());
      if (ZSTD_isError(size) || size != plain_length) {
        return data_loss(str_cat("a compressed blob cannot be decompressed",
                                 ZSTD_isError(size) ? ": " : "",
                                 ZSTD_isError(size) ? ZSTD_getErrorName(size) : ""));
      }
      return plain;
    }
  }
  return data_loss(str_cat("unknown compression ", static_cast<int>(codec)));
}

}  // namespace qanat::chunk
