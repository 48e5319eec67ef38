// Reading and writing of described values. The only file that handles JSON for all bodies.
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "qanat/api/describe.h"
#include "qanat/base/string.h"
#include "qanat/base/utf8.h"

namespace qanat::api {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int kMaxDepth = 100;

std::string camel_case(std::string_view snake) {
  std::string out;
  bool upper = false;
  for (char c : snake) {
    if (c == '_') {
      upper = true;
    } else {
      out += upper && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
      upper = false;
    }
  }
  return out;
}

template <class Json>
std::string found(const Json& json) {
  switch (json.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::string: {
      const auto& text = json.template get_ref<const std::string&>();
      return text.size() <= 40 ? "the string " + qanat::quoted(text) : "a string";
    }
    case Json::value_t::boolean:
      return json.template get<bool>() ? "true" : "false";
    default:
      return "the number " + json.dump();
  }
}

// Reads one value; `path_` is where it stands, for errors.
template <class Json>
class ValueReader {
 public:
  explicit ValueReader(const ReadOptions& options) : options_(options) {}

  Status read(const Type& type, const Json& json, void* out) {
    switch (type.kind) {
      case Kind::kBool:
        if (!json.is_boolean()) return expected("true or false", json);
        *static_cast<bool*>(out) = json.template get<bool>();
        return ok_status();
      case Kind::kInt:
        return read_int(type, json, out);
      case Kind::kUint:
        return read_uint(type, json, out);
      case Kind::kDouble:
        return read_double(json, out);
      case Kind::kString:
        if (!json.is_string()) return expected("a string", json);
        *static_cast<std::string*>(out) = json.template get_ref<const std::string&>();
        return ok_status();
      case Kind::kText:
        if (!json.is_string()) return expected("a string", json);
        return at_path(type.parse(json.template get_ref<const std::string&>(), out));
      case Kind::kEnum: {
        if (!json.is_string()) return expected("a string", json);
        int value = 0;
        QANAT_RETURN_IF_ERROR(
            at_path(parse_enum_value(type, json.template get_ref<const std::string&>(), value)));
        type.set_enum(out, value);
        return ok_status();
      }
      case Kind::kRaw:
        static_cast<RawJson*>(out)->text =
            json.dump(-1, ' ', false, Json::error_handler_t::replace);
        return ok_status();
      case Kind::kOptional:
        if (json.is_null()) {
          type.clear(out);
          return ok_status();
        }
        return read(type.element(), json, type.emplace(out));
      case Kind::kList:
        return read_list(type, json, out);
      case Kind::kMap:
        return read_map(type, json, out);
      case Kind::kStruct:
        return read_struct(type, json, out);
    }
    return internal_error("unknown kind of type");
  }

 private:
  Status at_path(Status status) {
    if (status.ok() || path_.empty()) return status;
    return status.with_context(path_);
  }
  Status expected(std::string_view what, const Json& json) {
    return at_path(invalid_argument(str_cat("expected ", what, ", found ", found(json))));
  }

  // An integer given as a string is used as if it were a number.
  template <class Number>
  bool number_from_string(const Json& json, Number& out) {
    if (!options_.number_strings || !json.is_string()) return false;
    const auto& text = json.template get_ref<const std::string&>();
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size();
  }

  Status read_int(const Type& type, const Json& json, void* out) {
    int64_t value = 0;
    if (json.is_number_unsigned()) {
      auto number = json.template get<uint64_t>();
      if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return at_path(invalid_argument(str_cat(number, " is too large")));
      }
      value = static_cast<int64_t>(number);
    } else if (json.is_number_integer()) {
      value = json.template get<int64_t>();
    } else if (!number_from_string(json, value)) {
      return expected("an integer", json);
    }
    if (type.bits == 64) {
      *static_cast<int64_t*>(out) = value;
      return ok_status();
    }
    if (value < std::numeric_limits<int32_t>::min() ||
        value > std::numeric_limits<int32_t>::max()) {
      return at_path(invalid_argument(str_cat(value, " does not fit 32 bits")));
    }
    *static_cast<int32_t*>(out) = static_cast<int32_t>(value);
    return ok_status();
  }

  Status read_uint(const Type& type, const Json& json, void* out) {
    uint64_t value = 0;
    if (json.is_number_unsigned() ||
        (json.is_number_integer() && json.template get<int64_t>() >= 0)) {
      value = json.template get<uint64_t>();
    } else if (!number_from_string(json, value)) {
      return expected("an integer that is not negative", json);
    }
    if (type.bits == 64) {
      *static_cast<uint64_t*>(out) = value;
      return ok_status();
    }
    if (value > std::numeric_limits<uint32_t>::max()) {
      return at_path(invalid_argument(str_cat(value, " does not fit 32 bits")));
    }
    *static_cast<uint32_t*>(out) = static_cast<uint32_t>(value);
    return ok_status();
  }

