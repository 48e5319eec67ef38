#include "qanat/base/bytes.h"

#include <array>

#include "qanat/base/string.h"

namespace qanat {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kBase64Url =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Without padding.
std::string encode_base64(std::string_view bytes, std::string_view alphabet) {
  std::string text;
  text.reserve((bytes.size() * 4 + 2) / 3 + 2);
  uint32_t pending = 0;
  unsigned bits = 0;
  for (char c : bytes) {
    pending = pending << 8U | static_cast<uint8_t>(c);
    bits += 8;
    while (bits >= 6) {
      bits -= 6;
      text.push_back(alphabet[pending >> bits & 63U]);
    }
  }
  if (bits > 0) text.push_back(alphabet[pending << (6 - bits) & 63U]);
  return text;
}

Result<std::string> decode_base64(std::string_view text, std::string_view alphabet) {
  std::array<int, 256> values;
  values.fill(-1);
  for (size_t i = 0; i < alphabet.size(); ++i) {
    values[static_cast<uint8_t>(alphabet[i])] = static_cast<int>(i);
  }
  if (text.size() % 4 == 1) return invalid_argument("base64 text is cut off");
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  uint32_t pending = 0;
  unsigned bits = 0;
  for (char c : text) {
    const int value = values[static_cast<uint8_t>(c)];
    if (value < 0) return invalid_argument(str_cat("not base64: ", quoted({&c, 1})));
    pending = pending << 6U | static_cast<uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<char>(pending >> bits & 255U));
    }
  }
  // One spelling for each text: the bits that no byte uses are zero.
  if ((pending & ((1U << bits) - 1)) != 0) return invalid_argument("base64 text has stray bits");
  return bytes;
}

template <class T>
void put_fixed(std::string& out, T value) {
  char buffer[sizeof value];
  std::memcpy(buffer, &value, sizeof value);
  out.append(buffer, sizeof value);
}

}  // namespace

std::string to_hex(std::string_view bytes) {
  std::string text(bytes.size() * 2, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    text[2 * i] = kHexDigits[byte >> 4U];
    text[2 * i + 1] = kHexDigits[byte & 15U];
  }
  return text;
}

Result<std::string> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return invalid_argument("hex text has an odd number of digits");
  std::string bytes(text.size() / 2, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    const int high = hex_value(text[2 * i]);
    const int low = hex_value(text[2 * i + 1]);
    if (high < 0 || low < 0) {
      return invalid_argument(str_cat("not hex: ", quoted(text.substr(2 * i, 2))));
    }
    bytes[i] = static_cast<char>(high << 4 | low);
  }
  return bytes;
}

std::string to_hex16(uint64_t number) {
  std::string text(16, '0');
  for (size_t i = 16; i-- > 0; number >>= 4U) text[i] = kHexDigits[number & 15U];
  return text;
}

Result<uint64_t> from_hex16(std::string_view text) {
  uint64_t number = 0;
  bool valid = text.size() == 16;
  for (char c : text) {
    const int value = hex_value(c);
    valid = valid && value >= 0 && !(c >= 'A' && c <= 'F');
    number = number << 4U | static_cast<uint64_t>(value & 15);
  }
  if (!valid) return invalid_argument(str_cat("not 16 lower-case hex digits: ", quoted(text)));
  return number;
}

std::string to_base64url(std::string_view bytes) { return encode_base64(bytes, kBase64Url); }

Result<std::string> from_base64url(std::string_view text) {
  return decode_base64(text, kBase64Url);
}

std::string to_base64(std::string_view bytes) {
  std::string text = encode_base64(bytes, kBase64);
  text.append((4 - text.size() % 4) % 4, '=');
  return text;
}

Result<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return invalid_argument("base64 text is cut off");
  for (int i = 0; i < 2 && text.ends_with('='); ++i) text.remove_suffix(1);
  return decode_base64(text, kBase64);
}

void put_u16(std::string& out, uint16_t value) { put_fixed(out, value); }
void put_u32(std::string& out, uint32_t value) { put_fixed(out, value); }
void put_u64(std::string& out, uint64_t value) { put_fixed(out, value); }

void put_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80U));
    value >>= 7U;
  }
  out.push_back(static_cast<char>(value));
}

void put_bytes(std::string& out, std::string_view bytes) {
  put_varint(out, bytes.size());
  out.append(bytes);
}

const char* decode_varint(const char* from, const char* end, uint64_t* value) {
  uint64_t result = 0;
  for (unsigned shift = 0; shift < 64 && from < end; shift += 7) {
    const auto byte = static_cast<uint8_t>(*from++);
    if (shift == 63 && byte > 1) return nullptr;  // over 64 bits
    result |= static_cast<uint64_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) {
      if (byte == 0 && shift > 0) return nullptr;  // longer than need be
      *value = result;
      return from;
    }
  }
  return nullptr;
}

Status Reader::cut_off(std::string_view what) const {
  return data_loss(
      str_cat("cut off or malformed: no ", what, " at byte ", position_, " of ", bytes_.size()));
}

Result<std::string_view> Reader::raw(size_t length) {
  if (length > remaining()) return cut_off(str_cat("run of ", length, " bytes"));
  std::string_view view = bytes_.substr(position_, length);
  position_ += length;
  return view;
}

Result<uint8_t> Reader::u8() {
  if (remaining() < 1) return cut_off("u8");
  return static_cast<uint8_t>(bytes_[position_++]);
}

Result<uint16_t> Reader::u16() {
  if (remaining() < 2) return cut_off("u16");
  position_ += 2;
  return load_u16(bytes_.data() + position_ - 2);
}

Result<uint32_t> Reader::u32() {
  if (remaining() < 4) return cut_off("u32");
  position_ += 4;
  return load_u32(bytes_.data() + position_ - 4);
}

Result<uint64_t> Reader::u64() {
  if (remaining() < 8) return cut_off("u64");
  position_ += 8;
  return load_u64(bytes_.data() + position_ - 8);
}

Result<uint64_t> Reader::varint() {
  uint64_t value = 0;
  const char* end = bytes_.data() + bytes_.size();
  const char* after = decode_varint(bytes_.data() + position_, end, &value);
  if (after == nullptr) return cut_off("varint");
  position_ = static_cast<size_t>(after - bytes_.data());
  return value;
}

Result<std::string_view> Reader::bytes() {
  const size_t start = position_;
  QANAT_ASSIGN_OR_RETURN(uint64_t length, varint());
  if (length > remaining()) {
    position_ = start;
    return cut_off(str_cat("run of ", length, " bytes"));
  }
  return raw(static_cast<size_t>(length));
}

Status Reader::expect(std::string_view magic, std::string_view what) {
  if (!rest().starts_with(magic)) {
    return data_loss(str_cat("this is not a ", what, ", or one of an unknown version: ",
                             quoted(magic), " is missing at byte ", position_));
  }
  position_ += magic.size();
  return ok_status();
}

Status Reader::expect_end() const {
  if (at_end()) return ok_status();
  return data_loss(str_cat(remaining(), " stray bytes from byte ", position_));
}

}  // namespace qanat
