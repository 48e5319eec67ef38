#include "qanat/content/packing_writer.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "qanat/base/counters.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/gc_records.h"
#include "qanat/content/pack_stream.h"

namespace qanat::content {
namespace {

// Entries of packs that are not registered (about 100 bytes each) before closed ones are registered
// early.
constexpr size_t kMaxPending = 200'000;
constexpr int kEarlyAttempts = 5;
// Blobs that were not written because the index had them, and that are remembered in case their
// packs are condemned: about 40 bytes each.
constexpr size_t kMaxReliedBlobs = 64 << 10;

Status collected() {
  return conflict("content that this write builds on is being collected as garbage", "try again");
}
// Blobs go to the pool in batches of about so many bytes, so that small ones are worth the way.
constexpr size_t kBatch = 256u << 10;
constexpr size_t kItemOverhead = 128;
// Packs that are being made durable while the next one is filled; beyond, filling waits.
constexpr size_t kMaxClosing = 2;

// Blobs on their way to a pack. Does not change once it is handed to the pool.
struct Batch {
  struct Item {
    BlobRef ref;
    size_t offset = 0;  // in `bytes`, unless one of these has them
    size_t length = 0;
    Blob node;
    std::shared_ptr<const Buffer> chunk;
  };
  uint64_t number = 0;
  std::string bytes;
  std::vector<Item> items;
  size_t size = 0;  // of memory, about

  std::string_view plain(const Item& item) const {
    if (item.node != nullptr) return *item.node;
    if (item.chunk != nullptr) return item.chunk->view();
    return std::string_view(bytes).substr(item.offset, item.length);
  }
};

// A chunk that is being checked and hashed on the pool.
struct Hashing {
  Hashing(Buffer plain, BlobWriter::Check its_check)
      : bytes(std::make_shared<const Buffer>(std::move(plain))), check(its_check) {}
  void run() {
    Status status = check == nullptr ? ok_status() : check(bytes->view());
    Result<Hash> result = status.ok()
                              ? Result<Hash>(chunk::name_blob(BlobKind::kChunk, bytes->view()).hash)
                              : Result<Hash>(std::move(status));
    MutexLock lock(mutex);
    found = std::move(result);
    changed.notify_all();
  }
  Result<Hash> wait() {
    MutexLock lock(mutex);
    while (!found) changed.wait(mutex);
    return *found;
  }

  const std::shared_ptr<const Buffer> bytes;
  const BlobWriter::Check check;
  Mutex mutex;
  CondVar changed;
  std::optional<Result<Hash>> found GUARDED_BY(mutex);
};

// Threads: the owner's thread adds, reads and flushes. Batches are compressed and appended on the
// encoders' pool, closed packs made durable on the syncers' pool; when a pool's queue is full, or
// there is none, the thread that has the work does it. `pack_mutex_` is taken before `mutex_`, and
// held while a blob is appended.
class PackingWriter : public ContentWriter {
 public:
  PackingWriter(WriterContext context, ContentStore::WriterOptions options)
      : context_(std::move(context)), options_(options) {}

  ~PackingWriter() override;

  Result<BlobRef> add(BlobKind kind, std::string_view plain, const Hash* known) override;
  std::unique_ptr<PendingChunk> begin_add(Buffer plain, Check check) override;
  size_t ahead() const override {
    return context_.encoders == nullptr ? 0 : 2 * context_.encoders->thread_count();
  }
  Result<Blob> read(const BlobRef& ref) override;
  Result<std::vector<Blob>> read_many(std::span<const BlobRef> refs) override;
  Result<std::vector<std::optional<KnownChunk>>> find_chunks(std::span<const Hash> hashes) override;
  void rely_on(const KnownChunk& chunk) override { relied_[chunk.pack].all = false; }

  Status flush() override;
  void add_to(meta::Transaction* transaction) const override;
  void committed(int64_t revision) override;
  Status recheck() override;
  Status rely_on_epoch() override;
  Stats stats() const override {
    MutexLock lock(mutex_);
    return stats_;
  }
  std::vector<chunk::PackId> waiting_packs() const override;

 private:
  static constexpr uint32_t kQueued = UINT32_MAX;

  // A blob that was added and is not registered yet. While it is queued, `offset` is its batch and
  // `stored_length` its place therein.
  struct Pending {
    uint32_t pack = kQueued;  // counted from the writer's first
    uint32_t stored_length = 0;
    uint32_t plain_length = 0;
    chunk::Codec codec = chunk::Codec::kRaw;
    uint64_t offset = 0;
  };

