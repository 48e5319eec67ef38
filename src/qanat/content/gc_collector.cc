#include "qanat/content/gc_collector.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <map>
#include <set>
#include <tuple>

#include "qanat/base/bytes.h"
#include "qanat/base/counters.h"
#include "qanat/base/hash.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/content/gc_weigh.h"
#include "qanat/content/packing_writer.h"
#include "qanat/content/uploads.h"

namespace qanat::content {
namespace {

constexpr size_t kKeysInTransaction = 60;  // beside the compare of the lock and a record
constexpr uint64_t kCopyBytes = 8u << 20;  // of a step
constexpr size_t kCopyBlobs = 8192;
constexpr size_t kObjectsInStep = 64;
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

Status lock_lost() {
  return unavailable("the lock of the garbage collection was lost", "a new one goes on from there");
}

class Collector : public GcCollector {
 public:
  Collector(GcContext context, GcOptions options)
      : context_(std::move(context)),
        options_(options),
        project_(context_.content->project()),
        index_(context_.content->blobs().index()) {}

  ~Collector() override {
    writer_.reset();
    if (lease_ != 0) (void)context_.meta->revoke_lease(lease_);
  }

  Result<Progress> step() override;
  Status keep() override;
  std::string_view phase() const override;
  const GcReport& report() const override { return report_; }

 private:
  enum class Phase {
    kLock,
    kPending,
    kOpen,
    kSettle,
    kGatherResults,
    kMark,
    kWeigh,
    kForgetFind,
    kForget,
    kCopyFind,
    kCopy,
    kCondemn,
    kRescue,
    kAwait,
    kSweepIndex,
    kSweepObjects,
    kSweepKeys,
    kSegments,
    kDone,
  };

  Status take_lock();
  Status keep_lock();
  // A transaction that fails when the lock was lost; nothing if another compare of it failed.
  Result<std::optional<int64_t>> commit(meta::Transaction transaction);
  Status look_at_pending();
  Status open();
  Result<Progress> settle();
  Status visit_results(const std::function<Status(const SegmentScanner::Entry& entry,
                                                  const Reference& reference)>& visit);
  Status gather_results();
  Status begin_marking();
  Status mark();
  Status weigh();
  Status decide();
  Status find_forgotten();
  Status forget();
  Status find_copies();
  Status copy();
  Status commit_copies();
  Status condemn();
  Status begin_rescue(int64_t condemned_at);
  Status rescue();
  Status check_rescued_chunks();
  Result<Progress> await();
  Result<bool> may_sweep();
  Status sweep_index();
  Status sweep_objects();
  Status sweep_keys();
  Status remove_segments();
  Status account_uploads();
  RootSource::Request request() const;

  std::unique_ptr<ExternalSorter> sorter() const {
    return std::make_unique<ExternalSorter>(*context_.scratch.file_system,
                                            context_.scratch.directory,
                                            context_.scratch.memory_budget / 5);
  }
  // Of the keys in the collector's transactions.
  meta::Compare lock_held() const {
    return meta::create_revision_is(gc_lock_key(project_), lock_revision_);
  }
  Result<int64_t> revision_now() const {
    QANAT_ASSIGN_OR_RETURN(const auto found,
                           context_.meta->range(meta::KeyRange::single(gc_lock_key(project_))));
    return found.revision;
  }

  const GcContext context_;
  const GcOptions options_;
  const std::string project_;
  SegmentIndex& index_;
  Phase phase_ = Phase::kLock;
  GcReport report_;

  std::atomic<int64_t> lease_ = 0;  // of the lock; keep() may read it meanwhile
  int64_t lock_revision_ = 0;
  std::atomic<int64_t> renewed_ms_ = 0;  // monotonic, when the renewal was sent

  uint64_t open_epoch_ = 0;
  int64_t settle_from_ms_ = 0;
  uint64_t safe_ = 0;
  int64_t revision_ = 0;  // S, or S'
  std::unique_ptr<Marker> marker_;
  std::optional<Weigher> weigher_;
  PackWeights weights_;
  Judgement judgement_;
  std::set<chunk::PackId> condemned_;  // all that have a key

