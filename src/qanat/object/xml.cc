#include "qanat/object/xml.h"

#include "qanat/base/string.h"

namespace qanat::object {
namespace {

constexpr int kMaxDepth = 32;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.' || c == ':' || static_cast<unsigned char>(c) >= 0x80;
}

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<XmlElement> document() {
    (void)take("\xef\xbb\xbf");  // a byte order mark, which Azure sends
    QANAT_RETURN_IF_ERROR(skip_between());
    if (!take("<")) return error("there is no element");
    XmlElement root;
    QANAT_RETURN_IF_ERROR(element(root, 1));
    QANAT_RETURN_IF_ERROR(skip_between());
    if (position_ != text_.size()) return error("something follows the last element");
    return root;
  }

 private:
  Status error(std::string_view what) const {
    return data_loss(str_cat("XML, byte ", position_, ": ", what));
  }

  std::string_view rest() const { return text_.substr(position_); }
  bool take(std::string_view what) {
    if (!rest().starts_with(what)) return false;
    position_ += what.size();
    return true;
  }
  void skip_space() {
    while (position_ < text_.size() && is_space(text_[position_])) ++position_;
  }
  Status skip_past(std::string_view end, std::string_view what) {
    const size_t at = text_.find(end, position_);
    if (at == std::string_view::npos) return error(str_cat(what, " does not end"));
    position_ = at + end.size();
    return ok_status();
  }

  // Comments, processing instructions and spaces.
  Status skip_between() {
    while (true) {
      skip_space();
      if (take("<?")) {
        QANAT_RETURN_IF_ERROR(skip_past("?>", "a processing instruction"));
      } else if (take("<!--")) {
        QANAT_RETURN_IF_ERROR(skip_past("-->", "a comment"));
      } else {
        return ok_status();
      }
    }
  }

  Result<std::string_view> name() {
    const size_t begin = position_;
    while (position_ < text_.size() && is_name_character(text_[position_])) ++position_;
    if (position_ == begin) return error("a name is missing");
    return text_.substr(begin, position_ - begin);
  }

  // Behind a start tag's name. True: the element ended with it ("/>").
  Result<bool> attributes() {
    while (true) {
      const size_t before = position_;
      skip_space();
      if (take("/>")) return true;
      if (take(">")) return false;
      if (position_ == before) return error("a tag does not end");
      QANAT_RETURN_IF_ERROR(name().status());
      skip_space();
      if (!take("=")) return error("an attribute has no value");
      skip_space();
      const char quote = position_ < text_.size() ? text_[position_] : '\0';
      if (quote != '"' && quote != '\'') return error("an attribute's value is not quoted");
      ++position_;
      QANAT_RETURN_IF_ERROR(skip_past(std::string_view(&quote, 1), "an attribute"));
    }
  }

  // Behind '&'.
  Status entity(std::string& out) {
    const size_t end = rest().substr(0, 12).find(';');
    if (end == std::string_view::npos) return error("an entity does not end");
    const std::string_view name = rest().substr(0, end);
    if (name == "lt") {
      out += '<';
    } else if (name == "gt") {
      out += '>';
    } else if (name == "amp") {
      out += '&';
    } else if (name == "quot") {
      out += '"';
    } else if (name == "apos") {
      out += '\'';
    } else {
      QANAT_RETURN_IF_ERROR(character(name, out));
    }
    position_ += end + 1;
    return ok_status();
  }

  // "#65" or "#x41".
  Status character(std::string_view name, std::string& out) {
    if (name.size() < 2 || name[0] != '#') return error("an unknown entity");
    const bool hex = name[1] == 'x';
    uint32_t code = 0;
    const std::string_view digits = name.substr(hex ? 2 : 1);
    if (digits.empty()) return error("an entity without a number");
    for (const char c : digits) {
      uint32_t digit;
      if (c >= '0' && c <= '9') {
        digit = static_cast<uint32_t>(c - '0');
      } else if (hex && c >= 'a' && c <= 'f') {
        digit = static_cast<uint32_t>(c - 'a') + 10;
      } else if (hex && c >= 'A' && c <= 'F') {
        digit = static_cast<uint32_t>(c - 'A') + 10;
      } else {
        return error("an entity's number is malformed");
      }
      code = code * (hex ? 16 : 10) + digit;
      if (code > 0x10ffff) return error("an entity is no character");
    }
    if (code == 0 || (code >= 0xd800 && code < 0xe000)) return error("an entity is no character");
    append_utf8(out, code);
    return ok_status();
  }

  // Behind '<' of a start tag.
  Status element(XmlElement& out, int depth) {
    if (depth > kMaxDepth) return error("elements are nested too deep");
    if (++elements_ > kMaxXmlElements) return error("there are too many elements");
    QANAT_ASSIGN_OR_RETURN(const std::string_view full, name());
    const size_t colon = full.rfind(':');
    out.name = full.substr(colon == std::string_view::npos ? 0 : colon + 1);
    if (out.name.empty()) return error("a name is missing");
    QANAT_ASSIGN_OR_RETURN(const bool empty, attributes());
    if (empty) return ok_status();
    while (position_ < text_.size()) {
      if (take("</")) {
        if (!take(full)) return error(str_cat("element ", full, " is closed by another name"));
        skip_space();
        return take(">") ? ok_status() : error("a tag does not end");
      }
      if (take("<!--")) {
        QANAT_RETURN_IF_ERROR(skip_past("-->", "a comment"));
      } else if (take("<![CDATA[")) {
        const size_t begin = position_;
        QANAT_RETURN_IF_ERROR(skip_past("]]>", "CDATA"));
        out.text += text_.substr(begin, position_ - 3 - begin);
      } else if (take("<?")) {
        QANAT_RETURN_IF_ERROR(skip_past("?>", "a processing instruction"));
      } else if (take("<")) {
        out.children.emplace_back();
        QANAT_RETURN_IF_ERROR(element(out.children.back(), depth + 1));
      } else if (take("&")) {
        QANAT_RETURN_IF_ERROR(entity(out.text));
      } else {
        const size_t end = std::min(text_.find_first_of("<&", position_), text_.size());
        out.text += text_.substr(position_, end - position_);
        position_ = end;
      }
    }
    return error(str_cat("element ", full, " does not end"));
  }

  const std::string_view text_;
  size_t position_ = 0;
  size_t elements_ = 0;
};

}  // namespace

const XmlElement* XmlElement::child(std::string_view wanted) const {
  for (const XmlElement& element : children) {
    if (element.name == wanted) return &element;
  }
  return nullptr;
}

std::string_view XmlElement::child_text(std::string_view wanted) const {
  const XmlElement* found = child(wanted);
  return found == nullptr ? std::string_view() : trim(found->text);
}

Result<XmlElement> parse_xml(std::string_view text) { return Parser(text).document(); }

std::string escape_xml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\r':
        out += "&#13;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace qanat::object
