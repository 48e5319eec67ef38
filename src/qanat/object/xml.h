// The XML that object stores answer with: small documents of elements and text.
//
// A strict reader of what is needed, for input from strangers: elements, text, CDATA, the five
// named entities and numeric ones; comments, processing instructions and attributes are skipped; a
// document type, an unknown entity, wrong nesting, anything after the root, more than 32 levels or
// more than kMaxXmlElements elements are errors (kDataLoss). So nothing expands, and memory is
// bounded by the input's size.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::object {

constexpr size_t kMaxXmlElements = 200'000;

struct XmlElement {
  std::string name;  // without a namespace's prefix
  std::string text;  // of this element itself, entities resolved
  std::vector<XmlElement> children;

  // The first child of that name, or nullptr.
  const XmlElement* child(std::string_view name) const;
  // Its text without spaces around it; "" if there is none.
  std::string_view child_text(std::string_view name) const;
};

Result<XmlElement> parse_xml(std::string_view text);
// For text between tags.
std::string escape_xml(std::string_view text);

}  // namespace qanat::object
