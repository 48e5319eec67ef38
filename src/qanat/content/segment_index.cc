#include "qanat/content/segment_index.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "qanat/base/bytes.h"
#include "qanat/base/counters.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/chunk/segment.h"
#include "qanat/content/blob_store.h"
#include "qanat/content/index_compaction.h"
#include "qanat/content/segment_merge.h"
#include "qanat/content/stored_segment.h"

namespace qanat::content {
namespace {

constexpr uint64_t kScanReadAhead = 64u << 10;
constexpr int64_t kPage = 1000;     // meta keys read at once
constexpr int64_t kBadMs = 10'000;  // a segment that could not be read is tried again after that

struct Level0 {
  int64_t revision = 0;  // of its registration
  std::string id;
  std::shared_ptr<const StoredSegment> segment;
};

struct RunPart {
  std::shared_ptr<const StoredSegment> segment;
  std::string first_key;
  std::string last_key;
};
using Run = std::vector<RunPart>;

// What a lookup works on; never changed once it is published.
struct State {
  std::vector<Level0> level0;  // newest first
  std::vector<Run> runs;       // newest first
};

class SegmentIndexImpl : public SegmentIndex {
 public:
  SegmentIndexImpl(meta::Store* meta, object::ObjectStore* objects, BlockCache* cache,
                   SegmentIndexOptions options)
      : meta_(meta),
        objects_(objects),
        cache_(cache),
        options_(std::move(options)),
        keys_(IndexKeys::of(options_.project, options_.name)),
        state_(std::make_shared<State>()) {}

  ~SegmentIndexImpl() override {
    std::unique_ptr<meta::Watch> watch;
    {
      MutexLock lock(load_mutex_);
      watch = std::move(watch_);
    }
    // Waits for a callback in progress, which takes state_mutex_.
    watch.reset();
  }

  Status load() EXCLUDES(load_mutex_, state_mutex_);

  Result<std::optional<std::string>> get(std::string_view key, OnDamage on_damage) override;
  Result<std::vector<std::optional<std::string>>> get_many(std::span<const std::string> keys,
                                                           OnDamage on_damage) override;
  Result<std::vector<std::vector<std::string>>> get_copies(std::span<const std::string> keys,
                                                           OnDamage on_damage) override;
  Result<std::unique_ptr<SegmentScanner>> scan(std::string_view prefix,
                                               std::string_view from) override;

  Result<SegmentRegistration> write_segment(Entries entries) override;
  meta::Operation registration(const SegmentRegistration& segment) const override {
    return meta::put(keys_.level0_prefix + segment.id, encode_segment_location(segment.location));
  }
  meta::Compare guard(const SegmentRegistration& segment) const override {
    return meta::key_absent(keys_.removed_prefix + segment.id);
  }
  void registered(SegmentRegistration segment, int64_t revision) override;
  void give_up(std::span<const SegmentRegistration> segments, bool sent) override;

  Status refresh() override { return load(); }
  Status compact(bool force) override;
  Status drop_entries(const std::function<bool(std::string_view)>& drop,
                      const std::function<bool(std::string_view)>& drop_object) override;
  Status remove_orphans(uint64_t safe) override;
  Status remove_replaced(bool now) override {
    MutexLock lock(compact_mutex_);
    return remove_expired(compaction_context(), now ? 0 : options_.removal_grace_ms);
  }
  bool wants_compaction() const override { return state()->level0.size() >= options_.compact_at; }
  Stats stats() const override;

 private:
  std::shared_ptr<const State> state() const {
    MutexLock lock(state_mutex_);
    return state_;
  }
  // Loads anew if the watch ended.
  Result<std::shared_ptr<const State>> fresh_state();
  // Gets what is stored under the key of this number, newest first; true: that settles it.
  using Take = std::function<Result<bool>(size_t key, std::string_view stored,
                                          const SegmentLocation& location)>;
  // Segments that could not be read, and until when they are passed over without a try.
  struct Bad {
    Status status;
    int64_t until_ms = 0;
  };
  using BadSegments = std::map<std::string, Bad>;  // by object key

