#include "qanat/content/map_root.h"

#include "qanat/base/bytes.h"

namespace qanat::content {

namespace {

bool plain_totals(std::string_view, std::string_view value, Totals* totals) {
  totals->count = 1;
  totals->bytes = value.size();
  return true;
}

}  // namespace

constinit const MapType kPlainMap{
    .leaf_type = 5, .inner_type = 6, .totals = plain_totals, .name = "map"};

Hash MapRoot::root_hash(const MapType& type) const {
  if (!inlined.empty()) return sha256(inlined);
  if (!hash.is_zero()) return hash;
  const char empty_leaf[3] = {1, static_cast<char>(type.leaf_type), 0};
  return sha256({empty_leaf, sizeof empty_leaf});
}

void MapRoot::encode_to(std::string& out) const {
  put_varint(out, totals.count);
  put_varint(out, totals.bytes);
  if (!inlined.empty()) {
    put_u8(out, 2);
    out += inlined;
  } else if (!hash.is_zero()) {
    put_u8(out, 1);
    out += hash.view();
  }
}

std::string MapRoot::encode() const {
  std::string out;
  encode_to(out);
  return out;
}

Result<MapRoot> MapRoot::decode(std::string_view bytes) {
  Reader in(bytes);
  MapRoot root;
  QANAT_ASSIGN_OR_RETURN(root.totals.count, in.varint());
  QANAT_ASSIGN_OR_RETURN(root.totals.bytes, in.varint());
  if (in.at_end()) {
    if (root.totals != Totals{}) return data_loss("the root of a map has totals but no node");
    return root;
  }
  QANAT_ASSIGN_OR_RETURN(uint8_t form, in.u8());
  if (form == 1) {
    QANAT_ASSIGN_OR_RETURN(root.hash, Hash::from_bytes(in.rest()));
    if (root.hash.is_zero()) return data_loss("the root of a map has no hash");
  } else if (form == 2) {
    root.inlined = in.rest();
    if (root.inlined.empty() || root.inlined.size() > kMaxInlinedRoot) {
      return data_loss("the inlined root of a map is empty or too long");
    }
  } else {
    return data_loss("the root of a map has an unknown form");
  }
  return root;
}

std::string MapRoot::to_text() const { return empty() ? std::string() : to_base64url(encode()); }

Result<MapRoot> MapRoot::from_text(std::string_view text) {
  if (text.empty()) return MapRoot{};
  QANAT_ASSIGN_OR_RETURN(std::string bytes, from_base64url(text));
  return decode(bytes);
}

}  // namespace qanat::content
