// Weighing: how much of each pack is alive, by one pass over the index beside the marked set; and
// the judgement of packs by it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "qanat/chunk/pack.h"
#include "qanat/content/gc_mark.h"
#include "qanat/content/segment_index.h"

namespace qanat::content {

struct PackWeight {
  uint64_t entries = 0;  // of the index that point to it
  uint64_t bytes = 0;    // as stored
  uint64_t live_entries = 0;
  uint64_t live_bytes = 0;
};
// About 100 bytes a pack: 10 TB of packs of 16 MiB are 60 MB.
using PackWeights = std::map<chunk::PackId, PackWeight>;

// Goes through the index and the marked set side by side. The marker must have begun reading.
class Weigher {
 public:
  // `condemned`, borrowed: a blob is taken to lie elsewhere if it does, even if the index names its
  // copy in one of these.
  static Result<Weigher> open(SegmentIndex& index, Marker& marker,
                              const std::set<chunk::PackId>& condemned);

  struct Entry {
    BlobRef ref;
    chunk::BlobLocation location;
    std::vector<chunk::BlobLocation> others;  // further copies: dead, even if it lives
    bool live = false;
    Marker::Marked marked;  // if it is live
  };
  // The next entry of the index; nothing at the end.
  Result<std::optional<Entry>> next();
  // Marked blobs that the index does not have.
  uint64_t missing() const { return missing_; }

 private:
  Weigher(std::unique_ptr<SegmentScanner> scanner, Marker* marker,
          const std::set<chunk::PackId>* condemned)
      : scanner_(std::move(scanner)), marker_(marker), condemned_(condemned) {}

  std::unique_ptr<SegmentScanner> scanner_;
  Marker* marker_;
  const std::set<chunk::PackId>* condemned_;
  std::optional<Marker::Marked> marked_;
  bool begun_ = false;
  uint64_t missing_ = 0;
};

struct JudgePolicy {
  uint64_t safe = 0;         // packs of epochs below it may be judged
  double min_live = 0.5;     // of a pack's bytes; with less it is rewritten
  uint64_t small = 4 << 20;  // packs with fewer live bytes are rewritten together
  size_t few_small = 32;     // if there are at least so many
};
struct Judgement {
  std::set<chunk::PackId> dead;     // nothing in them is alive
  std::set<chunk::PackId> rewrite;  // to be condemned once what lives in them is elsewhere
  uint64_t dead_bytes = 0;          // in both
};
Judgement judge(const PackWeights& weights, const JudgePolicy& policy);

}  // namespace qanat::content