  // What a lookup knows of damaged segments. Keys that are still open when one is passed over may
  // be in it.
  struct Damage {
    std::shared_ptr<const BadSegments> known;
    std::map<std::string, Status> met;  // by object key; those that are known too
    std::vector<bool> unsure;           // by key
  };
  // `damage` null: damage is an error.
  static Status find(const State& state, std::span<const std::string_view> keys, const Take& take,
                     Damage* damage, int64_t now_ms);
  // `begin` is called before each try. `found`: whether there is anything for a key.
  Status find_with_retry(std::span<const std::string_view> keys, OnDamage on_damage,
                         const std::function<void()>& begin, const Take& take,
                         const std::function<bool(size_t key)>& found);
  void remember_bad(const Damage& damage) EXCLUDES(state_mutex_);
  Status find_values(std::span<const std::string_view> keys, OnDamage on_damage,
                     std::vector<std::optional<std::string>>* values);

  void on_batch(const meta::WatchBatch& batch) EXCLUDES(state_mutex_);
  Status apply(const meta::Event& event) REQUIRES(state_mutex_);
  Status apply_manifest(std::string_view bytes) REQUIRES(state_mutex_);
  std::shared_ptr<const StoredSegment> segment_at(const SegmentLocation& location)
      REQUIRES(state_mutex_);
  void publish() REQUIRES(state_mutex_);
  CompactionContext compaction_context();

  meta::Store* const meta_;
  object::ObjectStore* const objects_;
  BlockCache* const cache_;
  const SegmentIndexOptions options_;
  const IndexKeys keys_;

  Mutex load_mutex_;  // one load at a time; before state_mutex_
  std::unique_ptr<meta::Watch> watch_ GUARDED_BY(load_mutex_);

  Mutex compact_mutex_;  // one compaction at a time; held during I/O, never by lookups