  std::unique_ptr<ExternalSorter> results_;    // blob key -> hash of the value, result key
  std::unique_ptr<ExternalSorter> forgotten_;  // result key -> hash of the value
  std::optional<Marker::Marked> join_mark_;    // where the marks are beside results_
  bool join_begun_ = false;
  std::unique_ptr<ExternalSorter> copies_;  // place -> name and location
  std::unique_ptr<ContentWriter> writer_;

  CollectionRecord record_;
  std::set<chunk::PackId> rescued_;
  std::vector<BlobRef> rescued_chunks_;  // to be looked up
  bool sweeping_before_ = false;  // what an earlier collection condemned, before this one begins
  std::vector<chunk::PackId> sweep_;
  size_t swept_ = 0;
};

Result<GcCollector::Progress> Collector::step() {
  if (phase_ != Phase::kLock && phase_ != Phase::kDone) QANAT_RETURN_IF_ERROR(keep_lock());
  Status status;
  switch (phase_) {
    case Phase::kLock:
      status = take_lock();
      break;
    case Phase::kPending:
      status = look_at_pending();
      break;
    case Phase::kOpen:
      status = open();
      break;
    case Phase::kSettle:
      return settle();
    case Phase::kGatherResults:
      status = gather_results();
      break;
    case Phase::kMark:
      status = mark();
      break;
    case Phase::kWeigh:
      status = weigh();
      break;
    case Phase::kForgetFind:
      status = find_forgotten();
      break;
    case Phase::kForget:
      status = forget();
      break;
    case Phase::kCopyFind:
      status = find_copies();
      break;
    case Phase::kCopy:
      status = copy();
      break;
    case Phase::kCondemn:
      status = condemn();
      break;
    case Phase::kRescue:
      status = rescue();
      break;
    case Phase::kAwait:
      return await();
    case Phase::kSweepIndex:
      status = sweep_index();
      break;
    case Phase::kSweepObjects:
      status = sweep_objects();
      break;
    case Phase::kSweepKeys:
      status = sweep_keys();
      break;
    case Phase::kSegments:
      status = remove_segments();
      break;
    case Phase::kDone:
      return Progress::kDone;
  }
  QANAT_RETURN_IF_ERROR(status);
  return phase_ == Phase::kDone ? Progress::kDone : Progress::kMore;
}

std::string_view Collector::phase() const {
  switch (phase_) {
    case Phase::kLock:
    case Phase::kPending:
    case Phase::kOpen:
      return "beginning";
    case Phase::kSettle:
      return "waiting for writers";
    case Phase::kGatherResults:
    case Phase::kMark:
      return "marking";
    case Phase::kWeigh:
      return "weighing";
    case Phase::kForgetFind:
    case Phase::kForget:
      return "forgetting results";
    case Phase::kCopyFind:
    case Phase::kCopy:
      return "rewriting";
    case Phase::kCondemn:
      return "condemning";
    case Phase::kRescue:
      return "rescuing";
    case Phase::kAwait:
      return "waiting for readers";
    case Phase::kSweepIndex:
    case Phase::kSweepObjects:
    case Phase::kSweepKeys:
    case Phase::kSegments:
      return "sweeping";
    case Phase::kDone:
      return "done";
  }
  return "";
}

// --- Lock ---

Status Collector::take_lock() {
  if (options_.dry_run) {
    phase_ = Phase::kOpen;
    return ok_status();
  }
  renewed_ms_ = context_.clock->monotonic_ms();
  QANAT_ASSIGN_OR_RETURN(const int64_t lease, context_.meta->grant_lease(options_.lock_ttl_ms));
  lease_ = lease;
  const std::string key = gc_lock_key(project_);
  meta::Transaction transaction;
  transaction.when(meta::key_absent(key)).put(key, random_id(), lease);
  transaction.may_use_reserve = true;
  QANAT_ASSIGN_OR_RETURN(const auto result, context_.meta->commit(std::move(transaction)));
  if (!result.succeeded) {
    return conflict(str_cat("garbage of project ", project_, " is being collected already"),
                    "wait for that collection to end");
  }
  lock_revision_ = result.revision;
  phase_ = Phase::kPending;
  return ok_status();
}

Status Collector::keep_lock() {
  if (lease_ == 0) return ok_status();
  if (context_.clock->monotonic_ms() - renewed_ms_ > options_.lock_ttl_ms * 2 / 3) {
    return lock_lost();
  }
  return keep();
}

Status Collector::keep() {
  const int64_t lease = lease_;
  const int64_t now = context_.clock->monotonic_ms();
  if (lease == 0 || now - renewed_ms_ < options_.lock_ttl_ms / 6) return ok_status();
  const Status kept = context_.meta->keep_alive(lease);
  if (kept.code() == Code::kNotFound) return lock_lost();
  QANAT_RETURN_IF_ERROR(kept);
  renewed_ms_ = now;
  return ok_status();
}

Result<std::optional<int64_t>> Collector::commit(meta::Transaction transaction) {
  transaction.when(lock_held());
  transaction.may_use_reserve = true;
  transaction.or_else(meta::get(gc_lock_key(project_)));
  QANAT_ASSIGN_OR_RETURN(const auto result, context_.meta->commit(std::move(transaction)));
  if (result.succeeded) return std::optional<int64_t>(result.revision);
  const auto& lock = result.results[0].range.items;
  if (lock.empty() || lock[0].create_revision != lock_revision_) {
    return lock_lost();
  }
  return std::optional<int64_t>();
}

// --- Begin ---

Status Collector::look_at_pending() {
  QANAT_ASSIGN_OR_RETURN(const auto record, read_collection(*context_.meta, project_));
  QANAT_ASSIGN_OR_RETURN(const auto packs, read_condemned(*context_.meta, project_));
  condemned_ = {packs.begin(), packs.end()};
  phase_ = Phase::kOpen;
  if (!record || record->phase != CollectionRecord::Phase::kRescued || condemned_.empty()) {
    return ok_status();
  }
  record_ = *record;
  QANAT_RETURN_IF_ERROR(context_.pins->publish());
  QANAT_ASSIGN_OR_RETURN(const bool may, may_sweep());
  if (!may) return ok_status();
  sweeping_before_ = true;
  phase_ = Phase::kSweepIndex;
  return ok_status();
}

Status Collector::open() {
  if (!options_.dry_run) {
    for (RootSource* source : context_.sources) {
      QANAT_RETURN_IF_ERROR(source->prepare(project_, options_.now));
    }
    const std::string key = epoch_key(project_);
    QANAT_ASSIGN_OR_RETURN(const auto item, context_.meta->get(key));
    uint64_t epoch = 0;
    if (item) {
      QANAT_ASSIGN_OR_RETURN(epoch, from_hex16(item->value));
    }
    open_epoch_ = epoch + 1;
    meta::Transaction transaction;
    transaction.when(meta::mod_revision_is(key, item ? item->mod_revision : 0));
    transaction.put(key, to_hex16(open_epoch_));
    QANAT_ASSIGN_OR_RETURN(const auto done, commit(std::move(transaction)));
    if (!done) return unavailable("the epoch was moved by somebody else", "this is tried again");
  } else {
    QANAT_ASSIGN_OR_RETURN(open_epoch_, read_epoch(*context_.meta, project_));
    // As if it had been raised, and all writers were older than that.
    ++open_epoch_;
  }
  settle_from_ms_ = context_.clock->monotonic_ms();
  phase_ = Phase::kSettle;
  return ok_status();
}

Result<GcCollector::Progress> Collector::settle() {
  QANAT_RETURN_IF_ERROR(context_.pins->publish());
  QANAT_ASSIGN_OR_RETURN(const auto session, context_.pins->lowest_session(project_));
  const uint64_t oldest = session.value_or(open_epoch_);
  if (oldest < open_epoch_ && !options_.dry_run &&
      context_.clock->monotonic_ms() - settle_from_ms_ < options_.settle_ms) {
    return Progress::kWaiting;
  }
  QANAT_ASSIGN_OR_RETURN(const auto upload, context_.pins->lowest_upload(project_));
  safe_ = std::min({oldest, upload.value_or(open_epoch_), open_epoch_});
  // What a collection could free once the writers of now have ended. Uploads may take a day.
  if (options_.dry_run) safe_ = std::min(upload.value_or(open_epoch_), open_epoch_);
  phase_ = Phase::kGatherResults;
  return Progress::kMore;
}

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
  QANAT_ASSIGN_OR_RETURN(weigher_, Weigher::open(index_, *marker_));
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
  const Status listed = context_.objects->list(
      str_cat("packs/", project_, "/"), [&](const object::ObjectInfo& object) -> Status {
        const auto pack = parse_pack_object_key(object.key);
        if (!pack.ok() || pack->epoch >= safe_ || weights_.contains(*pack)) return ok_status();
        if (judgement_.dead.insert(*pack).second) {
          judgement_.dead_bytes += static_cast<uint64_t>(object.size);
        }
        return ok_status();
      });
  if (listed.code() != Code::kPermissionDenied) QANAT_RETURN_IF_ERROR(listed);
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
  std::string last;
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
      QANAT_ASSIGN_OR_RETURN(weigher_, Weigher::open(index_, *marker_));
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

// --- Rewrite ---

Status Collector::find_copies() {
  for (size_t i = 0; i < options_.entries_per_step; ++i) {
    QANAT_ASSIGN_OR_RETURN(const auto entry, weigher_->next());
    if (!entry) {
      weigher_.reset();
      QANAT_RETURN_IF_ERROR(copies_->finish());
      // Its packs carry an epoch that is not safe, and it keeps the session there until it ends.
      writer_ = context_.content->new_writer({.deduplicate = false});
      phase_ = Phase::kCopy;
      return ok_status();
    }
    const chunk::BlobLocation& location = entry->location;
    if (!entry->live || !judgement_.rewrite.contains(*location.pack)) continue;
    std::string key;
    for (uint64_t part : {location.pack->epoch, location.offset}) {
      for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>(part >> shift));
      if (key.size() == 8) {
        key.append(reinterpret_cast<const char*>(location.pack->id.data()),
                   location.pack->id.size());
      }
    }
    QANAT_RETURN_IF_ERROR(
        copies_->add(key, chunk::blob_key(entry->ref) + chunk::encode_location(location)));
  }
  return ok_status();
}

Status Collector::copy() {
  std::vector<BlobStore::Located> blobs;
  uint64_t bytes = 0;
  while (copies_->valid() && blobs.size() < kCopyBlobs && bytes < kCopyBytes) {
    const std::string_view value = copies_->value();
    BlobStore::Located& blob = blobs.emplace_back();
    QANAT_ASSIGN_OR_RETURN(blob.ref, chunk::parse_blob_key(value.substr(0, chunk::kBlobKeyLength)));
    QANAT_ASSIGN_OR_RETURN(blob.location,
                           chunk::parse_location(value.substr(chunk::kBlobKeyLength)));
    bytes += blob.location.plain_length;
    QANAT_RETURN_IF_ERROR(copies_->next());
  }
  Status copied;
  if (!blobs.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto read, context_.content->blobs().read_located(blobs));
    for (size_t i = 0; i < blobs.size() && copied.ok(); ++i) {
      copied = writer_->add(blobs[i].ref.kind, *read[i], &blobs[i].ref.hash).status();
      report_.rewritten_bytes += blobs[i].location.stored_length;
    }
  }
  if (copied.ok() && !copies_->valid()) copied = commit_copies();
  if (copied.code() == Code::kResourceExhausted) {
    // No room for copies: what is dead altogether makes some.
    log_warning("packs are not rewritten", {{"project", project_}, {"error", copied}});
    judgement_.rewrite.clear();
    report_.rewritten_packs = 0;
    report_.rewritten_bytes = 0;
    copied = ok_status();
    copies_.reset();
    writer_.reset();
    phase_ = Phase::kCondemn;
  }
  return copied;
}

