// How many seeds a randomized test tries: its own small number, or what `./dev sim N` asks for.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace qanat::testing {

inline uint64_t seed_count(uint64_t usual) {
  const char* asked = std::getenv("QANAT_SEEDS");
  return asked != nullptr ? std::strtoull(asked, nullptr, 10) : usual;
}

}  // namespace qanat::testing
