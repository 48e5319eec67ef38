#include "qanat/base/id.h"

#include <algorithm>

#include "qanat/base/bytes.h"

namespace qanat {

std::string random_id(RandomSource& random) {
  char bytes[kIdLength / 2];
  random.fill(bytes, sizeof bytes);
  return to_hex({bytes, sizeof bytes});
}

bool is_id(std::string_view text) {
  return text.size() == kIdLength && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace qanat