  mutable Mutex state_mutex_;
  // What meta said, up to applied_revision_.
  int64_t applied_revision_ GUARDED_BY(state_mutex_) = 0;
  std::map<std::string, Level0> level0_ GUARDED_BY(state_mutex_);
  std::vector<Run> runs_ GUARDED_BY(state_mutex_);
  // What this process registered at a revision that the watch has not told of yet.
  std::map<std::string, Level0> early_ GUARDED_BY(state_mutex_);
  bool stale_ GUARDED_BY(state_mutex_) = true;
  std::shared_ptr<const State> state_ GUARDED_BY(state_mutex_);
  std::shared_ptr<const BadSegments> bad_ GUARDED_BY(state_mutex_) =
      std::make_shared<BadSegments>();
};

// The segment object at this place that is in use already, so that what the cache holds of it is
// found again.
std::shared_ptr<const StoredSegment> SegmentIndexImpl::segment_at(const SegmentLocation& location) {
  for (const Level0& segment : state_->level0) {
    if (segment.segment->location() == location) return segment.segment;
  }
  for (const Run& run : state_->runs) {
    for (const RunPart& part : run) {
      if (part.segment->location() == location) return part.segment;
    }
  }
  return std::make_shared<StoredSegment>(objects_, cache_, location);
}

void SegmentIndexImpl::publish() {
  auto next = std::make_shared<State>();
  for (const auto* source : {&level0_, &early_}) {
    for (const auto& [id, segment] : *source) next->level0.push_back(segment);
  }
  std::sort(next->level0.begin(), next->level0.end(), [](const Level0& a, const Level0& b) {
    return std::tie(a.revision, a.id) > std::tie(b.revision, b.id);
  });
  next->runs = runs_;
  state_ = std::move(next);
}

Status SegmentIndexImpl::apply_manifest(std::string_view bytes) {
  QANAT_ASSIGN_OR_RETURN(IndexManifest manifest, parse_manifest(bytes));
  std::vector<Run> runs;
  for (SegmentRun& from : manifest.runs) {
    Run& run = runs.emplace_back();
    for (RunSegment& segment : from) {
      run.push_back({segment_at(segment.location), std::move(segment.first_key),
                     std::move(segment.last_key)});
    }
  }
  runs_ = std::move(runs);
  return ok_status();
}

Status SegmentIndexImpl::apply(const meta::Event& event) {
  const meta::KeyValue& item = event.item;
  if (item.key.starts_with(keys_.level0_prefix)) {
    std::string id = item.key.substr(keys_.level0_prefix.size());
    if (event.deleted) {
      level0_.erase(id);
      return ok_status();
    }
    QANAT_ASSIGN_OR_RETURN(SegmentLocation location, parse_segment_location(item.value));
    level0_[id] = Level0{item.create_revision, id, segment_at(location)};
    return ok_status();
  }
  if (item.key != keys_.manifest) return ok_status();
  if (event.deleted) {
    runs_.clear();
    return ok_status();
  }
  return apply_manifest(item.value);
}

void SegmentIndexImpl::on_batch(const meta::WatchBatch& batch) {
  bool wanted = false;
  {
    MutexLock lock(state_mutex_);
    if (!batch.status.ok()) {
      stale_ = true;
      return;
    }
    if (batch.revision <= applied_revision_) return;
    for (const meta::Event& event : batch.events) {
      if (event.item.mod_revision <= applied_revision_) continue;
      if (Status status = apply(event); !status.ok()) {
        log_error("index record cannot be read", {{"key", event.item.key}, {"error", status}});
        stale_ = true;  // the next lookup loads, and reports what is wrong
        return;
      }
    }
    applied_revision_ = batch.revision;
    std::erase_if(early_, [&](const auto& item) REQUIRES(state_mutex_) {
      return item.second.revision <= applied_revision_;
    });
    if (!batch.events.empty()) publish();
    wanted = state_->level0.size() >= options_.compact_at;
  }
  if (wanted && options_.on_compaction_wanted) options_.on_compaction_wanted();
}

Status SegmentIndexImpl::load() {
  MutexLock load_lock(load_mutex_);
  // All keys at one revision, a page at a time.
  std::vector<meta::KeyValue> items;
  int64_t revision = 0;
  meta::KeyRange range = meta::KeyRange::prefix(keys_.prefix);
  while (true) {
    meta::RangeOptions page;
    page.limit = kPage;
    page.revision = revision;
    QANAT_ASSIGN_OR_RETURN(meta::RangeResult result, meta_->range(range, page));
    revision = result.revision;
    std::move(result.items.begin(), result.items.end(), std::back_inserter(items));
    if (!result.more || items.empty()) break;
    range.begin = meta::key_after(items.back().key);
  }
  bool watching = false;
  {
    MutexLock lock(state_mutex_);
    if (revision >= applied_revision_ || stale_) {
      level0_.clear();
      runs_.clear();
      for (meta::KeyValue& item : items) {
        Status status = apply(meta::Event{false, std::move(item)});
        if (status.ok()) continue;
        stale_ = true;  // lookups fail with this error until it is mended
        return status.with_context(keys_.prefix);
      }
      applied_revision_ = std::max(applied_revision_, revision);
      std::erase_if(early_, [&](const auto& item) REQUIRES(state_mutex_) {
        return item.second.revision <= applied_revision_;
      });
      publish();
    }
    watching = !stale_;
    stale_ = false;
  }
  if (watching) return ok_status();
  watch_.reset();
  Result<std::unique_ptr<meta::Watch>> watch =
      meta_->watch(meta::KeyRange::prefix(keys_.prefix), revision + 1,
                   [this](const meta::WatchBatch& batch) { on_batch(batch); });
  if (!watch.ok()) {
    MutexLock lock(state_mutex_);
    stale_ = true;
    return watch.status();
  }
  watch_ = *std::move(watch);
  return ok_status();
}

Result<std::shared_ptr<const State>> SegmentIndexImpl::fresh_state() {
  {
    MutexLock lock(state_mutex_);
    if (!stale_) return state_;
  }
  QANAT_RETURN_IF_ERROR(load());
  return state();
}

Status SegmentIndexImpl::find(const State& state, std::span<const std::string_view> keys,
                              const Take& take, Damage* damage, int64_t now_ms) {
  // In order of keys, so that neighbours share blocks.
  std::vector<uint32_t> open(keys.size());
  std::iota(open.begin(), open.end(), 0);
  if (keys.size() > 1) {
    std::sort(open.begin(), open.end(), [&](uint32_t a, uint32_t b) { return keys[a] < keys[b]; });
  }
  std::vector<uint64_t> hashes(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) hashes[i] = chunk::segment_key_hash(keys[i]);

  // Whether damage of a segment is to be passed over; it is noted then.
  auto passes = [&](const StoredSegment& segment, const Status& status, uint32_t i) {
    if (damage == nullptr || !is_damage(status)) return false;
    damage->met.emplace(segment.location().object_key, status);
    if (damage->unsure.empty()) damage->unsure.resize(keys.size());
    damage->unsure[i] = true;
    return true;
  };
  auto open_segment = [&](const StoredSegment& segment) -> Result<StoredSegment::Handle> {
    if (damage != nullptr && !damage->known->empty()) {
      const auto bad = damage->known->find(segment.location().object_key);
      if (bad != damage->known->end() && now_ms < bad->second.until_ms) return bad->second.status;
    }
    return segment.open();
  };
  // Looks a key up in one segment; true if that settles it.
  auto settle = [&](const Result<StoredSegment::Handle>& handle, const StoredSegment& segment,
                    uint32_t i) -> Result<bool> {
    if (!handle.ok()) {
      if (passes(segment, handle.status(), i)) return false;
      return handle.status();
    }
    const auto found = handle->find(keys[i], hashes[i]);
    if (!found.ok()) {
      if (passes(segment, found.status(), i)) return false;
      return found.status();
    }
    if (!*found) return false;
    return take(i, (*found)->value, segment.location());
  };

  for (const Level0& level0 : state.level0) {
    if (open.empty()) return ok_status();
    const Result<StoredSegment::Handle> handle = open_segment(*level0.segment);
    size_t kept = 0;
    for (uint32_t i : open) {
      QANAT_ASSIGN_OR_RETURN(bool settled, settle(handle, *level0.segment, i));
      if (!settled) open[kept++] = i;
    }
    open.resize(kept);
  }
  for (const Run& run : state.runs) {
    if (open.empty()) return ok_status();
    size_t kept = 0;
    std::optional<Result<StoredSegment::Handle>> handle;
    const RunPart* handle_of = nullptr;
    for (uint32_t i : open) {
      auto part =
          std::lower_bound(run.begin(), run.end(), keys[i],
                           [](const RunPart& a, std::string_view key) { return a.last_key < key; });
      bool settled = false;
      if (part != run.end() && part->first_key <= keys[i]) {
        if (handle_of != &*part) {
          handle.emplace(open_segment(*part->segment));
          handle_of = &*part;
        }
        QANAT_ASSIGN_OR_RETURN(settled, settle(*handle, *part->segment, i));
      }
      if (!settled) open[kept++] = i;
    }
    open.resize(kept);
  }
  return ok_status();
}

// Of segments that are missing, those that records still name; told in the log once.
void SegmentIndexImpl::remember_bad(const Damage& damage) {
  const int64_t until_ms = options_.now_ms() + kBadMs;
  MutexLock lock(state_mutex_);
  auto next = std::make_shared<BadSegments>(*bad_);
  for (const auto& [object_key, status] : damage.met) {
    const auto [known, fresh] = next->try_emplace(object_key, Bad{status, until_ms});
    if (fresh) {
      log_error("a part of an index cannot be read; what only it knows counts as lost",
                {{"object", object_key}, {"error", status}});
    } else if (known->second.until_ms < until_ms - kBadMs) {
      known->second = {status, until_ms};
    }
  }
  bad_ = std::move(next);
}

Status SegmentIndexImpl::find_with_retry(std::span<const std::string_view> keys, OnDamage on_damage,
                                         const std::function<void()>& begin, const Take& take,
                                         const std::function<bool(size_t key)>& found) {
  static Counter& lookups = counter("qanat_index_lookups_total", "Keys looked up in large indexes");
  lookups.add(keys.size());
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<const State> state, fresh_state());
  if (!options_.keep_copies) {
    begin();
    Status status = find(*state, keys, take, nullptr, 0);
    if (status.code() != Code::kNotFound) return status;
    // A segment was compacted away by another process and its grace is over: see what there is now.
    QANAT_RETURN_IF_ERROR(load());
    begin();
    status = find(*this->state(), keys, take, nullptr, 0);
    if (status.code() != Code::kNotFound) return status;
    return data_loss(status.message(), "an index segment is missing from the object store");
  }

