// URLs, targets, ranges, percent-coding and queries from strangers: no crash, and what is accepted
// comes back when it is written and read again.
#include <cstdint>
#include <cstdlib>

#include "qanat/net/address.h"
#include "qanat/net/http.h"

namespace net = qanat::net;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (auto url = net::Url::parse(input); url.ok() && url->scheme != "unix") {
    auto again = net::Url::parse(url->to_string());
    if (!again.ok() || again->to_string() != url->to_string()) std::abort();
    const size_t cut = input.find('\n');
    if (cut != std::string_view::npos) (void)url->resolve(input.substr(cut + 1));
  }
  static const net::Url kBase = *net::Url::parse("http://host/a/b?c");
  if (auto url = kBase.resolve(input); url.ok() && url->path.find("/../") != std::string::npos &&
                                       input.find(':') == std::string_view::npos &&
                                       !input.starts_with("//")) {
    std::abort();
  }
  if (auto decoded = net::percent_decode(input); decoded.ok()) {
    if (*net::percent_decode(net::encode_path_segment(*decoded)) != *decoded) std::abort();
  }
  if (auto query = net::Query::parse(input); query.ok()) {
    auto again = net::Query::parse(query->encode());
    // A parameter without a name and value is not written.
    if (!again.ok() || again->parameters().size() != query->parameters().size()) std::abort();
  }
  std::string path;
  std::string text;
  if (net::split_target(input, path, text).ok() && path[0] != '/') std::abort();
  const uint64_t length = size * 7;
  const auto range = net::parse_range(input, length);
  if (range.kind == net::ByteRange::Kind::kPart &&
      (range.length == 0 || range.length > length || range.first > length - range.length)) {
    std::abort();
  }
  if (auto address = net::IpAddress::parse(input)) {
    if (net::IpAddress::parse(address->to_string()) != address) std::abort();
  }
  return 0;
}
