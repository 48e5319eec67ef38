// One description per struct, from which come strict JSON reading, JSON writing and JSON Schema.
//
// How to use it: a struct of plain members with default initialisers, and beside it (same
// namespace, found by argument dependent lookup) a template
//
//   struct ParallelismSpec { int64_t constant = 0; double coefficient = 0; };
//   template <class V> void describe(V& v, ParallelismSpec& t) {
//     v.type("ParallelismSpec", "How many workers a pipeline has.");
//     v.optional("constant", t.constant, "Number of workers.");
//     v.optional("coefficient", t.coefficient, "Workers for each node.");
//   }
//   struct Pipeline { std::string name; std::optional<ParallelismSpec> parallelism_spec; };
//   template <class V> void describe(V& v, Pipeline& t) {
//     v.type("Pipeline", "");
//     v.required("name", t.name, "Its name.");                       // snake_case names
//     v.optional("parallelism_spec", t.parallelism_spec, "...");
//   }
//
// and an enum names its values, the first being the default:
//
//   enum class JobState { kCreated, kRunning };
//   inline std::vector<EnumValue> enum_values(JobState) { return {{0, "CREATED"}, {1, "RUNNING"}};
//   }
//
// Then: `QANAT_ASSIGN_OR_RETURN(auto pipeline, parse_json<Pipeline>(text, {.camel_case = true}));`,
// `json_text(pipeline)`.
//
// Members may be: bool, int32_t/int64_t/uint32_t/uint64_t, double, std::string, Timestamp (see
// time.h) and other types with a TextFormat, described enums, described structs, RawJson, and
// std::vector, std::optional, std::map<std::string, T> of all these. Structs may contain themselves
// through a vector. Types must be default constructible.
//
// Reading is strict: an unknown field is an error naming the closest known field; a wrong type is
// an error giving path, what was expected and what was found; a missing required field is an error;
// null stands for "absent"; integers must fit. Clients reading answers of a server set
// `ignore_unknown`, so that an older client understands a newer server. Writing gives required
// fields always, optional ones only when they differ from the default of the struct, in the order
// described.
//
// A description is turned once, when first used, into a table of offsets (`Type`), so no JSON
// library is needed here and reading and writing are compiled once for all types. The tables are
// immutable: everything here is thread safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::api {

// Any JSON value, kept as its text. Comparable by text only.
struct RawJson {
  std::string text = "null";
  bool operator==(const RawJson&) const = default;
};

struct EnumValue {
  int value;
  std::string_view name;
};

// Specialise for a type that is a string in JSON:
//   static std::string format(const T&); static Status parse(std::string_view, T&); static
//   constexpr const char* kSchemaFormat.
template <class T>
struct TextFormat;

struct ReadOptions {
  bool camel_case = false;      // accept "datumTries" for "datum_tries"
  bool number_strings = false;  // accept "3" for 3, as protobuf's JSON does for 64-bit integers
  bool ignore_unknown = false;  // skip unknown fields
};

// ---- The table a description becomes. Only describe.cc and json.cc need to know it. ----

enum class Kind {
  kBool,
  kInt,
  kUint,
  kDouble,
  kString,
  kText,
  kEnum,
  kRaw,
  kOptional,
  kList,
  kMap,
  kStruct
};

struct Type {
  struct Field {
    std::string name;
    std::string doc;
    bool required = false;
    ptrdiff_t offset = 0;
    const Type& (*type)() = nullptr;  // a function, since a struct may contain itself
  };

  Kind kind = Kind::kStruct;
  std::string name;  // of a struct: its name in the schema
  std::string doc;
  int bits = 64;                       // of an integer
  const Type& (*element)() = nullptr;  // of an optional, list or map

  std::vector<Field> fields;
  std::vector<EnumValue> enum_values;
  const char* text_format = "";
  std::shared_ptr<const void> default_value;

