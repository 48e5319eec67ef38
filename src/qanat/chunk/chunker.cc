#include "qanat/chunk/chunker.h"

#include <algorithm>
#include <array>

namespace qanat::chunk {
namespace {

// The gear table: the first 256 outputs of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
// Pseudorandom Number Generators", OOPSLA 2014) from the seed "QANAT" in ASCII, big-endian.
constexpr std::array<uint64_t, 256> make_gear() {
  std::array<uint64_t, 256> gear{};
  uint64_t state = 0x51414e4154;
  for (uint64_t& value : gear) {
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    value = z ^ (z >> 31);
  }
  return gear;
}
constexpr std::array<uint64_t, 256> kGear = make_gear();

// A shift by one a byte: the hash depends on the last 64 bytes.
constexpr size_t kWindow = 64;

// Below it, that many of the top bits are zero: these depend on the most bytes.
constexpr uint64_t threshold(int bits) { return uint64_t{1} << (64 - bits); }

// Rolls *hash over the bytes until it falls below `limit`, and returns how many that took; 0 if it
// never does. At four places at once, as one hash alone leaves much of a processor idle: each but
// the first begins with the window before it, and counts if those before it find nothing.
[[gnu::always_inline]] inline size_t roll_until(uint64_t limit, const uint8_t* bytes, size_t size,
                                                uint64_t* hash) {
  constexpr size_t kPlaces = 4;
  constexpr size_t kStretch = 4096;
  constexpr size_t kTurn = 4;
  uint64_t h[kPlaces] = {*hash};
  size_t i = 0;
  for (; i + kPlaces * kStretch <= size; i += kPlaces * kStretch) {
    const uint8_t* from = bytes + i;
    for (size_t place = 1; place < kPlaces; ++place) {
      h[place] = 0;
      for (size_t k = 0; k < kWindow; ++k) {
        h[place] = (h[place] << 1) + kGear[from[place * kStretch - kWindow + k]];
      }
    }
    size_t found = SIZE_MAX;  // at the other places
    for (size_t k = 0; k < kStretch; k += kTurn) {
#pragma GCC unroll 4
      for (size_t at = k; at < k + kTurn; ++at) {
        h[0] = (h[0] << 1) + kGear[from[at]];
        if (h[0] < limit) return i + at + 1;
#pragma GCC unroll 4
        for (size_t place = 1; place < kPlaces; ++place) {
          h[place] = (h[place] << 1) + kGear[from[place * kStretch + at]];
          if (h[place] < limit) [[unlikely]] {
            found = std::min(found, place * kStretch + at + 1);
            // Keeps the compiler from doing without the branch, which costs more at every byte.
            asm volatile("" : "+r"(found));
          }
        }
      }
    }
    if (found != SIZE_MAX) return i + found;
    h[0] = h[kPlaces - 1];
  }
  for (; i < size; ++i) {
    h[0] = (h[0] << 1) + kGear[bytes[i]];
    if (h[0] < limit) return i + 1;
  }
  *hash = h[0];
  return 0;
}

// Goes on with a chunk of which `length` bytes were seen. Returns how many bytes of `data` belong
// to the chunk if it ends in them, else 0 with *length and *hash moved past all of them. Inlined,
// so that the product's sizes are constants in it.
[[gnu::always_inline]] inline size_t scan(const ChunkSizes& sizes, std::string_view data,
                                          size_t* length, uint64_t* hash) {
  const uint64_t strict = threshold(sizes.strict_bits);
  const uint64_t lax = threshold(sizes.lax_bits);
  const size_t warm_from = sizes.min - kWindow;
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  size_t i = 0;
  size_t at = *length;
  uint64_t h = *hash;
  if (at < warm_from) {
    size_t skip = std::min(data.size(), warm_from - at);
    i += skip;
    at += skip;
  }
  auto end_for = [&](size_t bound) { return std::min(data.size(), i + (bound - at)); };
  // Each loop consumes bytes until the chunk's length is the bound.
  if (at < sizes.min - 1) {
    size_t end = end_for(sizes.min - 1);
    at += end - i;
    for (; i < end; ++i) h = (h << 1) + kGear[bytes[i]];
  }
  if (at >= sizes.min - 1 && at < sizes.normal - 1) {
    const size_t size = end_for(sizes.normal - 1) - i;
    const size_t rolled = roll_until(strict, bytes + i, size, &h);
    if (rolled > 0) return i + rolled;
    at += size;
    i += size;
  }
  if (at >= sizes.normal - 1 && at < sizes.max) {
    const size_t size = end_for(sizes.max) - i;
    const size_t rolled = roll_until(lax, bytes + i, size, &h);
    if (rolled > 0) return i + rolled;
    at += size;
    i += size;
    if (at == sizes.max) return i;
  }
  *length = at;
  *hash = h;
  return 0;
}

}  // namespace

size_t find_cut(std::string_view data) {
  size_t length = 0;
  uint64_t hash = 0;
  return scan(kChunkSizes, data, &length, &hash);
}

size_t find_cut(std::string_view data, const ChunkSizes& sizes) {
  size_t length = 0;
  uint64_t hash = 0;
  return scan(sizes, data, &length, &hash);
}

bool is_natural_cut(std::string_view chunk) {
  return !chunk.empty() && find_cut(chunk) == chunk.size();
}

bool is_valid_last(std::string_view chunk) {
  if (chunk.empty()) return false;
  size_t cut = find_cut(chunk);
  return cut == 0 || cut == chunk.size();
}

bool ends_in_cut(std::string_view chunk) {
  if (chunk.size() < kMinChunk) return false;
  if (chunk.size() >= kMaxChunk) return chunk.size() == kMaxChunk;
  uint64_t h = 0;
  for (const char c : chunk.substr(chunk.size() - kWindow)) {
    h = (h << 1) + kGear[static_cast<uint8_t>(c)];
  }
  return h <
         threshold(chunk.size() < kNormalChunk ? kChunkSizes.strict_bits : kChunkSizes.lax_bits);
}

size_t CutFinder::find(std::string_view data) {
  const size_t cut = scan(kChunkSizes, data, &length_, &hash_);
  if (cut > 0) *this = CutFinder();
  return cut;
}

Status Chunker::update(std::string_view data) {
  while (!data.empty()) {
    const size_t cut = finder_.find(data);
    if (cut == 0) {
      if (buffer_.empty())
        buffer_.reserve(std::min(kMaxChunk, std::max(data.size(), kNormalChunk)));
      buffer_.append(data);
      return ok_status();
    }
    std::string_view piece = data.substr(0, cut);
    data.remove_prefix(cut);
    if (buffer_.empty()) {
      QANAT_RETURN_IF_ERROR(sink_(piece));
    } else {
      buffer_.append(piece);
      Status status = sink_(buffer_);
      buffer_.clear();
      QANAT_RETURN_IF_ERROR(status);
    }
  }
  return ok_status();
}

Status Chunker::finish() {
  Status status = buffer_.empty() ? ok_status() : sink_(buffer_);
  reset();
  return status;
}

void Chunker::reset() {
  buffer_.clear();
  finder_ = CutFinder();
}

}  // namespace qanat::chunk
