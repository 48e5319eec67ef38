// The waiting thread of HttpServer: accepts, reads headers, and serves the answers that hold no
// thread.
#include "qanat/net/http_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <future>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/base/thread_pool.h"
#include "qanat/net/server_connection.h"

namespace qanat::net {
namespace {

using SteadyClock = std::chrono::steady_clock;
using State = Connection::State;

constexpr uint64_t kWakeId = 0;
constexpr size_t kReceiveBytes = 16 << 10;
constexpr size_t kMaxLingerBytes = 4 << 20;
constexpr Milliseconds kLingerTime{2'000};
constexpr Milliseconds kAcceptPause{200};

std::string error_body(std::string_view code, std::string_view message) {
  // Messages of this file hold nothing that JSON would have to escape.
  return str_cat(R"({"error":{"code":")", code, R"(","message":")", message, "\"}}");
}

std::string peer_name(const sockaddr_storage& from) {
  IpAddress address;
  if (from.ss_family == AF_INET) {
    auto& in = reinterpret_cast<const sockaddr_in&>(from);
    std::memcpy(address.bytes.data(), &in.sin_addr, 4);
    return str_cat(address.to_string(), ":", ntohs(in.sin_port));
  }
  if (from.ss_family == AF_INET6) {
    auto& in6 = reinterpret_cast<const sockaddr_in6&>(from);
    address.v6 = true;
    std::memcpy(address.bytes.data(), &in6.sin6_addr, 16);
    return str_cat("[", address.to_string(), "]:", ntohs(in6.sin6_port));
  }
  return "unix";
}

// Members without a lock belong to the waiting thread.
class Loop : public ServerLoop, public std::enable_shared_from_this<Loop> {
 public:
  explicit Loop(ServerOptions options)
      : options_(std::move(options)),
        pool_(std::make_unique<ThreadPool>("http",
                                           static_cast<size_t>(options_.max_handler_threads),
                                           static_cast<size_t>(options_.max_queued_requests))) {}

  Status open() {
    epoll_ = FileDescriptor(epoll_create1(EPOLL_CLOEXEC));
    wake_ = FileDescriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!epoll_.valid() || !wake_.valid()) return errno_status(errno, "epoll");
    watch(wake_.get(), kWakeId, EPOLLIN, EPOLL_CTL_ADD);
    thread_ = std::thread([this] { run(); });
    return ok_status();
  }

  void post(std::function<void()> task) override {
    {
      MutexLock lock(mutex_);
      if (ended_) return;
      tasks_.push_back(std::move(task));
    }
    uint64_t one = 1;
    [[maybe_unused]] ssize_t written = write(wake_.get(), &one, sizeof one);
  }

  // Runs a task on the waiting thread and waits for it.
  void call(const std::function<void()>& task) {
    if (std::this_thread::get_id() == thread_.get_id()) return task();
    auto done = std::make_shared<std::promise<void>>();
    std::future<void> finished = done->get_future();
    {
      MutexLock lock(mutex_);
      if (ended_) return;
      tasks_.push_back([done, &task] {
        task();
        done->set_value();
      });
    }
    uint64_t one = 1;
    [[maybe_unused]] ssize_t written = write(wake_.get(), &one, sizeof one);
    finished.wait();
  }

  Result<uint64_t> add_listener(std::shared_ptr<Listener> listener) {
    listener->id = next_id_++;
    uint64_t id = listener->id;
    {
      MutexLock lock(mutex_);
      if (stopping_) return unavailable("the server has stopped");
      listeners_[id] = listener;
    }
    call([&] { watch(listener->fd.get(), id, EPOLLIN, EPOLL_CTL_ADD); });
    return id;
  }

  uint16_t port_of(uint64_t id) const {
    MutexLock lock(mutex_);
    auto found = listeners_.find(id);
    return found == listeners_.end() ? 0 : found->second->port;
  }