  // Enums: value <-> int. Text: format, parse.
  int (*get_enum)(const void*) = nullptr;
  void (*set_enum)(void*, int) = nullptr;
  std::string (*format)(const void*) = nullptr;
  Status (*parse)(std::string_view, void*) = nullptr;
  // Optional: the value or null; make an empty value. List: size, element, append. Map: insert;
  // for_each gives key and value.
  const void* (*get)(const void*) = nullptr;
  void* (*emplace)(void*) = nullptr;
  void (*clear)(void*) = nullptr;
  size_t (*size)(const void*) = nullptr;
  const void* (*at)(const void*, size_t) = nullptr;
  void* (*insert)(void*, const std::string&) = nullptr;
  void (*for_each)(const void*, void (*)(void*, const std::string&, const void*), void*) = nullptr;
};

template <class T>
const Type& type_of();

namespace internal {

// The visitor given to describe(): collects names and offsets.
class TableBuilder {
 public:
  TableBuilder(Type& type, const void* base) : type_(type), base_(base) {}

  // First line of a description: the name in the OpenAPI document and what the struct is.
  void type(std::string_view name, std::string_view doc) {
    type_.name = name;
    type_.doc = doc;
  }
  template <class M>
  void required(std::string_view name, M& member, std::string_view doc) {
    add(name, doc, true, &member, &type_of<M>);
  }
  template <class M>
  void optional(std::string_view name, M& member, std::string_view doc) {
    add(name, doc, false, &member, &type_of<M>);
  }

 private:
  void add(std::string_view name, std::string_view doc, bool required, const void* member,
           const Type& (*type)());

  Type& type_;
  const void* base_;
};

template <class T>
concept HasTextFormat = requires(const T& t) { TextFormat<T>::format(t); };

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsList : std::false_type {};
template <class T>
struct IsList<std::vector<T>> : std::true_type {};
template <class T>
struct IsMap : std::false_type {};
template <class T>
struct IsMap<std::map<std::string, T>> : std::true_type {};

template <class T>
void fill_optional(Type& type) {
  type.kind = Kind::kOptional;
  type.element = &type_of<typename T::value_type>;
  type.get = [](const void* p) -> const void* {
    auto& v = *static_cast<const T*>(p);
    return v ? &*v : nullptr;
  };
  type.emplace = [](void* p) -> void* { return &static_cast<T*>(p)->emplace(); };
  type.clear = [](void* p) { static_cast<T*>(p)->reset(); };
}

template <class T>
void fill_list(Type& type) {
  static_assert(!std::is_same_v<T, std::vector<bool>>, "vector<bool> has no addressable elements");
  type.kind = Kind::kList;
  type.element = &type_of<typename T::value_type>;
  type.size = [](const void* p) { return static_cast<const T*>(p)->size(); };
  type.at = [](const void* p, size_t i) -> const void* { return &(*static_cast<const T*>(p))[i]; };
  type.emplace = [](void* p) -> void* { return &static_cast<T*>(p)->emplace_back(); };
  type.clear = [](void* p) { static_cast<T*>(p)->clear(); };
}

template <class T>
void fill_map(Type& type) {
  type.kind = Kind::kMap;
  type.element = &type_of<typename T::mapped_type>;
  type.size = [](const void* p) { return static_cast<const T*>(p)->size(); };
  type.insert = [](void* p, const std::string& key) -> void* {
    return &(*static_cast<T*>(p))[key];
  };
  type.clear = [](void* p) { static_cast<T*>(p)->clear(); };
  type.for_each = [](const void* p, void (*visit)(void*, const std::string&, const void*),
                     void* context) {
    for (auto& [key, value] : *static_cast<const T*>(p)) visit(context, key, &value);
  };
}

template <class T>
void fill(Type& type) {
  if constexpr (std::is_same_v<T, bool>) {
    type.kind = Kind::kBool;
  } else if constexpr (std::is_enum_v<T>) {
    type.kind = Kind::kEnum;
    type.enum_values = enum_values(T{});
    type.get_enum = [](const void* p) { return static_cast<int>(*static_cast<const T*>(p)); };
    type.set_enum = [](void* p, int v) { *static_cast<T*>(p) = static_cast<T>(v); };
  } else if constexpr (std::is_integral_v<T>) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "use 32 or 64 bit integers");
    type.kind = std::is_signed_v<T> ? Kind::kInt : Kind::kUint;
    type.bits = sizeof(T) * 8;
  } else if constexpr (std::is_same_v<T, double>) {
    type.kind = Kind::kDouble;
  } else if constexpr (std::is_same_v<T, std::string>) {
    type.kind = Kind::kString;
  } else if constexpr (std::is_same_v<T, RawJson>) {
    type.kind = Kind::kRaw;
  } else if constexpr (HasTextFormat<T>) {
    type.kind = Kind::kText;
    type.text_format = TextFormat<T>::kSchemaFormat;
    type.format = [](const void* p) { return TextFormat<T>::format(*static_cast<const T*>(p)); };
    type.parse = [](std::string_view text, void* p) {
      return TextFormat<T>::parse(text, *static_cast<T*>(p));
    };
  } else if constexpr (IsOptional<T>::value) {
    fill_optional<T>(type);
  } else if constexpr (IsList<T>::value) {
    fill_list<T>(type);
  } else if constexpr (IsMap<T>::value) {
    fill_map<T>(type);
  } else {
    type.kind = Kind::kStruct;
    auto value = std::make_shared<T>();
    TableBuilder builder(type, value.get());
    describe(builder, *value);
    type.default_value = value;
  }
}

