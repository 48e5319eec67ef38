// The waiting thread of HttpServer: accepts, reads headers, hands requests to the pool, and serves
// the answers that hold no thread. Internal.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "qanat/base/thread_annotations.h"
#include "qanat/base/thread_pool.h"
#include "qanat/net/http_server.h"
#include "qanat/net/server_connection.h"

namespace qanat::net {

// Members without a lock belong to the waiting thread.
class HttpLoop final : public ServerLoop, public std::enable_shared_from_this<HttpLoop> {
 public:
  explicit HttpLoop(ServerOptions options);

  Status open();

  void post(std::function<void()> task) override;

  // Runs a task on the waiting thread and waits for it.
  void call(const std::function<void()>& task);

  Result<uint64_t> add_listener(std::shared_ptr<Listener> listener);

  uint16_t port_of(uint64_t id) const;

  void remove_listener(uint64_t id, bool wait);

  void stop(Milliseconds grace);

  ServerCounters counters() const;

  void wake_connection(uint64_t id) override;

 private:
  using ConnectionPointer = std::shared_ptr<Connection>;

  // ---- The loop ----

  void run();

  int wait_milliseconds() const;

  void run_tasks();

  void handle_event(uint64_t id, uint32_t events);

  void watch(int fd, uint64_t id, uint32_t events, int operation);

  void set_interest(Connection& connection, uint32_t events);

  void set_deadline(Connection& connection, std::chrono::steady_clock::time_point deadline);
  void clear_deadline(Connection& connection);

  void expire_deadlines();

  void on_deadline(const ConnectionPointer& connection);

  // ---- Connections ----

  void accept_from(const std::shared_ptr<Listener>& listener);

  // No descriptors or places are left: connections wait in the kernel's queue until some close.
  void pause_accepting();
  void resume_accepting();

  void close_listener(Listener& listener);

  static bool is_idle(const Connection& connection);

  // At the end: nothing new begins, and what holds no thread is brought to an end.
  void end_idle_connections();

  void drop(ConnectionPointer connection);

  // Cancels what is open; callbacks run here.
  void release_handles(Connection& connection);

  // ---- Reading headers ----

  void begin_reading(const ConnectionPointer& connection);

  void on_ready(const ConnectionPointer& connection, uint32_t events);

  void on_readable(const ConnectionPointer& connection);

  // Into the input buffer. As recv(2), without EINTR.
  ssize_t receive(Connection& connection);

  // True when the header is complete (or wrong): the connection is not reading any more.
  bool parse(const ConnectionPointer& connection);

  void refuse(const ConnectionPointer& connection, int status, std::string_view code,
              std::string_view message);

  // ---- Handlers ----

  void dispatch(const ConnectionPointer& connection);

  // On a pool thread.
  void handle(const ConnectionPointer& connection);

  void after_handler(const ConnectionPointer& connection, HandlerOutcome outcome);

  // A reset instead of an end, so that the client of a body without length sees that it is not
  // whole.
  void abort(const ConnectionPointer& connection);

  bool is_stopping() const;

  bool wait_for_handlers(std::chrono::steady_clock::time_point deadline);

  // ---- Answers that hold no thread ----

  void deliver_pending(const ConnectionPointer& connection);

  void queue_stream_bytes(Connection& connection, std::string_view bytes);

  // Moves queued events to the socket. Takes more only when all taken before is sent, so memory is
  // bounded by the queue.
  void pump_stream(const ConnectionPointer& connection);

  // Bytes that come while an answer is pending or streaming are kept for the next request, up to a
  // limit; then they wait in the kernel.
  void read_ahead(const ConnectionPointer& connection);

  // Sends `output`; when it is all sent, does what comes next.
  void flush(const ConnectionPointer& connection);

  // ---- Closing in good order ----

  void begin_lingering(const ConnectionPointer& connection);

  void linger(const ConnectionPointer& connection);

  const ServerOptions options_;
  std::unique_ptr<ThreadPool> pool_;
  FileDescriptor epoll_;
  FileDescriptor wake_;
  std::thread thread_;
  std::atomic<uint64_t> next_id_{1};

  std::unordered_map<uint64_t, ConnectionPointer> connections_;
  std::set<std::pair<std::chrono::steady_clock::time_point, uint64_t>> deadlines_;
  std::optional<std::chrono::steady_clock::time_point> accept_again_;
  bool ending_ = false;
  std::chrono::steady_clock::time_point end_deadline_{};

  std::atomic<uint64_t> accepted_{0};
  std::atomic<uint64_t> open_connections_{0};
  std::atomic<uint64_t> requests_{0};
  std::atomic<uint64_t> streams_{0};
  std::atomic<uint64_t> pending_{0};
  std::atomic<uint64_t> refused_{0};

  mutable Mutex mutex_;
  CondVar changed_;  // running_ or handlers_
  std::vector<std::function<void()>> tasks_ GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, std::shared_ptr<Listener>> listeners_ GUARDED_BY(mutex_);
  std::multiset<uint64_t> running_ GUARDED_BY(mutex_);  // listeners whose handlers run, once each
  int handlers_ GUARDED_BY(mutex_) = 0;                 // running and queued
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;
};

}  // namespace qanat::net
