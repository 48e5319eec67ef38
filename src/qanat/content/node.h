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
#include <memory>
#include <optional>
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

// These read and parse a node, counting it (qanat_nodes_read_total). A child must be what its
// parent's entry says: level, last key and totals, else kDataLoss.
Result<NodePtr> read_map_child(const MapType& type, BlobReader& reader, const Node& parent,
                               size_t index);
Result<NodePtr> read_chunk_list_child(BlobReader& reader, const Node& parent, size_t index);
// The root of a map that is not empty; of a file of kind kNode.
Result<NodePtr> read_map_root(const MapType& type, BlobReader& reader, const MapRoot& root);
Result<NodePtr> read_chunk_list_root(BlobReader& reader, const Hash& hash, uint64_t size);

// The nodes of one tree under construction, from the left: appended entries are cut into nodes,
// these are written as soon as they are complete, and an entry for each goes to the level above.
// Used by MapEditor and FileWriter. Holds one unfinished node per level.
class NodeBuilder {
 public:
  // `writer` and `type` must outlive the builder; no type: a chunk list.
  NodeBuilder(BlobWriter& writer, const MapType* type) : writer_(writer), type_(type) {}
  NodeBuilder(const NodeBuilder&) = delete;
  NodeBuilder& operator=(const NodeBuilder&) = delete;

  // True if every level below `level` is between two nodes, so that a whole subtree may follow.
  bool aligned_below(int level) const;
  // Keys must ascend: the caller's duty.
  Status append_entry(std::string_view key, std::string_view value, const Totals& totals);
  Status append_chunk(uint64_t size, const Hash& hash);
  // A stored, complete node of level `level - 1`. Requires aligned_below(level).
  Status append_child(int level, std::string_view last_key, const Hash& hash, const Totals& totals);

  struct Root {
    Blob bytes;  // of the root node; null if it is stored and too long to be inlined
    Hash hash;   // if it is stored; else zero
    Totals totals;
  };
  // Ends all levels and gives the root: the node that is alone on its level; nullopt if nothing was
  // appended. Call once.
  Result<std::optional<Root>> finish();

 private:
  struct Level {
    std::string buffer;  // room for the header, then the encoded entries
    size_t count = 0;
    std::string last_key;
    Totals totals;
    Hash last_hash;            // of the newest entry, above level 0
    bool last_is_new = false;  // that entry's node was written by this builder
  };

  Level& level_at(int level);
  void append_inner(Level& at, std::string_view last_key, const Hash& hash, const Totals& totals);
  // After an entry was appended whose encoding began at `start` in the buffer.
  Status entry_done(int level, size_t start, std::string_view cut_key);
  // The node's bytes, in the level's buffer.
  std::string_view encode(int level);
  Status end_node(int level);
  Result<Root> collapse(int level);

  BlobWriter& writer_;
  const MapType* type_;
  std::vector<std::unique_ptr<Level>> levels_;
};

// The root of what `builder` got, as a map's root: inlined or written.
Result<MapRoot> finish_map(NodeBuilder& builder, const MapType& type, BlobWriter& writer);

}  // namespace qanat::content
