// Incremental parser of HTTP/1.1 messages, around Boost.Beast's (which its .cc alone includes).
// Does no input itself: it is given bytes and says how many it took. Used by server and client. Not
// thread safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/net/http.h"

namespace qanat::net {

class HttpParser {
 public:
  enum class Kind { kRequest, kResponse };
  HttpParser(Kind kind, size_t max_header_bytes);
  ~HttpParser();
  HttpParser(const HttpParser&) = delete;
  HttpParser& operator=(const HttpParser&) = delete;

  // For a response to HEAD: there is no body, whatever the header says. Before the first byte.
  void expect_no_body();

  // Parses a header at the beginning of `input`, which must hold all bytes of it that came so far.
  // 0: it is not complete yet. Otherwise the header's length, and header_done(). Errors: kTooLarge
  // (over the limit), kInvalidArgument (malformed).
  Result<size_t> parse_header(std::string_view input);
  bool header_done() const;

  struct Progress {
    size_t consumed = 0;  // of input
    size_t produced = 0;  // into output
  };
  // Parses body bytes. Neither consumed nor produced: more input is needed.
  Result<Progress> parse_body(std::string_view input, char* output, size_t output_size);
  // So many bytes of the body come next, as the peer has said; 0 if it has not.
  uint64_t promised() const;
  // The whole message has been parsed.
  bool done() const;
  // The peer has closed. Completes a body that ends with the connection; otherwise an error
  // (kInvalidArgument): the message is cut off.
  Status finish();

  // Valid once header_done().
  const RequestHead& request() const;  // kRequest
  int status() const;                  // kResponse
  const Headers& headers() const;
  bool keep_alive() const;  // what the message allows
  bool chunked() const;
  std::optional<uint64_t> content_length() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qanat::net
