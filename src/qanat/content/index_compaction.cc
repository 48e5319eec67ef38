#include "qanat/content/index_compaction.h"

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/chunk/segment.h"
#include "qanat/content/segment_index.h"

namespace qanat::content {
namespace {

// Level-0 keys that one swap erases: leaves room in a transaction for the manifest and removal
// records.
constexpr size_t kMaxLevel0 = 56;
// Read ahead for each source of a merge: at most 56 sources of level 0 and a few runs.
constexpr uint64_t kReadAhead = 128u << 10;
// A merge renews its record so often.
constexpr uint64_t kRenewEntries = 16'384;
constexpr int64_t kRenewMs = 60'000;

struct Level0 {
  std::string key;
  int64_t revision = 0;
  SegmentLocation location;
};

struct Plan {
  std::vector<Level0> level0;  // oldest first; those that are merged
  size_t merged_runs = 0;      // the newest so many
  std::vector<Level0> rest;    // of level 0
  IndexManifest manifest;
  int64_t manifest_revision = 0;

  bool reaches_bottom() const { return merged_runs == manifest.runs.size(); }
};

Result<Plan> make_plan(const CompactionContext& context, bool force) {
  Plan plan;
  QANAT_ASSIGN_OR_RETURN(std::optional<meta::KeyValue> manifest,
                         context.meta->get(context.keys.manifest));
  if (manifest) {
    QANAT_ASSIGN_OR_RETURN(plan.manifest, parse_manifest(manifest->value));
    plan.manifest_revision = manifest->mod_revision;
  }
  // Read after the manifest: a segment that another process merges in between makes the swap fail.
  QANAT_ASSIGN_OR_RETURN(meta::RangeResult level0,
                         context.meta->range(meta::KeyRange::prefix(context.keys.level0_prefix)));
  for (const meta::KeyValue& item : level0.items) {
    QANAT_ASSIGN_OR_RETURN(SegmentLocation location, parse_segment_location(item.value));
    plan.level0.push_back({item.key, item.create_revision, std::move(location)});
  }
  std::sort(plan.level0.begin(), plan.level0.end(), [](const Level0& a, const Level0& b) {
    return std::tie(a.revision, a.key) < std::tie(b.revision, b.key);
  });
  bool many = plan.level0.size() >= context.compact_at;
  if (!many && !force) plan.level0.clear();
  if (plan.level0.size() > kMaxLevel0) {
    plan.rest.assign(plan.level0.begin() + kMaxLevel0, plan.level0.end());
    plan.level0.resize(kMaxLevel0);
  }
  if (plan.level0.empty() && !force) return plan;

  const std::vector<SegmentRun>& runs = plan.manifest.runs;
  if (force) {
    plan.merged_runs = plan.level0.empty() && runs.size() <= 1 ? 0 : runs.size();
    return plan;
  }
  uint64_t bytes = 0;
  for (const Level0& segment : plan.level0) bytes += segment.location.length;
  while (plan.merged_runs < runs.size()) {
    uint64_t next = run_bytes(runs[plan.merged_runs]);
    if (next > kTierRatio * bytes) break;
    bytes += next;
    ++plan.merged_runs;
  }
  return plan;
}

// Writes a merged stream as a run of segments under known keys.
class RunWriter {
 public:
  RunWriter(object::ObjectStore* objects, object::ObjectStore::CreateOptions options,
            const std::vector<std::string>& keys, uint64_t target)
      : objects_(objects), options_(options), keys_(keys), target_(target) {}

  Status add(std::string_view key, std::span<const std::string> values) {
    if (!writer_) QANAT_RETURN_IF_ERROR(begin(key));
    encode_index_values(values, &stored_);
    QANAT_RETURN_IF_ERROR(writer_->add(key, stored_));
    run_.back().last_key = key;
    if (writer_->size() >= target_) return end();
    return ok_status();
  }

  Result<SegmentRun> finish() {
    if (writer_) QANAT_RETURN_IF_ERROR(end());
    return std::move(run_);
  }

 private:
  Status begin(std::string_view key) {
    if (run_.size() == keys_.size())
      return internal_error("a compaction writes more than it reads");
    RunSegment& segment = run_.emplace_back();
    segment.location.object_key = keys_[run_.size() - 1];
    segment.first_key = key;
    QANAT_ASSIGN_OR_RETURN(object_, objects_->create(segment.location.object_key, options_));
    writer_.emplace([this](std::string_view bytes) { return object_->append(bytes); });
    return ok_status();
  }

  Status end() {
    QANAT_ASSIGN_OR_RETURN(chunk::SegmentFooter footer, writer_->finish());
    QANAT_RETURN_IF_ERROR(object_->finish());
    run_.back().location.length = footer.length();
    run_.back().location.entries = footer.entries;
    writer_.reset();
    object_.reset();
    return ok_status();
  }

