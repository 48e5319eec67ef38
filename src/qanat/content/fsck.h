// fsck: is everything there that the records of a project name, and is it what was written?
//
// Without `data`: every segment of the index is read and checked, every pack that the index names
// is there and long enough, every node that a root reaches is read and hashed (each once), and
// every chunk that a node names is in the index. With `data`: also every pack is read, each blob
// hashed against its name, and the pack's footer compared with its blobs and with the index.
//
// Each problem says what it touches: once all damage is known, the trees are walked again, only
// where damage hangs below, and every commit and path is named (fsck_walk.h).
//
// It runs beside writers and takes no locks. What comes meanwhile is no problem, and neither is
// what goes: before something is reported, the records are read again, and what no record asks for
// any more is dropped.
//
// Memory: the budget, 32 MiB of the index's blocks, about 100 bytes a pack, and about as much a
// damaged blob (of at most kMaxDamaged). One thread; fsck() may run several times at once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/file_system.h"
#include "qanat/base/status.h"
#include "qanat/chunk/pack.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/map_root.h"
#include "qanat/meta/store.h"
#include "qanat/object/object_store.h"

namespace qanat::content {

struct FsckProblem {
  std::string what;                  // "node 3f2a... is damaged: ..."
  std::string where;                 // a key of meta or of the object store
  std::vector<std::string> touches;  // "orders@1f0c...:/2026/01.csv"; the first kMaxTouches
  uint64_t touched = 0;              // all of them
};
inline constexpr size_t kMaxTouches = 100;
// More damaged blobs, and more problems, are counted but not named.
inline constexpr size_t kMaxDamaged = 200'000;
inline constexpr size_t kMaxProblems = 10'000;

// How a node is to be read.
enum class FsckUse : uint8_t {
  kTree = 0,     // a directory or a list of chunks: it says so itself
  kOwners = 1,   // an owner tree (owner_tree.h)
  kPlain = 2,    // a plain map whose values name nothing
  kForeign = 3,  // and above: a source's own
};

// Something that a node refers to. Labels are appended to that of the node.
struct FsckChild {
  BlobRef ref;
  FsckUse use = FsckUse::kTree;
  std::string label;  // for it and what is below it: "name" of a file, "name/" of a directory
  std::string range;  // for itself, if what is below it cannot be known: "(entries up to ...)"
};
using FsckVisit = std::function<Status(FsckChild)>;

struct FsckRoot {
  std::string label;  // "orders@1f0c...:/"
  MapRoot root;
  FsckUse use = FsckUse::kTree;
};

// What the layers above know: which records there are, and which trees they name.
class FsckSource {
 public:
  virtual ~FsckSource() = default;
  // Checks records: that they can be read, and that what they name is there. Gives how many.
  virtual Result<uint64_t> check_records(const std::string& project,
                                         const std::function<Status(FsckProblem)>& report) = 0;
  // The roots that the records name now; records that cannot be read are passed over.
  virtual Status visit_roots(const std::string& project,
                             const std::function<Status(const FsckRoot&)>& visit) = 0;
  // The children of a node of a use of this source's own; labels only `with_labels`. kNotFound: not
  // of mine.
  virtual Status visit_node(FsckUse use, const Blob& node, bool with_labels,
                            const FsckVisit& visit) = 0;
};

// For sources: the children of a node of a plain map; `on_value` gets the entries of a leaf.
Status visit_fsck_map(
    FsckUse use, const Blob& node, bool with_labels, const FsckVisit& visit,
    const std::function<Status(std::string_view key, std::string_view value)>& on_value);
// For sources: what a tree's root refers to; `label` is that of the root.
Status visit_fsck_tree(const MapRoot& root, const std::string& label, bool with_labels,
                       const FsckVisit& visit);

struct FsckContext {
  std::string project;
  // Borrowed.
  meta::Store* meta = nullptr;
  object::ObjectStore* objects = nullptr;
  std::vector<FsckSource*> sources;
  FileSystem* file_system = nullptr;
  std::string scratch;  // a folder that exists
  size_t memory_budget = 64u << 20;
  // Told of each copy of a blob that is found damaged or gone; may be null.
  std::function<void(const BlobRef& ref, const chunk::PackId& pack)> on_damaged;
};

struct FsckProgress {
  std::string_view phase;  // "records", "index", "packs", "trees", "chunks", "naming"
  uint64_t done = 0;
  uint64_t total = 0;  // 0: not known
};

struct FsckSummary {
  uint64_t records = 0;
  uint64_t segments = 0;
  uint64_t packs = 0;
  uint64_t nodes = 0;   // read
  uint64_t chunks = 0;  // named by nodes, each once
  uint64_t bytes = 0;   // of packs read
  uint64_t problems = 0;
  bool truncated = false;  // there is more damage than could be named
};

struct FsckOptions {
  bool data = false;
  // An error of either ends the check and is handed back. Problems of records and of the index come
  // as they are found, those of blobs when it is known what they touch.
  std::function<Status(const FsckProblem&)> on_problem;
  std::function<Status(const FsckProgress&)> on_progress;  // often; may be null
};
// Errors: those of the stores and of scratch, but kNotFound and kDataLoss of what is checked.
Result<FsckSummary> fsck(const FsckContext& context, const FsckOptions& options);

}  // namespace qanat::content