Status Collector::commit_copies() {
  QANAT_RETURN_IF_ERROR(writer_->flush());
  for (int attempt = 0; attempt < 5; ++attempt) {
    meta::Transaction transaction;
    writer_->add_to(&transaction);
    QANAT_ASSIGN_OR_RETURN(const auto done, commit(std::move(transaction)));
    if (done) {
      writer_->committed(*done);
      writer_.reset();
      copies_.reset();
      phase_ = Phase::kCondemn;
      return ok_status();
    }
    QANAT_RETURN_IF_ERROR(writer_->recheck());
  }
  return unavailable("copies could not be registered", "this is tried again");
}

// --- Condemn ---

Status Collector::condemn() {
  std::set<chunk::PackId> wanted = judgement_.dead;
  wanted.insert(judgement_.rewrite.begin(), judgement_.rewrite.end());
  // What a collection before this one condemned, and did not come to sweep, stays so if nothing
  // needs it now.
  std::vector<meta::Operation> operations;
  std::set<chunk::PackId> all;
  for (const chunk::PackId& pack : condemned_) {
    const auto weight = weights_.find(pack);
    if (weight != weights_.end() && weight->second.live_entries > 0 && !wanted.contains(pack)) {
      operations.push_back(meta::erase(condemned_key(project_, pack)));
      ++report_.rescued_packs;
    } else {
      all.insert(pack);
    }
  }
  for (const chunk::PackId& pack : wanted) {
    if (all.insert(pack).second && !condemned_.contains(pack)) {
      operations.push_back(meta::put(condemned_key(project_, pack), ""));
    }
  }
  condemned_ = std::move(all);
  if (condemned_.empty() && operations.empty()) {
    phase_ = Phase::kSegments;
    return ok_status();
  }
  const std::string key = epoch_key(project_);
  QANAT_ASSIGN_OR_RETURN(const auto item, context_.meta->get(key));
  if (!item) return data_loss("the epoch is gone");
  QANAT_ASSIGN_OR_RETURN(const uint64_t epoch, from_hex16(item->value));
  record_ = {CollectionRecord::Phase::kCondemned, epoch + 1, context_.clock->wall_ms()};
  for (size_t first = 0; first < operations.size(); first += kKeysInTransaction) {
    meta::Transaction transaction;
    // With the first new key at the latest: should this collector die here, the next one must not
    // take all that has a key for rescued, because what an earlier collection condemned was.
    transaction.put(gc_collection_key(project_), encode_collection(record_));
    for (size_t i = first; i < std::min(operations.size(), first + kKeysInTransaction); ++i) {
      transaction.add(std::move(operations[i]));
    }
    QANAT_ASSIGN_OR_RETURN(const auto done, commit(std::move(transaction)));
    if (!done) return internal_error("a transaction with one compare failed for another");
  }
  meta::Transaction transaction;
  transaction.when(meta::mod_revision_is(key, item->mod_revision));
  transaction.put(key, to_hex16(epoch + 1));
  transaction.put(gc_collection_key(project_), encode_collection(record_));
  QANAT_ASSIGN_OR_RETURN(const auto done, commit(std::move(transaction)));
  if (!done) return unavailable("the epoch was moved by somebody else", "this is tried again");
  return begin_rescue(*done);
}

