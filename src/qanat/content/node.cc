#include "qanat/content/node.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

namespace qanat::content {

namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// The header is written in front of the entries once their count is known.
constexpr size_t kHeaderRoom = 16;

bool add(Totals& sum, const Totals& more) {
  return !__builtin_add_overflow(sum.count, more.count, &sum.count) &&
         !__builtin_add_overflow(sum.bytes, more.bytes, &sum.bytes);
}

}  // namespace

bool node_ends(int level, size_t count, size_t total, size_t entry_size, std::string_view key) {
  if (total < kMinNodeBytes) return false;
  if (level > 0 && count < 2) return false;
  if (total >= kMaxNodeBytes || entry_size >= kSoftNodeBytes) return true;
  constexpr uint64_t kPerByte = std::numeric_limits<uint64_t>::max() / kSoftNodeBytes;
  const uint64_t salt = static_cast<uint64_t>(level) * 0x9e3779b97f4a7c15u;
  return mix(hash64(key) ^ salt) < entry_size * kPerByte;
}

Hash NodeEntry::hash() const {
  Hash hash;
  assert(value.size() == Hash::kSize);
  std::memcpy(hash.bytes.data(), value.data(), Hash::kSize);
  return hash;
}

class NodeParser {
 public:
  // No type: a chunk list.
  static Result<NodePtr> parse(const MapType* type, Blob bytes) {
    auto node = std::make_shared<Node>();
    const char* problem = parse_into(type, *bytes, *node);
    if (problem != nullptr) {
      return data_loss(str_cat("a node of a ", type ? type->name : "chunk list", ": ", problem));
    }
    node->bytes_ = std::move(bytes);
    return NodePtr(std::move(node));
  }

 private:
  // Gives what is wrong, or null.
  static const char* parse_into(const MapType* type, std::string_view bytes, Node& node) {
    const uint8_t leaf = type ? type->leaf_type : static_cast<uint8_t>(NodeType::kChunkListLeaf);
    const uint8_t inner = type ? type->inner_type : static_cast<uint8_t>(NodeType::kChunkListInner);
    const char* at = bytes.data();
    const char* const end = at + bytes.size();
    if (bytes.size() < 3) return "too short";
    if (static_cast<uint8_t>(at[0]) != kNodeVersion) return "an unknown version of the format";
    const uint8_t found = static_cast<uint8_t>(at[1]);
    at += 2;
    if (found == inner) {
      node.level_ = static_cast<uint8_t>(*at++);
      if (node.level_ < 1 || node.level_ > kMaxNodeLevel) return "an impossible level";
    } else if (found != leaf) {
      return "a node of another type";
    }
    uint64_t count = 0;
    if ((at = decode_varint(at, end, &count)) == nullptr) return "a damaged count";
    const size_t left = static_cast<size_t>(end - at);
    if (count == 0) return "no entries";
    if (count > left / 2) return "more entries than bytes";
    node.entries_.resize(count);
    std::string_view previous;
    for (size_t i = 0; i < count; ++i) {
      NodeEntry& entry = node.entries_[i];
      if (type != nullptr) {
        if (!take_bytes(at, end, &entry.key)) return "a damaged key";
        if (i > 0 && entry.key <= previous) return "keys out of order";
        previous = entry.key;
      }
      if (node.level_ == 0 && type != nullptr) {
        if (!take_bytes(at, end, &entry.value)) return "a damaged value";
        if (!type->totals(entry.key, entry.value, &entry.totals)) return "a malformed value";
      } else {
        if (type != nullptr) {
          if ((at = decode_varint(at, end, &entry.totals.count)) == nullptr)
            return "a damaged entry";
        }
        if ((at = decode_varint(at, end, &entry.totals.bytes)) == nullptr) return "a damaged entry";
        if (type == nullptr && entry.totals.bytes == 0) return "an empty chunk";
        if (static_cast<size_t>(end - at) < Hash::kSize) return "a damaged hash";
        entry.value = {at, Hash::kSize};
        at += Hash::kSize;
      }
      if (!add(node.totals_, entry.totals)) return "totals beyond 64 bits";
    }
    return at == end ? nullptr : "bytes after the last entry";
  }

  static bool take_bytes(const char*& at, const char* end, std::string_view* out) {
    uint64_t length = 0;
    const char* next = decode_varint(at, end, &length);
    if (next == nullptr || length > static_cast<size_t>(end - next)) return false;
    *out = {next, static_cast<size_t>(length)};
    at = next + length;
    return true;
  }
};

Result<NodePtr> Node::parse_map(const MapType& type, Blob bytes) {
  return NodeParser::parse(&type, std::move(bytes));
}

