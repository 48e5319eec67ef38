// Marker: walks everything that a set of roots reaches, generation by generation, in bounded
// memory.
//
// A generation is the nodes that the one before refers to for the first time. It is sorted by name
// (and so loses its duplicates), what was marked before is dropped, the rest is looked up in the
// index and sorted by where it lies, and read in that order, in pieces of many nodes. So each node
// is read once, and neighbours together. Chunks are leaves: their names go to a sorter, and are
// counted at the end. A RootSource that chains nodes (a journal) visits the chain in its own order:
// a generation a link costs little, since small sorts stay in memory.
//
// Each blob is accounted to one holder: of those that refer to it in the generation in which it was
// found first, the one whose roots came first.
//
// Memory: about 4/3 of the budget, and the index's blocks in the shared cache. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "qanat/base/file_system.h"
#include "qanat/content/blob_store.h"
#include "qanat/content/external_sort.h"
#include "qanat/content/mark_set.h"
#include "qanat/content/root_source.h"

namespace qanat::content {

// Where collection keeps what does not fit in memory.
struct GcScratch {
  FileSystem* file_system = nullptr;
  std::string directory;  // must exist once the budget is exceeded
  size_t memory_budget = 64u << 20;
};

// Bytes and blobs that a holder keeps and no holder before it.
struct HolderUse {
  Holder holder;
  uint64_t blobs = 0;
  uint64_t bytes = 0;  // as stored
};

class Marker {
 public:
  struct Context {
    BlobStore* blobs = nullptr;
    std::vector<RootSource*> sources;
    GcScratch scratch;
    size_t nodes_per_step = 4096;
  };
  explicit Marker(Context context);
  ~Marker();

  // Takes the roots of all ranks at a revision, to be walked rank after rank: all at once, since
  // the store may have forgotten the revision by the time the first walk is done. Then step() until
  // it gives false. kDataLoss if a node is missing or damaged: nothing may be collected then.
  // `more` may name roots that no source does, walked last.
  using VisitRoot = std::function<Status(const Holder& holder, const Reference& reference)>;
  Status begin(RootSource::Request request,
               const std::function<Status(const VisitRoot& visit)>& more = nullptr);
  Result<bool> step();

  // From now on newly marked nodes, and the chunks they refer to, are told too: what a rescue looks
  // at.
  using OnNew = std::function<Status(const BlobRef& ref)>;
  void watch_new(OnNew on_new) { on_new_ = std::move(on_new); }

  // After all passes: everything marked, ascending in the order of index keys, each once. May be
  // begun several times. The holder is that of a chunk; nodes were accounted when they were read.
  struct Marked {
    BlobRef ref;
    uint32_t holder = 0;
    bool is_accounted = false;
  };
  Status begin_reading();
  // Nothing at the end.
  Result<std::optional<Marked>> next();

  std::vector<HolderUse>& holders() { return holders_; }
  uint64_t nodes() const { return nodes_read_; }

 private:
  struct Located;
  Status add(const Reference& reference, uint32_t holder, ExternalSorter& nodes);
  Status add_chunk(const BlobRef& ref, uint32_t holder);
  Status locate_some();
  Status read_some();
  std::unique_ptr<ExternalSorter> sorter(size_t divisor = 1) const;
  Result<uint32_t> holder_of(const Holder& holder);

  const Context context_;
  MarkSet marks_;
  std::unique_ptr<ExternalSorter> chunks_;
  std::deque<std::unique_ptr<ExternalSorter>> roots_;  // of the ranks that are still to be walked
  std::unique_ptr<ExternalSorter> frontier_;           // being sorted out; null: reading
  std::unique_ptr<ExternalSorter> located_;
  std::unique_ptr<ExternalSorter> next_;
  bool any_next_ = false;
  bool chunks_finished_ = false;
  std::vector<HolderUse> holders_;
  std::map<Holder, uint32_t> holder_ids_;
  uint64_t nodes_read_ = 0;
  OnNew on_new_;
  // begin_reading()
  std::optional<MarkSet::Cursor> cursor_;
  std::optional<Mark> next_node_;
};

}  // namespace qanat::content
