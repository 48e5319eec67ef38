// An object store in which a byte is another, or an object is not there, as a test wishes.
#pragma once

#include <map>
#include <set>
#include <string>

#include "qanat/base/string.h"
#include "qanat/object/object_store.h"

namespace qanat::version {

class DamagedObjects : public object::ObjectStore {
 public:
  explicit DamagedObjects(object::ObjectStore& base) : base_(base) {}

  void flip(const std::string& key, int64_t offset) { flipped_ = {key, offset}; }
  void lose(const std::string& key) { lost_.insert(key); }
  void repair() {
    flipped_ = {"", -1};
    lost_.clear();
  }

  using object::ObjectStore::create;
  Result<std::unique_ptr<object::ObjectWriter>> create(std::string_view key,
                                                       CreateOptions options) override {
    return base_.create(key, options);
  }
  Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const override {
    if (lost_.contains(std::string(key))) return not_found(str_cat("there is no object ", key));
    auto bytes = base_.read(key, offset, length);
    if (bytes.ok() && key == flipped_.first && offset <= flipped_.second &&
        flipped_.second < offset + length) {
      (*bytes)[static_cast<size_t>(flipped_.second - offset)] ^= static_cast<char>(0xff);
    }
    return bytes;
  }
  Result<int64_t> size(std::string_view key) const override {
    if (lost_.contains(std::string(key))) return not_found(str_cat("there is no object ", key));
    return base_.size(key);
  }
  Status remove(std::string_view key) override { return base_.remove(key); }
  Status list(std::string_view prefix, const Visitor& each) const override {
    return base_.list(prefix, each);
  }
  std::string describe() const override { return "damaged " + base_.describe(); }

 private:
  object::ObjectStore& base_;
  std::pair<std::string, int64_t> flipped_{"", -1};
  std::set<std::string> lost_;
};

}  // namespace qanat::version