  Status read_double(const Json& json, void* out) {
    double& value = *static_cast<double*>(out);
    if (json.is_number()) {
      value = json.template get<double>();
    } else if (!number_from_string(json, value)) {
      return expected("a number", json);
    }
    return ok_status();
  }

  Status read_list(const Type& type, const Json& json, void* out) {
    if (!json.is_array()) return expected("a list", json);
    type.clear(out);
    size_t index = 0;
    for (const Json& item : json) {
      size_t length = path_.size();
      str_append(path_, "[", index++, "]");
      QANAT_RETURN_IF_ERROR(read(type.element(), item, type.emplace(out)));
      path_.resize(length);
    }
    return ok_status();
  }

  Status read_map(const Type& type, const Json& json, void* out) {
    if (!json.is_object()) return expected("an object", json);
    type.clear(out);
    for (auto it = json.begin(); it != json.end(); ++it) {
      size_t length = push(it.key());
      QANAT_RETURN_IF_ERROR(read(type.element(), it.value(), type.insert(out, it.key())));
      path_.resize(length);
    }
    return ok_status();
  }

  Status read_struct(const Type& type, const Json& json, void* out) {
    if (!json.is_object()) return expected("an object", json);
    std::vector<bool> seen(type.fields.size());
    for (auto it = json.begin(); it != json.end(); ++it) {
      size_t index = find_field(type, it.key());
      if (index == type.fields.size()) {
        if (options_.ignore_unknown) continue;
        return unknown_field(type, it.key());
      }
      const Type::Field& field = type.fields[index];
      if (seen[index]) {
        return at_path(
            invalid_argument(str_cat("field ", qanat::quoted(field.name), " is given twice, as ",
                                     qanat::quoted(it.key()), " too")));
      }
      // null is "absent": a required field then counts as missing.
      if (it.value().is_null() && field.type().kind != Kind::kRaw) continue;
      seen[index] = true;
      size_t length = push(it.key());
      QANAT_RETURN_IF_ERROR(read(field.type(), it.value(), static_cast<char*>(out) + field.offset));
      path_.resize(length);
    }
    for (size_t i = 0; i < seen.size(); ++i) {
      if (type.fields[i].required && !seen[i]) {
        return at_path(invalid_argument(
            str_cat("required field ", qanat::quoted(type.fields[i].name), " is missing"),
            type.fields[i].doc));
      }
    }
    return ok_status();
  }

  size_t find_field(const Type& type, const std::string& key) const {
    size_t i = 0;
    for (; i < type.fields.size(); ++i) {
      const std::string& name = type.fields[i].name;
      if (name == key || (options_.camel_case && camel_case(name) == key)) break;
    }
    return i;
  }

  Status unknown_field(const Type& type, const std::string& key) {
    std::vector<std::string> known;
    for (const Type::Field& field : type.fields) known.push_back(field.name);
    std::string near = closest_name(key, known);
    std::string message = str_cat("unknown field ", qanat::quoted(key));
    if (!near.empty()) str_append(message, "; did you mean ", qanat::quoted(near), "?");
    return at_path(invalid_argument(message, str_cat("known fields: ", join(known, ", "))));
  }

  size_t push(const std::string& key) {
    size_t length = path_.size();
    str_append(path_, path_.empty() ? "" : ".", key);
    return length;
  }

  const ReadOptions& options_;
  std::string path_;
};

// Thrown out of the parser, which offers no other way to stop, and caught in parse().
struct ParseAbort {
  Status status;
};

Result<OrderedJson> parse(std::string_view text) {
  std::vector<std::set<std::string>> keys;
  auto callback = [&keys](int depth, OrderedJson::parse_event_t event, OrderedJson& value) {
    if (depth > kMaxDepth) {
      throw ParseAbort{invalid_argument(str_cat("JSON is nested deeper than ", kMaxDepth))};
    }
    if (event == OrderedJson::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == OrderedJson::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == OrderedJson::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        throw ParseAbort{
            invalid_argument(str_cat("field ", qanat::quoted(key), " is given twice"))};
      }
    }
    return true;
  };
  try {
    return OrderedJson::parse(text, callback);
  } catch (const ParseAbort& abort) {
    return abort.status;
  } catch (const OrderedJson::exception& error) {
    std::string_view message = error.what();
    size_t prefix = message.find("] ");
    if (prefix != std::string_view::npos) message.remove_prefix(prefix + 2);
    return invalid_argument(str_cat("not valid JSON: ", message));
  }
}

void write_string(std::string_view text, std::string& out) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (size_t i = 0; i < text.size();) {
    char c = text[i];
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else if (byte < 0x80) {
      out += c;
    } else {
      size_t begin = i;
      if (decode_utf8(text, i) == kInvalidCharacter) {
        out += "\xEF\xBF\xBD";
      } else {
        out.append(text, begin, i - begin);
      }
      continue;  // decode_utf8 has moved on
    }
    ++i;
  }
  out += '"';
}

