// Sorting more records than fit in memory: sorted runs in temporary files, merged as they are read.
//
//   ExternalSorter sorter(file_system, "/data/tmp", 16 << 20);
//   QANAT_RETURN_IF_ERROR(sorter.add(key, value));  ...
//   QANAT_RETURN_IF_ERROR(sorter.finish());
//   while (sorter.valid()) { use(sorter.key(), sorter.value());
//   QANAT_RETURN_IF_ERROR(sorter.next()); }
//
// Order: keys bytewise; equal keys in the order they were added. Memory: `memory_budget` bytes (at
// least 1 MiB) while adding and while merging, plus the largest record. While all records fit,
// nothing touches the disk. Nothing is made durable. One thread at a time. Errors: those of the
// file system, and kDataLoss if a temporary file does not hold what was written (records are
// checksummed); after one, only destruction is allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/file_system.h"
#include "qanat/base/status.h"

namespace qanat::content {

class ExternalSorter {
 public:
  // `directory` must exist once the budget is exceeded. Its files are removed by the destructor.
  ExternalSorter(FileSystem& file_system, std::string directory, size_t memory_budget);
  ~ExternalSorter();
  ExternalSorter(const ExternalSorter&) = delete;
  ExternalSorter& operator=(const ExternalSorter&) = delete;

  Status add(std::string_view key, std::string_view value);
  // No add after this. Moves to the first record, also when called again.
  Status finish();
  // Back to the first record, any number of times after finish().
  Status rewind();

  bool valid() const;
  // Until next().
  std::string_view key() const;
  std::string_view value() const;
  Status next();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qanat::content
