#include "qanat/content/packing_writer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "qanat/base/counters.h"
#include "qanat/base/string.h"
#include "qanat/content/pack_stream.h"

namespace qanat::content {
namespace {

// Entries of waiting packs that are held in memory (about 100 bytes each) before they are
// registered early.
constexpr size_t kMaxPending = 200'000;
constexpr int kEarlyAttempts = 5;
// Blobs that were not written because the index had them, and that are remembered in case their
// packs are condemned: about 40 bytes each.
constexpr size_t kMaxReliedBlobs = 64 << 10;

Status collected() {
  return conflict("content that this write builds on is being collected as garbage", "try again");
}

class PackingWriter : public ContentWriter {
 public:
  PackingWriter(WriterContext context, ContentStore::WriterOptions options)
      : context_(std::move(context)), options_(options) {}

  ~PackingWriter() override {
    context_.blobs->index().give_up(waiting_, sent_);
    if (context_.pins != nullptr && pin_ != 0) context_.pins->end(pin_);
  }

  Result<BlobRef> add(BlobKind kind, std::string_view plain, const Hash* known) override;
  Result<Blob> read(const BlobRef& ref) override;
  Result<std::vector<Blob>> read_many(std::span<const BlobRef> refs) override;

  Status flush() override;
  void add_to(meta::Transaction* transaction) const override;
  void committed(int64_t revision) override;
  Status recheck() override;
  Status rely_on_epoch() override;
  Stats stats() const override { return stats_; }

 private:
  // Where a blob lies that was added and is not registered yet.
  struct Pending {
    uint32_t pack = 0;  // counted from the writer's first
    uint32_t stored_length = 0;
    uint32_t plain_length = 0;
    chunk::Codec codec = chunk::Codec::kRaw;
    uint64_t offset = 0;
  };

  Status begin();
  Result<bool> known_to_index(const BlobRef& ref);
  Status close_pack();
  Status register_waiting();
  chunk::BlobLocation location_of(const Pending& pending) const;

