// Parts of HttpServer (see http_server.h): a connection, its blocking side for handlers, and the
// handles that outlive a handler. Internal.
//
// Ownership: a connection belongs either to the waiting thread or to one handler's thread, never to
// both; it changes hands through the pool's queue and the waiting thread's task list, whose locks
// order all accesses. So Connection needs no lock of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/thread_annotations.h"
#include "qanat/net/http_parser.h"
#include "qanat/net/http_server.h"
#include "qanat/net/socket.h"

namespace qanat::net {

// What the handles need from the server's waiting thread.
class ServerLoop {
 public:
  virtual ~ServerLoop() = default;
  // Runs a task on the waiting thread, soon. Dropped when the server has stopped.
  virtual void post(std::function<void()> task) = 0;
  // On the waiting thread: the connection has something to send or to end.
  virtual void wake_connection(uint64_t id) = 0;
};

// The shared part of a PendingResponse: known to its handle and to the waiting thread.
class PendingCore {
 public:
  PendingCore(std::weak_ptr<ServerLoop> loop, uint64_t connection, DeferOptions options);

  bool complete(int status, Headers headers, std::string body);
  // The client went away, or the server stops: no answer is wanted.
  void cancel();
  // The time is over: the time-out answer becomes the answer.
  void expire();
  void on_cancelled(std::function<void()> callback);
  bool cancelled() const;

  struct Answer {
    int status = 0;
    Headers headers;
    std::string body;
  };
  // The answer, once, when there is one.
  std::optional<Answer> take_answer();
  std::chrono::steady_clock::time_point deadline() const { return deadline_; }

 private:
  enum class State { kWaiting, kCompleted, kCancelled };
  void call_back(State state, std::optional<Answer> answer);

  const std::weak_ptr<ServerLoop> loop_;
  const uint64_t connection_;
  const std::chrono::steady_clock::time_point deadline_;
  mutable Mutex mutex_;
  State state_ GUARDED_BY(mutex_) = State::kWaiting;
  Answer timeout_answer_ GUARDED_BY(mutex_);
  std::optional<Answer> answer_ GUARDED_BY(mutex_);
  std::function<void()> callback_ GUARDED_BY(mutex_);
};

// The shared part of an EventStream.
class StreamCore {
 public:
  StreamCore(std::weak_ptr<ServerLoop> loop, uint64_t connection, const StreamOptions& options);

  Status send(std::string bytes);
  void close();
  bool closed() const;
  size_t queued_bytes() const;
  void on_closed(std::function<void()> callback);

  // For the waiting thread: takes what is queued; `ended` tells that nothing will follow.
  std::string take(bool& ended);
  // The connection is gone or finished: nothing can be sent any more.
  void mark_closed();
  bool sends_events() const { return is_event_stream_; }

 private:
  void wake() REQUIRES(mutex_);

  const std::weak_ptr<ServerLoop> loop_;
  const uint64_t connection_;
  const size_t max_queued_bytes_;
  const bool is_event_stream_;
  mutable Mutex mutex_;
  std::string queue_ GUARDED_BY(mutex_);
  bool woken_ GUARDED_BY(mutex_) = false;
  bool closing_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
  std::function<void()> callback_ GUARDED_BY(mutex_);
};

// "event: name\nid: 1\ndata: ...\n\n"
std::string format_event(const Event& event);

struct Listener {
  uint64_t id = 0;
  FileDescriptor fd;
  std::string unix_path;
  uint16_t port = 0;
  Handler handler;
  bool takes_descriptors = false;
  bool accepting = true;  // waiting thread's
  int connections = 0;    // waiting thread's
};

struct Connection {
  enum class State {
    kReading,    // waiting for a header
    kHandling,   // with a handler's thread
    kPending,    // has a PendingResponse
    kStreaming,  // has an EventStream
    kWriting,    // sending `output`, then the next request or the end
    kLingering,  // all sent, our side closed: waiting for the peer to close, so that it is not cut
                 // off from reading our last words
  };
  uint64_t id = 0;
  FileDescriptor fd;
  std::shared_ptr<Listener> listener;
  std::string peer;
  State state = State::kReading;
  std::string input;  // received, not yet parsed, from `position` on
  size_t position = 0;
  std::unique_ptr<HttpParser> parser;
  FileDescriptor passed;  // came with the header that is read, or was read last
  std::string output;     // to be sent by the waiting thread, from `sent` on
  size_t sent = 0;
  bool close_after_output = false;
  bool chunked_stream = false;
  bool stream_ended = false;
  bool peer_closed = false;
  size_t lingered = 0;
  uint32_t interest = 0;  // epoll's, 0 when not registered
  std::chrono::steady_clock::time_point deadline{};
  std::shared_ptr<PendingCore> pending;
  std::shared_ptr<StreamCore> stream;

  std::string_view unread() const { return std::string_view(input).substr(position); }
  void consume(size_t bytes) {
    position += bytes;
    if (position == input.size()) {
      input.clear();
      position = 0;
    }
  }
};

// The header block of an answer. `length`: Content-Length; nothing: chunked, or to the connection's
// end for HTTP/1.0.
std::string answer_header(const ServerOptions& options, int status, const Headers& headers,
                          std::optional<uint64_t> length, bool chunked, bool keep_alive);

// What is to become of a connection after its handler.
enum class HandlerOutcome { kKeepAlive, kClose, kAbort, kPending, kStreaming };

// Runs the listener's handler for the request whose header is parsed, on this thread. `keep_alive`
// says whether the server would go on with the connection. Leaves the connection ready for what the
// outcome says.
HandlerOutcome run_handler(const ServerOptions& options, std::weak_ptr<ServerLoop> loop,
                           Connection& connection, const Handler& handler,
                           const std::function<bool()>& keep_alive);

}  // namespace qanat::net
