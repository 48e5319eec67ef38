// meta::Store that hands everything on: a base for stores that fail, or do something meanwhile.
#pragma once

#include "qanat/meta/store.h"

namespace qanat::testing {

class ForwardingMeta : public meta::Store {
 public:
  explicit ForwardingMeta(meta::Store& store) : store_(store) {}
  Result<meta::RangeResult> range(const meta::KeyRange& range,
                                  const meta::RangeOptions& options) const override {
    return store_.range(range, options);
  }
  Result<meta::TransactionResult> commit(meta::Transaction transaction) override {
    return store_.commit(std::move(transaction));
  }
  Result<std::unique_ptr<meta::Watch>> watch(const meta::KeyRange& range, int64_t from,
                                             meta::WatchCallback callback) override {
    return store_.watch(range, from, std::move(callback));
  }
  Result<int64_t> grant_lease(int64_t ttl_ms) override { return store_.grant_lease(ttl_ms); }
  Status keep_alive(int64_t lease) override { return store_.keep_alive(lease); }
  Status revoke_lease(int64_t lease) override { return store_.revoke_lease(lease); }
  Result<meta::LeaseInfo> lease_info(int64_t lease) const override {
    return store_.lease_info(lease);
  }
  int64_t current_revision() const override { return store_.current_revision(); }
  Status wait_revision(int64_t revision, std::chrono::milliseconds timeout) const override {
    return store_.wait_revision(revision, timeout);
  }

 private:
  meta::Store& store_;
};

}  // namespace qanat::testing
