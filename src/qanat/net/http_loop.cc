// The waiting thread of HttpServer: accepts, reads headers, and serves the answers that hold no
// thread.
#include "qanat/net/http_loop.h"

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

}  // namespace

HttpLoop::HttpLoop(ServerOptions options)
    : options_(std::move(options)),
      pool_(std::make_unique<ThreadPool>("http", static_cast<size_t>(options_.max_handler_threads),
                                         static_cast<size_t>(options_.max_queued_requests))) {}

Status HttpLoop::open() {
  epoll_ = FileDescriptor(epoll_create1(EPOLL_CLOEXEC));
  wake_ = FileDescriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_.valid() || !wake_.valid()) return errno_status(errno, "epoll");
  watch(wake_.get(), kWakeId, EPOLLIN, EPOLL_CTL_ADD);
  thread_ = std::thread([this] { run(); });
  return ok_status();
}

void HttpLoop::post(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (ended_) return;
    tasks_.push_back(std::move(task));
  }
  uint64_t one = 1;
  [[maybe_unused]] ssize_t written = write(wake_.get(), &one, sizeof one);
}

void HttpLoop::call(const std::function<void()>& task) {
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

Result<uint64_t> HttpLoop::add_listener(std::shared_ptr<Listener> listener) {
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

uint16_t HttpLoop::port_of(uint64_t id) const {
  MutexLock lock(mutex_);
  auto found = listeners_.find(id);
  return found == listeners_.end() ? 0 : found->second->port;
}

void HttpLoop::remove_listener(uint64_t id, bool wait) {
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

void HttpLoop::stop(Milliseconds grace) {
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

ServerCounters HttpLoop::counters() const {
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

void HttpLoop::wake_connection(uint64_t id) {
  auto found = connections_.find(id);
  if (found == connections_.end()) return;
  auto connection = found->second;
  if (connection->state == State::kPending) {
    deliver_pending(connection);
  } else if (connection->state == State::kStreaming) {
    pump_stream(connection);
  }
}

// ---- The loop ----

void HttpLoop::run() {
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

int HttpLoop::wait_milliseconds() const {
  auto next = SteadyClock::now() + Milliseconds(60'000);
  if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
  if (accept_again_) next = std::min(next, *accept_again_);
  if (ending_) next = std::min(next, end_deadline_);
  auto left = std::chrono::ceil<Milliseconds>(next - SteadyClock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
}

void HttpLoop::run_tasks() {
  std::vector<std::function<void()>> tasks;
  {
    MutexLock lock(mutex_);
    tasks.swap(tasks_);
  }
  for (auto& task : tasks) task();
}

void HttpLoop::handle_event(uint64_t id, uint32_t events) {
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

void HttpLoop::watch(int fd, uint64_t id, uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  if (epoll_ctl(epoll_.get(), operation, fd, &event) != 0) {
    log_error("epoll_ctl failed", {{"error", strerror(errno)}});
  }
}

void HttpLoop::set_interest(Connection& connection, uint32_t events) {
  if (connection.interest == events) return;
  int operation = connection.interest == 0 ? EPOLL_CTL_ADD
                  : events == 0            ? EPOLL_CTL_DEL
                                           : EPOLL_CTL_MOD;
  watch(connection.fd.get(), connection.id, events, operation);
  connection.interest = events;
}

void HttpLoop::set_deadline(Connection& connection, SteadyClock::time_point deadline) {
  deadlines_.erase({connection.deadline, connection.id});
  connection.deadline = deadline;
  deadlines_.insert({deadline, connection.id});
}

void HttpLoop::clear_deadline(Connection& connection) {
  deadlines_.erase({connection.deadline, connection.id});
}

void HttpLoop::expire_deadlines() {
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

void HttpLoop::on_deadline(const ConnectionPointer& connection) {
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

void HttpLoop::accept_from(const std::shared_ptr<Listener>& listener) {
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
    if (listener->connections >= options_.max_connections_a_listener) {
      ::close(fd);
      continue;
    }
    ++listener->connections;
    auto connection = std::make_shared<Connection>();
    connection->fd = FileDescriptor(fd);
    connection->id = next_id_++;
    connection->listener = listener;
    connection->peer = peer_name(from);
    if (from.ss_family != AF_UNIX) tune_tcp(fd, from);
    connections_[connection->id] = connection;
    accepted_.fetch_add(1);
    open_connections_.store(connections_.size());
    begin_reading(connection);
  }
}

void HttpLoop::pause_accepting() {
  MutexLock lock(mutex_);
  for (auto& [id, listener] : listeners_) {
    if (listener->accepting) watch(listener->fd.get(), id, 0, EPOLL_CTL_MOD);
    listener->accepting = false;
  }
  accept_again_ = SteadyClock::now() + kAcceptPause;
}

void HttpLoop::resume_accepting() {
  MutexLock lock(mutex_);
  for (auto& [id, listener] : listeners_) {
    if (!listener->accepting) watch(listener->fd.get(), id, EPOLLIN, EPOLL_CTL_MOD);
    listener->accepting = true;
  }
}

void HttpLoop::close_listener(Listener& listener) {
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

bool HttpLoop::is_idle(const Connection& connection) {
  return connection.state == State::kReading && connection.unread().empty();
}

void HttpLoop::end_idle_connections() {
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

// By value: the caller's may be the map's own.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void HttpLoop::drop(ConnectionPointer connection) {
  if (connections_.erase(connection->id) == 0) return;
  --connection->listener->connections;
  set_interest(*connection, 0);
  clear_deadline(*connection);
  open_connections_.store(connections_.size());
  release_handles(*connection);
  connection->fd.reset();
}

void HttpLoop::release_handles(Connection& connection) {
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

void HttpLoop::begin_reading(const ConnectionPointer& connection) {
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

void HttpLoop::on_ready(const ConnectionPointer& connection, uint32_t events) {
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

void HttpLoop::on_readable(const ConnectionPointer& connection) {
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

ssize_t HttpLoop::receive(Connection& connection) {
  size_t before = connection.input.size();
  connection.input.resize(before + kReceiveBytes);
  ssize_t got = 0;
  do {
    char* const place = connection.input.data() + before;
    got = connection.listener->takes_descriptors
              ? receive_some(connection.fd.get(), place, kReceiveBytes, &connection.passed)
              : recv(connection.fd.get(), place, kReceiveBytes, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  int error = errno;
  connection.input.resize(before + (got > 0 ? static_cast<size_t>(got) : 0));
  errno = error;
  return got;
}

bool HttpLoop::parse(const ConnectionPointer& connection) {
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

void HttpLoop::refuse(const ConnectionPointer& connection, int status, std::string_view code,
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

void HttpLoop::dispatch(const ConnectionPointer& connection) {
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

void HttpLoop::handle(const ConnectionPointer& connection) {
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

void HttpLoop::after_handler(const ConnectionPointer& connection, HandlerOutcome outcome) {
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

void HttpLoop::abort(const ConnectionPointer& connection) {
  struct linger option{1, 0};
  setsockopt(connection->fd.get(), SOL_SOCKET, SO_LINGER, &option, sizeof option);
  drop(connection);
}

bool HttpLoop::is_stopping() const {
  MutexLock lock(mutex_);
  return stopping_;
}

bool HttpLoop::wait_for_handlers(SteadyClock::time_point deadline) {
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

}  // namespace qanat::net
