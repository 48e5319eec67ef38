// OrderedReader: the bytes of many files, one after another, read ahead of whoever takes them.
//
// The owner adds files (a walk's, an archive's, or the one that a request asks for) in the order in
// which they are wanted. Their chunks are gathered into batches; each is read by one task of the
// pool, with one read_many, so that neighbours in a pack become one read, and several cores
// decompress and verify. The sink gets everything in order, on the owner's thread, inside add() and
// finish(). The first batches are small, so that the first bytes come soon.
//
// Memory: at most kDepth + 1 batches of kBatchBytes and one chunk (1 MiB) each, and as much again
// for the pieces of packs that are being read: 8 MiB as a rule, whatever the files.
//
// One owner thread. Without a pool all is read in the owner's thread. Reader (thread-safe, if there
// is a pool), pool and sink must outlive it; the destructor waits for reads under way. After an
// error only destruction is allowed; the sink then got all that came before the error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/base/thread_pool.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/file_ref.h"

namespace qanat::content {

class OrderedReader {
 public:
  static constexpr size_t kDepth = 4;  // batches being read or waiting to be taken
  static constexpr size_t kBatchBytes = 1u << 20;
  static constexpr size_t kBatchItems = 1024;  // chunks, and beginnings of files

  class Sink {
   public:
    virtual ~Sink() = default;
    virtual Status begin_file(std::string_view path) = 0;
    virtual Status data(std::string_view bytes) = 0;
    virtual Status end_file() = 0;
  };

  OrderedReader(BlobReader& reader, ThreadPool* pool, Sink& sink);
  ~OrderedReader();
  OrderedReader(const OrderedReader&) = delete;
  OrderedReader& operator=(const OrderedReader&) = delete;

  // Errors of the reader and the sink may come with a later call.
  Status add(std::string_view path, const FileRef& file);
  // Only [offset, offset + length) of it, and only the chunks that this touches.
  Status add_range(std::string_view path, const FileRef& file, uint64_t offset, uint64_t length);
  // Until the sink has got everything.
  Status finish();

 private:
  // What the sink is told, in order.
  struct Item {
    enum class Kind : uint8_t { kBegin, kData, kEnd };
    Kind kind = Kind::kData;
    std::string path;   // kBegin
    uint64_t size = 0;  // kData: of the chunk; the part of it that is wanted:
    uint64_t from = 0;
    uint64_t length = 0;
  };
  struct Batch;

  Status add_chunk(const Hash& hash, uint64_t size, uint64_t from, uint64_t length);
  // Hands the open batch to the pool, and takes one that is due.
  Status start_batch();
  Status take_front();

  BlobReader& reader_;
  ThreadPool* const pool_;
  Sink& sink_;
  std::shared_ptr<Batch> open_;
  std::deque<std::shared_ptr<Batch>> started_;
  size_t batch_bytes_;  // at which the open batch is started; grows to kBatchBytes
};

}  // namespace qanat::content
