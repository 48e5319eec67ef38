// Bytes are std::string (owned) and std::string_view (borrowed) everywhere in Qanat. This header
// turns numbers into bytes and back, as docs/formats.md spells them: little-endian integers, LEB128
// varints, and length-prefixed bytes; and bytes into text.
//
// Writers append to a string and cannot fail. `Reader` checks every bound: what it reads may be
// damaged or hostile.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat {

static_assert(std::endian::native == std::endian::little, "Qanat runs on little-endian machines");

// Lower case. from_hex takes either case, and fails (kInvalidArgument) on odd length or other
// characters.
std::string to_hex(std::string_view bytes);
Result<std::string> from_hex(std::string_view text);
// 16 lower-case digits, so that text order is number order: the form of wave numbers in keys. The
// inverse takes exactly that form.
std::string to_hex16(uint64_t number);
Result<uint64_t> from_hex16(std::string_view text);

// RFC 4648 section 5, without padding; padding is refused on the way back.
std::string to_base64url(std::string_view bytes);
Result<std::string> from_base64url(std::string_view text);
// RFC 4648 section 4, with padding, as HTTP headers and the engines' APIs want it.
std::string to_base64(std::string_view bytes);
Result<std::string> from_base64(std::string_view text);

inline void put_u8(std::string& out, uint8_t value) { out.push_back(static_cast<char>(value)); }
void put_u16(std::string& out, uint16_t value);
void put_u32(std::string& out, uint32_t value);
void put_u64(std::string& out, uint64_t value);
// Unsigned LEB128: 1 to 10 bytes.
void put_varint(std::string& out, uint64_t value);
// Varint length, then the bytes.
void put_bytes(std::string& out, std::string_view bytes);
// How many bytes put_varint writes for `value`.
constexpr size_t varint_size(uint64_t value) {
  return value == 0 ? 1 : (static_cast<size_t>(std::bit_width(value)) + 6) / 7;
}

// From memory known to be long enough.
inline uint16_t load_u16(const char* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline uint32_t load_u32(const char* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline uint64_t load_u64(const char* from) {
  uint64_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// For inner loops: decodes a varint from [from, end) and returns the byte after it, or nullptr if
// it is cut off, longer than ten bytes or over 64 bits. Encodings longer than need be are refused
// too: each number has one spelling, so that equal content has equal bytes.
const char* decode_varint(const char* from, const char* end, uint64_t* value);

// Reads a borrowed buffer front to back; views it returns point into that buffer. After an error
// the position is where the failing item began. Every error is kDataLoss and says at which byte.
// Cheap to copy; not thread safe.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  bool at_end() const { return remaining() == 0; }
  // Everything not read yet; does not move.
  std::string_view rest() const { return bytes_.substr(position_); }

  Result<uint8_t> u8();
  Result<uint16_t> u16();
  Result<uint32_t> u32();
  Result<uint64_t> u64();
  Result<uint64_t> varint();
  // Varint length, then so many bytes.
  Result<std::string_view> bytes();
  // Exactly `length` bytes.
  Result<std::string_view> raw(size_t length);
  // Reads magic.size() bytes, which must be `magic`; `what` names the format in the error.
  Status expect(std::string_view magic, std::string_view what);
  // Fails if anything is left.
  Status expect_end() const;

 private:
  Status cut_off(std::string_view what) const;

  std::string_view bytes_;
  size_t position_ = 0;
};

}  // namespace qanat