Status read_value(const Type& type, const nlohmann::json& json, const ReadOptions& options,
                  void* out);
Status parse_value(const Type& type, std::string_view text, const ReadOptions& options, void* out);
void write_value(const Type& type, const void* value, int indent, std::string& out);
bool equal_values(const Type& type, const void* a, const void* b);

}  // namespace internal

// The table of T, made when first asked for.
template <class T>
const Type& type_of() {
  static const Type* const kType = [] {
    auto* type = new Type;  // lives as long as the process
    internal::fill<T>(*type);
    return type;
  }();
  return *kType;
}

// ---- What callers use. ----

// Reads a T from JSON text. Errors are kInvalidArgument and say where: "input.pfs.glob: expected a
// string, found a number". Duplicate keys, nesting deeper than 100 and bytes after the value are
// errors.
template <class T>
Result<T> parse_json(std::string_view text, const ReadOptions& options = {}) {
  T value{};
  QANAT_RETURN_IF_ERROR(internal::parse_value(type_of<T>(), text, options, &value));
  return value;
}

// The same from a parsed value (include <nlohmann/json.hpp> to have one).
template <class T>
Result<T> read_json(const nlohmann::json& json, const ReadOptions& options = {}) {
  T value{};
  QANAT_RETURN_IF_ERROR(internal::read_value(type_of<T>(), json, options, &value));
  return value;
}

// JSON text of a value, on one line; with indent > 0 on many. Strings that are not UTF-8 are
// written with U+FFFD.
template <class T>
std::string json_text(const T& value, int indent = 0) {
  std::string out;
  internal::write_value(type_of<T>(), &value, indent, out);
  return out;
}

// Equality of all described members.
template <class T>
bool described_equal(const T& a, const T& b) {
  return internal::equal_values(type_of<T>(), &a, &b);
}

// Name of an enum value, and back (kInvalidArgument names the accepted ones).
template <class E>
std::string_view enum_name(E value) {
  for (const EnumValue& v : type_of<E>().enum_values) {
    if (v.value == static_cast<int>(value)) return v.name;
  }
  return "unknown";
}
Status parse_enum_value(const Type& type, std::string_view name, int& out);
template <class E>
Result<E> parse_enum(std::string_view name) {
  int value = 0;
  QANAT_RETURN_IF_ERROR(parse_enum_value(type_of<E>(), name, value));
  return static_cast<E>(value);
}

// JSON Schema (the dialect of OpenAPI 3.1) of a type: structs by "$ref":
// "#/components/schemas/NAME", and every struct reached is added to `schemas` (an object, name ->
// schema). Returns the schema as JSON text.
std::string schema_text(const Type& type, std::map<std::string, std::string>& schemas);

// The known name closest to `name` by edit distance, or "" when none is near.
std::string closest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace qanat::api
