// Packs under fsck: is each there, and with `data`, does each hold what it should? Internal to
// fsck; one thread.
#pragma once

#include <functional>

#include "qanat/content/fsck_damage.h"

namespace qanat::content {

struct FsckPacksResult {
  uint64_t packs = 0;
  uint64_t bytes = 0;  // read
};
// Checks all packs that the index names. Damage is marked. `tick` gets packs done and packs in all.
Result<FsckPacksResult> check_packs(const FsckContext& context, bool data, FsckIndex* index,
                                    FsckDamage* damage,
                                    const std::function<Status(uint64_t, uint64_t)>& tick);

}  // namespace qanat::content
