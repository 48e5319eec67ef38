// FileReader: the bytes of a FileRef, whole or in ranges.
//
// Reads only the nodes and chunks that a range touches. Memory: one path of nodes, and the chunk
// being read. Not for several threads at once; make one per thread (they are cheap). `reader` must
// outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/file_ref.h"
#include "qanat/content/node.h"

namespace qanat::content {

class FileReader {
 public:
  FileReader(BlobReader& reader, FileRef file) : reader_(&reader), file_(file) {}

  const FileRef& file() const { return file_; }
  uint64_t size() const { return file_.size; }

  // Sequential reading: the bytes from the position to the end of their chunk; empty at the end of
  // the file. The view lives until the next call.
  Result<std::string_view> next();
  // Where next() goes on; beyond the end is the end.
  void seek(uint64_t offset);
  uint64_t position() const { return position_; }

  // Passes the range to `sink` piece by piece; ends at the file's end, however long the range. An
  // error of the sink ends it and is handed back.
  Status read_range(uint64_t offset, uint64_t length,
                    const std::function<Status(std::string_view)>& sink);
  // In memory; kTooLarge if the file has more than `limit` bytes.
  Result<std::string> read_all(uint64_t limit);

 private:
  struct Frame {
    NodePtr node;
    size_t index;
    uint64_t begin;  // offset in the file of the entry at `index`
  };

  Status load();

  BlobReader* reader_;
  FileRef file_;
  uint64_t position_ = 0;
  std::vector<Frame> path_;  // to the chunk in hand
  Blob chunk_;               // null: none in hand
  uint64_t chunk_begin_ = 0;
};

// Calls `visit(offset, size, chunk)` for each chunk of the file that touches the range, in order,
// reading nodes only: for transfer plans and range requests.
Status visit_chunks(BlobReader& reader, const FileRef& file, uint64_t offset, uint64_t length,
                    const std::function<Status(uint64_t, uint64_t, const Hash&)>& visit);

}  // namespace qanat::content
