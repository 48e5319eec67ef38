// A collection's phases that find out what is needed: see gc_phases.h.
#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>

#include "qanat/base/bytes.h"
#include "qanat/base/hash.h"
#include "qanat/base/string.h"
#include "qanat/content/gc_phases.h"
#include "qanat/content/index_compaction.h"
#include "qanat/content/uploads.h"

namespace qanat::content::gc {
namespace {

constexpr size_t kResultsInSegment = 50'000;
constexpr size_t kMaxHolders = 1000;  // that a report names

// Leaves out who keeps nothing that others do not keep too, and puts the smallest together if there
// are too many to look at.
void summarize(std::vector<HolderUse>& holders) {
  std::erase_if(holders, [](const HolderUse& use) { return use.blobs == 0; });
  if (holders.size() <= kMaxHolders) return;
  std::vector<uint64_t> sizes;
  for (const HolderUse& use : holders) sizes.push_back(use.bytes);
  std::nth_element(sizes.begin(), sizes.begin() + kMaxHolders, sizes.end(), std::greater<>());
  const uint64_t small = sizes[kMaxHolders];
  std::vector<HolderUse> kept;
  std::map<std::string, std::pair<HolderUse, size_t>> rest;  // by kind
  for (HolderUse& use : holders) {
    if (use.bytes > small) {
      kept.push_back(std::move(use));
      continue;
    }
    auto& [sum, count] = rest[use.holder.kind];
    sum.blobs += use.blobs;
    sum.bytes += use.bytes;
    ++count;
  }
  for (auto& [kind, sum] : rest) {
    sum.first.holder = {kind, str_cat("(", sum.second, " smaller ones)")};
    kept.push_back(std::move(sum.first));
  }
  holders = std::move(kept);
}

}  // namespace

// --- Mark ---

RootSource::Request Collector::request() const {
  RootSource::Request request;
  request.project = project_;
  request.revision = revision_;
  request.without_expired = options_.dry_run;
  request.now = options_.now;
  return request;
}

Status Collector::visit_results(
    const std::function<Status(const SegmentScanner::Entry&, const Reference&)>& visit) {
  SegmentIndex& results = context_.content->results();
  QANAT_RETURN_IF_ERROR(results.refresh());
  QANAT_ASSIGN_OR_RETURN(const auto scanner, results.scan(""));
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto entry, scanner->next());
    if (!entry) return ok_status();
    for (RootSource* source : context_.sources) {
      const Status visited = source->visit_result(
          entry->value, [&](const Reference& reference) { return visit(*entry, reference); });
      if (visited.ok()) break;
      if (visited.code() != Code::kNotFound) return visited;
    }
  }
}

// What results refer to, before S. Those that are registered later are roots of the rescue.
Status Collector::gather_results() {
  results_ = sorter();
  QANAT_RETURN_IF_ERROR(
      visit_results([&](const SegmentScanner::Entry& entry, const Reference& reference) -> Status {
        std::string value;
        put_u64(value, hash64(entry.value));
        value.append(entry.key);
        return results_->add(chunk::blob_key(reference.ref), value);
      }));
  QANAT_RETURN_IF_ERROR(results_->finish());
  return begin_marking();
}

Status Collector::begin_marking() {
  QANAT_ASSIGN_OR_RETURN(revision_, revision_now());
  QANAT_RETURN_IF_ERROR(index_.refresh());
  marker_ = std::make_unique<Marker>(Marker::Context{&context_.content->blobs(), context_.sources,
                                                     context_.scratch, options_.nodes_per_step});
  phase_ = Phase::kMark;
  return marker_->begin(request());
}

Status Collector::mark() {
  QANAT_ASSIGN_OR_RETURN(const bool more, marker_->step());
  if (more) return ok_status();
  QANAT_RETURN_IF_ERROR(marker_->begin_reading());
  QANAT_ASSIGN_OR_RETURN(weigher_, Weigher::open(index_, *marker_, condemned_));
  phase_ = Phase::kWeigh;
  return ok_status();
}

// --- Weigh ---

