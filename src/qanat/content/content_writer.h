// ContentWriter: adds blobs to a project, durably, as part of a transaction of the caller's.
//
//   auto writer = content.new_writer();          // remembers session and epoch
//   ... add(), read(), trees edited through it ...
//   writer->flush();                              // everything added is durable
//   meta::Transaction txn; writer->add_to(&txn);  // compares and registrations
//   ... the caller's own compares and puts (the root) ...
//   auto result = meta.commit(txn);
//   if (result->succeeded) writer->committed(result->revision);
//   else if the head moved: change trees again through the same writer, flush, retry
//   else writer->recheck(), then retry
//
// Blobs that the index has are not written again, unless they lie in a condemned pack. The others
// go into packs that are streamed to the object store and closed at 16 MiB. A small writer makes
// one object, and adds one put to the caller's transaction. Large writers (more than
// kMaxWaitingPacks packs) register their earlier packs in transactions of their own: content that
// nothing refers to yet is harmless, and garbage collection leaves it alone while the session
// lives.
//
// A pipeline: the caller's thread names blobs and asks the index, the pools of the ContentStore
// compress, append, and make a full pack durable while the next one is filled. Memory: one open
// pack and at most two closing ones (a write buffer of 1 MiB and at most 8 MiB of nodes each),
// batches of 256 KiB or one chunk in the pools' queues (two a thread, for all writers together),
// and the entries of the packs waiting (at most 200,000 beside those of the last packs). Destroyed
// without committed(), it removes the objects that are not registered; also when the transaction's
// outcome is unknown (kUnavailable): then what happened, or still happens, keeps its objects.
// Thread-compatible: one thread at a time. One per put, plan or fold.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/chunk/pack.h"
#include "qanat/content/blob_io.h"
#include "qanat/meta/store.h"

namespace qanat::content {

// A chunk that the project has, in a pack that is not condemned.
struct KnownChunk {
  chunk::PackId pack;
  uint64_t size = 0;
  bool ends_in_cut = false;  // see chunk/chunker.h
};

class ContentWriter : public BlobWriter {
 public:
  static constexpr size_t kMaxWaitingPacks = 24;
  // Most operations and compares that add_to() adds; the rest of meta's 64 is the caller's.
  static constexpr size_t kMaxOperations = kMaxWaitingPacks;
  static constexpr size_t kMaxCompares = 3;

  // Counters qanat_nodes_written_total, qanat_chunks_written_total, qanat_blobs_deduplicated_total.
  Result<BlobRef> add(BlobKind kind, std::string_view plain,
                      const Hash* known = nullptr) override = 0;

  // Which of these chunks are there, for a caller that refers to them without their bytes; what it
  // refers to it must rely_on(), so that they are still there when the transaction happens.
  virtual Result<std::vector<std::optional<KnownChunk>>> find_chunks(
      std::span<const Hash> hashes) = 0;
  virtual void rely_on(const KnownChunk& chunk) = 0;

  // Makes all that was added durable. May be called again after more was added. After an error the
  // writer is of no more use.
  virtual Status flush() = 0;
  // After flush(), with nothing added since: the compares (session alive, epoch unchanged) and the
  // registrations.
  virtual void add_to(meta::Transaction* transaction) const = 0;
  // The packs that add_to() registers.
  virtual std::vector<chunk::PackId> waiting_packs() const = 0;
  // The transaction is durable, at this revision: indexes and caches learn of it. More may be added
  // afterwards, for a next transaction.
  virtual void committed(int64_t revision) = 0;
  // When the transaction failed: OK if the compares of add_to() hold again: retry. If the epoch has
  // moved and blobs that were not written, because the index had them, lie in condemned packs, it
  // has looked for them elsewhere or written them from there, and flushed. kConflict: that was not
  // possible (too many of them, or see rely_on_epoch): begin again with a new writer. kUnavailable:
  // the server's session is lost.
  virtual Status recheck() = 0;

  // To be called before the caller reads content that the write will refer to, but that neither
  // add() sees nor the transaction compares the owner of: copies out of other commits, results
  // found by key, another job's trees. From then on recheck() gives kConflict once anything more is
  // condemned, or is still that may have been needed at this call.
  virtual Status rely_on_epoch() = 0;

  // Blobs that were written so far, and their bytes in packs.
  struct Stats {
    uint64_t nodes = 0;
    uint64_t chunks = 0;
    uint64_t deduplicated = 0;
    uint64_t plain_bytes = 0;  // of these
    uint64_t stored_bytes = 0;
    uint64_t packs = 0;
  };
  virtual Stats stats() const = 0;
};

}  // namespace qanat::content
