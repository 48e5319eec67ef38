// MapRoot: the name of an ordered map of bytes to bytes (a prolly map, see prolly.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/chunk/blob_ref.h"

namespace qanat::content {

// What a map sums over its entries, kept in inner nodes so that totals and ranks cost one path.
struct Totals {
  uint64_t count = 0;
  uint64_t bytes = 0;

  friend bool operator==(const Totals&, const Totals&) = default;
  Totals& operator+=(const Totals& other) {
    count += other.count;
    bytes += other.bytes;
    return *this;
  }
};

// What kind of map it is: the type byte of its nodes, and what its values add to the totals. One
// constant object per kind, compared by address.
struct MapType {
  uint8_t leaf_type;   // NodeType
  uint8_t inner_type;  // NodeType
  // False if `value` is malformed; called for every entry that is read or written.
  bool (*totals)(std::string_view key, std::string_view value, Totals* totals);
  // The name used in messages: "directory", "map".
  std::string_view name;
};

// Plain maps (datum tables, owner trees): each entry counts 1, and as many bytes as its value has.
extern const MapType kPlainMap;

// A root node of at most this many bytes is stored where it is referred to.
inline constexpr size_t kMaxInlinedRoot = 256;

// Names a map whole: equal maps (of one type) have equal MapRoots, whatever their history.
// A default-constructed MapRoot is the empty map, and the only form of it.
// Otherwise either `inlined` holds the root node's bytes (if these are at most 256) and `hash` is
// zero, or `inlined` is empty and `hash` names a stored node.
struct MapRoot {
  std::string inlined;
  Hash hash;
  Totals totals;

  bool empty() const { return inlined.empty() && hash.is_zero(); }
  // SHA-256 of the root node's bytes, inlined or not: what names the content to people.
  Hash root_hash(const MapType& type) const;

  // For records: varint count, varint bytes, then nothing (empty), or 1 and the hash, or 2 and the
  // node's bytes. Decoding checks the form only (kDataLoss); the inlined node is checked when used.
  void encode_to(std::string& out) const;
  std::string encode() const;
  static Result<MapRoot> decode(std::string_view bytes);
  // encode() in base64url, for JSON; "" is the empty map.
  std::string to_text() const;
  static Result<MapRoot> from_text(std::string_view text);

  friend bool operator==(const MapRoot&, const MapRoot&) = default;
};

}  // namespace qanat::content
