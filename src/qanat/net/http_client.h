// The HTTP/1.1 client of command line, worker and server: TCP, TLS and Unix sockets, kept-alive
// connections, streamed bodies both ways.
//
// Built on plain sockets with poll(), so every wait has a deadline and can be cancelled. Linking it
// pulls in neither name resolution nor TLS: both are injected (resolver.h, tls.h), and without them
// literal IP addresses and Unix sockets work. That is what the static worker uses.
//
// Thread safety: HttpClient may be used by many threads; a ClientResponse by one at a time.
// Errors: kUnavailable (could not connect, connection lost), kDeadlineExceeded, kCancelled,
// kPermissionDenied (address policy), kInvalidArgument (URL, header). An HTTP error status is not
// an error here: look at status().
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/net/address.h"
#include "qanat/net/http.h"
#include "qanat/net/http_server.h"
#include "qanat/net/stream.h"

namespace qanat::net {

struct ClientOptions {
  Resolver resolver;             // none: only literal addresses, "localhost" and Unix sockets
  TlsFactory tls;                // none: https is refused
  AddressPolicy address_policy;  // none: any address
  Milliseconds connect_timeout{10'000};  // name resolution, connecting and TLS handshake, each
  Milliseconds idle_timeout{60'000};     // no byte moves for so long
  Milliseconds keep_alive{30'000};       // an unused connection is kept for so long
  size_t max_idle_connections = 16;      // kept in all
  size_t max_header_bytes = 65536;
  std::string user_agent = "qanat";
};

// Gives the next bytes of a request body; writes at most `size` to `buffer`; 0 at the end. An error
// ends the request.
using BodySource = std::function<Result<size_t>(char* buffer, size_t size)>;

struct ClientRequest {
  Method method = Method::kGet;
  Url url;
  // When set, the connection is made to this Unix socket, whatever the URL's host says (that is
  // then the Host header).
  std::string unix_socket;
  Headers headers;
  // Passed with the header, for the server to use; -1: none. Unix sockets only. Borrowed.
  int descriptor = -1;
  // The body: `body`, or, if set, `source` (with `source_length`, else chunked). `rewind` lets a
  // source be sent a second time.
  std::string body;
  BodySource source;
  std::optional<uint64_t> source_length;
  std::optional<Milliseconds> total_timeout;  // from send() to the last byte of the answer
  std::optional<Milliseconds> idle_timeout;   // overrides the client's (long polls, event streams)
  int max_redirects =
      0;  // followed for GET and HEAD; credentials are dropped when the host changes
  bool expect_continue =
      false;  // wait for the server's word before sending the body (at most a second)
  std::shared_ptr<CancelSignal> cancel;
};

// The answer, its body still to be read. Destroying it before the end closes the connection.
class ClientResponse {
 public:
  virtual ~ClientResponse() = default;
  virtual int status() const = 0;
  bool ok() const { return status() >= 200 && status() < 300; }
  virtual const Headers& headers() const = 0;
  virtual std::optional<uint64_t> content_length() const = 0;
  // The URL that answered, after redirects.
  virtual const Url& url() const = 0;
  // The next bytes of the body; 0 at its end. A body that ends early is kUnavailable, never a short
  // success.
  virtual Result<size_t> read(char* buffer, size_t size) = 0;
  // kTooLarge beyond `limit`.
  Result<std::string> read_all(size_t limit);
};

class HttpClient {
 public:
  explicit HttpClient(ClientOptions options = {});
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Sends and waits for the header of the answer. A request that fails on a kept connection before
  // any byte of an answer is repeated once on a fresh one if its method is idempotent and its body
  // can be sent again.
  Result<std::unique_ptr<ClientResponse>> send(const ClientRequest& request);

  struct Impl;  // for http_client.cc alone

 private:
  std::shared_ptr<Impl> impl_;
};

// Reads server-sent events from an answer of type text/event-stream (WHATWG HTML, "Server-sent
// events").
class EventReader {
 public:
  using Source = std::function<Result<size_t>(char* buffer, size_t size)>;
  // `max_event_bytes` bounds one event; beyond it next() fails with kTooLarge.
  explicit EventReader(Source source, size_t max_event_bytes = 4 << 20);
  explicit EventReader(ClientResponse& response);

  // The next event; nothing when the stream has ended. Comments (heartbeats) are skipped. Name ""
  // is given as "message".
  Result<std::optional<Event>> next();

 private:
  Result<std::optional<std::string>> next_line();

  Source source_;
  size_t max_event_bytes_;
  std::string buffer_;
  size_t position_ = 0;
  bool ended_ = false;
  bool first_ = true;
  bool skip_newline_ = false;
  std::string last_id_;
};

}  // namespace qanat::net