  const WriterContext context_;
  const ContentStore::WriterOptions options_;
  chunk::Encoder encoder_;
  std::optional<Epoch> epoch_;  // since begin()
  SessionMark session_;
  std::unique_ptr<PackStream> open_;
  uint32_t first_pack_ = 0;                   // number of pack_ids_[0]
  std::vector<chunk::PackId> pack_ids_;       // of the waiting packs and the open one
  std::vector<SegmentRegistration> waiting_;  // closed, not registered
  std::unordered_map<BlobRef, Pending, chunk::BlobRefHasher> pending_;
  // Packs whose blobs were not written again, and which blobs, as far as they are remembered.
  struct Relied {
    std::vector<BlobRef> blobs;
    bool all = true;  // `blobs` is all of them
  };
  void rely(const chunk::PackId& pack, const BlobRef& ref);
  Status replace(const Relied& relied);
  std::map<chunk::PackId, Relied> relied_;
  size_t relied_blobs_ = 0;
  bool strict_ = false;  // rely_on_epoch()
  uint64_t pin_ = 0;
  // A transaction with the registrations may have been sent.
  mutable bool sent_ = false;
  Stats stats_;
};

Status PackingWriter::begin() {
  if (epoch_) return ok_status();
  if (context_.pins != nullptr && pin_ == 0) {
    QANAT_ASSIGN_OR_RETURN(EpochPins::Pin pin, context_.pins->begin(context_.blobs->project()));
    pin_ = pin.id;
    session_ = std::move(pin.session);
  } else if (context_.session) {
    session_ = context_.session();
  }
  QANAT_ASSIGN_OR_RETURN(epoch_, context_.epochs->current());
  if (pin_ != 0) context_.pins->began(pin_, epoch_->number);
  return ok_status();
}

Status PackingWriter::rely_on_epoch() {
  strict_ = true;
  return begin();
}

void PackingWriter::rely(const chunk::PackId& pack, const BlobRef& ref) {
  Relied& relied = relied_[pack];
  if (!relied.all) return;
  if (relied_blobs_ < kMaxReliedBlobs) {
    relied.blobs.push_back(ref);
    ++relied_blobs_;
    return;
  }
  relied.all = false;
  relied_blobs_ -= relied.blobs.size();
  std::vector<BlobRef>().swap(relied.blobs);
}

Result<bool> PackingWriter::known_to_index(const BlobRef& ref) {
  QANAT_ASSIGN_OR_RETURN(std::vector<std::optional<chunk::BlobLocation>> locations,
                         context_.blobs->locate_many(std::span(&ref, 1)));
  if (!locations[0] || epoch_->condemned->contains(*locations[0]->pack)) return false;
  rely(*locations[0]->pack, ref);
  return true;
}

Result<BlobRef> PackingWriter::add(BlobKind kind, std::string_view plain, const Hash* known) {
  static Counter& deduplicated =
      counter("qanat_blobs_deduplicated_total", "Blobs not written because they were there");
  static Counter& nodes = counter("qanat_nodes_written_total", "Tree nodes written");
  static Counter& chunks = counter("qanat_chunks_written_total", "File chunks written");
  QANAT_RETURN_IF_ERROR(begin());
  BlobRef ref = known != nullptr ? BlobRef{kind, *known} : chunk::name_blob(kind, plain);
  bool present = pending_.contains(ref);
  if (!present && options_.deduplicate) {
    QANAT_ASSIGN_OR_RETURN(present, known_to_index(ref));
  }
  if (present) {
    ++stats_.deduplicated;
    deduplicated.add();
    return ref;
  }
  if (open_ == nullptr) {
    open_ = std::make_unique<PackStream>(
        context_.objects,
        object::ObjectStore::CreateOptions{.may_use_reserve = options_.may_use_reserve}, &encoder_,
        context_.blobs->project(), epoch_->number);
    pack_ids_.push_back(open_->id());
    ++stats_.packs;
  }
  // Trees are edited node by node, so nodes are kept at hand.
  Blob shared;
  if (kind == BlobKind::kNode) {
    shared = std::make_shared<const std::string>(plain);
    context_.blobs->remember(ref, shared);
  }
  QANAT_ASSIGN_OR_RETURN(chunk::BlobLocation location, open_->add(ref, plain, shared));
  Pending pending;
  pending.pack = first_pack_ + static_cast<uint32_t>(pack_ids_.size()) - 1;
  pending.stored_length = location.stored_length;
  pending.plain_length = location.plain_length;
  pending.codec = location.codec;
  pending.offset = location.offset;
  pending_.emplace(ref, pending);
  stats_.stored_bytes += location.stored_length;
  ++(kind == BlobKind::kNode ? stats_.nodes : stats_.chunks);
  (kind == BlobKind::kNode ? nodes : chunks).add();
  if (open_->full()) {
    QANAT_RETURN_IF_ERROR(close_pack());
    if (waiting_.size() > kMaxWaitingPacks || pending_.size() > kMaxPending) {
      QANAT_RETURN_IF_ERROR(register_waiting());
    }
  }
  return ref;
}

chunk::BlobLocation PackingWriter::location_of(const Pending& pending) const {
  chunk::BlobLocation location;
  location.pack = pack_ids_[pending.pack - first_pack_];
  location.offset = pending.offset;
  location.stored_length = pending.stored_length;
  location.plain_length = pending.plain_length;
  location.codec = pending.codec;
  return location;
}

Result<Blob> PackingWriter::read(const BlobRef& ref) {
  auto found = pending_.find(ref);
  if (found == pending_.end()) return context_.blobs->read(ref);
  chunk::BlobLocation location = location_of(found->second);
  if (open_ != nullptr && *location.pack == open_->id()) {
    QANAT_ASSIGN_OR_RETURN(Blob blob, open_->read(ref, location));
    if (blob != nullptr) return blob;
    // Its bytes have gone to the store, where they can be read once the pack is closed.
    QANAT_RETURN_IF_ERROR(close_pack());
  }
  return context_.blobs->read_at(ref, location);
}

Result<std::vector<Blob>> PackingWriter::read_many(std::span<const BlobRef> refs) {
  std::vector<Blob> blobs(refs.size());
  std::vector<BlobRef> stored;
  std::vector<size_t> position;
  for (size_t i = 0; i < refs.size(); ++i) {
    if (pending_.contains(refs[i])) {
      QANAT_ASSIGN_OR_RETURN(blobs[i], read(refs[i]));
    } else {
      stored.push_back(refs[i]);
      position.push_back(i);
    }
  }
  if (stored.empty()) return blobs;
  QANAT_ASSIGN_OR_RETURN(std::vector<Blob> rest, context_.blobs->read_many(stored));
  for (size_t i = 0; i < rest.size(); ++i) blobs[position[i]] = std::move(rest[i]);
  return blobs;
}

Status PackingWriter::close_pack() {
  if (open_ == nullptr) return ok_status();
  Result<SegmentRegistration> registration = open_->close();
  if (!registration.ok()) return registration.status();
  open_.reset();
  waiting_.push_back(*std::move(registration));
  return ok_status();
}

Status PackingWriter::flush() {
  QANAT_RETURN_IF_ERROR(begin());
  QANAT_RETURN_IF_ERROR(close_pack());
  if (waiting_.size() > kMaxWaitingPacks) return register_waiting();
  return ok_status();
}

void PackingWriter::add_to(meta::Transaction* transaction) const {
  if (options_.may_use_reserve) transaction->may_use_reserve = true;
  if (!session_.key.empty()) {
    transaction->when(meta::create_revision_is(session_.key, session_.create_revision));
  }
  transaction->when(
      meta::mod_revision_is(epoch_key(context_.blobs->project()), epoch_ ? epoch_->revision : 0));
  if (waiting_.empty()) return;
  SegmentIndex& index = context_.blobs->index();
  transaction->when(index.guard(waiting_[0]));
  for (const SegmentRegistration& registration : waiting_) {
    transaction->add(index.registration(registration));
  }
  sent_ = true;
}

void PackingWriter::committed(int64_t revision) {
  // Also blobs of these packs can be condemned before the caller's own transaction, if this was an
  // early one.
  // (They are not as long as this writer lives; see gc_collector.h.)
  for (size_t i = 0; i < waiting_.size(); ++i) relied_[pack_ids_[i]].all = false;
  for (SegmentRegistration& registration : waiting_) {
    context_.blobs->index().registered(std::move(registration), revision);
  }
  uint32_t first_open = first_pack_ + static_cast<uint32_t>(waiting_.size());
  if (open_ == nullptr) {
    pending_.clear();
  } else {
    std::erase_if(pending_, [&](const auto& item) { return item.second.pack < first_open; });
  }
  pack_ids_.erase(pack_ids_.begin(), pack_ids_.begin() + static_cast<ptrdiff_t>(waiting_.size()));
  first_pack_ = first_open;
  waiting_.clear();
  sent_ = false;
}

Status PackingWriter::register_waiting() {
  for (int attempt = 0; attempt < kEarlyAttempts; ++attempt) {
    meta::Transaction transaction;
    add_to(&transaction);
    QANAT_ASSIGN_OR_RETURN(meta::TransactionResult result,
                           context_.meta->commit(std::move(transaction)));
    if (result.succeeded) {
      committed(result.revision);
      return ok_status();
    }
    QANAT_RETURN_IF_ERROR(recheck());
  }
  return unavailable("garbage collection kept moving the epoch while content was written",
                     "try again");
}

Status PackingWriter::recheck() {
  if (!session_.key.empty()) {
    QANAT_ASSIGN_OR_RETURN(std::optional<meta::KeyValue> record, context_.meta->get(session_.key));
    if (!record || record->create_revision != session_.create_revision) {
      return unavailable("this server's session ended while content was written",
                         "try again; the server renews its session by itself");
    }
  }
  QANAT_ASSIGN_OR_RETURN(Epoch now, context_.epochs->current());
  if (now.revision == epoch_->revision) return ok_status();
  if (strict_ && !std::includes(epoch_->condemned->begin(), epoch_->condemned->end(),
                                now.condemned->begin(), now.condemned->end())) {
    return collected();
  }
  // First of all: nothing is looked for in what is condemned now.
  epoch_ = std::move(now);
  std::vector<Relied> lost;
  for (auto at = relied_.begin(); at != relied_.end();) {
    if (!epoch_->condemned->contains(at->first)) {
      ++at;
      continue;
    }
    if (!at->second.all) return collected();
    relied_blobs_ -= at->second.blobs.size();
    lost.push_back(std::move(at->second));
    at = relied_.erase(at);
  }
  for (const Relied& relied : lost) QANAT_RETURN_IF_ERROR(replace(relied));
  return lost.empty() ? ok_status() : flush();
}

// Writes blobs of a condemned pack anew, those that are not elsewhere by now. The pack itself stays
// as long as this writer lives.
Status PackingWriter::replace(const Relied& relied) {
  for (const BlobRef& ref : relied.blobs) {
    QANAT_ASSIGN_OR_RETURN(std::vector<std::optional<chunk::BlobLocation>> locations,
                           context_.blobs->locate_many(std::span(&ref, 1)));
    if (!locations[0]) return collected();
    if (!epoch_->condemned->contains(*locations[0]->pack)) {
      rely(*locations[0]->pack, ref);
      continue;
    }
    QANAT_ASSIGN_OR_RETURN(Blob blob, context_.blobs->read_at(ref, *locations[0]));
    QANAT_RETURN_IF_ERROR(add(ref.kind, *blob, &ref.hash).status());
  }
  return ok_status();
}

}  // namespace

std::unique_ptr<ContentWriter> make_packing_writer(WriterContext context,
                                                   ContentStore::WriterOptions options) {
  return std::make_unique<PackingWriter>(std::move(context), options);
}

}  // namespace qanat::content
