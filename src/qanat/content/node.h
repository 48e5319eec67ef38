// Nodes: the pieces that maps and chunk lists are stored in. docs/formats.md, "Node", is the
// format; this is its only reader and writer.
//
// Where nodes are cut decides whether equal content has equal roots. The rule, the same at every
// level: after an entry of `size` encoded bytes, with `total` bytes of entries in the node so far,
// the node ends when
//     total >= 16 KiB, or
//     total >= 1 KiB and mix(XXH3(key) ^ level * golden) < size / 3 KiB (as a fraction of 2^64),
// but an inner node never ends after its first entry (so a level always has fewer entries than the
// one below it, also when keys are huge). It averages 4 KiB whatever the size of entries, and it
// depends on nothing but the entries since the node's start. The level is mixed in since the last
// keys of nodes are picked by their hash: without it, every entry of the next level would end a
// node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/chunk/blob_ref.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/map_root.h"

namespace qanat::content {

enum class NodeType : uint8_t {
  kDirectoryLeaf = 1,
  kDirectoryInner = 2,
  kChunkListLeaf = 3,
  kChunkListInner = 4,
  kMapLeaf = 5,
  kMapInner = 6,
  kJournal = 7,
};

inline constexpr uint8_t kNodeVersion = 1;
// No tree is higher: an inner node has two entries at least, and counts are 64-bit numbers.
inline constexpr int kMaxNodeLevel = 63;
inline constexpr size_t kMinNodeBytes = 1024;
inline constexpr size_t kSoftNodeBytes = 3072;  // on average beyond the minimum
inline constexpr size_t kMaxNodeBytes = 16384;
// One entry's key and value together. An entry larger than a node gets a node of its own.
inline constexpr size_t kMaxEntryBytes = 8u << 20;

// True if the node ends after this entry, which is the `count`th and brought the node to `total`
// bytes of entries.
bool node_ends(int level, size_t count, size_t total, size_t entry_size, std::string_view key);

// An entry as it lies in a node; the views point into the node's bytes.
//  map leaf: key, value, and what the value adds to the totals
//  map inner: the child's last key, its hash (32 bytes, in value), its totals
//  chunk-list leaf and inner: no key, the hash (in value), totals.bytes = the size in bytes
struct NodeEntry {
  std::string_view key;
  std::string_view value;
  Totals totals;

  Hash hash() const;
};

// A parsed node. Immutable, so it may be shared by threads.
class Node {
 public:
  // Strict: what it accepts, it accepts in one spelling only. kDataLoss says what is wrong. `type`
  // is what the node must be; its level is whatever the bytes say.
  static Result<std::shared_ptr<const Node>> parse_map(const MapType& type, Blob bytes);
  static Result<std::shared_ptr<const Node>> parse_chunk_list(Blob bytes);

  int level() const { return level_; }  // 0: a leaf
  bool is_leaf() const { return level_ == 0; }
  const std::vector<NodeEntry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  const Totals& totals() const { return totals_; }
  const Blob& bytes() const { return bytes_; }
  // Index of the first entry whose key is not below `key`: in an inner node, the only child that
  // can hold it. size() if there is none.
  size_t lower_bound(std::string_view key) const;

 private:
  friend class NodeParser;

  Blob bytes_;
  int level_ = 0;
  std::vector<NodeEntry> entries_;
  Totals totals_;
};
using NodePtr = std::shared_ptr<const Node>;

// Reads and parses a node, counting it (qanat_nodes_read_total). `level` is what the parent
// promises; -1 for a root of unknown height.
Result<NodePtr> read_map_node(const MapType& type, BlobReader& reader, const Hash& hash, int level);
Result<NodePtr> read_chunk_list_node(BlobReader& reader, const Hash& hash, int level);
// The root node of a map that is not empty.
Result<NodePtr> read_map_root(const MapType& type, BlobReader& reader, const MapRoot& root);

// Calls `visit` with each blob that a node of any type refers to directly, for garbage collection
// and fsck: children, files' chunks and chunk lists, directories; an inlined directory's own
// references are visited in its place. Values of plain maps are opaque here: `visit_value` (may be
// null) gets each. A journal node (type 7) is not for this function.
Status visit_references(const Blob& node, const std::function<Status(const BlobRef&)>& visit,
                        const std::function<Status(std::string_view value)>& visit_value);

// The nodes of one tree under construction, from the left: appended entries are cut into nodes,
// these are written as soon as they are complete, and an entry for each goes to the level above.
// Used by MapEditor and the chunk lists. Holds one unfinished node per level.
class NodeBuilder {
 public:
  enum class Format { kMap, kChunkList };

  // `writer` must outlive the builder; so must `type` (null for a chunk list).
  NodeBuilder(BlobWriter& writer, const MapType* type);
  NodeBuilder(const NodeBuilder&) = delete;
  NodeBuilder& operator=(const NodeBuilder&) = delete;

  // True if every level below `level` is between two nodes, so that a whole subtree may follow.
  bool aligned_below(int level) const;
  // Keys must ascend (the caller's duty; asserted).
  Status append_leaf(std::string_view key, std::string_view value, const Totals& totals);
  // A complete node of level `level - 1` that is already stored. Requires aligned_below(level).
  Status append_child(int level, std::string_view last_key, const Hash& hash, const Totals& totals);

  struct Root {
    Blob bytes;  // the root node, not written yet unless `written`
    Hash hash;   // set if `written`
    bool written = false;
    bool empty = false;
    Totals totals;
  };
  // Ends all levels and gives the root: the node that is alone on its level. Reads through the
  // writer if that is a node the builder did not make itself.
  Result<Root> finish();

 private:
  struct Level {
    std::string entries;  // encoded
    size_t count = 0;
    std::string last_key;
    Totals totals;
    // For the root: the only entry, if count is 1.
    Hash only_hash;
    Totals only_totals;
  };

  Status end_node(int level);
  Status append_encoded(int level, std::string_view key, const Totals& totals, size_t size_before);
  std::string encode(int level) const;
  Level& level_at(int level);

  BlobWriter& writer_;
  const MapType* type_;
  std::vector<std::unique_ptr<Level>> levels_;
  std::string last_written_;  // bytes of the newest node written, and its hash
  Hash last_written_hash_;
};

}  // namespace qanat::content
