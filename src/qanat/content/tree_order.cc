#include "qanat/content/tree_order.h"

#include <algorithm>

namespace qanat::content {

namespace {

// '/' sorts below whatever a part may hold.
unsigned char rank_of(char c) { return c == '/' ? 0 : static_cast<unsigned char>(c); }

}  // namespace

int compare_paths(std::string_view a, std::string_view b) {
  const size_t common = std::min(a.size(), b.size());
  const auto [at_a, at_b] = std::mismatch(a.begin(), a.begin() + common, b.begin());
  if (at_a != a.begin() + common) return rank_of(*at_a) < rank_of(*at_b) ? -1 : 1;
  return a.size() == b.size() ? 0 : a.size() < b.size() ? -1 : 1;
}

std::string path_to_key(std::string_view path) {
  std::string key(path);
  std::replace(key.begin(), key.end(), '/', '\x01');
  return key;
}

std::string key_to_path(std::string_view key) {
  std::string path(key);
  std::replace(path.begin(), path.end(), '\x01', '/');
  return path;
}

}  // namespace qanat::content