  object::ObjectStore* objects_;
  object::ObjectStore::CreateOptions options_;
  const std::vector<std::string>& keys_;
  uint64_t target_;
  std::unique_ptr<object::ObjectWriter> object_;
  std::optional<chunk::SegmentWriter> writer_;
  std::string stored_;
  SegmentRun run_;
};

// `renew` is called now and then.
Result<SegmentRun> merge(const CompactionContext& context, const Plan& plan,
                         const std::vector<std::string>& output_keys,
                         const std::function<Status()>& renew) {
  std::vector<MergeSource> sources;  // newest first
  for (auto it = plan.level0.rbegin(); it != plan.level0.rend(); ++it) {
    sources.push_back({context.segment(it->location)});
  }
  for (size_t i = 0; i < plan.merged_runs; ++i) {
    MergeSource& source = sources.emplace_back();
    for (const RunSegment& segment : plan.manifest.runs[i]) {
      source.push_back(context.segment(segment.location));
    }
  }
  QANAT_ASSIGN_OR_RETURN(SegmentMerge merge,
                         SegmentMerge::open(std::move(sources), {}, kReadAhead, context.rebase));
  RunWriter writer(context.objects, {.may_use_reserve = context.may_use_reserve}, output_keys,
                   context.segment_target);
  SegmentMerge::Entry entry;
  for (uint64_t count = 1;; ++count) {
    QANAT_ASSIGN_OR_RETURN(bool any, merge.next(&entry));
    if (!any) break;
    if (count % kRenewEntries == 0) QANAT_RETURN_IF_ERROR(renew());
    // At the bottom a tombstone hides nothing.
    if (entry.values.empty() && plan.reaches_bottom()) continue;
    if (!context.keep_copies && entry.values.size() > 1) entry.values.resize(1);
    if (context.drop != nullptr && !entry.values.empty()) {
      std::erase_if(entry.values, *context.drop);
      if (entry.values.empty()) continue;
    }
    if (entry.values.size() > SegmentIndexOptions::kMaxCopies) {
      log_warning("the oldest copies of a blob are forgotten",
                  {{"index", context.keys.prefix}, {"copies", entry.values.size()}});
      entry.values.resize(SegmentIndexOptions::kMaxCopies);
    }
    QANAT_RETURN_IF_ERROR(writer.add(entry.key, entry.values));
  }
  return writer.finish();
}

// Objects of merged segments that hold nothing else.
std::vector<std::string> replaced_objects(const Plan& plan) {
  std::vector<std::string> keys;
  for (const Level0& segment : plan.level0) {
    if (!segment.location.is_pack) keys.push_back(segment.location.object_key);
  }
  for (size_t i = 0; i < plan.merged_runs; ++i) {
    for (const RunSegment& segment : plan.manifest.runs[i]) {
      if (!segment.location.is_pack) keys.push_back(segment.location.object_key);
    }
  }
  return keys;
}

// The names of all segments that the merge may need to write: rebased values may be up to twice as
// long.
std::vector<std::string> plan_outputs(const CompactionContext& context, const Plan& plan,
                                      std::string_view id) {
  uint64_t bytes = 0;
  for (const Level0& segment : plan.level0) bytes += segment.location.length;
  for (size_t i = 0; i < plan.merged_runs; ++i) bytes += run_bytes(plan.manifest.runs[i]);
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < 2 * bytes / context.segment_target + 2; ++i) {
    keys.push_back(str_cat(context.keys.object_prefix, id, "-", i));
  }
  return keys;
}

}  // namespace

IndexKeys IndexKeys::of(std::string_view project, std::string_view name) {
  IndexKeys keys;
  keys.prefix = str_cat("/v1/index/", project, "/", name, "/");
  keys.level0_prefix = keys.prefix + "l0/";
  keys.manifest = keys.prefix + "manifest";
  keys.removed_prefix = keys.prefix + "removed/";
  keys.object_prefix = str_cat("segments/", project, "/", name, "/");
  return keys;
}

Result<bool> is_virgin_index(const meta::Store& meta, std::string_view project) {
  const IndexKeys keys = IndexKeys::of(project, "blobs");
  QANAT_ASSIGN_OR_RETURN(const auto manifest, meta.get(keys.manifest));
  if (manifest) return false;
  QANAT_ASSIGN_OR_RETURN(const auto level0, meta.range(meta::KeyRange::prefix(keys.level0_prefix),
                                                       {.limit = 1, .keys_only = true}));
  return level0.items.empty();
}

