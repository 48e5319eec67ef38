// Ids of commits, waves, jobs, packs, workers: 128 random bits as 32 lower-case hex digits.
#pragma once

#include <string>
#include <string_view>

#include "qanat/base/random.h"

namespace qanat {

inline constexpr size_t kIdLength = 32;

std::string random_id(RandomSource& random = system_random());
// 32 hex digits, lower case.
bool is_id(std::string_view text);

}  // namespace qanat
