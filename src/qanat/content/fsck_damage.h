// FsckDamage: the blobs that cannot be had, and the problem that each of them is part of; and
// FsckReader, which finds that out by reading. Internal to fsck; one thread.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "qanat/content/fsck.h"
#include "qanat/content/fsck_index.h"

namespace qanat::content {

class FsckDamage {
 public:
  struct Problem {
    FsckProblem problem;
    bool only_if_touched = false;  // it is none if no record asks for it (any more)
    std::string last_touch;
  };
  // -1 if there are too many already.
  int add(FsckProblem problem, bool only_if_touched);
  void mark(const BlobRef& ref, int problem);
  // The problem that a blob is part of; nothing for a sound one.
  std::optional<int> of(const BlobRef& ref) const;
  void touch(int problem, const std::string& label);

  // Packs that are missing or too short.
  struct BadPack {
    int problem = -1;
    uint64_t size = 0;  // 0: missing
  };
  std::map<chunk::PackId, BadPack>& packs() { return packs_; }
  // The pack's problem, if the blob there cannot be had because of it.
  std::optional<int> pack_problem(const chunk::BlobLocation& location) const;
  // The problem of a broken part of the index, which is made at the first call.
  int index_problem(const FsckIndex::Broken& broken);

  bool any() const { return !blobs_.empty(); }
  bool truncated() const { return truncated_; }
  const std::vector<Problem>& problems() const { return problems_; }

 private:
  std::vector<Problem> problems_;
  std::unordered_map<BlobRef, int, chunk::BlobRefHasher> blobs_;
  std::map<chunk::PackId, BadPack> packs_;
  std::map<std::string, int> index_problems_;  // record and object key
  bool truncated_ = false;
};

class FsckReader {
 public:
  FsckReader(const FsckContext& context, FsckIndex* index, FsckDamage* damage)
      : project_(context.project),
        objects_(context.objects),
        on_damaged_(context.on_damaged),
        index_(index),
        damage_(damage) {}

  // In order; null for what is missing or damaged, which is marked. Neighbours in a pack are read
  // at once. The caller bounds the memory by the number of refs.
  Result<std::vector<Blob>> read_many(std::span<const BlobRef> refs);
  // Reads and verifies one, without looking it up. kNotFound: its pack is gone.
  Result<Blob> read_at(const BlobRef& ref, const chunk::BlobLocation& location) const;
  // Looks again at what could not be had, with the newest index; marks what still cannot.
  // `read`: reads it, else it is enough that it is in the index, and its pack there. Gives those
  // that can be had after all.
  Status judge(std::span<const BlobRef> refs, bool read,
               const std::function<void(size_t i, Blob blob)>& on_sound);

 private:
  const std::string project_;
  object::ObjectStore* const objects_;
  const std::function<void(const BlobRef& ref, const chunk::PackId& pack)> on_damaged_;
  FsckIndex* const index_;
  FsckDamage* const damage_;
};

}  // namespace qanat::content