namespace {

enum class Swapped { kYes, kNo };

Result<Swapped> merge_and_swap(const CompactionContext& context, const Plan& plan) {
  std::string id = random_id();
  std::string intent_key = context.keys.removed_prefix + id;
  std::vector<std::string> outputs = plan_outputs(context, plan, id);

  int64_t intended_ms = context.now_ms();
  meta::Transaction intent;
  intent.put(intent_key, encode_removal({intended_ms, outputs}));
  intent.may_use_reserve = true;
  QANAT_ASSIGN_OR_RETURN(meta::TransactionResult planned, context.meta->commit(std::move(intent)));
  if (!planned.succeeded) return internal_error("an unconditional transaction did not happen");
  // A large merge may take longer than the grace after which such a record is taken for left over.
  auto renew = [&]() -> Status {
    const int64_t now = context.now_ms();
    if (now - intended_ms < kRenewMs) return ok_status();
    meta::Transaction again;
    again.when(meta::key_present(intent_key));
    again.put(intent_key, encode_removal({now, outputs}));
    again.may_use_reserve = true;
    QANAT_ASSIGN_OR_RETURN(const auto renewed, context.meta->commit(std::move(again)));
    if (!renewed.succeeded) return unavailable("it was taken for dead", "it is tried again");
    intended_ms = now;
    return ok_status();
  };

  Result<SegmentRun> run = merge(context, plan, outputs, renew);
  if (!run.ok()) {
    // The intent's record stays: what was written is deleted after the grace.
    return run.status().with_context(str_cat("compaction of ", context.keys.prefix));
  }

  IndexManifest next;
  if (!run->empty()) next.runs.push_back(*std::move(run));
  next.runs.insert(next.runs.end(), plan.manifest.runs.begin() + plan.merged_runs,
                   plan.manifest.runs.end());
  meta::Transaction swap;
  swap.when(meta::mod_revision_is(context.keys.manifest, plan.manifest_revision));
  swap.when(meta::key_present(intent_key));
  swap.may_use_reserve = true;
  swap.put(context.keys.manifest, encode_manifest(next));
  for (const Level0& segment : plan.level0) swap.erase(segment.key);
  swap.erase(intent_key);
  if (std::vector<std::string> replaced = replaced_objects(plan); !replaced.empty()) {
    swap.put(context.keys.removed_prefix + random_id(),
             encode_removal({context.now_ms(), std::move(replaced)}));
  }
  // If the answer is lost, either the swap happened, or the intent is still there.
  QANAT_ASSIGN_OR_RETURN(meta::TransactionResult swapped, context.meta->commit(std::move(swap)));
  static Counter& compactions = counter("qanat_index_compactions_total",
                                        "Compactions of large indexes that were put in place");
  if (swapped.succeeded) compactions.add();
  return swapped.succeeded ? Swapped::kYes : Swapped::kNo;
}

}  // namespace

Result<bool> compact_step(const CompactionContext& context, bool force) {
  QANAT_ASSIGN_OR_RETURN(Plan plan, make_plan(context, force));
  if (plan.level0.empty() && plan.merged_runs == 0) return false;
  QANAT_RETURN_IF_ERROR(merge_and_swap(context, plan).status());
  return true;
}

Result<bool> drop_step(const CompactionContext& context) {
  QANAT_ASSIGN_OR_RETURN(Plan plan, make_plan(context, true));
  plan.merged_runs = plan.manifest.runs.size();
  if (plan.level0.empty() && plan.merged_runs == 0) return true;
  QANAT_ASSIGN_OR_RETURN(const Swapped swapped, merge_and_swap(context, plan));
  return swapped == Swapped::kYes && std::ranges::none_of(plan.rest, [&](const Level0& segment) {
           return (*context.drop_object)(segment.location.object_key);
         });
}

Status remove_expired(const CompactionContext& context, int64_t grace_ms) {
  QANAT_ASSIGN_OR_RETURN(meta::RangeResult records,
                         context.meta->range(meta::KeyRange::prefix(context.keys.removed_prefix)));
  for (const meta::KeyValue& record : records.items) {
    QANAT_ASSIGN_OR_RETURN(RemovalRecord removal, parse_removal(record.value));
    if (context.now_ms() - removal.time_ms < grace_ms) continue;
    // Taking the record out first would lose the objects' names in a crash; deleting first would
    // take objects from a swap that is just being made. So the record is first made older than any
    // swap: its key changes hands.
    std::string claimed_key = context.keys.removed_prefix + random_id();
    meta::Transaction claim;
    claim.when(meta::mod_revision_is(record.key, record.mod_revision));
    claim.may_use_reserve = true;
    claim.erase(record.key).put(claimed_key, record.value);
    QANAT_ASSIGN_OR_RETURN(meta::TransactionResult claimed, context.meta->commit(std::move(claim)));
    if (!claimed.succeeded) continue;
    for (const std::string& key : removal.object_keys) {
      QANAT_RETURN_IF_ERROR(context.objects->remove(key));
    }
    meta::Transaction done;
    done.erase(claimed_key);
    QANAT_ASSIGN_OR_RETURN(meta::TransactionResult erased, context.meta->commit(std::move(done)));
    if (!erased.succeeded) return internal_error("an unconditional transaction did not happen");
  }
  return ok_status();
}

}  // namespace qanat::content
