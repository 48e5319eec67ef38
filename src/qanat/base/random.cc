#include "qanat/base/random.h"

#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace qanat {
namespace {

class SystemRandom : public RandomSource {
 public:
  void fill(char* to, size_t length) override {
    while (length > 0) {
      const ssize_t count = getrandom(to, length, 0);
      if (count < 0) {
        if (errno == EINTR) continue;
        std::perror("qanat: getrandom");
        std::abort();
      }
      to += count;
      length -= static_cast<size_t>(count);
    }
  }
};

}  // namespace

std::string RandomSource::bytes(size_t length) {
  std::string out(length, '\0');
  fill(out.data(), length);
  return out;
}

uint64_t RandomSource::u64() {
  uint64_t value;
  fill(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

uint64_t RandomSource::below(uint64_t bound) {
  // The first 2^64 mod bound values would make small results likelier: draw again.
  const uint64_t rejected = (0 - bound) % bound;
  uint64_t value;
  do {
    value = u64();
  } while (value < rejected);
  return value % bound;
}

RandomSource& system_random() {
  static SystemRandom source;
  return source;
}

SeededRandom::SeededRandom(uint64_t seed) {
  for (uint64_t& word : state_) {
    seed += 0x9E3779B97F4A7C15;
    uint64_t mixed = seed;
    mixed = (mixed ^ mixed >> 30U) * 0xBF58476D1CE4E5B9;
    mixed = (mixed ^ mixed >> 27U) * 0x94D049BB133111EB;
    word = mixed ^ mixed >> 31U;
  }
}

uint64_t SeededRandom::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17U;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

void SeededRandom::fill(char* to, size_t length) {
  while (length > 0) {
    const uint64_t word = next();
    const size_t count = std::min(length, sizeof word);
    std::memcpy(to, &word, count);
    to += count;
    length -= count;
  }
}

}  // namespace qanat
