// MarkSet: the nodes that garbage collection has marked, in bounded memory.
//
// New marks gather in a table; when that is full it becomes a sorted file on scratch, of which one
// 8-byte fence in 64 records stays in memory (10 million marks: 1.3 MB). Marks are added and looked
// up in batches in ascending order, so a file is read from front to back at most once a batch.
// Files are checksummed by block and are not made durable. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "qanat/base/file_system.h"
#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/content/root_source.h"

namespace qanat::content {

struct Mark {
  Hash hash;
  NodeUse use = NodeUse::kContent;  // a node that is read in two ways is marked twice
  auto operator<=>(const Mark&) const = default;
};

class MarkSet {
 public:
  // `directory` must exist once the budget is exceeded.
  MarkSet(FileSystem& file_system, std::string directory, size_t memory_budget);
  ~MarkSet();
  MarkSet(const MarkSet&) = delete;
  MarkSet& operator=(const MarkSet&) = delete;

  // Adds those of `marks` (ascending, each once) that are not in it; says for each whether it was
  // new.
  Result<std::vector<bool>> add(std::span<const Mark> marks);
  Result<bool> add(const Mark& mark);
  uint64_t size() const { return size_; }

  // All marks in ascending order. Nothing may be added while a cursor lives.
  class Cursor {
   public:
    ~Cursor();
    Cursor(Cursor&&) noexcept;
    // Nothing at the end.
    Result<std::optional<Mark>> next();

   private:
    friend class MarkSet;
    struct Impl;
    explicit Cursor(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
  };
  Cursor cursor() const;

 private:
  struct Run;
  struct Hasher {
    size_t operator()(const Mark& mark) const {
      return std::hash<Hash>()(mark.hash) + static_cast<size_t>(mark.use);
    }
  };
  Status spill();

  FileSystem& file_system_;
  const std::string directory_;
  const size_t capacity_;  // of the table
  uint64_t size_ = 0;
  std::unordered_set<Mark, Hasher> table_;
  std::vector<std::unique_ptr<Run>> runs_;
};

}  // namespace qanat::content