// --- Rescue ---

Status Collector::begin_rescue(int64_t condemned_at) {
  revision_ = condemned_at;
  QANAT_RETURN_IF_ERROR(index_.refresh());
  marker_->watch_new(
      [this](const BlobRef&, const chunk::BlobLocation& location) -> Status {
        if (condemned_.contains(*location.pack)) rescued_.insert(*location.pack);
        return ok_status();
      },
      [this](const BlobRef& ref) -> Status {
        rescued_chunks_.push_back(ref);
        return rescued_chunks_.size() < options_.nodes_per_step ? ok_status()
                                                                : check_rescued_chunks();
      });
  phase_ = Phase::kRescue;
  return marker_->begin(request(), [this](const Marker::VisitRoot& visit) {
    return visit_results([&](const SegmentScanner::Entry&, const Reference& reference) {
      return visit({"result", ""}, reference);
    });
  });
}

Status Collector::check_rescued_chunks() {
  QANAT_ASSIGN_OR_RETURN(const auto locations,
                         context_.content->blobs().locate_many(rescued_chunks_));
  for (const auto& location : locations) {
    if (location && condemned_.contains(*location->pack)) rescued_.insert(*location->pack);
  }
  rescued_chunks_.clear();
  return ok_status();
}

Status Collector::rescue() {
  QANAT_ASSIGN_OR_RETURN(const bool more, marker_->step());
  if (more) return ok_status();
  QANAT_RETURN_IF_ERROR(check_rescued_chunks());
  marker_.reset();
  weights_.clear();

  report_.rescued_packs += rescued_.size();
  std::vector<chunk::PackId> rescued(rescued_.begin(), rescued_.end());
  for (size_t first = 0; first < rescued.size(); first += kKeysInTransaction) {
    meta::Transaction transaction;
    for (size_t i = first; i < std::min(rescued.size(), first + kKeysInTransaction); ++i) {
      transaction.erase(condemned_key(project_, rescued[i]));
      condemned_.erase(rescued[i]);
    }
    QANAT_ASSIGN_OR_RETURN(const auto done, commit(std::move(transaction)));
    if (!done) return internal_error("a transaction with one compare failed for another");
  }
  record_.phase = CollectionRecord::Phase::kRescued;
  meta::Transaction transaction;
  transaction.put(gc_collection_key(project_), encode_collection(record_));
  QANAT_ASSIGN_OR_RETURN(const auto done, commit(std::move(transaction)));
  if (!done) return internal_error("a transaction with one compare failed for another");
  report_.waiting_packs = condemned_.size();
  phase_ = condemned_.empty() ? Phase::kSegments : Phase::kAwait;
  return ok_status();
}