Result<NodePtr> Node::parse_chunk_list(Blob bytes) {
  return NodeParser::parse(nullptr, std::move(bytes));
}

size_t Node::lower_bound(std::string_view key) const {
  auto found = std::lower_bound(
      entries_.begin(), entries_.end(), key,
      [](const NodeEntry& entry, std::string_view wanted) { return entry.key < wanted; });
  return static_cast<size_t>(found - entries_.begin());
}

namespace {

Result<NodePtr> read_node(const MapType* type, BlobReader& reader, const Hash& hash) {
  const BlobRef ref{BlobKind::kNode, hash};
  QANAT_ASSIGN_OR_RETURN(Blob bytes, reader.read(ref));
  auto node = NodeParser::parse(type, std::move(bytes));
  if (!node.ok()) return node.status().with_context(ref.to_string());
  return node;
}

Result<NodePtr> read_child(const MapType* type, BlobReader& reader, const Node& parent,
                           size_t index) {
  const NodeEntry& entry = parent.entries()[index];
  const Hash hash = entry.hash();
  QANAT_ASSIGN_OR_RETURN(NodePtr node, read_node(type, reader, hash));
  const bool same = node->level() == parent.level() - 1 && node->totals() == entry.totals &&
                    node->entries().back().key == entry.key;
  if (!same) {
    return data_loss(str_cat(BlobRef{BlobKind::kNode, hash}.to_string(),
                             " does not hold what the node above it says"));
  }
  return node;
}

}  // namespace

Result<NodePtr> read_map_child(const MapType& type, BlobReader& reader, const Node& parent,
                               size_t index) {
  return read_child(&type, reader, parent, index);
}

Result<NodePtr> read_chunk_list_child(BlobReader& reader, const Node& parent, size_t index) {
  return read_child(nullptr, reader, parent, index);
}

Result<NodePtr> read_map_root(const MapType& type, BlobReader& reader, const MapRoot& root) {
  if (root.inlined.empty()) {
    QANAT_ASSIGN_OR_RETURN(NodePtr node, read_node(&type, reader, root.hash));
    if (node->totals() != root.totals) {
      return data_loss(str_cat(BlobRef{BlobKind::kNode, root.hash}.to_string(),
                               " does not hold what its root's totals say"));
    }
    return node;
  }
  QANAT_ASSIGN_OR_RETURN(
      NodePtr node, NodeParser::parse(&type, std::make_shared<const std::string>(root.inlined)));
  if (node->totals() != root.totals) {
    return data_loss("an inlined root does not hold what its totals say");
  }
  return node;
}

Result<NodePtr> read_chunk_list_root(BlobReader& reader, const Hash& hash, uint64_t size) {
  QANAT_ASSIGN_OR_RETURN(NodePtr node, read_node(nullptr, reader, hash));
  if (node->totals().bytes != size) {
    return data_loss(str_cat(BlobRef{BlobKind::kNode, hash}.to_string(), " lists ",
                             node->totals().bytes, " bytes of a file of ", size));
  }
  return node;
}

bool NodeBuilder::aligned_below(int level) const {
  const size_t below = std::min(static_cast<size_t>(level), levels_.size());
  for (size_t i = 0; i < below; ++i) {
    if (levels_[i]->count > 0) return false;
  }
  return true;
}

NodeBuilder::Level& NodeBuilder::level_at(int level) {
  while (levels_.size() <= static_cast<size_t>(level)) {
    levels_.push_back(std::make_unique<Level>());
    levels_.back()->buffer.assign(kHeaderRoom, '\0');
  }
  return *levels_[level];
}

Status NodeBuilder::append_entry(std::string_view key, std::string_view value,
                                 const Totals& totals) {
  Level& leaf = level_at(0);
  assert(leaf.count == 0 || leaf.last_key < key);
  const size_t start = leaf.buffer.size();
  put_bytes(leaf.buffer, key);
  put_bytes(leaf.buffer, value);
  leaf.last_key.assign(key);
  if (!add(leaf.totals, totals)) return invalid_argument("a map's totals exceed 64 bits");
  return entry_done(0, start, key);
}

Status NodeBuilder::append_chunk(uint64_t size, const Hash& hash) {
  Level& leaf = level_at(0);
  const size_t start = leaf.buffer.size();
  append_inner(leaf, {}, hash, {.count = 0, .bytes = size});
  return entry_done(0, start, hash.view());
}

Status NodeBuilder::append_child(int level, std::string_view last_key, const Hash& hash,
                                 const Totals& totals) {
  assert(level > 0 && aligned_below(level));
  Level& at = level_at(level);
  const size_t start = at.buffer.size();
  append_inner(at, last_key, hash, totals);
  at.last_is_new = false;
  return entry_done(level, start, type_ ? last_key : hash.view());
}

