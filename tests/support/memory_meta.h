// meta::Store in memory, for simulations: no thread, no disk, all history. What happens, happens in
// the call: callbacks of watches run in commit(), or, if `hold_watches` is set, in deliver().
#pragma once

#include <list>
#include <map>
#include <mutex>
#include <vector>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/meta/store.h"

namespace qanat::testing {

class MemoryMeta : public meta::Store {
 public:
  explicit MemoryMeta(Clock& clock) : clock_(clock) {}

  Result<meta::RangeResult> range(const meta::KeyRange& range,
                                  const meta::RangeOptions& options = {}) const override {
    std::lock_guard lock(mutex_);
    return range_locked(range, options);
  }

  Result<meta::TransactionResult> commit(meta::Transaction transaction) override {
    QANAT_RETURN_IF_ERROR(meta::check_transaction(transaction));
    meta::TransactionResult result;
    {
      std::lock_guard lock(mutex_);
      expire_leases();
      QANAT_ASSIGN_OR_RETURN(result, commit_locked(transaction));
    }
    if (!hold_watches) deliver();
    return result;
  }

  Result<std::unique_ptr<meta::Watch>> watch(const meta::KeyRange& range, int64_t from_revision,
                                             meta::WatchCallback callback) override {
    auto watcher = std::make_shared<Watcher>();
    watcher->range = range;
    watcher->callback = std::move(callback);
    {
      std::lock_guard lock(mutex_);
      watcher->told = from_revision == 0 ? revision_ : from_revision - 1;
      watchers_.push_back(watcher);
    }
    auto handle = std::make_unique<Handle>(this, watcher);
    if (!hold_watches) deliver();
    return std::unique_ptr<meta::Watch>(std::move(handle));
  }

  Result<int64_t> grant_lease(int64_t ttl_ms) override {
    std::lock_guard lock(mutex_);
    leases_[++last_lease_] = {ttl_ms, clock_.monotonic_ms() + ttl_ms};
    return last_lease_;
  }
  Status keep_alive(int64_t lease) override {
    std::lock_guard lock(mutex_);
    expire_leases();
    const auto found = leases_.find(lease);
    if (found == leases_.end()) return not_found("the lease has ended");
    found->second.ends_ms = clock_.monotonic_ms() + found->second.ttl_ms;
    return ok_status();
  }
  Status revoke_lease(int64_t lease) override {
    {
      std::lock_guard lock(mutex_);
      if (!leases_.contains(lease)) return not_found("the lease has ended");
      end_lease(lease);
    }
    if (!hold_watches) deliver();
    return ok_status();
  }
  Result<meta::LeaseInfo> lease_info(int64_t lease) const override {
    std::lock_guard lock(mutex_);
    const auto found = leases_.find(lease);
    if (found == leases_.end()) return not_found("the lease has ended");
    return meta::LeaseInfo{lease, found->second.ttl_ms,
                           found->second.ends_ms - clock_.monotonic_ms()};
  }

  int64_t current_revision() const override {
    std::lock_guard lock(mutex_);
    return revision_;
  }
  Status wait_revision(int64_t revision, std::chrono::milliseconds) const override {
    return current_revision() >= revision ? ok_status() : deadline_exceeded("not there");
  }

  // Tells all watches what they have not been told.
  void deliver() {
    for (;;) {
      std::shared_ptr<Watcher> to;
      meta::WatchBatch batch;
      {
        std::lock_guard lock(mutex_);
        for (const auto& watcher : watchers_) {
          if (watcher->told >= revision_) continue;
          to = watcher;
          for (int64_t r = watcher->told + 1; r <= revision_; ++r) {
            for (const meta::Event& event : events_[static_cast<size_t>(r)]) {
              if (watcher->range.contains(event.item.key)) batch.events.push_back(event);
            }
          }
          batch.revision = revision_;
          watcher->told = revision_;
          break;
        }
      }
      if (to == nullptr) return;
      if (!batch.events.empty()) to->callback(batch);
    }
  }
  // What a passing of time does.
  void tick() {
    {
      std::lock_guard lock(mutex_);
      expire_leases();
    }
    if (!hold_watches) deliver();
  }

  // The lease of this key ends now: its holder was taken for dead.
  void end_lease_of(const std::string& key) {
    {
      std::lock_guard lock(mutex_);
      const meta::KeyValue* item = find(key, revision_);
      if (item != nullptr && item->lease != 0) end_lease(item->lease);
    }
    if (!hold_watches) deliver();
  }

  bool hold_watches = false;

 private:
  struct Version {
    int64_t revision = 0;
    bool deleted = false;
    meta::KeyValue item;
  };
  struct Watcher {
    meta::KeyRange range;
    meta::WatchCallback callback;
    int64_t told = 0;
  };
  class Handle : public meta::Watch {
   public:
    Handle(MemoryMeta* store, std::shared_ptr<Watcher> watcher)
        : store_(store), watcher_(std::move(watcher)) {}
    ~Handle() override {
      std::lock_guard lock(store_->mutex_);
      store_->watchers_.remove(watcher_);
    }

   private:
    MemoryMeta* store_;
    std::shared_ptr<Watcher> watcher_;
  };
  struct Lease {
    int64_t ttl_ms = 0;
    int64_t ends_ms = 0;
  };

