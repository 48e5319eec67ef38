// Bytes of a fixed size that are not zeroed first, as std::string's are: for what is filled at once
// from a file or a socket.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>

namespace qanat {

class Buffer {
 public:
  explicit Buffer(size_t size) : size_(size), data_(std::make_unique_for_overwrite<char[]>(size)) {}
  explicit Buffer(std::string_view bytes) : Buffer(bytes.size()) {
    if (!bytes.empty()) std::memcpy(data_.get(), bytes.data(), bytes.size());
  }

  char* data() { return data_.get(); }
  size_t size() const { return size_; }
  // Keeps the first `size` bytes. The memory stays as large.
  void shrink(size_t size) { size_ = std::min(size, size_); }
  std::string_view view() const { return {data_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<char[]> data_;
};

}  // namespace qanat
