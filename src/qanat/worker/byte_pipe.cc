#include "qanat/worker/byte_pipe.h"

#include <algorithm>
#include <cstring>

namespace qanat::worker {

Status BytePipe::write(std::string_view bytes) {
  MutexLock lock(mutex_);
  while (!bytes.empty()) {
    while (!abandoned_ && bytes_.size() >= capacity_) changed_.wait(mutex_);
    if (abandoned_) return cancelled("the receiver has stopped reading");
    const size_t size = std::min(bytes.size(), capacity_ - bytes_.size());
    bytes_.append(bytes.substr(0, size));
    bytes.remove_prefix(size);
    changed_.notify_all();
  }
  return ok_status();
}

void BytePipe::close(Status status) {
  MutexLock lock(mutex_);
  closed_ = true;
  close_status_ = std::move(status);
  changed_.notify_all();
}

Result<size_t> BytePipe::read(char* buffer, size_t size) {
  MutexLock lock(mutex_);
  while (bytes_.empty() && !closed_) changed_.wait(mutex_);
  if (!close_status_.ok()) return close_status_;
  const size_t count = std::min(size, bytes_.size());
  std::memcpy(buffer, bytes_.data(), count);
  bytes_.erase(0, count);
  changed_.notify_all();
  return count;
}

void BytePipe::abandon() {
  MutexLock lock(mutex_);
  abandoned_ = true;
  changed_.notify_all();
}

}  // namespace qanat::worker
