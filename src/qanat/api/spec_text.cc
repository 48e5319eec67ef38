#include "qanat/api/spec_text.h"

#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "qanat/api/pipeline_spec.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"

namespace qanat::api {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxNodes = 100000;

Status at_line(int line, std::string_view message) {
  return invalid_argument(str_cat("line ", line, ": ", message));
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Length of a JSON number at the front of `text`, or 0. `integer` says whether it has neither
// fraction nor exponent.
std::size_t number_length(std::string_view text, bool& integer) {
  std::size_t at = 0;
  const auto digits = [&] {
    const std::size_t first = at;
    while (at < text.size() && is_digit(text[at])) ++at;
    return at > first;
  };
  integer = true;
  if (at < text.size() && text[at] == '-') ++at;
  const std::size_t first = at;
  if (!digits() || (text[first] == '0' && at > first + 1)) return 0;
  if (at < text.size() && text[at] == '.') {
    integer = false;
    ++at;
    if (!digits()) return 0;
  }
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    integer = false;
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    if (!digits()) return 0;
  }
  return at;
}

void put_utf8(char32_t code, std::string& out) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

// RFC 8259, one value after another.
class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  Result<std::vector<SpecNode>> documents() {
    std::vector<SpecNode> out;
    for (skip_space(); at_ < text_.size(); skip_space()) {
      SpecNode node;
      QANAT_RETURN_IF_ERROR(value(node, 0));
      out.push_back(std::move(node));
      skip_space();
      if (at_ < text_.size() && text_[at_] == ',') {
        return error(
            "objects follow one another without a comma; put them into a list [...] or drop it");
      }
    }
    return out;
  }

 private:
  Status error(std::string_view message) const { return at_line(line_, message); }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') {
        ++line_;
      } else if (c != ' ' && c != '\t' && c != '\r') {
        break;
      }
    }
  }

  Status value(SpecNode& node, int depth) {
    if (depth > kMaxDepth) return error("nested too deeply");
    if (++nodes_ > kMaxNodes) return error("too many values in one file");
    node.line = line_;
    switch (peek()) {
      case '{':
        return object(node, depth);
      case '[':
        return list(node, depth);
      case '"':
        node.type = SpecNode::Type::kString;
        return string(node.text);
      default:
        return literal(node);
    }
  }

  Status object(SpecNode& node, int depth) {
    node.type = SpecNode::Type::kMap;
    std::set<std::string> seen;
    ++at_;
    skip_space();
    if (peek() == '}') return ++at_, ok_status();
    while (true) {
      skip_space();
      const int line = line_;
      if (peek() != '"') return error("expected a field name in double quotes");
      std::string key;
      QANAT_RETURN_IF_ERROR(string(key));
      if (!seen.insert(key).second)
        return at_line(line, str_cat("field ", qanat::quoted(key), " is given twice"));
      skip_space();
      if (peek() != ':') return error(str_cat("expected ':' after ", qanat::quoted(key)));
      ++at_;
      skip_space();
      SpecNode member;
      QANAT_RETURN_IF_ERROR(value(member, depth + 1));
      member.line = line;
      node.keys.push_back(std::move(key));
      node.items.push_back(std::move(member));
      skip_space();
      const char next = peek();
      if (next == '}') return ++at_, ok_status();
      if (next != ',')
        return error(str_cat("expected ',' or '}' after ", qanat::quoted(node.keys.back())));
      ++at_;
    }
  }

  Status list(SpecNode& node, int depth) {
    node.type = SpecNode::Type::kList;
    ++at_;
    skip_space();
    if (peek() == ']') return ++at_, ok_status();
    while (true) {
      skip_space();
      SpecNode item;
      QANAT_RETURN_IF_ERROR(value(item, depth + 1));
      node.items.push_back(std::move(item));
      skip_space();
      const char next = peek();
      if (next == ']') return ++at_, ok_status();
      if (next != ',') return error("expected ',' or ']' in a list");
      ++at_;
    }
  }

  Status literal(SpecNode& node) {
    const std::string_view rest = text_.substr(at_);
    bool integer = true;
    std::size_t length = 0;
    if (rest.starts_with("true")) {
      node.type = SpecNode::Type::kBool;
      length = 4;
    } else if (rest.starts_with("false")) {
      node.type = SpecNode::Type::kBool;
      length = 5;
    } else if (rest.starts_with("null")) {
      length = 4;
    } else {
      length = number_length(rest, integer);
      node.type = integer ? SpecNode::Type::kInteger : SpecNode::Type::kNumber;
      if (length == 0)
        return rest.empty() ? error("the text ends too early") : error("expected a value");
    }
    if (length < rest.size() &&
        (std::isalnum(static_cast<unsigned char>(rest[length])) || rest[length] == '.')) {
      return error("expected a value");
    }
    if (node.type != SpecNode::Type::kNull) node.text = rest.substr(0, length);
    at_ += length;
    return ok_status();
  }

  Result<char32_t> four_digits() {
    char32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      int digit = 0;
      if (is_digit(c)) {
        digit = c - '0';
      } else if (c >= 'a' && c <= 'f') {
        digit = c - 'a' + 10;
      } else if (c >= 'A' && c <= 'F') {
        digit = c - 'A' + 10;
      } else {
        return error("expected four hex digits after \\u");
      }
      code = code * 16 + static_cast<char32_t>(digit);
    }
    return code;
  }

  Status unicode_escape(std::string& out) {
    QANAT_ASSIGN_OR_RETURN(char32_t code, four_digits());
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") return error("half of a surrogate pair");
      at_ += 2;
      QANAT_ASSIGN_OR_RETURN(const char32_t low, four_digits());
      if (low < 0xDC00 || low > 0xDFFF) return error("half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      return error("half of a surrogate pair");
    }
    if (code == 0) return error("a string may not hold the character NUL");
    put_utf8(code, out);
    return ok_status();
  }

  Status string(std::string& out) {
    for (++at_; at_ < text_.size();) {
      const char c = text_[at_++];
      if (c == '"') return ok_status();
      if (static_cast<unsigned char>(c) < 0x20) {
        return error("a string ends with its line; write \\n for a new line");
      }
      if (c != '\\') {
        out.push_back(c);
        continue;
      }
      const char escape = peek();
      ++at_;
      switch (escape) {
        case '"':
        case '\\':
        case '/':
          out.push_back(escape);
          break;
        case 'b':
          out.push_back('\b');
          break;
        case 'f':
          out.push_back('\f');
          break;
        case 'n':
          out.push_back('\n');
          break;
        case 'r':
          out.push_back('\r');
          break;
        case 't':
          out.push_back('\t');
          break;
        case 'u':
          QANAT_RETURN_IF_ERROR(unicode_escape(out));
          break;
        default:
          return error("unknown escape in a string");
      }
    }
    return error("a string is not closed");
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t nodes_ = 0;
  int line_ = 1;
};

