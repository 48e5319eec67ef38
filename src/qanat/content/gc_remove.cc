// A collection's phases that change something: see gc_phases.h.
#include <algorithm>

#include "qanat/base/bytes.h"
#include "qanat/base/counters.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/content/gc_phases.h"
#include "qanat/content/packing_writer.h"

namespace qanat::content::gc {
namespace {

constexpr uint64_t kCopyBytes = 8u << 20;  // of a step
constexpr size_t kCopyBlobs = 8192;
constexpr size_t kObjectsInStep = 64;

}  // namespace

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
    BlobStore::Located blob;
    QANAT_ASSIGN_OR_RETURN(blob.ref, chunk::parse_blob_key(value.substr(0, chunk::kBlobKeyLength)));
    QANAT_ASSIGN_OR_RETURN(blob.location,
                           chunk::parse_location(value.substr(chunk::kBlobKeyLength)));
    if (judgement_.rewrite.contains(*blob.location.pack)) {
      bytes += blob.location.plain_length;
      blobs.push_back(std::move(blob));
    }
    QANAT_RETURN_IF_ERROR(copies_->next());
  }
  Status copied = copy_blobs(blobs);
  if (is_damage(copied)) {
    copied = ok_status();
    for (size_t i = 0; i < blobs.size() && copied.ok(); ++i) {
      const chunk::PackId& pack = *blobs[i].location.pack;
      if (!judgement_.rewrite.contains(pack)) continue;
      copied = copy_blobs(std::span(&blobs[i], 1));
      if (!is_damage(copied)) continue;
      // What can be read of it is read from where it is; it is not the collection's to give up.
      log_error("a damaged pack is not rewritten; `qanat fsck --data` says what it is part of",
                {{"pack", pack_object_key(project_, pack)}, {"error", copied}});
      judgement_.rewrite.erase(pack);
      --report_.rewritten_packs;
      copied = ok_status();
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

// An error of reading comes before any of them is copied.
Status Collector::copy_blobs(std::span<const BlobStore::Located> blobs) {
  if (blobs.empty()) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const auto read, context_.content->blobs().read_located(blobs));
  for (size_t i = 0; i < blobs.size(); ++i) {
    QANAT_RETURN_IF_ERROR(writer_->add(blobs[i].ref.kind, *read[i], &blobs[i].ref.hash).status());
    report_.rewritten_bytes += blobs[i].location.stored_length;
  }
  return ok_status();
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
  marker_->watch_new([this](const BlobRef& ref) -> Status {
    new_blobs_.push_back(ref);
    return new_blobs_.size() < options_.nodes_per_step ? ok_status() : rescue_new_blobs();
  });
  phase_ = Phase::kRescue;
  return marker_->begin(request(), [this](const Marker::VisitRoot& visit) {
    return visit_results([&](const SegmentScanner::Entry&, const Reference& reference) {
      return visit({"result", ""}, reference);
    });
  });
}

// Those that have no copy elsewhere: all they have, as a collector that was taken for dead may
// still be sweeping what was condemned before.
Status Collector::rescue_new_blobs() {
  QANAT_ASSIGN_OR_RETURN(const auto copies, context_.content->blobs().locate_copies(new_blobs_));
  auto condemned = [this](const chunk::BlobLocation& place) {
    return condemned_.contains(*place.pack);
  };
  for (const auto& places : copies) {
    if (!std::ranges::all_of(places, condemned)) continue;
    for (const chunk::BlobLocation& place : places) rescued_.insert(*place.pack);
  }
  new_blobs_.clear();
  return ok_status();
}

Status Collector::rescue() {
  QANAT_ASSIGN_OR_RETURN(const bool more, marker_->step());
  if (more) return ok_status();
  QANAT_RETURN_IF_ERROR(rescue_new_blobs());
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

}  // namespace qanat::content::gc