  struct Pack {
    chunk::PackId id;
    std::shared_ptr<PackStream> closing;              // null before and after
    std::optional<SegmentRegistration> registration;  // durable, waits to be registered
  };

  class Ticket;

  // Blobs of a pack that were not written again, as far as they are remembered.
  struct Relied {
    std::vector<BlobRef> blobs;
    bool all = true;  // `blobs` is all of them
  };

  Status begin();
  void rely(const chunk::PackId& pack, const BlobRef& ref);
  Status replace(const Relied& relied);
  Result<bool> known_to_index(const BlobRef& ref);
  // False if the blob is there already; else a place for it is held in pending_.
  Result<bool> reserve(const BlobRef& ref);
  // `item` is empty but for what it keeps of the bytes.
  Status enqueue(const BlobRef& ref, std::string_view plain, Batch::Item item);
  Status add_hashed(const Hash& hash, std::shared_ptr<const Buffer> plain, BlobRef* ref);
  // Hands on the batch that was being filled; `here`: in this thread.
  Status dispatch(bool here);
  Status register_early();
  void process(const Batch& batch);
  Status append(const Batch::Item& item, std::string_view plain, const chunk::Encoded& encoded);
  Status open_pack() REQUIRES(pack_mutex_);
  // Takes the open pack out; it counts as closing.
  std::shared_ptr<PackStream> detach_open() REQUIRES(pack_mutex_);
  void close(const std::shared_ptr<PackStream>& stream, uint32_t number);
  void start_close(const std::shared_ptr<PackStream>& stream, uint32_t number);
  Status close_open();
  Status register_waiting();
  size_t count_waiting() const;

  const WriterContext context_;
  const ContentStore::WriterOptions options_;

  // The owner's.
  std::optional<Epoch> epoch_;  // since begin()
  SessionMark session_;
  std::shared_ptr<Batch> filling_;
  uint64_t next_batch_ = 1;
  std::map<chunk::PackId, Relied> relied_;  // packs of blobs that were not written again
  size_t relied_blobs_ = 0;
  // Once rely_on_epoch() was called: the packs that may be condemned.
  std::shared_ptr<const std::set<chunk::PackId>> strict_;
  uint64_t pin_ = 0;  // of EpochPins
  // A transaction with these registrations may have been sent.
  mutable std::vector<uint32_t> offered_;

  Mutex pack_mutex_;
  std::shared_ptr<PackStream> open_ GUARDED_BY(pack_mutex_);
  uint32_t open_number_ GUARDED_BY(pack_mutex_) = 0;
  uint32_t next_number_ GUARDED_BY(pack_mutex_) = 0;
  uint64_t pack_epoch_ GUARDED_BY(pack_mutex_) = 0;  // of new packs

  mutable Mutex mutex_;
  CondVar changed_;
  Status failed_ GUARDED_BY(mutex_);  // the first error of any thread
  size_t running_ GUARDED_BY(mutex_) = 0;
  size_t closing_ GUARDED_BY(mutex_) = 0;
  std::unordered_map<BlobRef, Pending, chunk::BlobRefHasher> pending_ GUARDED_BY(mutex_);
  std::map<uint64_t, std::shared_ptr<const Batch>> batches_ GUARDED_BY(mutex_);  // queued
  std::map<uint32_t, Pack> packs_ GUARDED_BY(mutex_);  // until they are registered
  Stats stats_ GUARDED_BY(mutex_);
};

class PackingWriter::Ticket : public PendingChunk {
 public:
  Ticket(PackingWriter& writer, std::shared_ptr<Hashing> hashing)
      : writer_(writer), hashing_(std::move(hashing)) {}
  Result<BlobRef> wait() override {
    QANAT_ASSIGN_OR_RETURN(const Hash hash, hashing_->wait());
    BlobRef ref;
    QANAT_RETURN_IF_ERROR(writer_.add_hashed(hash, hashing_->bytes, &ref));
    return ref;
  }