// YAML 1.2's core schema, for scalars without quotes.
SpecNode::Type plain_type(std::string_view text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") {
    return SpecNode::Type::kNull;
  }
  if (equal_ignoring_case(text, "true") || equal_ignoring_case(text, "false"))
    return SpecNode::Type::kBool;
  bool integer = true;
  const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
  if (number_length(digits, integer) == digits.size() && !digits.empty()) {
    return integer ? SpecNode::Type::kInteger : SpecNode::Type::kNumber;
  }
  return SpecNode::Type::kString;
}

class YamlReader {
 public:
  Status read(const YAML::Node& from, SpecNode& to, int depth) {
    to.line = from.Mark().line + 1;
    if (depth > kMaxDepth) return at_line(to.line, "nested too deeply");
    if (++nodes_ > kMaxNodes) return at_line(to.line, "too many values in one file");
    if (from.IsScalar()) return scalar(from, to);
    if (from.IsSequence()) return sequence(from, to, depth);
    if (from.IsMap()) return map(from, to, depth);
    return ok_status();
  }

 private:
  static Status scalar(const YAML::Node& from, SpecNode& to) {
    to.text = from.Scalar();
    if (to.text.find('\0') != std::string::npos) {
      return at_line(to.line, "a string may not hold the character NUL");
    }
    to.plain = from.Tag() == "?";
    to.type = to.plain ? plain_type(to.text) : SpecNode::Type::kString;
    if (to.type == SpecNode::Type::kBool) to.text = to_lower(to.text);
    if (to.type == SpecNode::Type::kNull) to.text.clear();
    if (to.type == SpecNode::Type::kInteger && to.text.starts_with('+')) to.text.erase(0, 1);
    return ok_status();
  }

  Status sequence(const YAML::Node& from, SpecNode& to, int depth) {
    to.type = SpecNode::Type::kList;
    for (const YAML::Node& child : from) {
      SpecNode item;
      QANAT_RETURN_IF_ERROR(read(child, item, depth + 1));
      to.items.push_back(std::move(item));
    }
    return ok_status();
  }

  Status map(const YAML::Node& from, SpecNode& to, int depth) {
    to.type = SpecNode::Type::kMap;
    std::set<std::string> seen;
    for (const auto& pair : from) {
      const int line = pair.first.Mark().line + 1;
      if (!pair.first.IsScalar()) return at_line(line, "a field name must be plain text");
      SpecNode key;
      key.line = line;
      QANAT_RETURN_IF_ERROR(scalar(pair.first, key));
      if (!seen.insert(pair.first.Scalar()).second) {
        return at_line(line,
                       str_cat("field ", qanat::quoted(pair.first.Scalar()), " is given twice"));
      }
      SpecNode member;
      QANAT_RETURN_IF_ERROR(read(pair.second, member, depth + 1));
      member.line = line;
      to.keys.push_back(pair.first.Scalar());
      to.items.push_back(std::move(member));
    }
    return ok_status();
  }

