#include "qanat/content/fsck_damage.h"

#include <algorithm>
#include <numeric>

#include "qanat/base/string.h"
#include "qanat/content/blob_store.h"

namespace qanat::content {
namespace {

constexpr uint64_t kMaxGap = 32u << 10;
constexpr uint64_t kMaxPiece = 2u << 20;

}  // namespace

int FsckDamage::add(FsckProblem problem, bool only_if_touched) {
  if (problems_.size() >= kMaxProblems) {
    truncated_ = true;
    return -1;
  }
  problems_.push_back({std::move(problem), only_if_touched, ""});
  return static_cast<int>(problems_.size()) - 1;
}

void FsckDamage::mark(const BlobRef& ref, int problem) {
  if (problem < 0) return;
  if (blobs_.size() >= kMaxDamaged) {
    truncated_ = true;
    return;
  }
  blobs_.emplace(ref, problem);
}

std::optional<int> FsckDamage::of(const BlobRef& ref) const {
  const auto found = blobs_.find(ref);
  return found == blobs_.end() ? std::nullopt : std::optional<int>(found->second);
}

void FsckDamage::touch(int problem, const std::string& label) {
  Problem& at = problems_[static_cast<size_t>(problem)];
  if (at.last_touch == label) return;  // another chunk of the same file
  at.last_touch = label;
  ++at.problem.touched;
  if (at.problem.touches.size() < kMaxTouches) at.problem.touches.push_back(label);
}

std::optional<int> FsckDamage::pack_problem(const chunk::BlobLocation& location) const {
  const auto found = packs_.find(*location.pack);
  if (found == packs_.end() || location.offset + location.stored_length <= found->second.size) {
    return std::nullopt;
  }
  return found->second.problem;
}

int FsckDamage::index_problem(const FsckIndex::Broken& broken) {
  const auto [at, fresh] = index_problems_.emplace(broken.record + " " + broken.object_key, -1);
  if (fresh) {
    at->second = add(
        {broken.what, broken.object_key.empty() ? broken.record : broken.object_key, {}, 0}, false);
  }
  return at->second;
}

Result<Blob> FsckReader::read_at(const BlobRef& ref, const chunk::BlobLocation& location) const {
  QANAT_ASSIGN_OR_RETURN(
      const std::string stored,
      objects_->read(pack_object_key(project_, *location.pack),
                     static_cast<int64_t>(location.offset), location.stored_length));
  QANAT_ASSIGN_OR_RETURN(std::string plain, chunk::open_blob(ref, location, stored));
  return std::make_shared<const std::string>(std::move(plain));
}

Result<std::vector<Blob>> FsckReader::read_many(std::span<const BlobRef> refs) {
  std::vector<Blob> blobs(refs.size());
  QANAT_ASSIGN_OR_RETURN(const auto locations, index_->locate(refs));
  std::vector<size_t> order;
  for (size_t i = 0; i < refs.size(); ++i) {
    if (locations[i]) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::tie(*locations[a]->pack, locations[a]->offset) <
           std::tie(*locations[b]->pack, locations[b]->offset);
  });
  for (size_t first = 0; first < order.size();) {
    const chunk::BlobLocation& begin = *locations[order[first]];
    uint64_t end = begin.offset + begin.stored_length;
    size_t last = first + 1;
    for (; last < order.size(); ++last) {
      const chunk::BlobLocation& next = *locations[order[last]];
      const uint64_t next_end = std::max<uint64_t>(end, next.offset + next.stored_length);
      if (*next.pack != *begin.pack || next.offset > end + kMaxGap ||
          next_end - begin.offset > kMaxPiece) {
        break;
      }
      end = next_end;
    }
    const Result<std::string> piece =
        objects_->read(pack_object_key(project_, *begin.pack), static_cast<int64_t>(begin.offset),
                       static_cast<int64_t>(end - begin.offset));
    if (!piece.ok() && !is_damage(piece.status())) return piece.status();
    for (; first < last; ++first) {
      if (!piece.ok()) continue;
      const size_t i = order[first];
      Result<std::string> plain =
          chunk::open_blob(refs[i], *locations[i],
                           std::string_view(*piece).substr(locations[i]->offset - begin.offset,
                                                           locations[i]->stored_length));
      if (plain.ok()) blobs[i] = std::make_shared<const std::string>(*std::move(plain));
    }
  }
  std::vector<BlobRef> open;
  std::vector<size_t> position;
  for (size_t i = 0; i < refs.size(); ++i) {
    if (blobs[i] != nullptr) continue;
    open.push_back(refs[i]);
    position.push_back(i);
  }
  if (!open.empty()) {
    QANAT_RETURN_IF_ERROR(
        judge(open, true, [&](size_t i, Blob blob) { blobs[position[i]] = std::move(blob); }));
  }
  return blobs;
}

Status FsckReader::judge(std::span<const BlobRef> refs, bool read,
                         const std::function<void(size_t i, Blob blob)>& on_sound) {
  QANAT_RETURN_IF_ERROR(index_->load());
  QANAT_ASSIGN_OR_RETURN(const auto locations, index_->locate(refs));
  for (size_t i = 0; i < refs.size(); ++i) {
    const BlobRef& ref = refs[i];
    if (!locations[i]) {
      const int broken = index_->broken_for(chunk::blob_key(ref));
      damage_->mark(ref, broken >= 0
                             ? damage_->index_problem(index_->broken()[static_cast<size_t>(broken)])
                             : damage_->add({ref.to_string() + " is in no pack",
                                             str_cat("/v1/index/", project_, "/blobs/"),
                                             {},
                                             0},
                                            true));
      continue;
    }
    if (const auto pack = damage_->pack_problem(*locations[i])) {
      if (on_damaged_) on_damaged_(ref, *locations[i]->pack);
      damage_->mark(ref, *pack);
      continue;
    }
    if (!read) {
      if (on_sound) on_sound(i, nullptr);
      continue;
    }
    Result<Blob> blob = read_at(ref, *locations[i]);
    if (blob.ok()) {
      if (on_sound) on_sound(i, *std::move(blob));
      continue;
    }
    if (!is_damage(blob.status())) return blob.status();
    if (on_damaged_) on_damaged_(ref, *locations[i]->pack);
    const std::string object_key = pack_object_key(project_, *locations[i]->pack);
    if (blob.code() == Code::kNotFound) {
      // The packs were looked at before, so it went since.
      const int problem = damage_->add({"a pack is missing", object_key, {}, 0}, true);
      damage_->packs()[*locations[i]->pack] = {problem, 0};
      damage_->mark(ref, problem);
    } else {
      damage_->mark(
          ref, damage_->add({str_cat(ref.to_string(), " is damaged: ", blob.status().message()),
                             object_key,
                             {},
                             0},
                            false));
    }
  }
  return ok_status();
}

}  // namespace qanat::content
