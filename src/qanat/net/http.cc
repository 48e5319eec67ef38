#include "qanat/net/http.h"

#include <algorithm>
#include <limits>

#include "qanat/base/string.h"
#include "qanat/net/address.h"

namespace qanat::net {
namespace {

constexpr std::pair<Method, std::string_view> kMethods[] = {
    {Method::kGet, "GET"},         {Method::kHead, "HEAD"},     {Method::kPost, "POST"},
    {Method::kPut, "PUT"},         {Method::kDelete, "DELETE"}, {Method::kPatch, "PATCH"},
    {Method::kOptions, "OPTIONS"},
};

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string encode(std::string_view text, std::string_view keep) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    // RFC 3986 unreserved, and what the caller allows in its place.
    if (is_alphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~' ||
        keep.find(c) != std::string_view::npos) {
      out += c;
    } else {
      auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

Result<std::string> decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '+' && plus_is_space) {
      out += ' ';
    } else if (c != '%') {
      out += c;
    } else {
      int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
      int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
      if (high < 0 || low < 0) {
        return invalid_argument("a '%' in the URL is not followed by two hex digits",
                                "write a literal % as %25");
      }
      out += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return out;
}

// Visible ASCII: what may stand in a request line. Others must come percent-encoded.
bool is_visible(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

// Decimal digits only, without overflow; nothing otherwise.
std::optional<uint64_t> parse_digits(std::string_view text) {
  if (text.empty()) return std::nullopt;
  uint64_t value = 0;
  for (char c : text) {
    if (!is_digit(c)) return std::nullopt;
    auto digit = static_cast<uint64_t>(c - '0');
    if (value > (std::numeric_limits<uint64_t>::max() - digit) / 10) return std::nullopt;
    value = value * 10 + digit;
  }
  return value;
}

// RFC 3986 section 5.2.4, on an encoded path.
std::string remove_dot_segments(std::string_view path) {
  std::vector<std::string_view> kept;
  bool directory = true;
  for (std::string_view part : split(path.substr(path.starts_with('/') ? 1 : 0), '/')) {
    directory = part.empty() || part == "." || part == "..";
    if (part == ".") continue;
    if (part == "..") {
      if (!kept.empty()) kept.pop_back();
      continue;
    }
    kept.push_back(part);
  }
  // A trailing "." or ".." names a directory; an empty last part is in `kept` already.
  if (directory && (kept.empty() || !kept.back().empty())) kept.push_back("");
  return "/" + join(kept, "/");
}

Status check_host(std::string_view host) {
  if (host.empty()) return invalid_argument("the URL has no host");
  if (host.size() > 253) return invalid_argument("the host of the URL is too long");
  for (char c : host) {
    if (!is_alphanumeric(c) && c != '-' && c != '.' && c != '_') {
      return invalid_argument(
          str_cat("the host of the URL holds ", qanat::quoted(std::string(1, c))));
    }
  }
  return ok_status();
}

// "host", "host:port", "[v6]", "[v6]:port" into `url`.
Status parse_authority(std::string_view authority, Url& url) {
  if (authority.find('@') != std::string_view::npos) {
    return invalid_argument("a user name or password in a URL is refused",
                            "give credentials in another way");
  }
  std::string_view port;
  bool has_port = false;
  if (authority.starts_with('[')) {
    size_t end = authority.find(']');
    if (end == std::string_view::npos) return invalid_argument("the URL lacks a ']'");
    std::string_view inside = authority.substr(1, end - 1);
    auto address = IpAddress::parse(inside);
    if (!address || !address->v6) {
      return invalid_argument("the URL has no IPv6 address in its brackets");
    }
    url.host = address->to_string();
    std::string_view after = authority.substr(end + 1);
    if (!after.empty() && after[0] != ':') return invalid_argument("the URL's port is malformed");
    has_port = !after.empty();
    if (has_port) port = after.substr(1);
  } else {
    auto colon = authority.find(':');
    url.host = to_lower(authority.substr(0, colon));
    QANAT_RETURN_IF_ERROR(check_host(url.host));
    has_port = colon != std::string_view::npos;
    if (has_port) port = authority.substr(colon + 1);
  }
  url.port = url.scheme == "https" ? 443 : 80;
  if (has_port && !port.empty()) {
    auto number = parse_digits(port);
    if (!number || *number == 0 || *number > 65535) {
      return invalid_argument(str_cat("the URL's port ", qanat::quoted(port), " is not a port"));
    }
    url.port = static_cast<uint16_t>(*number);
  }
  return ok_status();
}

}  // namespace

std::string_view method_name(Method method) {
  for (auto& [value, name] : kMethods) {
    if (value == method) return name;
  }
  return "";
}

Method method_from_name(std::string_view name) {
  for (auto& [value, text] : kMethods) {
    if (text == name) return value;
  }
  return Method::kOther;
}

// ---- Headers ----

std::string_view Headers::get(std::string_view name) const {
  for (auto& [key, value] : fields_) {
    if (equal_ignoring_case(key, name)) return value;
  }
  return {};
}

bool Headers::has(std::string_view name) const {
  return std::any_of(fields_.begin(), fields_.end(),
                     [name](const auto& field) { return equal_ignoring_case(field.first, name); });
}

bool Headers::has_token(std::string_view name, std::string_view token) const {
  for (auto& [key, value] : fields_) {
    if (!equal_ignoring_case(key, name)) continue;
    for (std::string_view part : split(value, ',')) {
      if (equal_ignoring_case(trim(part), token)) return true;
    }
  }
  return false;
}

void Headers::add(std::string name, std::string value) {
  fields_.emplace_back(std::move(name), std::move(value));
}

void Headers::set(std::string name, std::string value) {
  remove(name);
  add(std::move(name), std::move(value));
}

void Headers::remove(std::string_view name) {
  std::erase_if(fields_,
                [name](const auto& field) { return equal_ignoring_case(field.first, name); });
}

bool valid_header_name(std::string_view name) {
  static constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return is_alphanumeric(c) || kMarks.find(c) != std::string_view::npos;
  });
}