  const meta::KeyValue* find(const std::string& key, int64_t revision) const {
    const auto found = keys_.find(key);
    if (found == keys_.end()) return nullptr;
    for (auto version = found->second.rbegin(); version != found->second.rend(); ++version) {
      if (version->revision <= revision) return version->deleted ? nullptr : &version->item;
    }
    return nullptr;
  }

  Result<meta::RangeResult> range_locked(const meta::KeyRange& range,
                                         const meta::RangeOptions& options) const {
    if (options.revision > revision_) return invalid_argument("a revision of the future");
    const int64_t at = options.revision == 0 ? revision_ : options.revision;
    meta::RangeResult result;
    result.revision = at;
    auto first = keys_.lower_bound(range.begin);
    auto last = range.end.empty() ? keys_.end() : keys_.lower_bound(range.end);
    auto visit = [&](const std::string& key) {
      const meta::KeyValue* item = find(key, at);
      if (item == nullptr) return true;
      ++result.count;
      if (options.limit > 0 && static_cast<int64_t>(result.items.size()) == options.limit) {
        result.more = true;
        return options.count;
      }
      result.items.push_back(*item);
      if (options.keys_only) result.items.back().value.clear();
      return true;
    };
    if (options.descending) {
      while (last != first) {
        --last;
        if (!visit(last->first)) break;
      }
    } else {
      for (; first != last; ++first) {
        if (!visit(first->first)) break;
      }
    }
    if (!options.count) result.count = 0;
    return result;
  }

  void put(int64_t revision, const std::string& key, std::string value, int64_t lease) {
    const meta::KeyValue* old = find(key, revision);
    meta::KeyValue item;
    item.key = key;
    item.value = std::move(value);
    item.create_revision = old ? old->create_revision : revision;
    item.mod_revision = revision;
    item.version = old ? old->version + 1 : 1;
    item.lease = lease;
    keys_[key].push_back({revision, false, item});
    events_[static_cast<size_t>(revision)].push_back({false, item});
  }
  bool erase(int64_t revision, const std::string& key) {
    if (find(key, revision) == nullptr) return false;
    keys_[key].push_back({revision, true, {}});
    meta::KeyValue gone;
    gone.key = key;
    gone.mod_revision = revision;
    events_[static_cast<size_t>(revision)].push_back({true, gone});
    return true;
  }

  Result<meta::TransactionResult> commit_locked(const meta::Transaction& transaction) {
    meta::TransactionResult result;
    result.succeeded = true;
    for (const meta::Compare& compare : transaction.compares) {
      result.succeeded = result.succeeded && meta::holds(compare, find(compare.key, revision_));
    }
    const auto& operations = result.succeeded ? transaction.then : transaction.otherwise;
    for (const meta::Operation& operation : operations) {
      if (operation.lease != 0 && !leases_.contains(operation.lease)) {
        return not_found("the lease has ended");
      }
    }
    const int64_t next = revision_ + 1;
    events_.resize(static_cast<size_t>(next) + 1);
    // Reads see what was done before them, which has the next revision.
    const int64_t before = std::exchange(revision_, next);
    bool changed = false;
    for (const meta::Operation& operation : operations) {
      meta::OperationResult& done = result.results.emplace_back();
      if (operation.kind == meta::Operation::Kind::kPut) {
        put(next, operation.range.begin, operation.value, operation.lease);
        changed = true;
      } else if (operation.kind == meta::Operation::Kind::kDelete) {
        std::vector<std::string> keys;
        auto last =
            operation.range.end.empty() ? keys_.end() : keys_.lower_bound(operation.range.end);
        for (auto at = keys_.lower_bound(operation.range.begin); at != last; ++at) {
          keys.push_back(at->first);
        }
        for (const std::string& key : keys) done.deleted += erase(next, key) ? 1 : 0;
        changed = changed || done.deleted > 0;
      } else {
        QANAT_ASSIGN_OR_RETURN(done.range, range_locked(operation.range, operation.options));
      }
    }
    if (!changed) revision_ = before;
    result.revision = revision_;
    return result;
  }

  void end_lease(int64_t lease) {
    if (leases_.erase(lease) == 0) return;
    std::vector<std::string> keys;
    for (const auto& [key, versions] : keys_) {
      const meta::KeyValue* item = find(key, revision_);
      if (item != nullptr && item->lease == lease) keys.push_back(key);
    }
    if (keys.empty()) return;
    ++revision_;
    events_.resize(static_cast<size_t>(revision_) + 1);
    for (const std::string& key : keys) erase(revision_, key);
  }
  void expire_leases() {
    std::vector<int64_t> over;
    for (const auto& [id, lease] : leases_) {
      if (lease.ends_ms <= clock_.monotonic_ms()) over.push_back(id);
    }
    for (int64_t lease : over) end_lease(lease);
  }

  Clock& clock_;
  mutable std::mutex mutex_;
  int64_t revision_ = 1;
  std::map<std::string, std::vector<Version>> keys_;
  std::vector<std::vector<meta::Event>> events_ = std::vector<std::vector<meta::Event>>(2);
  std::list<std::shared_ptr<Watcher>> watchers_;
  std::map<int64_t, Lease> leases_;
  int64_t last_lease_ = 0;
};

}  // namespace qanat::testing
