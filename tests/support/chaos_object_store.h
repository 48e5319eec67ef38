// An object store that is nastier than any real one, around one that is not. What it does is fixed
// by its seed and the order of calls.
//
// It keeps the contract of object_store.h and nothing beyond it: finish() == OK means that the
// object is there; everything else may be different from what it seems.
//  - time-outs after success: the object is there, or is removed, and the caller is told otherwise;
//  - late success: what seemed to fail happens some calls later (requests overtake each other);
//  - partial writes: a write that fails leaves half an object under its key;
//  - reads with a bit turned around, or that fail, or are slow;
//  - stale lists: without what is new, with what is gone;
//  - times in which every call is refused: throttling, and credentials that have expired.
//
// Thread safe.
#pragma once

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/object/object_store.h"

namespace qanat::testing {

struct ChaosOptions {
  // In a thousand calls.
  uint64_t fail = 40;     // of any kind of call: nothing is done
  uint64_t lie = 30;      // it is done, and the caller is told that it was not
  uint64_t late = 20;     // it is done some calls later, and the caller is told that it was not
  uint64_t partial = 15;  // a write leaves half an object
  uint64_t flip = 10;     // a read has a wrong bit
  uint64_t slow = 5;      // it takes a while
  uint64_t refuse = 3;    // from here on all calls are refused for a while
  uint64_t refused_calls = 12;  // at most so many
};

class ChaosObjectStore : public object::ObjectStore {
 public:
  // Borrows `inner`.
  ChaosObjectStore(object::ObjectStore& inner, uint64_t seed, ChaosOptions options = {})
      : inner_(inner), options_(options), random_(seed) {}

  // From here on it behaves; what is late happens now.
  void calm() {
    std::deque<std::function<void()>> late;
    {
      MutexLock lock(mutex_);
      calm_ = true;
      late.swap(late_);
    }
    for (const auto& act : late) act();
  }
  void storm() {
    MutexLock lock(mutex_);
    calm_ = false;
  }
  // How often it misbehaved.
  uint64_t faults() const {
    MutexLock lock(mutex_);
    return faults_;
  }

  using ObjectStore::create;
  Result<std::unique_ptr<object::ObjectWriter>> create(std::string_view key,
                                                       CreateOptions options) override {
    QANAT_RETURN_IF_ERROR(begin());
    auto writer = inner_.create(key, options);
    if (!writer.ok()) return writer.status();
    return std::unique_ptr<object::ObjectWriter>(
        new Writer(*this, std::string(key), *std::move(writer)));
  }

  Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const override {
    QANAT_RETURN_IF_ERROR(begin());
    auto bytes = inner_.read(key, offset, length);
    if (bytes.ok() && !bytes->empty() && hit(options_.flip)) {
      const uint64_t bit = below(bytes->size() * 8);
      (*bytes)[bit / 8] = static_cast<char>((*bytes)[bit / 8] ^ (1 << bit % 8));
    }
    return bytes;
  }

  Result<int64_t> size(std::string_view key) const override {
    QANAT_RETURN_IF_ERROR(begin());
    return inner_.size(key);
  }

  Status remove(std::string_view key) override {
    QANAT_RETURN_IF_ERROR(begin());
    if (hit(options_.late)) {
      later([this, name = std::string(key)] { (void)inner_.remove(name); });
      return timed_out();
    }
    int64_t size = 0;
    if (auto found = inner_.size(key); found.ok()) size = *found;
    QANAT_RETURN_IF_ERROR(inner_.remove(key));
    {
      MutexLock lock(mutex_);
      gone_[std::string(key)] = size;
      fresh_.erase(std::string(key));
    }
    return hit(options_.lie) ? timed_out() : ok_status();
  }

  Status list(std::string_view prefix, const Visitor& each) const override {
    QANAT_RETURN_IF_ERROR(begin());
    std::map<std::string, int64_t> shown;
    QANAT_RETURN_IF_ERROR(inner_.list(prefix, [&](const object::ObjectInfo& info) {
      shown[info.key] = info.size;
      return ok_status();
    }));
    {
      MutexLock lock(mutex_);
      if (!calm_) {
        for (const auto& [key, size] : gone_) {
          if (key.starts_with(prefix) && random_.below(2) == 0) shown.emplace(key, size);
        }
        for (const auto& [key, size] : fresh_) {
          if (random_.below(2) == 0) shown.erase(key);
        }
      }
    }
    for (const auto& [key, size] : shown) QANAT_RETURN_IF_ERROR(each({key, size}));
    return ok_status();
  }

