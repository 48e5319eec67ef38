// A tar from a stranger: no crash, bounded memory, and the same files whatever pieces it comes in.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "qanat/base/path.h"
#include "qanat/connect/tar_reader.h"

using qanat::connect::TarReader;

namespace {

std::string read(std::string_view bytes, size_t step, bool* ok) {
  TarReader reader([&](char* buffer, size_t size) -> qanat::Result<size_t> {
    const size_t take = std::min({size, step, bytes.size()});
    if (take > 0) std::memcpy(buffer, bytes.data(), take);
    bytes.remove_prefix(take);
    return take;
  });
  std::string found;
  *ok = false;
  while (true) {
    const auto entry = reader.next();
    if (!entry.ok()) return found;
    if (!*entry) break;
    if (!qanat::check_path((*entry)->path).ok()) std::abort();
    found += (*entry)->path + '\0' + (*entry)->link + '\0';
    char piece[100];
    uint64_t size = 0;
    while (true) {
      const auto got = reader.read(piece, sizeof piece);
      if (!got.ok()) return found;
      if (*got == 0) break;
      size += *got;
      found.append(piece, *got);
    }
    if (size != (*entry)->size) std::abort();
  }
  *ok = true;
  return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  bool ok = false;
  bool again = false;
  const std::string first = read(input, size + 1, &ok);
  if (first != read(input, 7, &again) || ok != again) std::abort();
  return 0;
}
