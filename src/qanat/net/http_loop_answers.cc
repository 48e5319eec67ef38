// HttpLoop: answers that hold no thread, and how a connection ends.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>

#include "qanat/base/string.h"
#include "qanat/net/http_loop.h"

namespace qanat::net {
namespace {

using SteadyClock = std::chrono::steady_clock;
using State = Connection::State;

constexpr size_t kMaxLingerBytes = 4 << 20;
constexpr Milliseconds kLingerTime{2'000};

}  // namespace

// ---- Answers that hold no thread ----

void HttpLoop::deliver_pending(const ConnectionPointer& connection) {
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

void HttpLoop::queue_stream_bytes(Connection& connection, std::string_view bytes) {
  if (bytes.empty()) return;
  if (!connection.chunked_stream) {
    connection.output += bytes;
    return;
  }
  char length[20];
  snprintf(length, sizeof length, "%zx\r\n", bytes.size());
  str_append(connection.output, length, bytes, "\r\n");
}

void HttpLoop::pump_stream(const ConnectionPointer& connection) {
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

void HttpLoop::read_ahead(const ConnectionPointer& connection) {
  while (connection->unread().size() < options_.max_header_bytes) {
    ssize_t got = receive(*connection);
    if (got > 0) continue;
    if (got < 0 && errno == EAGAIN) return;
    drop(connection);
    return;
  }
  set_interest(*connection, connection->interest & ~static_cast<uint32_t>(EPOLLIN));
}

void HttpLoop::flush(const ConnectionPointer& connection) {
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

void HttpLoop::begin_lingering(const ConnectionPointer& connection) {
  shutdown(connection->fd.get(), SHUT_WR);
  connection->state = State::kLingering;
  connection->input = {};
  connection->position = 0;
  set_deadline(*connection, SteadyClock::now() + kLingerTime);
  set_interest(*connection, EPOLLIN);
  linger(connection);
}

void HttpLoop::linger(const ConnectionPointer& connection) {
  char discarded[16 << 10];
  while (true) {
    ssize_t got = recv(connection->fd.get(), discarded, sizeof discarded, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got > 0) connection->lingered += static_cast<size_t>(got);
    if (got <= 0 || connection->lingered > kMaxLingerBytes) break;
  }
  drop(connection);
}

}  // namespace qanat::net
