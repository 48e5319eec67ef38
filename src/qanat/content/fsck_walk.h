// FsckWalk: the walks of fsck. Internal to fsck; one thread.
//
// check() reads every node that the roots reach, once, many at a time, and gathers the names of
// chunks on scratch. name() walks again when there is damage, node by node in post-order, learns
// which nodes have damage below them, and tells of each damaged blob all places that it is missing
// at; it enters only what is damaged, however many trees share it.
//
// Which nodes were seen is kept as 64 bits of each one's hash. Beyond the memory budget the set
// starts anew, and a shared node may be read again.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_set>
#include <vector>

#include "qanat/content/external_sort.h"
#include "qanat/content/fsck_damage.h"

namespace qanat::content {

// A set of 64-bit fingerprints.
class FsckSeen {
 public:
  explicit FsckSeen(size_t memory_budget);
  bool insert(uint64_t fingerprint);  // true: it is new
  void clear();

 private:
  void grow();
  const size_t max_slots_;
  std::vector<uint64_t> slots_;  // 0: free
  size_t used_ = 0;
};

class FsckWalk {
 public:
  // All borrowed. `tick` is called now and then, with the nodes read so far.
  FsckWalk(const FsckContext& context, FsckIndex* index, FsckDamage* damage,
           std::function<Status(uint64_t nodes)> tick);

  Status check();
  // After check(): the chunks that nodes name, sorted; keys are their hashes.
  ExternalSorter& chunks() { return chunks_; }
  uint64_t nodes() const { return nodes_; }

  // Tells the damage what it touches, of the roots that there are now.
  Status name();

 private:
  struct Item {
    BlobRef ref;
    FsckUse use = FsckUse::kTree;
  };
  Status visit(FsckUse use, const Blob& node, bool with_labels, const FsckVisit& visit);
  // The children of a root: its node, or what an inlined root refers to.
  Status visit_root(const FsckRoot& root, bool with_labels, const FsckVisit& visit);
  Status drain(size_t until);
  // A node that can be read but makes no sense.
  void mark_senseless(const BlobRef& ref, const Status& status);
  // Learns whether there is damage at or below it.
  Status learn(const Item& item);
  bool is_hurt(const Item& item) const;
  Status name_root(const FsckRoot& root);

  const FsckContext& context_;
  FsckDamage* const damage_;
  FsckReader reader_;
  const std::function<Status(uint64_t)> tick_;
  FsckSeen seen_;
  ExternalSorter chunks_;
  std::vector<Item> stack_;
  std::unordered_set<uint64_t> hurt_;
  uint64_t nodes_ = 0;
};

}  // namespace qanat::content
