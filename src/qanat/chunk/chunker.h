// Content-defined chunking: where a file's bytes are cut.
//
// FastCDC with normalised chunking (Xia et al., "The Design of Fast Content-Defined Chunking for
// Data Deduplication Based Storage Systems", IEEE TPDS 2020): a gear hash slides over the bytes; a
// chunk ends after the first byte, from kMinChunk on, where the hash is below a threshold. The
// threshold is strict before kNormalChunk and lax after it, which gathers lengths around the
// average; at kMaxChunk the cut is forced.
//
// The hash starts afresh 64 bytes before the minimum of each chunk, and it only remembers 64 bytes.
// Thus
//  - whether a chunk ends in a natural cut is a property of that chunk's bytes alone (see
//  is_natural_cut): a server can check
//    cuts that a client made, one chunk at a time;
//  - a file's list of chunks is a function of the file's bytes alone;
//  - after an edit, cuts coincide again within a few chunks.
//
// The gear table and all constants here are part of the format (docs/formats.md, "Chunks"):
// changing any of them changes every root.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::chunk {

inline constexpr size_t kMinChunk = 64u << 10;
inline constexpr size_t kNormalChunk = 208u
                                       << 10;  // gives an average of about 256 KiB on random bytes
inline constexpr size_t kMaxChunk = 1u << 20;

// Where cuts are looked for, and how rare they are. The product has one set, kChunkSizes; others
// are for measuring (bench/chunk_sizes.cc).
struct ChunkSizes {
  size_t min;
  size_t normal;  // strict before it, lax from there on
  size_t max;
  int strict_bits;  // of the gear hash that are zero at a cut
  int lax_bits;
};
inline constexpr ChunkSizes kChunkSizes{kMinChunk, kNormalChunk, kMaxChunk, 20, 16};

// The length of the first chunk of a file that begins with `data` and goes on, or 0 if the chunk
// does not end within `data`. Never 0 if data has at least kMaxChunk bytes.
size_t find_cut(std::string_view data);
// The same with other sizes: 64 < min < normal < max, 0 < bits < 64.
size_t find_cut(std::string_view data, const ChunkSizes& sizes);

// True if `chunk`, which is not the last of its file, is exactly one chunk: it ends where find_cut
// says and not before. The last chunk of a file may also end early, but never contains a cut before
// its end: see is_valid_last.
bool is_natural_cut(std::string_view chunk);
// True if `chunk` may be the last (or only) chunk of a file: not empty, and no cut lies before its
// end.
bool is_valid_last(std::string_view chunk);

// For a chunk that is known to have no cut before its end: whether it ends in one, so that a file
// may go on after it. Looks at its length and its last 64 bytes only.
bool ends_in_cut(std::string_view chunk);

// Finds the end of one chunk in bytes that come in pieces. Thread-compatible.
class CutFinder {
 public:
  // How many bytes of `data`, which follow those of the calls before, belong to the chunk if it
  // ends in them; else 0. Once a cut was found it begins anew.
  size_t find(std::string_view data);

 private:
  size_t length_ = 0;  // of the chunk so far
  uint64_t hash_ = 0;  // gear hash after them
};

// Cuts a stream. Chunks that lie within one update() are passed on without a copy; one that
// straddles calls is gathered in a buffer of at most kMaxChunk bytes. Thread-compatible; one file
// per Chunker, or reset() between files.
class Chunker {
 public:
  // Gets each chunk in order; the bytes are valid during the call. An error is handed back by
  // update() or finish() and leaves the Chunker unusable until reset().
  using Sink = std::function<Status(std::string_view chunk)>;

  explicit Chunker(Sink sink) : sink_(std::move(sink)) {}

  Status update(std::string_view data);
  // Passes on the rest as the last chunk; none if the rest is empty.
  Status finish();
  void reset();

 private:
  Sink sink_;
  std::string buffer_;  // the beginning of a chunk that started in an earlier update()
  CutFinder finder_;
};

}  // namespace qanat::chunk