  void remove_listener(uint64_t id, bool wait) {
    std::shared_ptr<Listener> listener;
    {
      MutexLock lock(mutex_);
      auto found = listeners_.find(id);
      if (found == listeners_.end()) return;
      listener = found->second;
      listeners_.erase(found);
    }
    call([&] { close_listener(*listener); });
    if (!wait) return;
    MutexLock lock(mutex_);
    while (running_.contains(id)) changed_.wait(mutex_);
  }

  void stop(Milliseconds grace) {
    std::vector<uint64_t> ids;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      stopping_ = true;
      for (auto& [id, listener] : listeners_) ids.push_back(id);
    }
    for (uint64_t id : ids) remove_listener(id, false);
    call([this] { end_idle_connections(); });
    auto deadline = SteadyClock::now() + grace;
    if (!wait_for_handlers(deadline)) {
      // The sockets' ends make every wait of a handler return.
      call([this] {
        for (auto& [id, connection] : connections_) {
          if (connection->state == State::kHandling) shutdown(connection->fd.get(), SHUT_RDWR);
        }
      });
      wait_for_handlers(SteadyClock::time_point::max());
    }
    pool_.reset();
    // What is still being sent has the rest of the grace, and a moment at least.
    call([this, deadline] {
      ending_ = true;
      end_deadline_ = std::max(deadline, SteadyClock::now() + Milliseconds(200));
      end_idle_connections();
    });
    if (thread_.joinable()) thread_.join();
  }

  ServerCounters counters() const {
    ServerCounters out;
    out.connections = accepted_.load();
    out.open_connections = open_connections_.load();
    out.requests = requests_.load();
    out.handler_threads = static_cast<uint64_t>(options_.max_handler_threads);
    out.streams = streams_.load();
    out.pending = pending_.load();
    out.refused = refused_.load();
    return out;
  }

  void wake_connection(uint64_t id) override {
    auto found = connections_.find(id);
    if (found == connections_.end()) return;
    auto connection = found->second;
    if (connection->state == State::kPending) {
      deliver_pending(connection);
    } else if (connection->state == State::kStreaming) {
      pump_stream(connection);
    }
  }

 private:
  using ConnectionPointer = std::shared_ptr<Connection>;

  // ---- The loop ----

  void run() {
    epoll_event events[64];
    while (!(ending_ && (connections_.empty() || SteadyClock::now() >= end_deadline_))) {
      int count = epoll_wait(epoll_.get(), events, 64, wait_milliseconds());
      for (int i = 0; i < count; ++i) handle_event(events[i].data.u64, events[i].events);
      run_tasks();
      expire_deadlines();
    }
    while (!connections_.empty()) drop(ConnectionPointer(connections_.begin()->second));
    {
      MutexLock lock(mutex_);
      ended_ = true;
    }
    run_tasks();  // those that came before ended_: someone may wait for them
  }

  int wait_milliseconds() const {
    auto next = SteadyClock::now() + Milliseconds(60'000);
    if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
    if (accept_again_) next = std::min(next, *accept_again_);
    if (ending_) next = std::min(next, end_deadline_);
    auto left = std::chrono::ceil<Milliseconds>(next - SteadyClock::now()).count();
    return static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
  }

  void run_tasks() {
    std::vector<std::function<void()>> tasks;
    {
      MutexLock lock(mutex_);
      tasks.swap(tasks_);
    }
    for (auto& task : tasks) task();
  }

  void handle_event(uint64_t id, uint32_t events) {
    if (id == kWakeId) {
      uint64_t count = 0;
      [[maybe_unused]] ssize_t got = read(wake_.get(), &count, sizeof count);
      return;
    }
    if (auto found = connections_.find(id); found != connections_.end()) {
      const ConnectionPointer connection = found->second;  // the map may lose it meanwhile
      on_ready(connection, events);
      return;
    }
    std::shared_ptr<Listener> listener;
    {
      MutexLock lock(mutex_);
      auto found = listeners_.find(id);
      if (found != listeners_.end()) listener = found->second;
    }
    if (listener != nullptr) accept_from(listener);
  }

  void watch(int fd, uint64_t id, uint32_t events, int operation) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    if (epoll_ctl(epoll_.get(), operation, fd, &event) != 0) {
      log_error("epoll_ctl failed", {{"error", strerror(errno)}});
    }
  }

