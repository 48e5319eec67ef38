// The phases of a collection: the class behind GcCollector, whose header says what they do and why.
//
// Its methods lie in gc_collector.cc (the lock, the beginning, what comes after what), gc_find.cc
// (marking and weighing, and results whose content goes) and gc_remove.cc (rewriting, condemning,
// rescuing, sweeping). Nothing else includes this.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qanat/content/external_sort.h"
#include "qanat/content/gc_collector.h"
#include "qanat/content/gc_weigh.h"
#include "qanat/meta/store.h"

namespace qanat::content::gc {

inline constexpr size_t kKeysInTransaction = 60;  // beside the compare of the lock and a record

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
  Status copy_blobs(std::span<const BlobStore::Located> blobs);
  Status commit_copies();
  Status condemn();
  Status begin_rescue(int64_t condemned_at);
  Status rescue();
  Status rescue_new_blobs();
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
  std::vector<BlobRef> new_blobs_;  // since S, to be looked up
  bool sweeping_before_ = false;    // what an earlier collection condemned, before this one begins
  std::vector<chunk::PackId> sweep_;
  size_t swept_ = 0;
};

}  // namespace qanat::content::gc
