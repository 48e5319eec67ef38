// Names of content (SHA-256), keyed hashes (HMAC), and a fast hash for cuts, checksums and tables
// (XXH3).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat {

// 32 bytes, ordered bytewise. All zeros means "none" where a hash may be absent; no content is
// known that has this name.
struct Hash {
  static constexpr size_t kSize = 32;

  std::array<uint8_t, kSize> bytes{};

  // Fails (kInvalidArgument) unless there are exactly 64 hex digits.
  static Result<Hash> from_hex(std::string_view text);
  // Fails (kDataLoss) unless there are exactly 32 bytes.
  static Result<Hash> from_bytes(std::string_view bytes);

  std::string to_hex() const;
  // The 32 bytes; points into this object.
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), kSize}; }
  bool is_zero() const { return *this == Hash{}; }

  friend bool operator==(const Hash&, const Hash&) = default;
  friend std::strong_ordering operator<=>(const Hash& a, const Hash& b) {
    return std::memcmp(a.bytes.data(), b.bytes.data(), kSize) <=> 0;
  }
};

// SHA-256 (FIPS 180-4) of `bytes`. Thread safe, cannot fail short of memory running out, which
// aborts.
Hash sha256(std::string_view bytes);

// The same over pieces. One thread at a time; movable.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(std::string_view bytes);
  // The hash of everything since construction or the last finish(); starts afresh.
  Hash finish();

 private:
  void* context_;  // EVP_MD_CTX
};

// HMAC-SHA-256 (RFC 2104).
Hash hmac_sha256(std::string_view key, std::string_view message);

// For secrets: the time taken depends on the lengths only.
bool equal_constant_time(std::string_view a, std::string_view b);

// XXH3-64 without a seed. It is part of formats (node cuts, segment checksums): it never changes.
// Not for adversaries.
uint64_t hash64(std::string_view bytes);

// The same over pieces. One thread at a time; movable.
class Hasher64 {
 public:
  Hasher64();
  ~Hasher64();
  Hasher64(Hasher64&&) noexcept;
  Hasher64& operator=(Hasher64&&) noexcept;

  void update(std::string_view bytes);
  // The hash of everything since construction or the last finish(); starts afresh.
  uint64_t finish();

 private:
  void* state_;  // XXH3_state_t
};

}  // namespace qanat

// A content hash is uniform, so its first bytes serve as a table's hash.
template <>
struct std::hash<qanat::Hash> {
  size_t operator()(const qanat::Hash& hash) const noexcept {
    size_t value;
    std::memcpy(&value, hash.bytes.data(), sizeof value);
    return value;
  }
};
