// Any bytes as a node of each type: nothing crashes, and what is accepted has exactly one spelling,
// so that writing its entries again gives the same bytes.
#include <cstdint>
#include <cstdlib>

#include "qanat/base/bytes.h"
#include "qanat/content/node.h"
#include "qanat/content/references.h"
#include "qanat/content/tree.h"

namespace {

using qanat::content::Blob;
using qanat::content::MapType;
using qanat::content::Node;
using qanat::content::NodeEntry;

void check(const Node& node, bool has_keys, char type) {
  std::string again{'\x01', type};
  if (!node.is_leaf()) qanat::put_u8(again, static_cast<uint8_t>(node.level()));
  qanat::put_varint(again, node.size());
  for (const NodeEntry& entry : node.entries()) {
    if (has_keys) qanat::put_bytes(again, entry.key);
    if (node.is_leaf() && has_keys) {
      qanat::put_bytes(again, entry.value);
      continue;
    }
    if (has_keys) qanat::put_varint(again, entry.totals.count);
    qanat::put_varint(again, entry.totals.bytes);
    again += entry.value;
  }
  if (again != *node.bytes()) std::abort();
  for (const NodeEntry& entry : node.entries()) {
    if (has_keys && node.entries()[node.lower_bound(entry.key)].key != entry.key) std::abort();
  }
}

void check_map(const MapType& type, const Blob& blob) {
  const auto node = Node::parse_map(type, blob);
  if (!node.ok()) return;
  check(**node, true, static_cast<char>((*node)->is_leaf() ? type.leaf_type : type.inner_type));
  if (!(*node)->is_leaf() || &type != &qanat::content::kDirectoryMap) return;
  // What passes as a directory's entry decodes, to the totals that were counted, and back.
  for (const NodeEntry& entry : (*node)->entries()) {
    const auto decoded = qanat::content::TreeEntry::decode(entry.value);
    if (!decoded.ok()) continue;
    std::string again;
    decoded->encode_to(again);
    if (again != entry.value) std::abort();
    if (decoded->files() != entry.totals.count || decoded->bytes() != entry.totals.bytes) {
      std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto blob = std::make_shared<const std::string>(reinterpret_cast<const char*>(data), size);
  check_map(qanat::content::kPlainMap, blob);
  check_map(qanat::content::kDirectoryMap, blob);
  if (const auto list = Node::parse_chunk_list(blob); list.ok()) {
    check(**list, false, (*list)->is_leaf() ? '\x03' : '\x04');
  }
  (void)qanat::content::visit_references(
      blob, [](const qanat::content::BlobRef&) { return qanat::ok_status(); }, {});
  if (auto root = qanat::content::MapRoot::decode({reinterpret_cast<const char*>(data), size});
      root.ok() && root->encode() != *blob) {
    std::abort();
  }
  return 0;
}