  void set_interest(Connection& connection, uint32_t events) {
    if (connection.interest == events) return;
    int operation = connection.interest == 0 ? EPOLL_CTL_ADD
                    : events == 0            ? EPOLL_CTL_DEL
                                             : EPOLL_CTL_MOD;
    watch(connection.fd.get(), connection.id, events, operation);
    connection.interest = events;
  }

  void set_deadline(Connection& connection, SteadyClock::time_point deadline) {
    deadlines_.erase({connection.deadline, connection.id});
    connection.deadline = deadline;
    deadlines_.insert({deadline, connection.id});
  }
  void clear_deadline(Connection& connection) {
    deadlines_.erase({connection.deadline, connection.id});
  }

  void expire_deadlines() {
    auto now = SteadyClock::now();
    if (accept_again_ && now >= *accept_again_) {
      accept_again_.reset();
      resume_accepting();
    }
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
      uint64_t id = deadlines_.begin()->second;
      deadlines_.erase(deadlines_.begin());
      auto found = connections_.find(id);
      if (found == connections_.end()) continue;
      const ConnectionPointer connection = found->second;  // the map may lose it meanwhile
      on_deadline(connection);
    }
  }

  void on_deadline(const ConnectionPointer& connection) {
    switch (connection->state) {
      case State::kPending:
        connection->pending->expire();
        deliver_pending(connection);
        return;
      case State::kStreaming:
        if (connection->output.empty() && connection->stream->sends_events()) {
          queue_stream_bytes(*connection, ":\n\n");
          flush(connection);
          return;
        }
        if (connection->output.empty()) {  // a plain stream has no words for "still here"
          set_deadline(*connection, SteadyClock::now() + options_.heartbeat);
          return;
        }
        break;
      case State::kReading:
        if (!connection->unread().empty()) {
          refuse(connection, 408, "deadline_exceeded", "the request's header did not come in time");
          return;
        }
        break;
      default:
        break;
    }
    drop(connection);
  }

  // ---- Connections ----

  void accept_from(const std::shared_ptr<Listener>& listener) {
    while (listener->fd.valid()) {
      if (connections_.size() >= static_cast<size_t>(options_.max_connections)) {
        pause_accepting();
        return;
      }
      sockaddr_storage from{};
      socklen_t length = sizeof from;
      int fd = accept4(listener->fd.get(), reinterpret_cast<sockaddr*>(&from), &length,
                       SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno != EAGAIN) {
          log_warning("cannot accept connections now", {{"error", strerror(errno)}});
          pause_accepting();
        }
        return;
      }
      auto connection = std::make_shared<Connection>();
      connection->fd = FileDescriptor(fd);
      connection->id = next_id_++;
      connection->listener = listener;
      connection->peer = peer_name(from);
      if (from.ss_family != AF_UNIX) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      }
      connections_[connection->id] = connection;
      accepted_.fetch_add(1);
      open_connections_.store(connections_.size());
      begin_reading(connection);
    }
  }

  // No descriptors or places are left: connections wait in the kernel's queue until some close.
  void pause_accepting() {
    MutexLock lock(mutex_);
    for (auto& [id, listener] : listeners_) {
      if (listener->accepting) watch(listener->fd.get(), id, 0, EPOLL_CTL_MOD);
      listener->accepting = false;
    }
    accept_again_ = SteadyClock::now() + kAcceptPause;
  }
  void resume_accepting() {
    MutexLock lock(mutex_);
    for (auto& [id, listener] : listeners_) {
      if (!listener->accepting) watch(listener->fd.get(), id, EPOLLIN, EPOLL_CTL_MOD);
      listener->accepting = true;
    }
  }

  void close_listener(Listener& listener) {
    if (!listener.fd.valid()) return;
    watch(listener.fd.get(), listener.id, 0, EPOLL_CTL_DEL);
    listener.fd.reset();
    if (!listener.unix_path.empty()) unlink(listener.unix_path.c_str());
    std::vector<ConnectionPointer> idle;
    for (auto& [id, connection] : connections_) {
      if (connection->listener->id == listener.id && is_idle(*connection)) {
        idle.push_back(connection);
      }
    }
    for (auto& connection : idle) drop(connection);
  }

  static bool is_idle(const Connection& connection) {
    return connection.state == State::kReading && connection.unread().empty();
  }

  // At the end: nothing new begins, and what holds no thread is brought to an end.
  void end_idle_connections() {
    std::vector<ConnectionPointer> all;
    for (auto& [id, connection] : connections_) all.push_back(connection);
    for (auto& connection : all) {
      connection->close_after_output = true;
      if (connection->state == State::kReading) {
        drop(connection);
      } else if (connection->state == State::kPending) {
        connection->pending->expire();
        deliver_pending(connection);
      } else if (connection->state == State::kStreaming) {
        connection->stream->close();
        pump_stream(connection);
      }
    }
  }

  void drop(ConnectionPointer connection) {  // by value: the caller's may be the map's own
    if (connections_.erase(connection->id) == 0) return;
    set_interest(*connection, 0);
    clear_deadline(*connection);
    open_connections_.store(connections_.size());
    release_handles(*connection);
    connection->fd.reset();
  }

  // Cancels what is open; callbacks run here.
  void release_handles(Connection& connection) {
    if (auto pending = std::exchange(connection.pending, nullptr)) {
      pending_.fetch_sub(1);
      pending->cancel();
    }
    if (auto stream = std::exchange(connection.stream, nullptr)) {
      streams_.fetch_sub(1);
      stream->mark_closed();
    }
  }

  // ---- Reading headers ----

  void begin_reading(const ConnectionPointer& connection) {
    connection->state = State::kReading;
    connection->parser =
        std::make_unique<HttpParser>(HttpParser::Kind::kRequest, options_.max_header_bytes);
    bool begun = !connection->unread().empty();
    if (!begun) connection->input = {};  // an idle connection keeps no buffer
    set_deadline(*connection, SteadyClock::now() +
                                  (begun ? options_.header_timeout : options_.keep_alive_timeout));
    if (begun && parse(connection)) return;
    set_interest(*connection, EPOLLIN);
    on_readable(connection);  // often the request is there already
  }

  void on_ready(const ConnectionPointer& connection, uint32_t events) {
    switch (connection->state) {
      case State::kReading:
        on_readable(connection);
        return;
      case State::kLingering:
        linger(connection);
        return;
      case State::kWriting:
        flush(connection);
        return;
      case State::kPending:
      case State::kStreaming:
        // A client that closes even its sending side only is taken for gone.
        if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
          drop(connection);
          return;
        }
        if ((events & EPOLLIN) != 0) read_ahead(connection);
        if (connection->fd.valid() && (events & EPOLLOUT) != 0) {
          flush(connection);
          pump_stream(connection);
        }
        return;
      case State::kHandling:
        return;  // not registered
    }
  }

  void on_readable(const ConnectionPointer& connection) {
    while (connection->state == State::kReading && connection->fd.valid()) {
      bool first = connection->unread().empty();
      ssize_t got = receive(*connection);
      if (got < 0 && errno == EAGAIN) return;
      if (got <= 0) {
        drop(connection);
        return;
      }
      if (first) set_deadline(*connection, SteadyClock::now() + options_.header_timeout);
      if (parse(connection)) return;
    }
  }

  // Into the input buffer. As recv(2), without EINTR.
  ssize_t receive(Connection& connection) {
    size_t before = connection.input.size();
    connection.input.resize(before + kReceiveBytes);
    ssize_t got = 0;
    do {
      got =
          recv(connection.fd.get(), connection.input.data() + before, kReceiveBytes, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    int error = errno;
    connection.input.resize(before + (got > 0 ? static_cast<size_t>(got) : 0));
    errno = error;
    return got;
  }

  // True when the header is complete (or wrong): the connection is not reading any more.
  bool parse(const ConnectionPointer& connection) {
    Result<size_t> used = connection->parser->parse_header(connection->unread());
    if (!used.ok()) {
      bool large = used.code() == Code::kTooLarge;
      refuse(connection, large ? 431 : 400, code_name(used.code()), used.status().message());
      return true;
    }
    if (!connection->parser->header_done()) return false;
    connection->consume(*used);
    dispatch(connection);
    return true;
  }

  void refuse(const ConnectionPointer& connection, int status, std::string_view code,
              std::string_view message) {
    refused_.fetch_add(1);
    Headers headers{{"Content-Type", "application/json"}};
    std::string body = error_body(code, message);
    connection->output = answer_header(options_, status, headers, body.size(), false, false) + body;
    connection->sent = 0;
    connection->close_after_output = true;
    connection->state = State::kWriting;
    flush(connection);
  }

  // ---- Handlers ----

  void dispatch(const ConnectionPointer& connection) {
    set_interest(*connection, 0);
    clear_deadline(*connection);
    requests_.fetch_add(1);
    connection->state = State::kHandling;
    connection->close_after_output = false;
    bool stopping = false;
    {
      // Counted under the lock that stop() takes first: it waits for this one, and the pool stays
      // until then.
      MutexLock lock(mutex_);
      stopping = stopping_;
      if (!stopping) ++handlers_;
    }
    if (stopping) {
      refuse(connection, 503, "unavailable", "the server is stopping");
      return;
    }
    bool queued =
        pool_->try_submit([self = shared_from_this(), connection] { self->handle(connection); });
    if (queued) return;
    {
      MutexLock lock(mutex_);
      --handlers_;
      changed_.notify_all();
    }
    refuse(connection, 503, "unavailable", "too many requests are waiting; try again later");
  }

  // On a pool thread.
  void handle(const ConnectionPointer& connection) {
    uint64_t listener = connection->listener->id;
    bool open = false;
    {
      MutexLock lock(mutex_);
      open = !stopping_ && listeners_.contains(listener);
      if (open) running_.insert(listener);
    }
    HandlerOutcome outcome = HandlerOutcome::kClose;
    if (open) {
      outcome = run_handler(options_, weak_from_this(), *connection, connection->listener->handler,
                            [this, listener] {
                              MutexLock lock(mutex_);
                              return !stopping_ && listeners_.contains(listener);
                            });
    }
    post([self = shared_from_this(), connection, outcome] {
      self->after_handler(connection, outcome);
    });
    MutexLock lock(mutex_);
    if (open) running_.erase(running_.find(listener));
    --handlers_;
    changed_.notify_all();
  }

  void after_handler(const ConnectionPointer& connection, HandlerOutcome outcome) {
    if (connection->pending != nullptr) pending_.fetch_add(1);
    if (connection->stream != nullptr) streams_.fetch_add(1);
    if (!connections_.contains(connection->id)) {
      release_handles(*connection);
      return;
    }
    switch (outcome) {
      case HandlerOutcome::kKeepAlive:
        begin_reading(connection);
        return;
      case HandlerOutcome::kClose:
        begin_lingering(connection);
        return;
      case HandlerOutcome::kAbort:
        abort(connection);
        return;
      case HandlerOutcome::kPending:
        connection->state = State::kPending;
        set_deadline(*connection, connection->pending->deadline());
        set_interest(*connection, EPOLLIN | EPOLLRDHUP);
        if (is_stopping()) connection->pending->expire();
        deliver_pending(connection);
        return;
      case HandlerOutcome::kStreaming:
        connection->state = State::kStreaming;
        connection->stream_ended = false;
        set_interest(*connection, EPOLLIN | EPOLLRDHUP);
        if (is_stopping()) connection->stream->close();
        flush(connection);  // the header
        pump_stream(connection);
        return;
    }
  }

  // A reset instead of an end, so that the client of a body without length sees that it is not
  // whole.
  void abort(const ConnectionPointer& connection) {
    struct linger option{1, 0};
    setsockopt(connection->fd.get(), SOL_SOCKET, SO_LINGER, &option, sizeof option);
    drop(connection);
  }

  bool is_stopping() const {
    MutexLock lock(mutex_);
    return stopping_;
  }

  bool wait_for_handlers(SteadyClock::time_point deadline) {
    MutexLock lock(mutex_);
    while (handlers_ > 0) {
      if (deadline == SteadyClock::time_point::max()) {
        changed_.wait(mutex_);
        continue;
      }
      auto left = std::chrono::ceil<Milliseconds>(deadline - SteadyClock::now()).count();
      if (left <= 0) return false;
      changed_.wait_for_ms(mutex_, left);
    }
    return true;
  }

  // ---- Answers that hold no thread ----

  void deliver_pending(const ConnectionPointer& connection) {
    auto answer = connection->pending->take_answer();
    if (!answer) return;
    pending_.fetch_sub(1);
    connection->pending = nullptr;
    bool empty = answer->status == 204 || answer->status == 304;
    bool head = connection->parser->request().method == Method::kHead;
    bool keep = !connection->close_after_output && !is_stopping();
    std::optional<uint64_t> length = answer->body.size();
    if (empty) length = std::nullopt;
    connection->output =
        answer_header(options_, answer->status, answer->headers, length, false, keep);
    if (!empty && !head) connection->output += answer->body;
    connection->sent = 0;
    connection->close_after_output = !keep;
    connection->state = State::kWriting;
    flush(connection);
  }

  void queue_stream_bytes(Connection& connection, std::string_view bytes) {
    if (bytes.empty()) return;
    if (!connection.chunked_stream) {
      connection.output += bytes;
      return;
    }
    char length[20];
    snprintf(length, sizeof length, "%zx\r\n", bytes.size());
    str_append(connection.output, length, bytes, "\r\n");
  }

  // Moves queued events to the socket. Takes more only when all taken before is sent, so memory is
  // bounded by the queue.
  void pump_stream(const ConnectionPointer& connection) {
    constexpr int kRounds = 16;  // a busy stream must not keep the others waiting
    for (int round = 0; round < kRounds; ++round) {
      if (connection->state != State::kStreaming || !connection->fd.valid() ||
          !connection->output.empty()) {
        return;
      }
      bool ended = false;
      std::string bytes = connection->stream->take(ended);
      if (bytes.empty() && !ended) return;
      queue_stream_bytes(*connection, bytes);
      if (ended) {
        connection->stream_ended = true;
        if (connection->chunked_stream) {
          connection->output += "0\r\n\r\n";
        } else {
          connection->close_after_output = true;
        }
      }
      flush(connection);
    }
    post([self = weak_from_this(), id = connection->id] {
      if (auto alive = self.lock()) alive->wake_connection(id);
    });
  }

  // Bytes that come while an answer is pending or streaming are kept for the next request, up to a
  // limit; then they wait in the kernel.
  void read_ahead(const ConnectionPointer& connection) {
    while (connection->unread().size() < options_.max_header_bytes) {
      ssize_t got = receive(*connection);
      if (got > 0) continue;
      if (got < 0 && errno == EAGAIN) return;
      drop(connection);
      return;
    }
    set_interest(*connection, connection->interest & ~static_cast<uint32_t>(EPOLLIN));
  }

  // Sends `output`; when it is all sent, does what comes next.
  void flush(const ConnectionPointer& connection) {
    bool progress = false;
    while (connection->sent < connection->output.size()) {
      ssize_t sent = send_some(connection->fd.get(),
                               std::string_view(connection->output).substr(connection->sent));
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno == EAGAIN) {
        if (progress || (connection->interest & EPOLLOUT) == 0) {
          set_deadline(*connection, SteadyClock::now() + options_.write_timeout);
        }
        uint32_t base = connection->state == State::kStreaming ? EPOLLIN | EPOLLRDHUP : 0;
        set_interest(*connection, EPOLLOUT | base);
        return;
      }
      if (sent < 0) {
        drop(connection);
        return;
      }
      progress = true;
      connection->sent += static_cast<size_t>(sent);
    }
    connection->output.clear();
    connection->sent = 0;
    if (connection->state == State::kStreaming && !connection->stream_ended) {
      set_deadline(*connection, SteadyClock::now() + options_.heartbeat);
      set_interest(*connection, EPOLLIN | EPOLLRDHUP);
      return;
    }
    connection->output = {};
    release_handles(*connection);
    if (connection->close_after_output || is_stopping()) {
      begin_lingering(connection);
    } else {
      begin_reading(connection);
    }
  }

  // ---- Closing in good order ----

  void begin_lingering(const ConnectionPointer& connection) {
    shutdown(connection->fd.get(), SHUT_WR);
    connection->state = State::kLingering;
    connection->input = {};
    connection->position = 0;
    set_deadline(*connection, SteadyClock::now() + kLingerTime);
    set_interest(*connection, EPOLLIN);
    linger(connection);
  }

  void linger(const ConnectionPointer& connection) {
    char discarded[kReceiveBytes];
    while (true) {
      ssize_t got = recv(connection->fd.get(), discarded, sizeof discarded, MSG_DONTWAIT);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return;
      if (got > 0) connection->lingered += static_cast<size_t>(got);
      if (got <= 0 || connection->lingered > kMaxLingerBytes) break;
    }
    drop(connection);
  }

  const ServerOptions options_;
  std::unique_ptr<ThreadPool> pool_;
  FileDescriptor epoll_;
  FileDescriptor wake_;
  std::thread thread_;
  std::atomic<uint64_t> next_id_{1};

  std::unordered_map<uint64_t, ConnectionPointer> connections_;
  std::set<std::pair<SteadyClock::time_point, uint64_t>> deadlines_;
  std::optional<SteadyClock::time_point> accept_again_;
  bool ending_ = false;
  SteadyClock::time_point end_deadline_{};

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

class Server : public HttpServer {
 public:
  explicit Server(std::shared_ptr<Loop> loop) : loop_(std::move(loop)) {}
  ~Server() override { loop_->stop(Milliseconds(2'000)); }

  Result<ListenerId> listen_tcp(const std::string& host, uint16_t port, Handler handler) override {
    std::string literal = host == "localhost" ? "127.0.0.1" : host;
    auto address = IpAddress::parse(literal);
    if (!address) {
      return invalid_argument(str_cat("cannot listen on ", host, ": it is not an IP address"),
                              "give an address such as 127.0.0.1 or 0.0.0.0");
    }
    auto listener = std::make_shared<Listener>();
    QANAT_ASSIGN_OR_RETURN(listener->fd, listen_on_tcp(*address, port));
    listener->port = local_port(listener->fd.get());
    listener->handler = std::move(handler);
    return loop_->add_listener(std::move(listener));
  }

  Result<ListenerId> listen_unix(const std::string& path, int mode, Handler handler) override {
    auto listener = std::make_shared<Listener>();
    QANAT_ASSIGN_OR_RETURN(listener->fd, listen_on_unix(path, mode));
    listener->unix_path = path;
    listener->handler = std::move(handler);
    return loop_->add_listener(std::move(listener));
  }

  uint16_t port_of(ListenerId listener) const override { return loop_->port_of(listener); }
  void remove_listener(ListenerId listener, bool wait) override {
    loop_->remove_listener(listener, wait);
  }
  void stop(Milliseconds grace) override { loop_->stop(grace); }
  ServerCounters counters() const override { return loop_->counters(); }

 private:
  std::shared_ptr<Loop> loop_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::create(ServerOptions options) {
  auto loop = std::make_shared<Loop>(std::move(options));
  QANAT_RETURN_IF_ERROR(loop->open());
  return std::unique_ptr<HttpServer>(std::make_unique<Server>(std::move(loop)));
}

}  // namespace qanat::net