  Damage damage;
  auto look = [&](const State& at) -> Status {
    {
      MutexLock lock(state_mutex_);
      damage.known = bad_;
    }
    damage.met.clear();
    damage.unsure.clear();
    begin();
    return find(at, keys, take, &damage, options_.now_ms());
  };
  auto all_known = [&] {
    return std::ranges::all_of(damage.met,
                               [&](const auto& met) { return damage.known->contains(met.first); });
  };
  QANAT_RETURN_IF_ERROR(look(*state));
  if (damage.met.empty()) return ok_status();
  if (!all_known()) {
    // As above; what is still named, and cannot be read, is damaged.
    QANAT_RETURN_IF_ERROR(load());
    QANAT_RETURN_IF_ERROR(look(*this->state()));
  }
  if (damage.met.empty()) return ok_status();
  remember_bad(damage);
  if (on_damage == OnDamage::kMiss) return ok_status();
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!damage.unsure[i] || found(i)) continue;
    return data_loss(damage.met.begin()->second.message(),
                     "a part of the index is missing from the object store, or damaged; "
                     "`qanat fsck` tells what it takes with it");
  }
  return ok_status();
}

Status SegmentIndexImpl::find_values(std::span<const std::string_view> keys, OnDamage on_damage,
                                     std::vector<std::optional<std::string>>* values) {
  return find_with_retry(
      keys, on_damage, [&] { values->assign(keys.size(), std::nullopt); },
      [&](size_t i, std::string_view stored, const SegmentLocation& location) -> Result<bool> {
        QANAT_ASSIGN_OR_RETURN((*values)[i], index_value(stored, location, options_.rebase));
        return true;
      },
      [&](size_t i) { return (*values)[i].has_value(); });
}