  std::string describe() const override { return str_cat("chaos over ", inner_.describe()); }

 private:
  class Writer : public object::ObjectWriter {
   public:
    Writer(ChaosObjectStore& store, std::string key, std::unique_ptr<object::ObjectWriter> inner)
        : store_(store), key_(std::move(key)), inner_(std::move(inner)) {}
    ~Writer() override { abort(); }

    Status append(std::string_view bytes) override {
      if (inner_ == nullptr) return failed_precondition("closed");
      Status status = store_.begin();
      if (status.ok() && store_.hit(store_.options_.partial)) {
        (void)inner_->append(bytes.substr(0, bytes.size() / 2));
        (void)inner_->finish();
        inner_.reset();
        return timed_out();
      }
      if (status.ok()) status = inner_->append(bytes);
      if (!status.ok()) inner_.reset();
      return status;
    }

    Status finish() override {
      if (inner_ == nullptr) return failed_precondition("closed");
      Status status = store_.begin();
      if (!status.ok()) {
        inner_.reset();
        return status;
      }
      if (store_.hit(store_.options_.late)) {
        std::shared_ptr<object::ObjectWriter> writer = std::move(inner_);
        store_.later([writer] { (void)writer->finish(); });
        return timed_out();
      }
      const int64_t size = inner_->size();
      status = inner_->finish();
      inner_.reset();
      QANAT_RETURN_IF_ERROR(status);
      store_.created(key_, size);
      return store_.hit(store_.options_.lie) ? timed_out() : ok_status();
    }

    void abort() override {
      // Now and then the server "dies" before it cleans up.
      if (inner_ != nullptr && store_.hit(store_.options_.partial)) (void)inner_->finish();
      inner_.reset();
    }

    int64_t size() const override { return inner_ == nullptr ? 0 : inner_->size(); }

   private:
    ChaosObjectStore& store_;
    const std::string key_;
    std::unique_ptr<object::ObjectWriter> inner_;  // null once closed
  };

  static Status timed_out() { return deadline_exceeded("the store did not answer in time"); }

  bool hit(uint64_t per_thousand) const {
    MutexLock lock(mutex_);
    if (calm_ || random_.below(1000) >= per_thousand) return false;
    ++faults_;
    return true;
  }

  uint64_t below(uint64_t bound) const {
    MutexLock lock(mutex_);
    return random_.below(bound);
  }

  // At the start of every call.
  Status begin() const {
    std::function<void()> act;
    bool slow = false;
    Status status;
    {
      MutexLock lock(mutex_);
      if (!late_.empty() && random_.below(8) == 0) {
        // Not always the oldest: order is nothing to rely on.
        const size_t which = random_.below(late_.size());
        act = std::move(late_[which]);
        late_.erase(late_.begin() + static_cast<std::ptrdiff_t>(which));
      }
      if (!calm_) {
        if (refused_ == 0 && random_.below(1000) < options_.refuse) {
          refused_ = 1 + random_.below(options_.refused_calls);
          throttled_ = random_.below(2) == 0;
        }
        if (refused_ > 0) {
          --refused_;
          status = throttled_ ? unavailable("the store says: slow down")
                              : failed_precondition("the store says: the key has expired");
        } else if (random_.below(1000) < options_.fail) {
          status = unavailable("the connection was lost");
        }
        slow = random_.below(1000) < options_.slow;
        if (!status.ok()) ++faults_;
      }
    }
    if (act) act();
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return status;
  }

  void later(std::function<void()> act) {
    MutexLock lock(mutex_);
    late_.push_back(std::move(act));
  }

  void created(const std::string& key, int64_t size) {
    MutexLock lock(mutex_);
    fresh_[key] = size;
    if (fresh_.size() > 20) fresh_.erase(fresh_.begin());
  }

  object::ObjectStore& inner_;
  const ChaosOptions options_;
  mutable Mutex mutex_;
  mutable SeededRandom random_ GUARDED_BY(mutex_);
  mutable std::deque<std::function<void()>> late_ GUARDED_BY(mutex_);
  mutable uint64_t refused_ GUARDED_BY(mutex_) = 0;
  mutable bool throttled_ GUARDED_BY(mutex_) = false;
  mutable uint64_t faults_ GUARDED_BY(mutex_) = 0;
  bool calm_ GUARDED_BY(mutex_) = false;
  std::map<std::string, int64_t> fresh_ GUARDED_BY(mutex_);  // lists may not show them yet
  std::map<std::string, int64_t> gone_ GUARDED_BY(mutex_);   // lists may show them still
};

}  // namespace qanat::testing
