// Requests that claim to be signed, from strangers: no crash, and none is believed. What is signed
// here is believed, whatever its path and query are.
#include <cstdint>
#include <cstdlib>

#include "qanat/base/string.h"
#include "qanat/net/http_date.h"
#include "qanat/net/sigv4.h"

namespace net = qanat::net;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto secret_of = [](const std::string&) { return std::optional<std::string>("secret"); };
  constexpr int64_t kNow = 1'700'000'000'000;
  const auto lines = qanat::split(input, '\n');
  net::RequestHead head;
  head.method_text = "GET";
  head.path = qanat::str_cat("/", lines[0]);
  if (lines.size() > 1) head.query_text = lines[1];
  head.headers.set("Host", "h");
  if (lines.size() > 2) head.headers.set("Authorization", std::string(lines[2]));
  if (lines.size() > 3) head.headers.set("X-Amz-Date", std::string(lines[3]));
  head.headers.set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD");
  if (net::verify(head, secret_of, kNow).ok()) std::abort();

  (void)net::parse_http_date(input);
  if (const auto date = net::parse_compact_date(input); date.ok()) {
    if (net::format_compact_date(*date) != input) std::abort();
  }

  net::Url url = *net::Url::parse("http://h/");
  url.path = head.path;
  url.query_text = head.query_text;
  net::Headers headers;
  if (net::sign_request({"id", "secret", ""}, {"r", "s3"}, kNow, net::Method::kGet, url,
                        net::kUnsignedPayload, headers)
          .ok()) {
    head.headers = headers;
    if (!net::verify(head, secret_of, kNow).ok()) std::abort();
  }
  return 0;
}
