// One step of compaction of a SegmentIndex, as a function of what meta says: reads level 0 and the
// manifest at one revision, merges some of it into new segments, and swaps the manifest by
// compare-and-swap.
//
// Policy: level 0 (its oldest segments first, as many as fit in one transaction) merges together
// with the newest runs, as long as the next run is at most kTierRatio times what is merged so far.
// So runs grow geometrically, and an entry is rewritten a logarithmic number of times.
//
// Crash safety: the objects about to be written are first named in a removal record, which the swap
// erases. A compaction that dies leaves a record by which its objects are deleted after the grace;
// one that outlives the grace loses its swap.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/content/index_manifest.h"
#include "qanat/content/segment_merge.h"
#include "qanat/meta/store.h"
#include "qanat/object/object_store.h"

namespace qanat::content {

// The meta keys of an index.
struct IndexKeys {
  std::string prefix;          // "/v1/index/<project>/<name>/"
  std::string level0_prefix;   // + "l0/"
  std::string manifest;        // + "manifest"
  std::string removed_prefix;  // + "removed/"
  std::string object_prefix;   // of segments in the object store: "segments/<project>/<name>/"

  static IndexKeys of(std::string_view project, std::string_view name);
};

// Whether no pack of the project was ever registered: then the metadata cannot say of any that it
// is garbage.
Result<bool> is_virgin_index(const meta::Store& meta, std::string_view project);

struct CompactionContext {
  meta::Store* meta = nullptr;
  object::ObjectStore* objects = nullptr;
  IndexKeys keys;
  const RebaseValue* rebase = nullptr;
  bool keep_copies = false;  // see SegmentIndexOptions
  size_t compact_at = 32;
  uint64_t segment_target = 0;
  std::function<int64_t()> now_ms;
  // Entries that are left out, by their value; null: none. Only for steps that reach the bottom.
  const std::function<bool(std::string_view value)>* drop = nullptr;
  const std::function<bool(std::string_view object_key)>* drop_object = nullptr;
  bool may_use_reserve = false;  // of the disk: it makes room
  // The segment at a location: the one that lookups use, if they do.
  std::function<std::shared_ptr<const StoredSegment>(const SegmentLocation&)> segment;
};

inline constexpr uint64_t kTierRatio = 3;

// True if it merged something and won the swap (or another process did, so that a look at what is
// left makes sense); false: nothing to do.
Result<bool> compact_step(const CompactionContext& context, bool force);

// One step that merges every run, and all of level 0 that fits, leaving out what context.drop says.
// False: there is more to do, as another process was faster, or there are segments in objects for
// which context.drop_object holds that did not fit.
Result<bool> drop_step(const CompactionContext& context);

// Deletes the objects of removal records older than `grace_ms`.
Status remove_expired(const CompactionContext& context, int64_t grace_ms);

}  // namespace qanat::content
