// An HTTP/1.1 server on TCP and Unix sockets.
//
// How it works: one thread waits (epoll) for all connections that are idle, sending us a header,
// waiting for a PendingResponse or carrying an EventStream; none of these holds a thread. When a
// header is complete, a thread of a bounded pool gets the connection and runs the handler, which
// reads the body from and writes the answer to the socket directly, each wait bounded by a
// deadline: back-pressure is the socket's own, and memory is one buffer a connection. Afterwards
// the connection goes back to the waiting thread (keep-alive; pipelined requests are answered one
// after another).
//
// Lifetime: listeners may be added and removed at any time from any thread. stop() refuses new
// connections, lets running handlers finish for a while, then cuts them off; the destructor does
// the same. Handles (PendingResponse, EventStream) may outlive the server.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/net/http.h"

namespace qanat::net {

using Milliseconds = std::chrono::milliseconds;

struct ServerOptions {
  int max_handler_threads = 16;             // handlers that run at the same time
  int max_queued_requests = 1024;           // requests waiting for a thread; beyond: 503
  int max_connections = 4096;               // beyond: accepting pauses
  int max_connections_a_listener = 4096;    // beyond: closed at once
  size_t max_header_bytes = 65536;          // beyond: 431
  Milliseconds header_timeout{15'000};      // from the first byte of a header to its end
  Milliseconds keep_alive_timeout{75'000};  // between requests
  Milliseconds read_timeout{60'000};        // a body's next bytes
  Milliseconds write_timeout{60'000};       // the peer takes nothing for so long
  Milliseconds heartbeat{15'000};  // a comment on idle event streams, so that dead peers are found
  size_t max_drain_bytes =
      1 << 20;  // of a body the handler did not read; beyond: the connection closes
  std::string server_name = "qanat";
};

// One request, used by the handler's thread only, until the handler returns.
class Request {
 public:
  virtual ~Request() = default;
  virtual const RequestHead& head() const = 0;
  // The next bytes of the body, at most `size`; 0 at its end. Sends "100 Continue" first when the
  // client waits for it. Errors: kInvalidArgument (malformed), kCancelled (the client went away
  // mid-body), kDeadlineExceeded.
  virtual Result<size_t> read(char* buffer, size_t size) = 0;
  // The whole body; kTooLarge when it has more than `limit` bytes.
  Result<std::string> read_all(size_t limit);
  // "127.0.0.1:1234", or "unix" for a Unix socket.
  virtual const std::string& peer() const = 0;
  // True when the peer has closed its side: long work for it can be given up. One system call.
  virtual bool client_gone() = 0;
  // A descriptor that the peer passed with the header, where the listener takes them; -1: none.
  // Closed when the handler returns.
  virtual int descriptor() const = 0;
};

// An answer that is given later. All functions are thread safe. Dropping the last handle answers
// 500.
class PendingResponse {
 public:
  virtual ~PendingResponse() = default;
  // Answers. False when it is too late (answered, timed out, or the client has gone): the caller
  // may give the work to another. True does not mean that the client received it.
  virtual bool complete(int status, Headers headers, std::string body) = 0;
  // Called once when the client goes away before an answer, or when the time is over (then the
  // given time-out answer is sent). Runs on the server's waiting thread: must not block. Called at
  // once when that already happened.
  virtual void on_cancelled(std::function<void()> callback) = 0;
  virtual bool cancelled() const = 0;
};

struct DeferOptions {
  Milliseconds timeout{20'000};
  // The answer when the time is over.
  int timeout_status = 204;
  Headers timeout_headers;
  std::string timeout_body;
};

struct Event {
  std::string name;  // "" is the default, "message"
  std::string data;  // lines are split as the format asks
  std::string id;
};

// A stream of server-sent events (or of plain pieces, see send_raw). All functions are thread safe
// and never block. Dropping the last handle closes the stream in good order.
class EventStream {
 public:
  virtual ~EventStream() = default;
  // kCancelled when the stream is closed; kResourceExhausted when the consumer is too slow: what is
  // queued is dropped, an `error` event
  // ({"error":{"code":"resource_exhausted",...}}) is sent if it still can be, and the stream
  // closes.
  virtual Status send(const Event& event) = 0;
  virtual Status send_raw(std::string bytes) = 0;
  virtual void close() = 0;  // after what is queued has been sent
  virtual bool closed() const = 0;
  // What waits to be sent: a sender with much to say stays below StreamOptions::max_queued_bytes.
  virtual size_t queued_bytes() const = 0;
  // Called once when the stream has ended, by either side; on the server's waiting thread: must not
  // block. At once when it already has.
  virtual void on_closed(std::function<void()> callback) = 0;
};

struct StreamOptions {
  std::string content_type = "text/event-stream";
  size_t max_queued_bytes = 1 << 20;
  Headers headers;
};

// The answer, used by the handler's thread only, until the handler returns. Exactly one of send,
// start+write+finish, defer and stream. A handler that returns having done none of these answers
// 500; one that returns without finish() cuts the connection, so that the client sees that the body
// is not whole.
class Response {
 public:
  virtual ~Response() = default;
  // Headers to be sent with whatever follows. Content-Length, Transfer-Encoding, Connection, Date
  // and Server are the server's.
  virtual Headers& headers() = 0;
  // A whole answer.
  virtual Status send(int status, std::string_view body, std::string_view content_type = {}) = 0;
  // A streamed answer: with a length (writing more or less is an error) or chunked. Writing blocks
  // while the peer is slow. Errors: kCancelled when the client went away or was too slow: stop,
  // nothing more can be said to it.
  virtual Status start(int status, std::optional<uint64_t> content_length) = 0;
  virtual Status write(std::string_view bytes) = 0;
  virtual Status finish() = 0;
  virtual bool started() const = 0;
  // Gives up the thread; the answer comes through the handle.
  virtual std::shared_ptr<PendingResponse> defer(DeferOptions options) = 0;
  // Answers 200 and keeps the connection for events.
  virtual std::shared_ptr<EventStream> stream(StreamOptions options) = 0;
};

// Runs on a pool thread. Must not throw (if it does: 500, or the connection is cut).
using Handler = std::function<void(Request&, Response&)>;

struct ServerCounters {
  uint64_t connections = 0;  // accepted so far
  uint64_t open_connections = 0;
  uint64_t requests = 0;
  uint64_t handler_threads = 0;  // started so far
  uint64_t streams = 0;          // open event streams
  uint64_t pending = 0;          // deferred answers
  uint64_t refused = 0;          // malformed, too large, or queue full
};

class HttpServer {
 public:
  using ListenerId = uint64_t;

  static Result<std::unique_ptr<HttpServer>> create(ServerOptions options);
  virtual ~HttpServer() = default;

  // Host is a literal IPv4 or IPv6 address, or "localhost" (127.0.0.1); port 0 chooses one, see
  // port_of().
  virtual Result<ListenerId> listen_tcp(const std::string& host, uint16_t port,
                                        Handler handler) = 0;
  // Makes the socket file (an old one is replaced); `mode` are its permission bits. Paths longer
  // than the system's limit (107 bytes) work.
  // `descriptors`: those that clients pass are received; else they are dropped.
  virtual Result<ListenerId> listen_unix(const std::string& path, int mode, Handler handler,
                                         bool descriptors) = 0;
  virtual uint16_t port_of(ListenerId listener) const = 0;
  // Stops accepting there, closes its idle connections and removes the socket file. Handlers that
  // run go on to their end; when this returns, no new handler of that listener starts. Waits for
  // those that run if `wait`.
  virtual void remove_listener(ListenerId listener, bool wait = false) = 0;
  // Stops: new connections are refused, event streams and pending responses end, running handlers
  // have `grace` to finish, then their sockets are cut. Returns when no handler runs any more.
  virtual void stop(Milliseconds grace) = 0;
  virtual ServerCounters counters() const = 0;
};

}  // namespace qanat::net
