// UTF-8 (RFC 3629), strictly: no surrogates, no overlong forms, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string_view>

namespace qanat {

// What decode_utf8 gives for a byte that does not begin a well-formed character.
inline constexpr char32_t kInvalidCharacter = 0xFFFFFFFF;

// The character at `position`, which moves behind it (by one byte when it is not well formed).
// `position` < text.size().
char32_t decode_utf8(std::string_view text, size_t& position);

bool is_utf8(std::string_view text);

}  // namespace qanat