Result<std::optional<std::string>> SegmentIndexImpl::get(std::string_view key, OnDamage on_damage) {
  std::vector<std::optional<std::string>> values;
  QANAT_RETURN_IF_ERROR(find_values(std::span(&key, 1), on_damage, &values));
  return std::move(values[0]);
}

Result<std::vector<std::vector<std::string>>> SegmentIndexImpl::get_copies(
    std::span<const std::string> keys, OnDamage on_damage) {
  const std::vector<std::string_view> views(keys.begin(), keys.end());
  std::vector<std::vector<std::string>> copies;
  QANAT_RETURN_IF_ERROR(find_with_retry(
      views, on_damage, [&] { copies.assign(keys.size(), {}); },
      [&](size_t i, std::string_view stored, const SegmentLocation& location) -> Result<bool> {
        QANAT_ASSIGN_OR_RETURN(const bool any,
                               append_index_values(stored, location, options_.rebase, &copies[i]));
        return !any;  // a tombstone hides what is older
      },
      [&](size_t i) { return !copies[i].empty(); }));
  return copies;
}

Result<std::vector<std::optional<std::string>>> SegmentIndexImpl::get_many(
    std::span<const std::string> keys, OnDamage on_damage) {
  std::vector<std::string_view> views(keys.begin(), keys.end());
  std::vector<std::optional<std::string>> values;
  QANAT_RETURN_IF_ERROR(find_values(views, on_damage, &values));
  return values;
}

class Scanner : public SegmentScanner {
 public:
  Scanner(SegmentMerge merge, std::string prefix)
      : merge_(std::move(merge)), prefix_(std::move(prefix)) {}

  Result<std::optional<Entry>> next() override {
    while (true) {
      QANAT_ASSIGN_OR_RETURN(bool any, merge_.next(&entry_));
      if (!any || !entry_.key.starts_with(prefix_)) return std::optional<Entry>();
      if (entry_.values.empty()) continue;
      return std::optional<Entry>(
          Entry{entry_.key, entry_.values[0], std::span(entry_.values).subspan(1)});
    }
  }

 private:
  SegmentMerge merge_;
  std::string prefix_;
  SegmentMerge::Entry entry_;
};

Result<std::unique_ptr<SegmentScanner>> SegmentIndexImpl::scan(std::string_view prefix,
                                                               std::string_view from) {
  QANAT_ASSIGN_OR_RETURN(std::shared_ptr<const State> state, fresh_state());
  std::string begin(std::max(prefix, from));
  std::string end = meta::prefix_end(prefix);
  std::vector<MergeSource> sources;
  for (const Level0& level0 : state->level0) sources.push_back({level0.segment});
  for (const Run& run : state->runs) {
    MergeSource& source = sources.emplace_back();
    for (const RunPart& part : run) {
      if (part.last_key < begin || (!end.empty() && part.first_key >= end)) continue;
      source.push_back(part.segment);
    }
  }
  QANAT_ASSIGN_OR_RETURN(SegmentMerge merge, SegmentMerge::open(std::move(sources), begin,
                                                                kScanReadAhead, &options_.rebase));
  return std::unique_ptr<SegmentScanner>(
      std::make_unique<Scanner>(std::move(merge), std::string(prefix)));
}

