// FileWriter: bytes to chunks to a FileRef.
//
// Bytes are cut into chunks as they come (chunk/chunker.h) and written at once; the list of chunks
// becomes a tree of nodes that is cut by content in the same way as maps are. Chunks of a long file
// are hashed beside the caller (BlobWriter::begin_add). So memory is one chunk (1 MiB), those that
// are being hashed, and one node per level, whatever the file's size.
//
// Whole files can be appended without copying them: their chunks are taken over from where the cuts
// meet again, so that concatenation costs a few chunks, not the files. One thread at a time; after
// an error only destruction is allowed. Chunks of a writer that is given up are garbage that
// nothing refers to.
#pragma once

#include <memory>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/chunk/chunker.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/file_ref.h"

namespace qanat::content {

class FileWriter {
 public:
  // `writer` must outlive this. Starts as the empty file.
  explicit FileWriter(BlobWriter& writer);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  Status append(std::string_view bytes);
  // A chunk that is there already. If the bytes so far end in a cut it is taken over unread (but
  // see `ends_in_cut`, chunk/chunker.h); else its bytes are read and cut like any others. It must
  // have no cut before its end, as every stored chunk.
  Status append_chunk(uint64_t size, const Hash& hash, bool ends_in_cut);
  // The bytes of `file`. Reads its chunks only until the cuts agree, and its last one.
  Status append_file(const FileRef& file);
  uint64_t size() const;

  // The file so far. The writer is then empty again and can be used for the next file.
  Result<FileRef> finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// The FileRef of these bytes.
Result<FileRef> write_file(BlobWriter& writer, std::string_view bytes);
// a's bytes, then b's.
Result<FileRef> concat_files(BlobWriter& writer, const FileRef& a, const FileRef& b);

}  // namespace qanat::content
