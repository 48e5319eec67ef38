#include "qanat/content/gc_collector.h"

#include <algorithm>

#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/content/gc_phases.h"
#include "qanat/content/uploads.h"

namespace qanat::content {
namespace gc {
namespace {

Status lock_lost() {
  return unavailable("the lock of the garbage collection was lost", "a new one goes on from there");
}

}  // namespace

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
    if (options_.now) {
      // What one of them would still refer to, it refers to with a compare of its record.
      QANAT_ASSIGN_OR_RETURN(report_.ended_uploads,
                             end_idle_uploads(*context_.meta, project_, options_.upload_idle_ms));
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

}  // namespace gc

std::unique_ptr<GcCollector> GcCollector::create(GcContext context, GcOptions options) {
  return std::make_unique<gc::Collector>(std::move(context), options);
}

}  // namespace qanat::content