  std::size_t nodes_ = 0;
};

// yaml-cpp gives documents without end, all beginning at the same place, for text that goes on with
// ',' where a document should: this goes through the text first, and stops there.
class YamlProgress : public YAML::EventHandler {
 public:
  static void check(const std::string& text) {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    YamlProgress progress;
    while (parser.HandleNextDocument(progress)) {
    }
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (mark.pos == last_) throw YAML::ParserException(mark, "a ',' belongs between [ ] or { }");
    last_ = mark.pos;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& /*mark*/, YAML::anchor_t /*anchor*/) override {}
  void OnAlias(const YAML::Mark& /*mark*/, YAML::anchor_t /*anchor*/) override {}
  void OnScalar(const YAML::Mark& /*mark*/, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                const std::string& /*value*/) override {}
  void OnSequenceStart(const YAML::Mark& /*mark*/, const std::string& /*tag*/,
                       YAML::anchor_t /*anchor*/, YAML::EmitterStyle::value /*style*/) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& /*mark*/, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                  YAML::EmitterStyle::value /*style*/) override {}
  void OnMapEnd() override {}

 private:
  int last_ = -1;
};

Result<std::vector<SpecNode>> parse_yaml(std::string_view text) {
  std::vector<SpecNode> out;
  try {
    YamlProgress::check(std::string(text));
    YamlReader reader;
    for (const YAML::Node& document : YAML::LoadAll(std::string(text))) {
      SpecNode node;
      QANAT_RETURN_IF_ERROR(reader.read(document, node, 0));
      out.push_back(std::move(node));
    }
  } catch (const YAML::Exception& e) {
    return at_line(std::max(e.mark.line + 1, 1), str_cat("not valid YAML: ", e.msg));
  } catch (const std::exception& e) {
    return invalid_argument(str_cat("not valid YAML: ", e.what()));
  }
  return out;
}

void write_json(const SpecNode& node, std::string& out) {
  const auto write_string = [&](const std::string& text) { out += nlohmann::json(text).dump(); };
  switch (node.type) {
    case SpecNode::Type::kNull:
      out += "null";
      return;
    case SpecNode::Type::kBool:
    case SpecNode::Type::kInteger:
    case SpecNode::Type::kNumber:
      out += node.text;
      return;
    case SpecNode::Type::kString:
      write_string(node.text);
      return;
    case SpecNode::Type::kList:
    case SpecNode::Type::kMap:
      break;
  }
  const bool map = node.type == SpecNode::Type::kMap;
  out += map ? '{' : '[';
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    if (i > 0) out += ',';
    if (map) {
      write_string(node.keys[i]);
      out += ':';
    }
    write_json(node.items[i], out);
  }
  out += map ? '}' : ']';
}

}  // namespace

const SpecNode* SpecNode::find(std::string_view name) const {
  const std::vector<std::string>& spelled = names.empty() ? keys : names;
  for (std::size_t i = 0; i < spelled.size(); ++i) {
    if (spelled[i] == name) return &items[i];
  }
  return nullptr;
}

std::string_view type_name(SpecNode::Type type) {
  switch (type) {
    case SpecNode::Type::kNull:
      return "nothing";
    case SpecNode::Type::kBool:
      return "true or false";
    case SpecNode::Type::kInteger:
      return "a whole number";
    case SpecNode::Type::kNumber:
      return "a number";
    case SpecNode::Type::kString:
      return "a string";
    case SpecNode::Type::kList:
      return "a list";
    case SpecNode::Type::kMap:
      return "an object";
  }
  return "";
}

Result<std::vector<SpecNode>> parse_spec_text(std::string_view text) {
  if (text.size() > kMaxSpecText) {
    return too_large(
        str_cat("the spec is ", text.size(), " bytes long; the limit is ", kMaxSpecText));
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  // A NUL is no text either, and yaml-cpp takes one near the beginning for UTF-16.
  if (!is_utf8(text) || text.find('\0') != std::string_view::npos)
    return invalid_argument("the spec is not UTF-8 text");
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && (text[first] == '{' || text[first] == '[');
  QANAT_ASSIGN_OR_RETURN(std::vector<SpecNode> parsed,
                         json ? JsonParser(text).documents() : parse_yaml(text));
  std::vector<SpecNode> out;
  for (SpecNode& node : parsed) {
    if (node.type == SpecNode::Type::kList) {
      for (SpecNode& item : node.items) out.push_back(std::move(item));
    } else if (node.type != SpecNode::Type::kNull) {
      out.push_back(std::move(node));
    }
  }
  return out;
}

std::string to_json(const SpecNode& node) {
  std::string out;
  write_json(node, out);
  return out;
}

}  // namespace qanat::api