class ValueWriter {
 public:
  ValueWriter(int indent, std::string& out) : indent_(indent), out_(out) {}

  void write(const Type& type, const void* value) {
    switch (type.kind) {
      case Kind::kBool:
        out_ += *static_cast<const bool*>(value) ? "true" : "false";
        break;
      case Kind::kInt:
        str_append(out_, type.bits == 64 ? *static_cast<const int64_t*>(value)
                                         : int64_t{*static_cast<const int32_t*>(value)});
        break;
      case Kind::kUint:
        str_append(out_, type.bits == 64 ? *static_cast<const uint64_t*>(value)
                                         : uint64_t{*static_cast<const uint32_t*>(value)});
        break;
      case Kind::kDouble:
        write_double(*static_cast<const double*>(value));
        break;
      case Kind::kString:
        write_string(*static_cast<const std::string*>(value), out_);
        break;
      case Kind::kText:
        write_string(type.format(value), out_);
        break;
      case Kind::kEnum:
        write_enum(type, type.get_enum(value));
        break;
      case Kind::kRaw:
        write_raw(static_cast<const RawJson*>(value)->text);
        break;
      case Kind::kOptional:
        if (const void* inner = type.get(value)) {
          write(type.element(), inner);
        } else {
          out_ += "null";
        }
        break;
      case Kind::kList:
        write_list(type, value);
        break;
      case Kind::kMap:
        write_map(type, value);
        break;
      case Kind::kStruct:
        write_struct(type, value);
        break;
    }
  }

 private:
  void write_double(double value) {
    if (!std::isfinite(value)) {
      out_ += "null";  // JSON has no other word for it
      return;
    }
    char text[32];
    auto [end, error] = std::to_chars(text, text + sizeof text, value);
    out_.append(text, end);
  }
  void write_enum(const Type& type, int value) {
    for (const EnumValue& v : type.enum_values) {
      if (v.value == value) return write_string(v.name, out_);
    }
    out_ += "null";
  }
  void write_raw(const std::string& text) {
    if (text.empty()) {
      out_ += "null";
      return;
    }
    if (indent_ == 0) {
      out_ += text;
      return;
    }
    OrderedJson json = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
    std::string pretty = json.is_discarded() ? std::string("null") : json.dump(indent_);
    for (char c : pretty) {
      out_ += c;
      if (c == '\n') out_.append(static_cast<size_t>(depth_) * static_cast<size_t>(indent_), ' ');
    }
  }
  void write_list(const Type& type, const void* value) {
    size_t size = type.size(value);
    open('[');
    for (size_t i = 0; i < size; ++i) {
      item();
      write(type.element(), type.at(value, i));
    }
    close(']', size == 0);
  }
  void write_map(const Type& type, const void* value) {
    open('{');
    struct Context {
      ValueWriter* writer;
      const Type& element;
    } context{this, type.element()};
    type.for_each(
        value,
        [](void* pointer, const std::string& key, const void* entry) {
          auto& c = *static_cast<Context*>(pointer);
          c.writer->name(key);
          c.writer->write(c.element, entry);
        },
        &context);
    close('}', type.size(value) == 0);
  }
  void write_struct(const Type& type, const void* value) {
    open('{');
    bool empty = true;
    for (const Type::Field& field : type.fields) {
      const void* member = static_cast<const char*>(value) + field.offset;
      const void* usual = static_cast<const char*>(type.default_value.get()) + field.offset;
      if (!field.required && internal::equal_values(field.type(), member, usual)) continue;
      empty = false;
      name(field.name);
      write(field.type(), member);
    }
    close('}', empty);
  }

  void open(char bracket) {
    out_ += bracket;
    ++depth_;
    first_ = true;
  }
  void item() {
    if (!first_) out_ += ',';
    first_ = false;
    new_line();
  }
  void name(std::string_view text) {
    item();
    write_string(text, out_);
    out_ += indent_ > 0 ? ": " : ":";
  }
  void close(char bracket, bool empty) {
    --depth_;
    if (!empty) new_line();
    out_ += bracket;
    first_ = false;
  }
  void new_line() {
    if (indent_ == 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(depth_) * static_cast<size_t>(indent_), ' ');
  }

  const int indent_;
  std::string& out_;
  int depth_ = 0;
  bool first_ = true;
};

}  // namespace

namespace internal {

Status read_value(const Type& type, const nlohmann::json& json, const ReadOptions& options,
                  void* out) {
  return ValueReader<nlohmann::json>(options).read(type, json, out);
}

Status parse_value(const Type& type, std::string_view text, const ReadOptions& options, void* out) {
  QANAT_ASSIGN_OR_RETURN(OrderedJson json, parse(text));
  return ValueReader<OrderedJson>(options).read(type, json, out);
}

void write_value(const Type& type, const void* value, int indent, std::string& out) {
  ValueWriter(indent, out).write(type, value);
}

}  // namespace internal

}  // namespace qanat::api
