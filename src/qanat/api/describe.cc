#include "qanat/api/describe.h"

#include <algorithm>
#include <cstring>

#include "qanat/base/string.h"

namespace qanat::api {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

bool equal_maps(const Type& type, const void* a, const void* b) {
  if (type.size(a) != type.size(b)) return false;
  // std::map gives keys in order, so equal maps give equal sequences.
  std::vector<std::pair<std::string, const void*>> entries;
  entries.reserve(type.size(a));
  type.for_each(
      a,
      [](void* context, const std::string& key, const void* value) {
        static_cast<decltype(entries)*>(context)->emplace_back(key, value);
      },
      &entries);
  struct Walk {
    decltype(entries)& expected;
    const Type& element;
    size_t index = 0;
    bool equal = true;
  } walk{entries, type.element()};
  type.for_each(
      b,
      [](void* context, const std::string& key, const void* value) {
        auto& w = *static_cast<Walk*>(context);
        auto& [expected_key, expected_value] = w.expected[w.index++];
        w.equal = w.equal && key == expected_key &&
                  internal::equal_values(w.element, expected_value, value);
      },
      &walk);
  return walk.equal;
}

std::string json_string(std::string_view text) { return json_text(std::string(text)); }

std::string struct_schema(const Type& type, std::map<std::string, std::string>& schemas) {
  std::string out = "{\"type\":\"object\"";
  if (!type.doc.empty()) str_append(out, ",\"description\":", json_string(type.doc));
  out += ",\"properties\":{";
  std::string required;
  const char* separator = "";
  for (const Type::Field& field : type.fields) {
    std::string schema = schema_text(field.type(), schemas);
    if (!field.doc.empty()) {
      // OpenAPI 3.1 allows keywords beside $ref.
      schema.pop_back();
      if (schema != "{") schema += ",";
      str_append(schema, "\"description\":", json_string(field.doc), "}");
    }
    str_append(out, separator, json_string(field.name), ":", schema);
    separator = ",";
    if (field.required) str_append(required, required.empty() ? "" : ",", json_string(field.name));
  }
  out += "}";
  if (!required.empty()) str_append(out, ",\"required\":[", required, "]");
  out += ",\"additionalProperties\":false}";
  return out;
}

}  // namespace

namespace internal {

void TableBuilder::add(std::string_view name, std::string_view doc, bool required,
                       const void* member, const Type& (*type)()) {
  Type::Field field;
  field.name = name;
  field.doc = doc;
  field.required = required;
  field.offset = static_cast<const char*>(member) - static_cast<const char*>(base_);
  field.type = type;
  type_.fields.push_back(std::move(field));
}

bool equal_values(const Type& type, const void* a, const void* b) {
  switch (type.kind) {
    case Kind::kBool:
      return *static_cast<const bool*>(a) == *static_cast<const bool*>(b);
    case Kind::kInt:
    case Kind::kUint:
      return std::memcmp(a, b, static_cast<size_t>(type.bits / 8)) == 0;
    case Kind::kDouble:
      return *static_cast<const double*>(a) == *static_cast<const double*>(b);
    case Kind::kString:
      return *static_cast<const std::string*>(a) == *static_cast<const std::string*>(b);
    case Kind::kRaw:
      return *static_cast<const RawJson*>(a) == *static_cast<const RawJson*>(b);
    case Kind::kText:
      return type.format(a) == type.format(b);
    case Kind::kEnum:
      return type.get_enum(a) == type.get_enum(b);
    case Kind::kOptional: {
      const void* inner_a = type.get(a);
      const void* inner_b = type.get(b);
      if (inner_a == nullptr || inner_b == nullptr) return inner_a == inner_b;
      return equal_values(type.element(), inner_a, inner_b);
    }
    case Kind::kList: {
      size_t size = type.size(a);
      if (size != type.size(b)) return false;
      for (size_t i = 0; i < size; ++i) {
        if (!equal_values(type.element(), type.at(a, i), type.at(b, i))) return false;
      }
      return true;
    }
    case Kind::kMap:
      return equal_maps(type, a, b);
    case Kind::kStruct:
      return std::all_of(type.fields.begin(), type.fields.end(), [&](const Type::Field& field) {
        return equal_values(field.type(), static_cast<const char*>(a) + field.offset,
                            static_cast<const char*>(b) + field.offset);
      });
  }
  return false;
}

}  // namespace internal

Status parse_enum_value(const Type& type, std::string_view name, int& out) {
  std::vector<std::string> known;
  for (const EnumValue& v : type.enum_values) {
    if (v.name == name) {
      out = v.value;
      return ok_status();
    }
    known.emplace_back(v.name);
  }
  return invalid_argument(str_cat("unknown value ", qanat::quoted(name)),
                          str_cat("one of: ", join(known, ", ")));
}

std::string closest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  // A third of the letters may differ; names beyond any sense are not compared at all.
  size_t limit = std::max<size_t>(2, name.size() / 3);
  if (name.size() > 100) return best;
  for (const std::string& candidate : known) {
    size_t distance = edit_distance(name, candidate);
    if (distance <= limit && distance < candidate.size()) {
      limit = distance == 0 ? 0 : distance - 1;
      best = candidate;
      if (distance == 0) break;
    }
  }
  return best;
}

std::string schema_text(const Type& type, std::map<std::string, std::string>& schemas) {
  switch (type.kind) {
    case Kind::kBool:
      return R"({"type":"boolean"})";
    case Kind::kInt:
      return str_cat(R"({"type":"integer","format":"int)", type.bits, R"("})");
    case Kind::kUint:
      return str_cat(R"({"type":"integer","format":"int)", type.bits, R"(","minimum":0})");
    case Kind::kDouble:
      return R"({"type":"number"})";
    case Kind::kString:
      return R"({"type":"string"})";
    case Kind::kText:
      return str_cat(R"({"type":"string","format":)", json_string(type.text_format), "}");
    case Kind::kRaw:
      return "{}";
    case Kind::kEnum: {
      std::string names;
      for (const EnumValue& v : type.enum_values) {
        str_append(names, names.empty() ? "" : ",", json_string(v.name));
      }
      return str_cat(R"({"type":"string","enum":[)", names, "]}");
    }
    case Kind::kOptional:
      return schema_text(type.element(), schemas);
    case Kind::kList:
      return str_cat(R"({"type":"array","items":)", schema_text(type.element(), schemas), "}");
    case Kind::kMap:
      return str_cat(R"({"type":"object","additionalProperties":)",
                     schema_text(type.element(), schemas), "}");
    case Kind::kStruct: {
      // Entered before it is computed, so that a struct within itself ends the recursion.
      if (schemas.emplace(type.name, "{}").second) {
        std::string schema = struct_schema(type, schemas);
        schemas[type.name] = std::move(schema);
      }
      return str_cat(R"({"$ref":"#/components/schemas/)", type.name, "\"}");
    }
  }
  return "{}";
}

}  // namespace qanat::api
