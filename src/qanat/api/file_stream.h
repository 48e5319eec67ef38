// FileStream: many files, edits and datums in one body, streamed. Used for edits and archives (API)
// and for a worker's inputs and outputs.
//
// Format (version 1; integers unsigned LEB128 varints, at most 10 bytes; `bytes` is varint length +
// bytes):
//   "QNFS1\n", then frames: u8 type, then
//     1 head    bytes JSON            about the whole stream (optional, first)
//     2 datum   bytes JSON            what follows belongs to this datum
//     3 put     bytes path; u8 flags (1 = append); pieces
//     4 delete  bytes path            a file or a directory with all it holds
//     5 copy    bytes JSON; bytes path   JSON names the source, path the destination
//     6 log     pieces                log of the current datum
//     7 error   bytes code; bytes message; bytes hint    the sender failed: the reader returns this
//     status 8 end     varint count of frames before this one   nothing may follow
//     9 chunks  bytes path; u8 flags; (varint size > 0, 32 hash)* 0   a put whose chunks are named,
//                                                                     in order: see chunk/
//    10 same    bytes path; 32 content id    a put of what is there already: content id of the file
//   pieces: (varint length > 0, bytes)* 0      so a sender need not know a file's size
// A stream without its `end` is an error, whatever came before: a receiver that applies a stream
// must do so only after end.
//
// Neither class buffers more than one piece's worth of a file. Not thread safe. Paths of put and
// copy are checked with check_path by reader and writer; heads are opaque text here. Fuzzed by
// tests/fuzz/file_stream_fuzz.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"

namespace qanat::api {

// Media type of such a body.
inline constexpr std::string_view kFileStreamType = "application/vnd.qanat.file-stream";

class FileStreamWriter {
 public:
  // Gets the bytes in order, in pieces of about 64 KiB. Its first error is returned by every later
  // call.
  using Sink = std::function<Status(std::string_view bytes)>;
  explicit FileStreamWriter(Sink sink);

  Status head(std::string_view json);
  Status datum(std::string_view json);
  // A file: begin_put, data*, end_put; or put for a small one.
  Status begin_put(std::string_view path, bool append);
  Status data(std::string_view bytes);
  Status end_put();
  Status put(std::string_view path, std::string_view bytes, bool append = false);
  Status remove(std::string_view path);
  Status copy(std::string_view source_json, std::string_view path);
  // A file by the names of its chunks: begin_chunks, chunk*, end_chunks.
  Status begin_chunks(std::string_view path, bool append);
  Status chunk(uint64_t size, const Hash& hash);
  Status end_chunks();
  Status same(std::string_view path, const Hash& content_id);
  // A log: begin_log, data*, end_log.
  Status begin_log();
  Status end_log();
  // Tells the reader why there is no more. Nothing may follow. Allowed only between files and logs.
  Status error(const Status& status);
  // Writes `end` and everything buffered. Required; nothing may follow.
  Status finish();
  // Hands what is buffered to the sink now.
  Status flush();

 private:
  Status begin_frame(uint8_t type);
  Status append(std::string_view bytes);
  Status append_varint(uint64_t value);
  Status append_bytes(std::string_view bytes);

  enum class State { kFrames, kPut, kLog, kChunks, kFinished };
  Sink sink_;
  Status failed_;
  std::string buffer_;
  uint64_t frames_ = 0;
  State state_ = State::kFrames;
};

enum class FrameType : uint8_t {
  kHead = 1,
  kDatum = 2,
  kPut = 3,
  kDelete = 4,
  kCopy = 5,
  kLog = 6,
  kChunks = 9,
  kSame = 10,
};

struct Frame {
  FrameType type = FrameType::kHead;
  std::string json;     // head, datum, copy
  std::string path;     // put, delete, copy, chunks, same
  bool append = false;  // put, chunks
  Hash content_id;      // same
};

struct ChunkName {
  uint64_t size = 0;
  Hash hash;
};

class FileStreamReader {
 public:
  // Gives the next bytes, 0 at the end.
  using Source = std::function<Result<size_t>(char* buffer, size_t size)>;
  struct Limits {
    size_t max_json_bytes = 1 << 20;
    size_t max_path_bytes = 4096;
    uint64_t max_frames = UINT64_MAX;
    uint64_t max_data_bytes = UINT64_MAX;  // of all files and logs together
    bool names = false;  // `chunks` and `same` are understood; else they are malformed
  };
  explicit FileStreamReader(Source source);
  FileStreamReader(Source source, Limits limits);

  // The next frame; nothing after a correct end. Data of the previous file that was not read is
  // skipped. Errors: kInvalidArgument (malformed, naming what and at which byte), kTooLarge (a
  // limit), kDataLoss (ended without `end`), what an error frame says, and errors of the source.
  // After an error every call returns it.
  Result<std::optional<Frame>> next();
  // Data of the current put or log: up to `size` bytes; 0 at its end.
  Result<size_t> read(char* buffer, size_t size);
  // The next chunk of a `chunks` frame; nothing at its end.
  Result<std::optional<ChunkName>> next_chunk();
  // All of it; kTooLarge beyond `limit`.
  Result<std::string> read_all(size_t limit);

  uint64_t frames() const { return frames_; }
  uint64_t data_bytes() const { return data_bytes_; }

 private:
  Status fill();
  Status malformed(std::string_view what);
  Result<uint8_t> read_byte();
  Result<uint64_t> read_varint();
  Result<std::string> read_bytes(size_t limit, std::string_view what);
  Result<size_t> read_data(char* buffer, size_t size);
  Result<Hash> read_hash();
  Result<std::optional<ChunkName>> read_chunk();
  Result<std::optional<Frame>> read_frame();
  Status skip_data();

  Source source_;
  Limits limits_;
  Status failed_;
  std::string buffer_;
  size_t position_ = 0;
  uint64_t consumed_ = 0;  // bytes before buffer_
  uint64_t frames_ = 0;
  uint64_t data_bytes_ = 0;
  uint64_t piece_left_ = 0;
  bool in_data_ = false;
  bool in_chunks_ = false;
  bool started_ = false;
  bool ended_ = false;
};

// Turns a producer of frames into a source of bytes, for clients whose request body is pulled.
// `step` writes a little (one file's next piece, say) and returns whether there is more; after
// false the stream is finished for it.
class FileStreamSource {
 public:
  using Step = std::function<Result<bool>(FileStreamWriter& writer)>;
  explicit FileStreamSource(Step step);
  Result<size_t> read(char* buffer, size_t size);

 private:
  Step step_;
  std::string pending_;
  size_t position_ = 0;
  bool done_ = false;
  FileStreamWriter writer_;
};

}  // namespace qanat::api