bool valid_header_value(std::string_view value) {
  return std::all_of(value.begin(), value.end(), [](char c) {
    auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

// ---- Percent-coding and queries ----

Result<std::string> percent_decode(std::string_view text) { return decode(text, false); }
std::string encode_path_segment(std::string_view segment) { return encode(segment, ""); }
std::string encode_path(std::string_view path) { return encode(path, "/"); }
std::string encode_query_part(std::string_view text) { return encode(text, "/:@"); }

Result<Query> Query::parse(std::string_view text) {
  Query query;
  if (text.empty()) return query;
  for (std::string_view part : split(text, '&')) {
    if (part.empty()) continue;
    auto [name, value] = split_once(part, '=');
    QANAT_ASSIGN_OR_RETURN(std::string decoded_name, decode(name, true));
    QANAT_ASSIGN_OR_RETURN(std::string decoded_value, decode(value, true));
    query.add(std::move(decoded_name), std::move(decoded_value));
  }
  return query;
}

void Query::add(std::string name, std::string value) {
  parameters_.emplace_back(std::move(name), std::move(value));
}

std::optional<std::string> Query::get(std::string_view name) const {
  for (auto& [key, value] : parameters_) {
    if (key == name) return value;
  }
  return std::nullopt;
}

std::string Query::get_or(std::string_view name, std::string_view otherwise) const {
  return get(name).value_or(std::string(otherwise));
}

std::vector<std::string> Query::get_all(std::string_view name) const {
  std::vector<std::string> out;
  for (auto& [key, value] : parameters_) {
    if (key == name) out.push_back(value);
  }
  return out;
}

Result<bool> Query::get_bool(std::string_view name) const {
  auto value = get(name);
  if (!value || *value == "false" || *value == "0") return false;
  if (value->empty() || *value == "true" || *value == "1") return true;
  return invalid_argument(str_cat("query parameter ", name, " is ", qanat::quoted(*value),
                                  "; it must be true or false"));
}

Result<uint64_t> Query::get_uint(std::string_view name, uint64_t otherwise) const {
  auto value = get(name);
  if (!value) return otherwise;
  if (auto number = parse_digits(*value)) return *number;
  return invalid_argument(
      str_cat("query parameter ", name, " is ", qanat::quoted(*value), "; it must be a number"));
}

std::string Query::encode() const {
  std::string out;
  for (auto& [name, value] : parameters_) {
    if (!out.empty()) out += '&';
    str_append(out, encode_query_part(name), "=", encode_query_part(value));
  }
  return out;
}

// ---- Targets and URLs ----

Status split_target(std::string_view target, std::string& path, std::string& query) {
  if (!is_visible(target)) {
    return invalid_argument("the request's target holds characters that must be percent-encoded");
  }
  // Absolute form, as sent to proxies: only its path and query matter here.
  for (std::string_view scheme : {"http://", "https://"}) {
    if (target.size() >= scheme.size() &&
        equal_ignoring_case(target.substr(0, scheme.size()), scheme)) {
      target.remove_prefix(scheme.size());
      size_t slash = target.find_first_of("/?");
      target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
      break;
    }
  }
  target = target.substr(0, target.find('#'));
  auto [before, after] = split_once(target, '?');
  path = before.empty() ? std::string_view("/") : before;
  query = after;
  if (path[0] != '/') return invalid_argument("the request's target must begin with a slash");
  return ok_status();
}

Result<Url> Url::parse(std::string_view text) {
  if (text.size() > 65536) return invalid_argument("the URL is too long");
  Url url;
  if (text.starts_with("unix:")) {
    url.scheme = "unix";
    url.unix_socket = text.substr(5);
    if (url.unix_socket.starts_with("///")) url.unix_socket.erase(0, 2);
    if (!url.unix_socket.starts_with('/') || url.unix_socket.find('\0') != std::string::npos) {
      return invalid_argument("unix: must be followed by an absolute path");
    }
    url.host = "localhost";
    url.port = 80;
    return url;
  }
  if (!is_visible(text)) {
    return invalid_argument("the URL holds spaces, control characters or characters beyond ASCII",
                            "percent-encode them");
  }
  size_t colon = text.find("://");
  if (colon == std::string_view::npos) {
    return invalid_argument(str_cat(qanat::quoted(text.substr(0, 100)), " is not a URL"),
                            "write it with its scheme: http://HOST:PORT or https://HOST");
  }
  url.scheme = to_lower(text.substr(0, colon));
  if (url.scheme != "http" && url.scheme != "https") {
    return invalid_argument(str_cat("unknown scheme ", qanat::quoted(url.scheme.substr(0, 100))),
                            "http, https and unix are known");
  }
  std::string_view rest = text.substr(colon + 3);
  size_t end = rest.find_first_of("/?#");
  QANAT_RETURN_IF_ERROR(parse_authority(rest.substr(0, end), url));
  if (end == std::string_view::npos) return url;
  std::string_view target = rest.substr(end);
  target = target.substr(0, target.find('#'));
  auto [path, query] = split_once(target, '?');
  url.path = path.empty() ? std::string("/") : std::string(path);
  url.query_text = query;
  return url;
}

Result<Url> Url::resolve(std::string_view reference) const {
  reference = reference.substr(0, reference.find('#'));
  if (!is_visible(reference)) return invalid_argument("the redirect holds characters beyond ASCII");
  size_t colon = reference.find(':');
  if (colon != std::string_view::npos && reference.find_first_of("/?") > colon) {
    return parse(reference);
  }
  if (reference.starts_with("//")) return parse(str_cat(scheme, ":", reference));
  Url out = *this;
  if (reference.empty()) return out;
  auto [new_path, new_query] = split_once(reference, '?');
  out.query_text = new_query;
  if (new_path.empty()) return out;
  if (new_path[0] == '/') {
    out.path = remove_dot_segments(new_path);
  } else {
    out.path = remove_dot_segments(str_cat(path.substr(0, path.rfind('/') + 1), new_path));
  }
  return out;
}

std::string Url::target() const {
  return query_text.empty() ? path : str_cat(path, "?", query_text);
}

std::string Url::authority() const {
  if (scheme == "unix") return host;
  std::string name = host.find(':') == std::string::npos ? host : str_cat("[", host, "]");
  bool usual = port == (scheme == "https" ? 443 : 80);
  return usual ? name : str_cat(name, ":", port);
}

std::string Url::to_string() const {
  if (scheme == "unix") return str_cat("unix:", unix_socket);
  return str_cat(scheme, "://", authority(), target());
}

// ---- Ranges (RFC 9110 section 14) ----

ByteRange parse_range(std::string_view header, uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  ByteRange whole{ByteRange::Kind::kWhole, 0, size};
  ByteRange unsatisfiable{ByteRange::Kind::kUnsatisfiable, 0, 0};
  header = trim(header);
  if (header.size() < kUnit.size() || !equal_ignoring_case(header.substr(0, kUnit.size()), kUnit)) {
    return whole;
  }
  std::string_view spec = trim(header.substr(kUnit.size()));
  size_t dash = spec.find('-');
  if (dash == std::string_view::npos) return whole;
  std::string_view first_text = trim(spec.substr(0, dash));
  std::string_view last_text = trim(spec.substr(dash + 1));
  if (first_text.empty()) {
    auto suffix = parse_digits(last_text);
    if (!suffix) return whole;
    if (*suffix == 0 || size == 0) return unsatisfiable;
    uint64_t length = std::min(*suffix, size);
    return {ByteRange::Kind::kPart, size - length, length};
  }
  auto first = parse_digits(first_text);
  if (!first) return whole;
  uint64_t last = std::numeric_limits<uint64_t>::max();
  if (!last_text.empty()) {
    auto given = parse_digits(last_text);
    if (!given || *given < *first) return whole;
    last = *given;
  }
  if (*first >= size) return unsatisfiable;
  last = std::min(last, size - 1);
  return {ByteRange::Kind::kPart, *first, last - *first + 1};
}

std::string content_range(const ByteRange& range, uint64_t size) {
  if (range.kind != ByteRange::Kind::kPart) return str_cat("bytes */", size);
  return str_cat("bytes ", range.first, "-", range.first + range.length - 1, "/", size);
}

// ---- Statuses ----

std::string_view reason_phrase(int status) {
  static constexpr std::pair<int, std::string_view> kPhrases[] = {
      {100, "Continue"},
      {101, "Switching Protocols"},
      {200, "OK"},
      {201, "Created"},
      {202, "Accepted"},
      {204, "No Content"},
      {206, "Partial Content"},
      {301, "Moved Permanently"},
      {302, "Found"},
      {303, "See Other"},
      {304, "Not Modified"},
      {307, "Temporary Redirect"},
      {308, "Permanent Redirect"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {406, "Not Acceptable"},
      {408, "Request Timeout"},
      {409, "Conflict"},
      {410, "Gone"},
      {411, "Length Required"},
      {412, "Precondition Failed"},
      {413, "Content Too Large"},
      {414, "URI Too Long"},
      {415, "Unsupported Media Type"},
      {416, "Range Not Satisfiable"},
      {417, "Expectation Failed"},
      {421, "Misdirected Request"},
      {422, "Unprocessable Content"},
      {429, "Too Many Requests"},
      {431, "Request Header Fields Too Large"},
      {499, "Client Closed Request"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {502, "Bad Gateway"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
      {505, "HTTP Version Not Supported"},
      {507, "Insufficient Storage"},
  };
  for (auto& [code, phrase] : kPhrases) {
    if (code == status) return phrase;
  }
  return "";
}

int http_status(Code code) {
  switch (code) {
    case Code::kOk:
      return 200;
    case Code::kInvalidArgument:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition:
    case Code::kConflict:
      return 409;
    case Code::kGone:
      return 410;
    case Code::kTooLarge:
      return 413;
    case Code::kResourceExhausted:
      return 507;
    case Code::kUnavailable:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kCancelled:
      return 499;
    case Code::kDataLoss:
    case Code::kInternal:
      return 500;
  }
  return 500;
}

Code code_from_http_status(int status) {
  switch (status) {
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 405:
    case 409:
    case 412:
      return Code::kFailedPrecondition;
    case 410:
      return Code::kGone;
    case 413:
    case 431:
      return Code::kTooLarge;
    case 429:
    case 502:
    case 503:
      return Code::kUnavailable;
    case 408:
    case 504:
      return Code::kDeadlineExceeded;
    case 499:
      return Code::kCancelled;
    case 507:
      return Code::kResourceExhausted;
    default:
      break;
  }
  if (status >= 200 && status < 300) return Code::kOk;
  if (status >= 400 && status < 500) return Code::kInvalidArgument;
  return Code::kInternal;
}

}  // namespace qanat::net
