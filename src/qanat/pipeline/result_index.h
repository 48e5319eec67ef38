// Results that may be reused: result key -> the row that has the result.
//
// Only successes are kept. The index is weak: an entry may name content that garbage collection has
// removed, so GC drops entries whose content it removes.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/content/segment_index.h"
#include "qanat/pipeline/datum_table.h"

namespace qanat::pipeline {

class ResultIndex {
 public:
  virtual ~ResultIndex() = default;
  // In the order of `keys`.
  virtual Result<std::vector<std::optional<DatumRow>>> find(std::span<const Hash> keys) = 0;
};

// Over the project's segment index "results" (borrowed). Values are rows without inputs and
// decision.
class SegmentResultIndex : public ResultIndex {
 public:
  explicit SegmentResultIndex(content::SegmentIndex& index) : index_(index) {}
  Result<std::vector<std::optional<DatumRow>>> find(std::span<const Hash> keys) override;

 private:
  content::SegmentIndex& index_;
};

// The entry that makes a result reusable, for SegmentIndex::write_segment; nullopt for a row that
// is no success. `pipeline` is written as the result's origin, unless the row has one.
std::optional<std::pair<std::string, std::string>> result_entry(const DatumRow& row,
                                                                std::string_view pipeline);

// Finds nothing: for pipelines that run everything.
class NoResults : public ResultIndex {
 public:
  Result<std::vector<std::optional<DatumRow>>> find(std::span<const Hash> keys) override {
    return std::vector<std::optional<DatumRow>>(keys.size());
  }
};

}  // namespace qanat::pipeline
