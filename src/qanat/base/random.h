// Random bytes, behind a small interface so that a test or simulation can own them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace qanat {

// Thread safety: the system's source may be used from any thread, SeededRandom from one at a time.
class RandomSource {
 public:
  virtual ~RandomSource() = default;
  virtual void fill(char* to, size_t length) = 0;

  std::string bytes(size_t length);
  uint64_t u64();
  // Uniform in [0, bound), without bias; bound > 0.
  uint64_t below(uint64_t bound);
};

// getrandom(2): fit for keys and tokens. Aborts if the kernel gives none, since nothing safe can
// follow.
RandomSource& system_random();

// A stream fixed by its seed (xoshiro256**, Blackman and Vigna 2018, seeded by splitmix64). Never
// for secrets.
class SeededRandom : public RandomSource {
 public:
  explicit SeededRandom(uint64_t seed);
  void fill(char* to, size_t length) override;

 private:
  uint64_t next();

  uint64_t state_[4];
};

}  // namespace qanat