void NodeBuilder::append_inner(Level& at, std::string_view last_key, const Hash& hash,
                               const Totals& totals) {
  if (type_ != nullptr) {
    put_bytes(at.buffer, last_key);
    put_varint(at.buffer, totals.count);
    at.last_key.assign(last_key);
  }
  put_varint(at.buffer, totals.bytes);
  at.buffer += hash.view();
  at.last_hash = hash;
  at.totals += totals;
}

Status NodeBuilder::entry_done(int level, size_t start, std::string_view cut_key) {
  Level& at = *levels_[level];
  ++at.count;
  const size_t total = at.buffer.size() - kHeaderRoom;
  if (!node_ends(level, at.count, total, at.buffer.size() - start, cut_key)) return ok_status();
  return end_node(level);
}

std::string_view NodeBuilder::encode(int level) {
  Level& at = *levels_[level];
  std::string header;
  put_u8(header, kNodeVersion);
  if (level == 0) {
    put_u8(header, type_ ? type_->leaf_type : static_cast<uint8_t>(NodeType::kChunkListLeaf));
  } else {
    put_u8(header, type_ ? type_->inner_type : static_cast<uint8_t>(NodeType::kChunkListInner));
    put_u8(header, static_cast<uint8_t>(level));
  }
  put_varint(header, at.count);
  const size_t start = kHeaderRoom - header.size();
  at.buffer.replace(start, header.size(), header);
  return std::string_view(at.buffer).substr(start);
}

Status NodeBuilder::end_node(int level) {
  if (level >= kMaxNodeLevel) return internal_error("a tree grew beyond its highest level");
  QANAT_ASSIGN_OR_RETURN(BlobRef ref, writer_.add(BlobKind::kNode, encode(level)));
  Level& above = level_at(level + 1);  // may move levels_, not the levels
  Level& at = *levels_[level];
  const size_t start = above.buffer.size();
  append_inner(above, at.last_key, ref.hash, at.totals);
  above.last_is_new = true;
  at.buffer.resize(kHeaderRoom);
  at.count = 0;
  at.totals = {};
  return entry_done(level + 1, start, type_ ? std::string_view(above.last_key) : ref.hash.view());
}

Result<std::optional<NodeBuilder::Root>> NodeBuilder::finish() {
  if (levels_.empty()) return std::optional<Root>();
  for (size_t level = 0; level + 1 < levels_.size(); ++level) {  // may grow
    if (levels_[level]->count > 0) QANAT_RETURN_IF_ERROR(end_node(static_cast<int>(level)));
  }
  const int top = static_cast<int>(levels_.size()) - 1;
  Level& at = *levels_[top];
  assert(at.count > 0);
  if (top > 0 && at.count == 1) {
    QANAT_ASSIGN_OR_RETURN(Root root, collapse(top));
    return std::optional<Root>(std::move(root));
  }
  return std::optional<Root>(
      Root{.bytes = std::make_shared<const std::string>(encode(top)), .totals = at.totals});
}

// The top level's only entry is the root, or leads to it.
Result<NodeBuilder::Root> NodeBuilder::collapse(int level) {
  Level& at = *levels_[level];
  Root root{.hash = at.last_hash, .totals = at.totals};
  // A node that was ended here at a cut has at least 1 KiB and, above the leaves, two entries.
  if (at.last_is_new) return root;
  QANAT_ASSIGN_OR_RETURN(NodePtr node, read_node(type_, writer_, root.hash));
  while (!node->is_leaf() && node->size() == 1) {
    root.hash = node->entries()[0].hash();
    QANAT_ASSIGN_OR_RETURN(node, read_child(type_, writer_, *node, 0));
  }
  root.bytes = node->bytes();
  return root;
}

Result<MapRoot> finish_map(NodeBuilder& builder, const MapType& type, BlobWriter& writer) {
  QANAT_ASSIGN_OR_RETURN(std::optional<NodeBuilder::Root> built, builder.finish());
  MapRoot root;
  if (!built.has_value()) return root;
  root.totals = built->totals;
  if (built->bytes != nullptr && built->bytes->size() <= kMaxInlinedRoot) {
    root.inlined = *built->bytes;
    return root;
  }
  root.hash = built->hash;
  if (root.hash.is_zero()) {
    auto ref = writer.add(BlobKind::kNode, *built->bytes);
    if (!ref.ok()) return ref.status().with_context(type.name);
    root.hash = ref->hash;
  }
  return root;
}

}  // namespace qanat::content