// --- Sweep ---

Result<bool> Collector::may_sweep() {
  QANAT_ASSIGN_OR_RETURN(const auto session, context_.pins->lowest_session(project_));
  if (session && *session < record_.epoch) return false;
  if (options_.now) return true;
  // A clock that was set back only makes it wait.
  return context_.clock->wall_ms() - record_.time_ms >= options_.reader_grace_ms;
}

Result<GcCollector::Progress> Collector::await() {
  QANAT_RETURN_IF_ERROR(context_.pins->publish());
  QANAT_ASSIGN_OR_RETURN(const bool may, may_sweep());
  if (!may) return Progress::kWaiting;
  phase_ = Phase::kSweepIndex;
  return Progress::kMore;
}

Status Collector::sweep_index() {
  QANAT_RETURN_IF_ERROR(index_.drop_entries(
      [this](std::string_view value) {
        const auto location = chunk::parse_location(value);
        return location.ok() && location->pack && condemned_.contains(*location->pack);
      },
      [this](std::string_view object_key) {
        const auto pack = parse_pack_object_key(object_key);
        return pack.ok() && condemned_.contains(*pack);
      }));
  sweep_ = {condemned_.begin(), condemned_.end()};
  swept_ = 0;
  phase_ = Phase::kSweepObjects;
  return ok_status();
}

