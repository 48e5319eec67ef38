// Store URLs and credentials files: no crash; a URL that is taken has one spelling, which is read
// back, and a prefix that makes good keys.
#include <cstdint>
#include <cstdlib>

#include "qanat/object/ini_file.h"
#include "qanat/object/object_store.h"
#include "qanat/object/store_url.h"

namespace object = qanat::object;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (const auto url = object::parse_store_url(input); url.ok()) {
    if (url->kind != object::StoreUrl::Kind::kLocal) {
      const auto again = object::parse_store_url(url->to_string());
      if (!again.ok() || again->to_string() != url->to_string()) std::abort();
      if (!url->prefix.empty() && url->prefix.size() < 900 &&
          !object::check_key(url->prefix + "x").ok()) {
        std::abort();
      }
    }
  }
  if (const auto file = object::parse_ini(input); file.ok()) {
    size_t total = 0;
    for (const auto& [section, values] : *file) {
      for (const auto& [name, value] : values) total += name.size() + value.size();
    }
    if (total > size) std::abort();
  }
  return 0;
}
