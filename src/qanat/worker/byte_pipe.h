// A bounded pipe between two threads: one writes, one reads, neither gets more than `capacity`
// bytes ahead.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/base/thread_annotations.h"

namespace qanat::worker {

// Thread safe for one writer and one reader.
class BytePipe {
 public:
  explicit BytePipe(size_t capacity) : capacity_(capacity) {}

  // Writer: waits for room. kCancelled once the reader has gone.
  Status write(std::string_view bytes) EXCLUDES(mutex_);
  // Writer: no more bytes; not OK makes the reader fail with it.
  void close(Status status) EXCLUDES(mutex_);

  // Reader: waits for bytes; 0 at the end.
  Result<size_t> read(char* buffer, size_t size) EXCLUDES(mutex_);
  // Reader: will not read any more.
  void abandon() EXCLUDES(mutex_);

 private:
  const size_t capacity_;
  Mutex mutex_;
  CondVar changed_;
  std::string bytes_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
  Status close_status_ GUARDED_BY(mutex_);
  bool abandoned_ GUARDED_BY(mutex_) = false;
};

}  // namespace qanat::worker
