// The vocabulary of HTTP that server and client share: methods, headers, percent-coding, queries,
// URLs, byte ranges. Pure functions and plain values; everything here takes bytes from strangers
// and is fuzzed (tests/fuzz/http_range_url_fuzz.cc). Sources: RFC 9110 (semantics), RFC 9112
// (HTTP/1.1), RFC 3986 (URIs), WHATWG URL for form-encoded queries.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::net {

enum class Method { kGet, kHead, kPost, kPut, kDelete, kPatch, kOptions, kOther };
std::string_view method_name(Method method);  // kOther is ""
Method method_from_name(std::string_view name);

// Ordered; names compare without case; a name may occur more than once.
class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<std::pair<std::string, std::string>> fields) : fields_(fields) {}

  // Value of the first field of that name, or "" when there is none.
  std::string_view get(std::string_view name) const;
  bool has(std::string_view name) const;
  // Whether a comma-separated field (Connection, Expect) holds the token, without case.
  bool has_token(std::string_view name, std::string_view token) const;
  void add(std::string name, std::string value);
  void set(std::string name, std::string value);  // replaces all of that name
  void remove(std::string_view name);
  void clear() { fields_.clear(); }
  const std::vector<std::pair<std::string, std::string>>& fields() const { return fields_; }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

// A field name is an RFC 9110 token; a value holds no CR, LF or NUL. Who builds a header from data
// checks it (the server and the client refuse to send others).
bool valid_header_name(std::string_view name);
bool valid_header_value(std::string_view value);

// Percent-coding. Decoding refuses a '%' that is not followed by two hex digits; the result may be
// any bytes.
Result<std::string> percent_decode(std::string_view text);
std::string encode_path_segment(std::string_view segment);  // encodes '/' too
std::string encode_path(std::string_view path);             // keeps '/'
std::string encode_query_part(std::string_view text);       // a name or a value

// The part after '?', decoded. '+' is a space. Ordered; a name may occur more than once.
class Query {
 public:
  static Result<Query> parse(std::string_view text);

  // Value of the first parameter of that name; nothing when absent. "flag" without '=' has the
  // value "".
  std::optional<std::string> get(std::string_view name) const;
  std::string get_or(std::string_view name, std::string_view otherwise) const;
  std::vector<std::string> get_all(std::string_view name) const;
  // "", "true", "1" are true; "false", "0" and absence are false; anything else is an error that
  // names the parameter.
  Result<bool> get_bool(std::string_view name) const;
  // An unsigned decimal number, or `otherwise` when absent.
  Result<uint64_t> get_uint(std::string_view name, uint64_t otherwise) const;
  bool has(std::string_view name) const { return get(name).has_value(); }
  void add(std::string name, std::string value);
  bool empty() const { return parameters_.empty(); }
  const std::vector<std::pair<std::string, std::string>>& parameters() const { return parameters_; }
  std::string encode() const;  // "a=b&c=d", without '?'

 private:
  std::vector<std::pair<std::string, std::string>> parameters_;
};

// What is known of a request when its header is in.
struct RequestHead {
  Method method = Method::kOther;
  std::string method_text;  // as sent
  std::string target;       // as sent: path and query, still encoded
  std::string path;         // still encoded, begins with '/'
  std::string query_text;   // still encoded, without '?'
  Headers headers;
  std::optional<uint64_t> content_length;  // nothing: chunked (see has_body) or no body
  bool has_body = false;
  bool keep_alive = false;
  int version = 11;

  Result<Query> query() const { return Query::parse(query_text); }
};

// Splits a target in origin form ("/a/b?c=d") or absolute form into path and query. "*" and others
// are an error.
Status split_target(std::string_view target, std::string& path, std::string& query);

// http://host[:port]/path?query, https://..., and unix:/absolute/socket (path is then "/"). The
// fragment is dropped. User names and passwords in a URL are refused.
struct Url {
  std::string scheme;       // "http", "https", "unix"
  std::string host;         // lower case, without brackets for IPv6
  uint16_t port = 0;        // of the scheme when not given
  std::string path = "/";   // still encoded; begins with '/'
  std::string query_text;   // still encoded
  std::string unix_socket;  // for "unix"

  static Result<Url> parse(std::string_view text);
  // A Location header against this URL (absolute, "//host/x", "/x", "x", "?x").
  Result<Url> resolve(std::string_view reference) const;
  std::string target() const;     // path and query
  std::string authority() const;  // "host" or "host:port", brackets for IPv6: the Host header
  std::string to_string() const;
};

// The Range header of a request against a representation of `size` bytes.
struct ByteRange {
  enum class Kind {
    kWhole,  // no range, or one that a server may ignore (unknown unit, several ranges, malformed):
             // answer 200
    kPart,   // answer 206 with `first` and `length` (> 0)
    kUnsatisfiable,  // answer 416 with "Content-Range: bytes */size"
  };
  Kind kind = Kind::kWhole;
  uint64_t first = 0;
  uint64_t length = 0;
};
ByteRange parse_range(std::string_view header, uint64_t size);
std::string content_range(const ByteRange& range, uint64_t size);

std::string_view reason_phrase(int status);
// Codes of Status and HTTP statuses, as listed in base/status.h.
int http_status(Code code);
Code code_from_http_status(int status);

}  // namespace qanat::net