Status Collector::weigh() {
  for (size_t i = 0; i < options_.entries_per_step; ++i) {
    QANAT_ASSIGN_OR_RETURN(const auto entry, weigher_->next());
    if (!entry) {
      report_.missing = weigher_->missing();
      weigher_.reset();
      return decide();
    }
    PackWeight& weight = weights_[*entry->location.pack];
    const uint64_t bytes = entry->location.stored_length;
    ++weight.entries;
    weight.bytes += bytes;
    ++report_.blobs;
    report_.bytes += bytes;
    for (const chunk::BlobLocation& copy : entry->others) {
      PackWeight& its = weights_[*copy.pack];
      ++its.entries;
      its.bytes += copy.stored_length;
      report_.bytes += copy.stored_length;
    }
    if (!entry->live) continue;
    ++weight.live_entries;
    weight.live_bytes += bytes;
    report_.live_bytes += bytes;
    if (!entry->marked.is_accounted) {
      HolderUse& holder = marker_->holders()[entry->marked.holder];
      ++holder.blobs;
      holder.bytes += bytes;
    }
  }
  return ok_status();
}

Status Collector::decide() {
  report_.packs = weights_.size();
  JudgePolicy policy;
  policy.safe = safe_;
  policy.min_live = options_.min_live;
  policy.small = options_.small_pack;
  policy.few_small = options_.few_small_packs;
  judgement_ = judge(weights_, policy);
  for (const auto& [pack, weight] : weights_) {
    if (pack.epoch >= safe_) report_.young_bytes += weight.bytes - weight.live_bytes;
  }
  // Packs that the index does not name at all. Where nothing may be listed, they stay.
  uint64_t unnamed_bytes = 0;
  uint64_t unnamed = 0;
  const Status listed = context_.objects->list(
      str_cat("packs/", project_, "/"), [&](const object::ObjectInfo& object) -> Status {
        const auto pack = parse_pack_object_key(object.key);
        if (!pack.ok() || pack->epoch >= safe_ || weights_.contains(*pack)) return ok_status();
        if (judgement_.dead.insert(*pack).second) {
          judgement_.dead_bytes += static_cast<uint64_t>(object.size);
          unnamed_bytes += static_cast<uint64_t>(object.size);
          ++unnamed;
        }
        return ok_status();
      });
  if (listed.code() != Code::kPermissionDenied) QANAT_RETURN_IF_ERROR(listed);
  if (unnamed > 0 && condemned_.empty()) {
    // Nothing was ever registered, or the metadata is not the one that belongs to the store.
    QANAT_ASSIGN_OR_RETURN(const bool virgin, is_virgin_index(*context_.meta, project_));
    if (virgin) {
      return failed_precondition(
          str_cat("the object store holds ", unnamed, " packs (", format_size(unnamed_bytes),
                  ") of project ", project_, ", and the metadata has never known any"),
          "nothing is deleted. If the metadata was lost, put it back from a backup; if the first "
          "write to this project died, its packs are collected once something was written");
    }
  }
  report_.holders = marker_->holders();
  QANAT_RETURN_IF_ERROR(account_uploads());
  summarize(report_.holders);
  report_.dead_bytes = judgement_.dead_bytes;
  report_.dead_packs = judgement_.dead.size();
  report_.rewritten_packs = judgement_.rewrite.size();
  if (options_.dry_run) {
    phase_ = Phase::kDone;
    return ok_status();
  }
  forgotten_ = sorter();
  if (!results_->valid()) {
    QANAT_RETURN_IF_ERROR(forgotten_->finish());
    phase_ = Phase::kForget;
    return ok_status();
  }
  phase_ = Phase::kForgetFind;
  return marker_->begin_reading();
}

