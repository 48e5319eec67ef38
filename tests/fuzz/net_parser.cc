// HTTP messages in pieces of any size: no crash, and the same outcome as in one piece.
#include <cstdint>
#include <cstdlib>

#include "qanat/net/http_parser.h"

using qanat::net::HttpParser;

namespace {

struct Outcome {
  bool ok = true;
  bool header = false;
  bool done = false;
  std::string body;
  bool operator==(const Outcome&) const = default;
};

Outcome parse(HttpParser::Kind kind, std::string_view input, size_t step) {
  HttpParser parser(kind, 4096);
  Outcome out;
  std::string buffer;
  char piece[7];
  for (size_t at = 0; at < input.size() && out.ok && !out.done; at += step) {
    buffer += input.substr(at, step);
    if (!out.header) {
      auto used = parser.parse_header(buffer);
      out.ok = used.ok();
      if (!out.ok) break;
      out.header = parser.header_done();
      buffer.erase(0, *used);
    }
    while (out.header && !parser.done() && !buffer.empty()) {
      auto progress = parser.parse_body(buffer, piece, sizeof piece);
      out.ok = progress.ok();
      if (!out.ok) break;
      out.body.append(piece, progress->produced);
      buffer.erase(0, progress->consumed);
      if (progress->consumed == 0 && progress->produced == 0) break;
    }
    out.done = out.header && parser.done();
  }
  if (out.ok && !out.done) (void)parser.finish();
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 10000) return 0;
  const auto kind = (data[0] & 1) != 0 ? HttpParser::Kind::kRequest : HttpParser::Kind::kResponse;
  const std::string_view input(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Outcome whole = parse(kind, input, input.size() + 1);
  const Outcome pieces = parse(kind, input, 1 + data[1] % 16);
  // In pieces a wrong message may be refused later, but never read as another.
  if (whole.ok && pieces.ok && !(whole == pieces)) std::abort();
  return 0;
}
