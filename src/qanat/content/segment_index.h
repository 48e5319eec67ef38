// SegmentIndex: a large ordered map of a project, kept as immutable segments in the object store.
//
// Meta holds only which segments there are; values are in index_manifest.h:
//   /v1/index/<project>/<name>/l0/<id>       a fresh segment (level 0)
//   /v1/index/<project>/<name>/manifest      the compacted ones
//   /v1/index/<project>/<name>/removed/<id>  objects to delete after a grace
// A segment becomes part of the index by the transaction that puts its l0 key, together with
// whatever else that transaction makes visible.
//
// Newer wins: level 0 by revision of its key, then the manifest's runs in order. A tombstone hides
// older entries. What is hidden goes with the next compaction, unless the index keeps copies.
//
// Freshness: a lookup sees every registration that this process was told of (`registered`), and
// those of other processes when the watch on meta has told of them; refresh() waits for them.
// Memory: block indexes, blocks and filter pages live in the shared BlockCache; beside it a few
// hundred bytes a segment. Threads: all methods may be called from any thread; lookups run while a
// compaction does. Several processes may compact: one wins.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/content/block_cache.h"
#include "qanat/content/index_manifest.h"
#include "qanat/meta/store.h"
#include "qanat/object/object_store.h"

namespace qanat::content {

// A fresh segment that is durable and waits for the transaction that makes it visible.
struct SegmentRegistration {
  std::string id;  // the last part of the meta key: 32 hex, of segments that are no packs after the
                   // epoch, 16 hex and '-'
  SegmentLocation location;
  std::string
      bytes;  // of the segment, if the writer still has them: saves reading it back. May be empty.
};

struct SegmentIndexOptions {
  std::string project;
  std::string name;  // "blobs", "results", ...
  // Applied to values that come out of a pack's footer, to make them independent of where they lie.
  std::function<std::string(std::string_view value, std::string_view object_key)> rebase;
  // Older values of a key are kept, hidden, until drop_entries takes them out: should it take the
  // newest, the next one is found. For maps whose values say where copies of a thing lie. Such an
  // index has no tombstones. Of more than kMaxCopies the oldest go.
  bool keep_copies = false;
  static constexpr size_t kMaxCopies = 4096;
  // Called, on any thread and under no lock, when there may be something to compact.
  std::function<void()> on_compaction_wanted;
  size_t compact_at = 32;                 // level-0 segments
  uint64_t segment_target = 64ull << 20;  // bytes of a compacted segment
  int64_t removal_grace_ms =
      10 * 60 * 1000;               // how long replaced segments stay for readers of older states
  std::function<int64_t()> now_ms;  // wall clock, ms; required
  // The project's epoch now: part of the names of segments that are written. A writer of segments
  // must be registered (EpochPins) since before. Null: 0.
  std::function<Result<uint64_t>()> epoch;
};

class SegmentScanner {
 public:
  virtual ~SegmentScanner() = default;
  // The next entry in ascending order of keys, or nothing at the end. The views are valid until the
  // next call.
  struct Entry {
    std::string_view key;
    std::string_view value;
    std::span<const std::string> older;  // values that it hides; those that are kept for sure only
                                         // in an index that keeps copies
  };
  virtual Result<std::optional<Entry>> next() = 0;
};

class SegmentIndex {
 public:
  // Borrowed: meta, objects, cache; all outlive the index.
  static Result<std::unique_ptr<SegmentIndex>> open(meta::Store* meta, object::ObjectStore* objects,
                                                    BlockCache* cache, SegmentIndexOptions options);
  virtual ~SegmentIndex() = default;

  // What a lookup makes of segments that are missing or damaged. In an index that keeps copies any
  // of them will do, so one that lies in a sound segment is found. What is in none may be in the
  // damaged one: that is kDataLoss, or, for who can do without, a miss. In other indexes a damaged
  // segment may hide what a sound one holds, and each lookup that meets it is kDataLoss.
  enum class OnDamage { kFail, kMiss };

  // kDataLoss for damaged segments; kUnavailable etc. from the stores.
  virtual Result<std::optional<std::string>> get(std::string_view key,
                                                 OnDamage on_damage = OnDamage::kFail) = 0;
  // In the order of `keys`, which need no order.
  virtual Result<std::vector<std::optional<std::string>>> get_many(
      std::span<const std::string> keys, OnDamage on_damage = OnDamage::kFail) = 0;
  // All values of each, newest first: those that are hidden too (SegmentIndexOptions::keep_copies).
  // Beside a damaged segment: at least one, or it is as above.
  virtual Result<std::vector<std::vector<std::string>>> get_copies(
      std::span<const std::string> keys, OnDamage on_damage = OnDamage::kFail) = 0;
  // Entries whose key begins with `prefix` and is not below `from`, of the state at this moment.
  virtual Result<std::unique_ptr<SegmentScanner>> scan(std::string_view prefix,
                                                       std::string_view from = {}) = 0;

  // Collects entries in any order (the last of equal keys wins) and writes them as one durable
  // segment. A value of nullopt is a tombstone. For at most a few 100,000 entries.
  using Entries = std::vector<std::pair<std::string, std::optional<std::string>>>;
  virtual Result<SegmentRegistration> write_segment(Entries entries) = 0;
  // The operation that makes a segment part of the index, for the caller's transaction, and the
  // compare that goes with it: it fails once the segment was given up. A transaction that registers
  // several segments needs the guard of its first one only.
  virtual meta::Operation registration(const SegmentRegistration& segment) const = 0;
  virtual meta::Compare guard(const SegmentRegistration& segment) const = 0;
  // To be called after that transaction committed, with its revision.
  virtual void registered(SegmentRegistration segment, int64_t revision) = 0;
  // To be called instead when the segments will not be registered; `sent`: a transaction with the
  // guard of the first was sent, and its outcome may be unknown. Removes the objects, packs too:
  // at once, or, if it was sent, in such a way that a transaction that did happen or still happens
  // keeps them. Best effort: what is left is garbage.
  virtual void give_up(std::span<const SegmentRegistration> segments, bool sent) = 0;

  // Until every registration that is committed in meta now is seen by lookups.
  virtual Status refresh() = 0;

  // Merges level 0 when it has `compact_at` segments, and with it runs that are not much larger.
  // `force`: merges until one run is left. Losing against another process is OK. An error leaves
  // the index as it was; objects already written are deleted later.
  virtual Status compact(bool force = false) = 0;
  // Takes out all entries, hidden ones too, whose value `drop` holds for, and level-0 segments that
  // lie in an object for which `drop_object` holds. All of the index is merged into one run. When
  // it returns OK no state of the index from now on has any of them, as long as none is registered
  // again.
  virtual Status drop_entries(
      const std::function<bool(std::string_view value)>& drop,
      const std::function<bool(std::string_view object_key)>& drop_object) = 0;
  // Deletes segments in the object store that no record names: their writers died, or their
  // deletion came undone. Those of write_segment only if their epoch is below `safe`.
  virtual Status remove_orphans(uint64_t safe) = 0;
  // Deletes replaced segments whose grace is over; `now`: all of them. Lookups of other processes
  // then find out and look again, and a compaction of theirs that is running is lost.
  virtual Status remove_replaced(bool now) = 0;
  virtual bool wants_compaction() const = 0;

  struct Stats {
    uint64_t level0 = 0;
    uint64_t runs = 0;
    uint64_t segments = 0;  // in runs
    uint64_t entries = 0;   // of all segments; an upper bound of the map's size
    uint64_t bytes = 0;
  };
  virtual Stats stats() const = 0;
};

}  // namespace qanat::content
