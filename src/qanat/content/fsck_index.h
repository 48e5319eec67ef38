// FsckIndex: the index of blobs as fsck sees it. Every segment is read whole and checked; lookups
// go to those that are sound, so that one damaged segment does not hide what all others know.
//
// A snapshot of what meta says; load() brings it up to date, and checks what is new. Reads nothing
// through the server's caches. Internal to fsck; one thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "qanat/chunk/pack.h"
#include "qanat/content/block_cache.h"
#include "qanat/content/fsck.h"
#include "qanat/content/index_compaction.h"
#include "qanat/content/segment_merge.h"

namespace qanat::content {

class FsckIndex {
 public:
  // `name`: "blobs" or "results"; only of "blobs" values are looked at. All borrowed.
  FsckIndex(meta::Store* meta, object::ObjectStore* objects, const std::string& project,
            const std::string& name);

  Status load();

  struct Broken {
    std::string record;  // key in meta
    std::string object_key;
    std::string first_key;  // of what it may have held; both empty: anything
    std::string last_key;
    std::string what;
    bool holds = true;  // false: no entry is lost by it
  };
  // What is wrong with the index, as of the last load().
  const std::vector<Broken>& broken() const { return broken_; }
  // The place in broken() that may have held the key; -1: none.
  int broken_for(std::string_view key) const;
  uint64_t segments() const { return checked_.size(); }

  // In order; nothing for what no sound segment has.
  Result<std::vector<std::optional<chunk::BlobLocation>>> locate(std::span<const BlobRef> refs);

  // All entries of sound segments whose key is not below `from`, ascending; goes on by itself when
  // a compaction takes segments away. `on_entry` must not call load().
  Status scan(std::string_view from,
              const std::function<Result<bool>(const BlobRef& ref,
                                               const chunk::BlobLocation& location)>& on_entry);

 private:
  struct Source {
    MergeSource segments;
    std::vector<std::string> last_keys;  // of runs
  };
  Result<bool> try_load();
  // OK, or what is wrong with the segment (kNotFound, kDataLoss), or another error of the store.
  Status check(const SegmentLocation& location, std::string_view first_key,
               std::string_view last_key);
  Status try_locate(std::span<const BlobRef> refs,
                    std::vector<std::optional<chunk::BlobLocation>>* locations);

  meta::Store* const meta_;
  object::ObjectStore* const objects_;
  const bool blobs_;
  const IndexKeys keys_;
  BlockCache cache_;
  const RebaseValue rebase_;
  std::vector<Source> sources_;  // newest first
  std::vector<Broken> broken_;
  std::map<std::pair<std::string, uint64_t>, std::shared_ptr<const StoredSegment>> checked_;
};

}  // namespace qanat::content