Result<SegmentRegistration> SegmentIndexImpl::write_segment(Entries entries) {
  // By key, then as given: the last of equal keys wins.
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    int keys = entries[a].first.compare(entries[b].first);
    return keys != 0 ? keys < 0 : a < b;
  });
  SegmentRegistration segment;
  uint64_t epoch = 0;
  if (options_.epoch) {
    QANAT_ASSIGN_OR_RETURN(epoch, options_.epoch());
  }
  segment.id = str_cat(to_hex16(epoch), "-", random_id());
  segment.location.object_key = keys_.object_prefix + segment.id;
  chunk::SegmentWriter writer([&](std::string_view bytes) -> Status {
    segment.bytes.append(bytes);
    return ok_status();
  });
  std::string stored;
  for (size_t i = 0; i < order.size(); ++i) {
    const auto& [key, value] = entries[order[i]];
    if (i + 1 < order.size() && entries[order[i + 1]].first == key) continue;
    if (!value && options_.keep_copies) return internal_error("a tombstone where copies are kept");
    encode_index_values(value ? std::span(&*value, 1) : std::span<const std::string>(), &stored);
    QANAT_RETURN_IF_ERROR(writer.add(key, stored));
  }
  QANAT_ASSIGN_OR_RETURN(chunk::SegmentFooter footer, writer.finish());
  segment.location.length = footer.length();
  segment.location.entries = footer.entries;
  QANAT_RETURN_IF_ERROR(objects_->write(segment.location.object_key, segment.bytes));
  return segment;
}

void SegmentIndexImpl::registered(SegmentRegistration registration, int64_t revision) {
  bool wanted = false;
  {
    MutexLock lock(state_mutex_);
    std::shared_ptr<const StoredSegment> segment;
    if (revision > applied_revision_) {
      segment = std::make_shared<StoredSegment>(objects_, cache_, registration.location);
      early_[registration.id] = Level0{revision, registration.id, segment};
      publish();
    } else if (auto known = level0_.find(registration.id); known != level0_.end()) {
      segment = known->second.segment;
    }
    if (segment != nullptr && !registration.bytes.empty()) {
      segment->remember(std::move(registration.bytes));
    }
    wanted = state_->level0.size() >= options_.compact_at;
  }
  if (wanted && options_.on_compaction_wanted) options_.on_compaction_wanted();
}

void SegmentIndexImpl::give_up(std::span<const SegmentRegistration> segments, bool sent) {
  if (segments.empty()) return;
  Status status;
  if (sent) {
    // Either the registration happened, or this makes it impossible: see guard().
    RemovalRecord removal{options_.now_ms(), {}};
    for (const SegmentRegistration& segment : segments) {
      removal.object_keys.push_back(segment.location.object_key);
    }
    meta::Transaction fence;
    fence.when(meta::key_absent(keys_.level0_prefix + segments[0].id));
    fence.may_use_reserve = true;
    fence.put(keys_.removed_prefix + segments[0].id, encode_removal(removal));
    status = meta_->commit(std::move(fence)).status();
  } else {
    for (const SegmentRegistration& segment : segments) {
      Status removed = objects_->remove(segment.location.object_key);
      if (status.ok()) status = removed;
    }
  }
  if (!status.ok()) {
    log_warning("objects of a cancelled write stay until garbage collection",
                {{"first", segments[0].location.object_key}, {"error", status}});
  }
}

CompactionContext SegmentIndexImpl::compaction_context() {
  CompactionContext context;
  context.meta = meta_;
  context.objects = objects_;
  context.keys = keys_;
  context.rebase = &options_.rebase;
  context.keep_copies = options_.keep_copies;
  context.compact_at = options_.compact_at;
  context.segment_target = options_.segment_target;
  context.now_ms = options_.now_ms;
  context.segment = [this](const SegmentLocation& location) {
    MutexLock lock(state_mutex_);
    return segment_at(location);
  };
  return context;
}

