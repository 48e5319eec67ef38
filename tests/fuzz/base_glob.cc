// Any two texts as pattern and path: compiling and matching must neither crash nor hang, matching
// and capturing must agree, and a walk that prunes must not miss a match.
#include <cstdint>
#include <cstdlib>

#include "qanat/base/glob.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\0');
  if (cut == std::string_view::npos || size > 600) return 0;
  const std::string_view path = input.substr(cut + 1);
  const qanat::Result<qanat::Glob> glob = qanat::Glob::compile(input.substr(0, cut));
  if (!glob.ok()) return 0;
  const bool matches = glob->match(path);
  const auto captures = glob->captures(path);
  if (matches != captures.has_value()) std::abort();
  if (matches && captures->size() != glob->group_count()) std::abort();
  if (matches && !glob->matches_root()) {
    for (size_t slash = path.find('/', 1); slash != std::string_view::npos;
         slash = path.find('/', slash + 1)) {
      // A path with empty parts is none that a walk could come to.
      if (path.find("//") != std::string_view::npos || slash + 1 == path.size()) break;
      if (!glob->could_match_below(path.substr(0, slash))) std::abort();
    }
  }
  return 0;
}