// What nothing needs yet, and no collection may touch because of an upload: told of the one that
// was begun last before the pack, which likely wrote it.
Status Collector::account_uploads() {
  QANAT_ASSIGN_OR_RETURN(std::vector<Upload> uploads, list_uploads(*context_.meta, project_));
  std::sort(uploads.begin(), uploads.end(), [](const Upload& a, const Upload& b) {
    return std::tie(a.record.epoch, a.id) < std::tie(b.record.epoch, b.id);
  });
  std::vector<HolderUse> uses;
  for (const Upload& upload : uploads) {
    uses.push_back(
        {{"upload", str_cat(upload.id, " of ", upload.record.caller, ", for ", upload.record.repo)},
         0,
         0});
  }
  for (const auto& [pack, weight] : weights_) {
    if (weight.entries == weight.live_entries) continue;
    const auto after = std::upper_bound(
        uploads.begin(), uploads.end(), pack.epoch,
        [](uint64_t epoch, const Upload& upload) { return epoch < upload.record.epoch; });
    if (after == uploads.begin()) continue;
    HolderUse& use = uses[static_cast<size_t>(after - uploads.begin()) - 1];
    use.blobs += weight.entries - weight.live_entries;
    use.bytes += weight.bytes - weight.live_bytes;
  }
  std::move(uses.begin(), uses.end(), std::back_inserter(report_.holders));
  return ok_status();
}

// --- Results whose content goes ---

// Both ascend: the marks, and the references of results.
Status Collector::find_forgotten() {
  for (size_t i = 0; i < options_.entries_per_step && results_->valid(); ++i) {
    if (!join_begun_ || (join_mark_ && chunk::blob_key(join_mark_->ref) < results_->key())) {
      join_begun_ = true;
      QANAT_ASSIGN_OR_RETURN(join_mark_, marker_->next());
      continue;
    }
    if (!join_mark_ || chunk::blob_key(join_mark_->ref) != results_->key()) {
      const std::string_view value = results_->value();
      QANAT_RETURN_IF_ERROR(forgotten_->add(value.substr(8), value.substr(0, 8)));
    }
    QANAT_RETURN_IF_ERROR(results_->next());
  }
  if (results_->valid()) return ok_status();
  results_.reset();
  QANAT_RETURN_IF_ERROR(forgotten_->finish());
  phase_ = Phase::kForget;
  return ok_status();
}

Status Collector::forget() {
  SegmentIndex& results = context_.content->results();
  SegmentIndex::Entries entries;
  std::vector<std::string> keys;
  std::vector<uint64_t> hashes;
  for (; forgotten_->valid() && keys.size() < kResultsInSegment;) {
    if (keys.empty() || keys.back() != forgotten_->key()) {
      keys.emplace_back(forgotten_->key());
      hashes.push_back(load_u64(forgotten_->value().data()));
    }
    QANAT_RETURN_IF_ERROR(forgotten_->next());
  }
  if (keys.empty()) {
    forgotten_.reset();
    phase_ = judgement_.rewrite.empty() ? Phase::kCondemn : Phase::kCopyFind;
    if (phase_ == Phase::kCopyFind) {
      copies_ = sorter();
      QANAT_RETURN_IF_ERROR(marker_->begin_reading());
      QANAT_ASSIGN_OR_RETURN(weigher_, Weigher::open(index_, *marker_, condemned_));
    }
    return ok_status();
  }
  // One that was found again meanwhile stays.
  QANAT_ASSIGN_OR_RETURN(const auto values, results.get_many(keys));
  for (size_t i = 0; i < keys.size(); ++i) {
    if (values[i] && hash64(*values[i]) == hashes[i]) entries.emplace_back(keys[i], std::nullopt);
  }
  if (entries.empty()) return ok_status();
  report_.forgotten_results += entries.size();
  QANAT_ASSIGN_OR_RETURN(SegmentRegistration segment, results.write_segment(std::move(entries)));
  meta::Transaction transaction;
  transaction.when(results.guard(segment));
  transaction.add(results.registration(segment));
  auto done = commit(std::move(transaction));
  if (!done.ok() || !*done) {
    results.give_up(std::span(&segment, 1), true);
    return done.ok() ? unavailable("results changed meanwhile", "this is tried again")
                     : done.status();
  }
  results.registered(std::move(segment), **done);
  return ok_status();
}

}  // namespace qanat::content::gc