Status SegmentIndexImpl::compact(bool force) {
  MutexLock lock(compact_mutex_);
  CompactionContext context = compaction_context();
  while (true) {
    QANAT_ASSIGN_OR_RETURN(bool again, compact_step(context, force));
    if (!again) break;
    QANAT_RETURN_IF_ERROR(load());
  }
  return ok_status();
}

Status SegmentIndexImpl::drop_entries(const std::function<bool(std::string_view)>& drop,
                                      const std::function<bool(std::string_view)>& drop_object) {
  // Compactions of other processes may be faster, but not again and again.
  constexpr int kAttempts = 20;
  MutexLock lock(compact_mutex_);
  CompactionContext context = compaction_context();
  context.drop = &drop;
  context.drop_object = &drop_object;
  context.may_use_reserve = true;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    QANAT_ASSIGN_OR_RETURN(const bool dropped, drop_step(context));
    QANAT_RETURN_IF_ERROR(load());
    if (dropped) return ok_status();
  }
  return unavailable(str_cat(keys_.prefix, " changes faster than entries could be taken out"),
                     "this is tried again");
}

Status SegmentIndexImpl::remove_orphans(uint64_t safe) {
  std::set<std::string> found;
  const Status listed =
      objects_->list(keys_.object_prefix, [&](const object::ObjectInfo& object) -> Status {
        // <epoch>-<id>, written to be registered; or <id>-<number> of a compaction, whose record
        // names it before it is written and as long as it can be put in place.
        const std::string_view name =
            std::string_view(object.key).substr(keys_.object_prefix.size());
        const auto epoch = from_hex16(split_once(name, '-').first);
        if (!epoch.ok() || *epoch < safe) found.insert(object.key);
        return ok_status();
      });
  // Where nothing may be listed, what nobody names is not found: it stays.
  if (listed.code() == Code::kPermissionDenied) return ok_status();
  QANAT_RETURN_IF_ERROR(listed);
  // Read after the list: what was registered meanwhile is named.
  QANAT_ASSIGN_OR_RETURN(meta::RangeResult records,
                         meta_->range(meta::KeyRange::prefix(keys_.prefix)));
  for (const meta::KeyValue& item : records.items) {
    if (item.key.starts_with(keys_.level0_prefix)) {
      QANAT_ASSIGN_OR_RETURN(SegmentLocation location, parse_segment_location(item.value));
      found.erase(location.object_key);
    } else if (item.key.starts_with(keys_.removed_prefix)) {
      QANAT_ASSIGN_OR_RETURN(RemovalRecord removal, parse_removal(item.value));
      for (const std::string& key : removal.object_keys) found.erase(key);
    } else if (item.key == keys_.manifest) {
      QANAT_ASSIGN_OR_RETURN(IndexManifest manifest, parse_manifest(item.value));
      for (const SegmentRun& run : manifest.runs) {
        for (const RunSegment& segment : run) found.erase(segment.location.object_key);
      }
    }
  }
  for (const std::string& key : found) QANAT_RETURN_IF_ERROR(objects_->remove(key));
  return ok_status();
}

SegmentIndex::Stats SegmentIndexImpl::stats() const {
  std::shared_ptr<const State> state = this->state();
  Stats stats;
  stats.level0 = state->level0.size();
  stats.runs = state->runs.size();
  auto add = [&](const StoredSegment& segment) {
    stats.entries += segment.location().entries;
    stats.bytes += segment.location().length;
  };
  for (const Level0& level0 : state->level0) add(*level0.segment);
  for (const Run& run : state->runs) {
    for (const RunPart& part : run) {
      add(*part.segment);
      ++stats.segments;
    }
  }
  return stats;
}

}  // namespace

Result<std::unique_ptr<SegmentIndex>> SegmentIndex::open(meta::Store* meta,
                                                         object::ObjectStore* objects,
                                                         BlockCache* cache,
                                                         SegmentIndexOptions options) {
  auto index = std::make_unique<SegmentIndexImpl>(meta, objects, cache, std::move(options));
  QANAT_RETURN_IF_ERROR(index->load());
  return std::unique_ptr<SegmentIndex>(std::move(index));
}

}  // namespace qanat::content
