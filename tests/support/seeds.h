// How many seeds a randomized test tries: its own small number, or what `./dev sim N` asks for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace qanat::testing {

inline uint64_t seed_count(uint64_t usual) {
  const char* asked = std::getenv("QANAT_SEEDS");
  return asked != nullptr ? std::strtoull(asked, nullptr, 10) : usual;
}

// Seeds for the reboots after crash point `n`: 0 (all that may be lost is lost), 1 (nothing is),
// and others that differ from one crash point to the next.
inline std::vector<uint64_t> reboot_seeds(uint64_t n, uint64_t usual = 4) {
  std::vector<uint64_t> seeds = {0, 1};
  const uint64_t count = std::max<uint64_t>(seed_count(usual), 2);
  while (seeds.size() < count) seeds.push_back(2 + n * 1'000'003 + seeds.size());
  return seeds;
}

}  // namespace qanat::testing
