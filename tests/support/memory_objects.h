// object::ObjectStore in memory, for simulations. An object that was not finished is not there.
#pragma once

#include <map>
#include <mutex>

#include "qanat/base/string.h"
#include "qanat/object/object_store.h"

namespace qanat::testing {

class MemoryObjects : public object::ObjectStore {
 public:
  using object::ObjectStore::create;
  Result<std::unique_ptr<object::ObjectWriter>> create(std::string_view key,
                                                       CreateOptions) override {
    QANAT_RETURN_IF_ERROR(object::check_key(key));
    std::lock_guard lock(mutex_);
    if (objects_.contains(std::string(key))) {
      return already_exists(str_cat("object ", key, " exists"));
    }
    return std::unique_ptr<object::ObjectWriter>(std::make_unique<Writer>(this, std::string(key)));
  }
  Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const override {
    std::lock_guard lock(mutex_);
    const auto found = objects_.find(std::string(key));
    if (found == objects_.end()) return not_found(str_cat("object ", key, " does not exist"));
    if (offset + length > static_cast<int64_t>(found->second.size())) {
      return data_loss(str_cat("object ", key, " ends early"));
    }
    return found->second.substr(static_cast<size_t>(offset), static_cast<size_t>(length));
  }
  Result<int64_t> size(std::string_view key) const override {
    std::lock_guard lock(mutex_);
    const auto found = objects_.find(std::string(key));
    if (found == objects_.end()) return not_found(str_cat("object ", key, " does not exist"));
    return static_cast<int64_t>(found->second.size());
  }
  Status remove(std::string_view key) override {
    std::lock_guard lock(mutex_);
    objects_.erase(std::string(key));
    return ok_status();
  }
  std::string describe() const override { return "memory"; }
  Status list(std::string_view prefix, const Visitor& each) const override {
    std::vector<object::ObjectInfo> found;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [key, bytes] : objects_) {
        if (key.starts_with(prefix)) found.push_back({key, static_cast<int64_t>(bytes.size())});
      }
    }
    for (const object::ObjectInfo& info : found) QANAT_RETURN_IF_ERROR(each(info));
    return ok_status();
  }

 private:
  class Writer : public object::ObjectWriter {
   public:
    Writer(MemoryObjects* store, std::string key) : store_(store), key_(std::move(key)) {}
    Status append(std::string_view bytes) override {
      bytes_.append(bytes);
      return ok_status();
    }
    Status finish() override {
      std::lock_guard lock(store_->mutex_);
      if (!store_->objects_.emplace(key_, bytes_).second) {
        return already_exists(str_cat("object ", key_, " exists"));
      }
      return ok_status();
    }
    void abort() override {}
    int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }

   private:
    MemoryObjects* store_;
    std::string key_;
    std::string bytes_;
  };

  mutable std::mutex mutex_;
  std::map<std::string, std::string> objects_;
};

}  // namespace qanat::testing
