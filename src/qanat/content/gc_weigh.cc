#include "qanat/content/gc_weigh.h"

#include <algorithm>

#include "qanat/base/string.h"

namespace qanat::content {

Result<Weigher> Weigher::open(SegmentIndex& index, Marker& marker,
                              const std::set<chunk::PackId>& condemned) {
  QANAT_ASSIGN_OR_RETURN(std::unique_ptr<SegmentScanner> scanner, index.scan(""));
  return Weigher(std::move(scanner), &marker, &condemned);
}

Result<std::optional<Weigher::Entry>> Weigher::next() {
  if (!begun_) {
    begun_ = true;
    QANAT_ASSIGN_OR_RETURN(marked_, marker_->next());
  }
  QANAT_ASSIGN_OR_RETURN(const auto found, scanner_->next());
  if (!found) {
    for (; marked_; ++missing_) {
      QANAT_ASSIGN_OR_RETURN(marked_, marker_->next());
    }
    return std::optional<Entry>();
  }
  Entry entry;
  QANAT_ASSIGN_OR_RETURN(entry.ref, chunk::parse_blob_key(found->key));
  QANAT_ASSIGN_OR_RETURN(entry.location, chunk::parse_location(found->value));
  for (const std::string& value : found->older) {
    QANAT_ASSIGN_OR_RETURN(entry.others.emplace_back(), chunk::parse_location(value));
  }
  auto lies_nowhere = [](const chunk::BlobLocation& location) { return !location.pack; };
  if (lies_nowhere(entry.location) || std::ranges::any_of(entry.others, lies_nowhere)) {
    return data_loss(str_cat("the index entry of ", entry.ref.to_string(), " names no pack"));
  }
  if (condemned_->contains(*entry.location.pack)) {
    const auto stays = std::ranges::find_if(entry.others, [&](const chunk::BlobLocation& other) {
      return !condemned_->contains(*other.pack);
    });
    if (stays != entry.others.end()) std::swap(entry.location, *stays);
  }
  while (marked_ && marked_->ref < entry.ref) {
    ++missing_;
    QANAT_ASSIGN_OR_RETURN(marked_, marker_->next());
  }
  if (marked_ && marked_->ref == entry.ref) {
    entry.live = true;
    entry.marked = *marked_;
    QANAT_ASSIGN_OR_RETURN(marked_, marker_->next());
  }
  return std::optional<Entry>(entry);
}

Judgement judge(const PackWeights& weights, const JudgePolicy& policy) {
  Judgement judgement;
  std::vector<chunk::PackId> small;
  for (const auto& [pack, weight] : weights) {
    if (pack.epoch >= policy.safe) continue;
    if (weight.live_entries == 0) {
      judgement.dead.insert(pack);
      judgement.dead_bytes += weight.bytes;
    } else if (static_cast<double>(weight.live_bytes) <
               policy.min_live * static_cast<double>(weight.bytes)) {
      judgement.rewrite.insert(pack);
      judgement.dead_bytes += weight.bytes - weight.live_bytes;
    } else if (weight.live_bytes < policy.small) {
      small.push_back(pack);
    }
  }
  if (small.size() >= policy.few_small) {
    for (const chunk::PackId& pack : small) {
      const PackWeight& weight = weights.at(pack);
      judgement.dead_bytes += weight.bytes - weight.live_bytes;
      judgement.rewrite.insert(pack);
    }
  }
  return judgement;
}

}  // namespace qanat::content
