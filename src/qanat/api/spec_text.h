// The text of a spec file as a tree of values that remember their lines: the step before any field
// is looked at.
//
// JSON is read by a small strict parser of our own (the library's keeps no lines), YAML by
// yaml-cpp. What the two leave ambiguous is settled here: duplicate keys are errors, YAML's plain
// scalars follow the core schema (`yes` is a string), and nesting (64), values (100,000) and text
// (kMaxSpecText) are bounded, so that a hostile text costs little.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::api {

struct SpecNode {
  enum class Type { kNull, kBool, kInteger, kNumber, kString, kList, kMap };
  Type type = Type::kNull;
  bool plain = false;  // YAML, not quoted: `text` may be taken as a string whatever the type
  int line = 1;        // of the value; of the key for a map's member
  std::string
      text;  // kBool: true/false. kInteger, kNumber: as written. kString: the value, without NUL
  std::vector<std::string> keys;   // kMap: of items[i], unique, in text order
  std::vector<SpecNode> items;     // kList, kMap
  std::vector<std::string> names;  // kMap: canonical spellings of `keys`, once a reader knows them

  // kMap, by canonical name (by key before there are names); null if absent.
  const SpecNode* find(std::string_view name) const;
};

// What the type is called in messages: "a string", "a list".
std::string_view type_name(SpecNode::Type type);

// The documents of a text, JSON if its first character is `{` or `[`, else YAML. A list at the top
// counts as so many documents; empty documents are left out. Errors are invalid_argument with the
// line.
Result<std::vector<SpecNode>> parse_spec_text(std::string_view text);

// Compact JSON of a node, as written.
std::string to_json(const SpecNode& node);

}  // namespace qanat::api
