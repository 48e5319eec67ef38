#include "qanat/base/utf8.h"

#include <cstdint>

namespace qanat {

char32_t decode_utf8(std::string_view text, size_t& position) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const size_t start = position++;
  const uint8_t lead = byte(start);
  if (lead < 0x80) return lead;

  size_t length;
  char32_t smallest;  // the first character that needs this length
  char32_t character;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2, smallest = 0x80, character = lead & 0x1FU;
  } else if ((lead & 0xF0U) == 0xE0) {
    length = 3, smallest = 0x800, character = lead & 0x0FU;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4, smallest = 0x10000, character = lead & 0x07U;
  } else {
    return kInvalidCharacter;
  }
  if (text.size() - start < length) return kInvalidCharacter;
  for (size_t i = start + 1; i < start + length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return kInvalidCharacter;
    character = character << 6U | (byte(i) & 0x3FU);
  }
  const bool surrogate = character >= 0xD800 && character <= 0xDFFF;
  if (character < smallest || character > 0x10FFFF || surrogate) return kInvalidCharacter;
  position = start + length;
  return character;
}

bool is_utf8(std::string_view text) {
  for (size_t position = 0; position < text.size();) {
    if (decode_utf8(text, position) == kInvalidCharacter) return false;
  }
  return true;
}

}  // namespace qanat
