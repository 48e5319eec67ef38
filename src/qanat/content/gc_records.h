// What garbage collection keeps in meta, beside the epoch and the condemned packs (epoch.h):
//
//   /v1/gc/<project>/lock        leased; who collects now
//   /v1/gc/<project>/collection  how far the collection of the condemned packs has come
// Bytes: docs/formats.md, "Index records".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/chunk/pack.h"
#include "qanat/meta/store.h"

namespace qanat::content {

std::string gc_lock_key(std::string_view project);
std::string gc_collection_key(std::string_view project);
std::string condemned_key(std::string_view project, const chunk::PackId& pack);

struct CollectionRecord {
  enum class Phase : uint8_t {
    kCondemned = 1,  // some of the condemned packs may be needed: they have to be rescued first
    kRescued = 2,    // none is needed; they may be swept when the grace is over
  };
  Phase phase = Phase::kCondemned;
  uint64_t epoch = 0;   // that the condemnation began
  int64_t time_ms = 0;  // wall clock, of the condemnation

  bool operator==(const CollectionRecord&) const = default;
};
std::string encode_collection(const CollectionRecord& record);
Result<CollectionRecord> parse_collection(std::string_view bytes);

Result<std::optional<CollectionRecord>> read_collection(const meta::Store& meta,
                                                        std::string_view project);
// All condemned packs, ascending.
Result<std::vector<chunk::PackId>> read_condemned(const meta::Store& meta,
                                                  std::string_view project);

}  // namespace qanat::content