 private:
  PackingWriter& writer_;
  const std::shared_ptr<Hashing> hashing_;
};

PackingWriter::~PackingWriter() {
  {
    MutexLock lock(mutex_);
    if (failed_.ok()) failed_ = cancelled("the writer was given up");
    changed_.notify_all();
    while (running_ > 0 || closing_ > 0) changed_.wait(mutex_);
  }
  // Those that a transaction may have registered go together, with the guard that it compared.
  std::vector<SegmentRegistration> offered;
  std::vector<SegmentRegistration> rest;
  MutexLock lock(mutex_);
  for (const uint32_t number : offered_) {
    offered.push_back(*std::move(packs_[number].registration));
    packs_.erase(number);
  }
  for (auto& [number, pack] : packs_) {
    if (pack.registration) rest.push_back(*std::move(pack.registration));
  }
  lock.unlock();
  context_.blobs->index().give_up(offered, true);
  context_.blobs->index().give_up(rest, false);
  if (pin_ != 0) context_.pins->end(pin_);
}

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
  MutexLock lock(pack_mutex_);
  pack_epoch_ = epoch_->number;
  return ok_status();
}

Status PackingWriter::rely_on_epoch() {
  if (strict_) return ok_status();
  QANAT_RETURN_IF_ERROR(begin());
  // Read after the condemned packs. Those that are not rescued yet may hold what is live; if that
  // is lost from sight before the collector looks (or the next one, should it die), they go.
  QANAT_ASSIGN_OR_RETURN(const auto collection,
                         read_collection(*context_.meta, context_.blobs->project()));
  const bool rescued = !collection || collection->phase == CollectionRecord::Phase::kRescued;
  strict_ = rescued ? epoch_->condemned : std::make_shared<const std::set<chunk::PackId>>();
  return ok_status();
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

// --- Adding: the owner's thread ---

Result<bool> PackingWriter::known_to_index(const BlobRef& ref) {
  if (options_.only_from != nullptr) {
    QANAT_ASSIGN_OR_RETURN(
        const auto copies,
        context_.blobs->locate_copies(std::span(&ref, 1), SegmentIndex::OnDamage::kMiss));
    for (const chunk::BlobLocation& copy : copies[0]) {
      if (!options_.only_from->contains(*copy.pack) || epoch_->condemned->contains(*copy.pack) ||
          context_.blobs->is_damaged(ref, *copy.pack)) {
        continue;
      }
      rely(*copy.pack, ref);
      return true;
    }
    return false;
  }
  QANAT_ASSIGN_OR_RETURN(std::vector<std::optional<chunk::BlobLocation>> locations,
                         context_.blobs->locate_for_reuse(std::span(&ref, 1)));
  if (!locations[0] || epoch_->condemned->contains(*locations[0]->pack)) return false;
  rely(*locations[0]->pack, ref);
  return true;
}

Result<bool> PackingWriter::reserve(const BlobRef& ref) {
  static Counter& deduplicated =
      counter("qanat_blobs_deduplicated_total", "Blobs not written because they were there");
  bool present = false;
  {
    MutexLock lock(mutex_);
    QANAT_RETURN_IF_ERROR(failed_);
    present = !pending_.try_emplace(ref).second;
  }
  if (!present && (options_.deduplicate || options_.only_from != nullptr)) {
    const Result<bool> known = known_to_index(ref);
    if (!known.ok() || *known) {
      MutexLock lock(mutex_);
      pending_.erase(ref);
    }
    QANAT_RETURN_IF_ERROR(known.status());
    present = *known;
  }
  if (!present) return true;
  deduplicated.add();
  MutexLock lock(mutex_);
  ++stats_.deduplicated;
  return false;
}

Result<BlobRef> PackingWriter::add(BlobKind kind, std::string_view plain, const Hash* known) {
  QANAT_RETURN_IF_ERROR(begin());
  if (plain.size() > chunk::kMaxBlobLength) {
    return invalid_argument(
        str_cat("a blob of ", plain.size(), " bytes; the limit is ", chunk::kMaxBlobLength));
  }
  const BlobRef ref = known != nullptr ? BlobRef{kind, *known} : chunk::name_blob(kind, plain);
  QANAT_ASSIGN_OR_RETURN(const bool fresh, reserve(ref));
  if (!fresh) return ref;
  // Trees are edited node by node, so nodes are kept at hand.
  Batch::Item item;
  if (kind == BlobKind::kNode) {
    item.node = std::make_shared<const std::string>(plain);
    context_.blobs->remember(ref, item.node);
  }
  QANAT_RETURN_IF_ERROR(enqueue(ref, plain, std::move(item)));
  return ref;
}

std::unique_ptr<PendingChunk> PackingWriter::begin_add(Buffer plain, Check check) {
  auto hashing = std::make_shared<Hashing>(std::move(plain), check);
  if (context_.encoders == nullptr ||
      !context_.encoders->try_submit([hashing] { hashing->run(); })) {
    hashing->run();
  }
  return std::make_unique<Ticket>(*this, std::move(hashing));
}

Status PackingWriter::add_hashed(const Hash& hash, std::shared_ptr<const Buffer> plain,
                                 BlobRef* ref) {
  QANAT_RETURN_IF_ERROR(begin());
  *ref = {BlobKind::kChunk, hash};
  QANAT_ASSIGN_OR_RETURN(const bool fresh, reserve(*ref));
  if (!fresh) return ok_status();
  const std::string_view bytes = plain->view();
  Batch::Item item;
  item.chunk = std::move(plain);
  return enqueue(*ref, bytes, std::move(item));
}

Status PackingWriter::enqueue(const BlobRef& ref, std::string_view plain, Batch::Item item) {
  if (filling_ == nullptr) {
    filling_ = std::make_shared<Batch>();
    filling_->number = next_batch_++;
  }
  item.ref = ref;
  item.offset = filling_->bytes.size();
  item.length = plain.size();
  if (item.node == nullptr && item.chunk == nullptr) filling_->bytes.append(plain);
  filling_->items.push_back(std::move(item));
  filling_->size += plain.size() + kItemOverhead;
  {
    MutexLock lock(mutex_);
    Pending& pending = pending_[ref];
    pending.pack = kQueued;
    pending.offset = filling_->number;
    pending.stored_length = static_cast<uint32_t>(filling_->items.size() - 1);
    pending.plain_length = static_cast<uint32_t>(plain.size());
    if (pending.stored_length == 0) batches_[filling_->number] = filling_;
  }
  if (filling_->size < kBatch) return ok_status();
  QANAT_RETURN_IF_ERROR(dispatch(false));
  return register_early();
}

Status PackingWriter::dispatch(bool here) {
  if (filling_ == nullptr) return ok_status();
  const std::shared_ptr<const Batch> batch = std::move(filling_);
  filling_ = nullptr;
  {
    MutexLock lock(mutex_);
    QANAT_RETURN_IF_ERROR(failed_);
    ++running_;
  }
  if (!here && context_.encoders != nullptr &&
      context_.encoders->try_submit([this, batch] { process(*batch); })) {
    return ok_status();
  }
  process(*batch);
  MutexLock lock(mutex_);
  return failed_;
}

size_t PackingWriter::count_waiting() const {
  MutexLock lock(mutex_);
  size_t count = 0;
  for (const auto& [number, pack] : packs_) count += pack.registration ? 1 : 0;
  return count;
}

std::vector<chunk::PackId> PackingWriter::waiting_packs() const {
  MutexLock lock(mutex_);
  std::vector<chunk::PackId> ids;
  for (const auto& [number, pack] : packs_) {
    if (pack.registration) ids.push_back(pack.id);
  }
  return ids;
}

Status PackingWriter::register_early() {
  const size_t waiting = count_waiting();
  if (waiting == 0) return ok_status();
  if (waiting <= kMaxWaitingPacks) {
    MutexLock lock(mutex_);
    if (pending_.size() <= kMaxPending) return ok_status();
  }
  return register_waiting();
}

// --- Compressing, appending, closing: any thread ---

void PackingWriter::process(const Batch& batch) {
  thread_local chunk::Encoder encoder;
  Status status;
  for (const Batch::Item& item : batch.items) {
    {
      MutexLock lock(mutex_);
      if (!failed_.ok()) break;
    }
    const std::string_view plain = batch.plain(item);
    status = append(item, plain, encoder.encode(plain));
    if (!status.ok()) break;
  }
  MutexLock lock(mutex_);
  if (failed_.ok()) failed_ = std::move(status);
  batches_.erase(batch.number);
  --running_;
  changed_.notify_all();
}

Status PackingWriter::append(const Batch::Item& item, std::string_view plain,
                             const chunk::Encoded& encoded) {
  static Counter& nodes = counter("qanat_nodes_written_total", "Tree nodes written");
  static Counter& chunks = counter("qanat_chunks_written_total", "File chunks written");
  const bool node = item.ref.kind == BlobKind::kNode;
  (node ? nodes : chunks).add();
  std::shared_ptr<PackStream> full;
  uint32_t number = 0;
  {
    MutexLock pack_lock(pack_mutex_);
    if (open_ == nullptr) QANAT_RETURN_IF_ERROR(open_pack());
    QANAT_ASSIGN_OR_RETURN(const chunk::BlobLocation location,
                           open_->add(item.ref, plain, encoded, item.node));
    {
      MutexLock lock(mutex_);
      Pending& pending = pending_[item.ref];
      pending.pack = open_number_;
      pending.stored_length = location.stored_length;
      pending.codec = location.codec;
      pending.offset = location.offset;
      stats_.plain_bytes += plain.size();
      stats_.stored_bytes += location.stored_length;
      ++(node ? stats_.nodes : stats_.chunks);
    }
    if (open_->full()) {
      number = open_number_;
      full = detach_open();
    }
  }
  if (full != nullptr) start_close(full, number);
  return ok_status();
}

Status PackingWriter::open_pack() {
  {
    MutexLock lock(mutex_);
    while (closing_ >= kMaxClosing && failed_.ok()) changed_.wait(mutex_);
    QANAT_RETURN_IF_ERROR(failed_);
  }
  open_ = std::make_shared<PackStream>(
      context_.objects,
      object::ObjectStore::CreateOptions{.may_use_reserve = options_.may_use_reserve},
      context_.blobs->project(), pack_epoch_);
  open_number_ = next_number_++;
  MutexLock lock(mutex_);
  packs_[open_number_].id = open_->id();
  ++stats_.packs;
  return ok_status();
}

std::shared_ptr<PackStream> PackingWriter::detach_open() {
  MutexLock lock(mutex_);
  packs_[open_number_].closing = open_;
  ++closing_;
  return std::move(open_);
}

void PackingWriter::start_close(const std::shared_ptr<PackStream>& stream, uint32_t number) {
  if (context_.syncers != nullptr &&
      context_.syncers->try_submit([this, stream, number] { close(stream, number); })) {
    return;
  }
  close(stream, number);
}

void PackingWriter::close(const std::shared_ptr<PackStream>& stream, uint32_t number) {
  Result<SegmentRegistration> registration = stream->close();
  MutexLock lock(mutex_);
  Pack& pack = packs_[number];
  pack.closing = nullptr;
  if (registration.ok()) {
    pack.registration = *std::move(registration);
  } else if (failed_.ok()) {
    failed_ = registration.status();
  }
  --closing_;
  changed_.notify_all();
}

Status PackingWriter::close_open() {
  std::shared_ptr<PackStream> stream;
  uint32_t number = 0;
  {
    MutexLock pack_lock(pack_mutex_);
    if (open_ != nullptr) {
      number = open_number_;
      stream = detach_open();
    }
  }
  if (stream != nullptr) close(stream, number);
  MutexLock lock(mutex_);
  return failed_;
}

// --- Reading ---

Result<Blob> PackingWriter::read(const BlobRef& ref) {
  Pending pending;
  {
    MutexLock lock(mutex_);
    const auto found = pending_.find(ref);
    if (found == pending_.end()) {
      lock.unlock();
      return context_.blobs->read(ref);
    }
    QANAT_RETURN_IF_ERROR(failed_);
    pending = found->second;
    if (pending.pack == kQueued) {
      const std::shared_ptr<const Batch> batch = batches_[pending.offset];
      const Batch::Item& item = batch->items[pending.stored_length];
      if (item.node != nullptr) return item.node;
      return std::make_shared<const std::string>(batch->plain(item));
    }
  }
  chunk::BlobLocation location;
  location.offset = pending.offset;
  location.stored_length = pending.stored_length;
  location.plain_length = pending.plain_length;
  location.codec = pending.codec;
  std::shared_ptr<PackStream> stream;
  {
    MutexLock pack_lock(pack_mutex_);
    if (open_ != nullptr && open_number_ == pending.pack) {
      QANAT_ASSIGN_OR_RETURN(Blob blob, open_->read(ref, location));
      if (blob != nullptr) return blob;
      // Its bytes have gone to the store, where they can be read once the pack is closed.
      stream = detach_open();
    }
  }
  if (stream != nullptr) close(stream, pending.pack);
  {
    MutexLock lock(mutex_);
    const Pack& pack = packs_[pending.pack];
    if (pack.closing != nullptr) {
      if (Blob node = pack.closing->node(ref)) return node;
      while (pack.closing != nullptr && failed_.ok()) changed_.wait(mutex_);
    }
    QANAT_RETURN_IF_ERROR(failed_);
    location.pack = pack.id;
  }
  return context_.blobs->read_at(ref, location);
}

Result<std::vector<Blob>> PackingWriter::read_many(std::span<const BlobRef> refs) {
  std::vector<Blob> blobs(refs.size());
  std::vector<BlobRef> stored;
  std::vector<size_t> position;
  std::vector<size_t> own;
  {
    MutexLock lock(mutex_);
    for (size_t i = 0; i < refs.size(); ++i) {
      if (pending_.contains(refs[i])) {
        own.push_back(i);
      } else {
        stored.push_back(refs[i]);
        position.push_back(i);
      }
    }
  }
  for (const size_t i : own) {
    QANAT_ASSIGN_OR_RETURN(blobs[i], read(refs[i]));
  }
  if (stored.empty()) return blobs;
  QANAT_ASSIGN_OR_RETURN(std::vector<Blob> rest, context_.blobs->read_many(stored));
  for (size_t i = 0; i < rest.size(); ++i) blobs[position[i]] = std::move(rest[i]);
  return blobs;
}

Result<std::vector<std::optional<KnownChunk>>> PackingWriter::find_chunks(
    std::span<const Hash> hashes) {
  QANAT_RETURN_IF_ERROR(begin());
  std::vector<BlobRef> refs;
  refs.reserve(hashes.size());
  for (const Hash& hash : hashes) refs.push_back({BlobKind::kChunk, hash});
  QANAT_ASSIGN_OR_RETURN(const auto locations, context_.blobs->locate_for_reuse(refs));
  std::vector<std::optional<KnownChunk>> found(hashes.size());
  for (size_t i = 0; i < hashes.size(); ++i) {
    if (!locations[i] || epoch_->condemned->contains(*locations[i]->pack)) continue;
    found[i] =
        KnownChunk{*locations[i]->pack, locations[i]->plain_length, locations[i]->ends_in_cut};
  }
  return found;
}

// --- Making it part of a transaction: the owner's thread ---

Status PackingWriter::flush() {
  QANAT_RETURN_IF_ERROR(begin());
  QANAT_RETURN_IF_ERROR(dispatch(true));
  {
    MutexLock lock(mutex_);
    while (running_ > 0) changed_.wait(mutex_);
  }
  QANAT_RETURN_IF_ERROR(close_open());
  {
    MutexLock lock(mutex_);
    while (closing_ > 0) changed_.wait(mutex_);
    QANAT_RETURN_IF_ERROR(failed_);
  }
  if (count_waiting() > kMaxWaitingPacks) return register_waiting();
  return ok_status();
}

void PackingWriter::add_to(meta::Transaction* transaction) const {
  if (options_.may_use_reserve) transaction->may_use_reserve = true;
  if (!session_.key.empty()) {
    transaction->when(meta::create_revision_is(session_.key, session_.create_revision));
  }
  transaction->when(
      meta::mod_revision_is(epoch_key(context_.blobs->project()), epoch_ ? epoch_->revision : 0));
  MutexLock lock(mutex_);
  SegmentIndex& index = context_.blobs->index();
  offered_.clear();
  for (const auto& [number, pack] : packs_) {
    if (!pack.registration) continue;
    if (offered_.empty()) transaction->when(index.guard(*pack.registration));
    transaction->add(index.registration(*pack.registration));
    offered_.push_back(number);
  }
}

void PackingWriter::committed(int64_t revision) {
  MutexLock lock(mutex_);
  const std::set<uint32_t> done(offered_.begin(), offered_.end());
  offered_.clear();
  std::vector<SegmentRegistration> registrations;
  for (const uint32_t number : done) {
    Pack& pack = packs_[number];
    // Also blobs of these packs can be condemned before the caller's own transaction, if this was
    // an early one.
    relied_[pack.id].all = false;
    registrations.push_back(*std::move(pack.registration));
    packs_.erase(number);
  }
  lock.unlock();
  // Known to the index before they are unknown here.
  for (SegmentRegistration& registration : registrations) {
    context_.blobs->index().registered(std::move(registration), revision);
  }
  lock.lock();
  std::erase_if(pending_, [&](const auto& item) { return done.contains(item.second.pack); });
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
  if (strict_) {
    if (!std::includes(strict_->begin(), strict_->end(), now.condemned->begin(),
                       now.condemned->end())) {
      return collected();
    }
    strict_ = now.condemned;
  }
  // First of all: nothing is looked for in what is condemned now.
  epoch_ = std::move(now);
  {
    MutexLock lock(pack_mutex_);
    pack_epoch_ = epoch_->number;
  }
  std::vector<Relied> lost;
  for (auto at = relied_.begin(); at != relied_.end();) {
    if (!epoch_->condemned->contains(at->first)) {
      // The index may name a younger copy by now, in a pack that goes: then this one is found
      // again.
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