Status Collector::sweep_objects() {
  static Counter& objects =
      counter("qanat_gc_objects_removed_total", "Packs that garbage collection has removed");
  static Counter& bytes =
      counter("qanat_gc_bytes_removed_total", "Bytes of packs that garbage collection has removed");
  for (size_t i = 0; i < kObjectsInStep && swept_ < sweep_.size(); ++i, ++swept_) {
    const std::string key = pack_object_key(project_, sweep_[swept_]);
    const auto size = context_.objects->size(key);
    if (size.code() == Code::kNotFound) continue;
    QANAT_RETURN_IF_ERROR(context_.objects->remove(key));
    if (!size.ok()) continue;
    ++report_.freed_objects;
    report_.freed_bytes += static_cast<uint64_t>(*size);
    objects.add();
    bytes.add(static_cast<uint64_t>(*size));
  }
  if (swept_ == sweep_.size()) {
    swept_ = 0;
    phase_ = Phase::kSweepKeys;
  }
  return ok_status();
}

Status Collector::sweep_keys() {
  meta::Transaction transaction;
  for (size_t i = 0; i < kKeysInTransaction && swept_ < sweep_.size(); ++i, ++swept_) {
    transaction.erase(condemned_key(project_, sweep_[swept_]));
  }
  const bool last = swept_ == sweep_.size();
  if (last) transaction.erase(gc_collection_key(project_));
  QANAT_ASSIGN_OR_RETURN(const auto done, commit(std::move(transaction)));
  if (!done) return internal_error("a transaction with one compare failed for another");
  if (!last) return ok_status();
  sweep_.clear();
  condemned_.clear();
  report_.waiting_packs = 0;
  phase_ = sweeping_before_ ? Phase::kOpen : Phase::kSegments;
  sweeping_before_ = false;
  return ok_status();
}

// Segments that no record names: their writer died before their transaction.
Status Collector::remove_segments() {
  for (SegmentIndex* index : {&index_, &context_.content->results()}) {
    QANAT_RETURN_IF_ERROR(index->remove_orphans(safe_));
    QANAT_RETURN_IF_ERROR(index->remove_replaced(options_.now));
  }
  phase_ = Phase::kDone;
  return ok_status();
}

}  // namespace

std::unique_ptr<GcCollector> GcCollector::create(GcContext context, GcOptions options) {
  return std::make_unique<Collector>(std::move(context), options);
}

}  // namespace qanat::content
