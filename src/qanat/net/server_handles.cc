// PendingCore and StreamCore: the thread-safe halves of answers that hold no thread.
#include <algorithm>

#include "qanat/base/string.h"
#include "qanat/net/server_connection.h"

namespace qanat::net {

// ---- PendingCore ----

PendingCore::PendingCore(std::weak_ptr<ServerLoop> loop, uint64_t connection, DeferOptions options)
    : loop_(std::move(loop)),
      connection_(connection),
      deadline_(std::chrono::steady_clock::now() + options.timeout),
      timeout_answer_{options.timeout_status, std::move(options.timeout_headers),
                      std::move(options.timeout_body)} {}

bool PendingCore::complete(int status, Headers headers, std::string body) {
  {
    MutexLock lock(mutex_);
    if (state_ != State::kWaiting) return false;
    state_ = State::kCompleted;
    answer_ = Answer{status, std::move(headers), std::move(body)};
    callback_ = nullptr;
  }
  if (auto loop = loop_.lock()) {
    loop->post([weak = std::weak_ptr(loop), id = connection_] {
      if (auto alive = weak.lock()) alive->wake_connection(id);
    });
  }
  return true;
}

void PendingCore::call_back(State state, std::optional<Answer> answer) {
  std::function<void()> callback;
  {
    MutexLock lock(mutex_);
    if (state_ != State::kWaiting) return;
    state_ = state;
    answer_ = std::move(answer);
    callback = std::move(callback_);
    callback_ = nullptr;
  }
  if (callback) callback();
}

void PendingCore::cancel() { call_back(State::kCancelled, std::nullopt); }

void PendingCore::expire() {
  std::optional<Answer> answer;
  {
    MutexLock lock(mutex_);
    answer = timeout_answer_;
  }
  call_back(State::kCancelled, std::move(answer));
}

void PendingCore::on_cancelled(std::function<void()> callback) {
  {
    MutexLock lock(mutex_);
    if (state_ == State::kCompleted) return;
    if (state_ == State::kWaiting) {
      callback_ = std::move(callback);
      return;
    }
  }
  callback();
}

bool PendingCore::cancelled() const {
  MutexLock lock(mutex_);
  return state_ == State::kCancelled;
}

std::optional<PendingCore::Answer> PendingCore::take_answer() {
  MutexLock lock(mutex_);
  return std::exchange(answer_, std::nullopt);
}

// ---- StreamCore ----

std::string format_event(const Event& event) {
  std::string out;
  // Line ends would begin another field; they cannot be part of a name or id.
  auto one_line = [](std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    std::replace(text.begin(), text.end(), '\r', ' ');
    return text;
  };
  if (!event.name.empty()) str_append(out, "event: ", one_line(event.name), "\n");
  if (!event.id.empty()) str_append(out, "id: ", one_line(event.id), "\n");
  std::string_view data = event.data;
  while (true) {
    size_t end = data.find_first_of("\r\n");
    str_append(out, "data: ", data.substr(0, end), "\n");
    if (end == std::string_view::npos) break;
    bool pair = data.substr(end).starts_with("\r\n");
    data.remove_prefix(end + (pair ? 2 : 1));
  }
  out += "\n";
  return out;
}

StreamCore::StreamCore(std::weak_ptr<ServerLoop> loop, uint64_t connection,
                       const StreamOptions& options)
    : loop_(std::move(loop)),
      connection_(connection),
      max_queued_bytes_(options.max_queued_bytes),
      is_event_stream_(options.content_type.starts_with("text/event-stream")) {}

void StreamCore::wake() {
  if (woken_) return;
  woken_ = true;
  if (auto loop = loop_.lock()) {
    loop->post([weak = std::weak_ptr(loop), id = connection_] {
      if (auto alive = weak.lock()) alive->wake_connection(id);
    });
  }
}

Status StreamCore::send(std::string bytes) {
  MutexLock lock(mutex_);
  if (closed_ || closing_) return cancelled("the event stream is closed");
  if (queue_.size() + bytes.size() > max_queued_bytes_) {
    closing_ = true;
    queue_.clear();
    if (is_event_stream_) {
      queue_ = format_event(
          {"error",
           R"({"error":{"code":"resource_exhausted","message":"this consumer is too slow; events were dropped","hint":"connect again, from the last event's id"}})",
           ""});
    }
    wake();
    return resource_exhausted("the consumer of the event stream is too slow");
  }
  if (queue_.empty()) {
    queue_ = std::move(bytes);
  } else {
    queue_ += bytes;
  }
  wake();
  return ok_status();
}

void StreamCore::close() {
  MutexLock lock(mutex_);
  if (closed_ || closing_) return;
  closing_ = true;
  wake();
}

bool StreamCore::closed() const {
  MutexLock lock(mutex_);
  return closed_ || closing_;
}

size_t StreamCore::queued_bytes() const {
  MutexLock lock(mutex_);
  return queue_.size();
}

void StreamCore::on_closed(std::function<void()> callback) {
  {
    MutexLock lock(mutex_);
    if (!closed_) {
      callback_ = std::move(callback);
      return;
    }
  }
  callback();
}

std::string StreamCore::take(bool& ended) {
  MutexLock lock(mutex_);
  woken_ = false;
  ended = closing_;
  return std::exchange(queue_, {});
}

void StreamCore::mark_closed() {
  std::function<void()> callback;
  {
    MutexLock lock(mutex_);
    if (closed_) return;
    closed_ = true;
    queue_.clear();
    callback = std::move(callback_);
    callback_ = nullptr;
  }
  if (callback) callback();
}

}  // namespace qanat::net
