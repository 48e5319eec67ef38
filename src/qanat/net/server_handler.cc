// The blocking side of a connection: Request and Response as a handler sees them, on its own
// thread.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/net/server_connection.h"

namespace qanat::net {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr size_t kReadBytes = 64 << 10;
constexpr size_t kDirectBytes = 16 << 10;  // a read of so many is not worth a copy
constexpr size_t kLowWater = 128 << 10;
// What is left of a body after its handler must come soon: a sender that is slow is not worth a
// thread.
constexpr Milliseconds kDrainTime{2'000};

std::string http_date() {
  time_t now = time(nullptr);
  tm parts{};
  gmtime_r(&now, &parts);
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  char text[40];  // not strftime: its names follow the locale
  snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT", kDays[parts.tm_wday],
           parts.tm_mday, kMonths[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour, parts.tm_min,
           parts.tm_sec);
  return text;
}

bool is_managed(std::string_view name) {
  for (std::string_view managed :
       {"Content-Length", "Transfer-Encoding", "Connection", "Date", "Server"}) {
    if (equal_ignoring_case(name, managed)) return true;
  }
  return false;
}

bool forbids_body(int status) { return status < 200 || status == 204 || status == 304; }

// Sends all pieces, waiting as long as the peer makes progress.
Status send_all(int fd, std::initializer_list<std::string_view> pieces, Milliseconds timeout) {
  iovec parts[4];
  size_t count = 0;
  for (std::string_view piece : pieces) {
    if (!piece.empty()) parts[count++] = {const_cast<char*>(piece.data()), piece.size()};
  }
  iovec* next = parts;
  while (count > 0) {
    msghdr message{};
    message.msg_iov = next;
    message.msg_iovlen = count;
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      Result<short> ready = wait_for(fd, POLLOUT, SteadyClock::now() + timeout, nullptr);
      if (!ready.ok()) return cancelled("the client takes no more bytes");
      continue;
    }
    if (sent < 0) return cancelled(str_cat("the client went away: ", strerror(errno)));
    auto left = static_cast<size_t>(sent);
    while (count > 0 && left >= next->iov_len) {
      left -= next->iov_len;
      ++next;
      --count;
    }
    if (count > 0) {
      next->iov_base = static_cast<char*>(next->iov_base) + left;
      next->iov_len -= left;
    }
  }
  return ok_status();
}

class HandlerRequest : public Request {
 public:
  HandlerRequest(const ServerOptions& options, Connection& connection)
      : options_(options), connection_(connection) {
    awaits_continue_ = connection.parser->request().has_body &&
                       connection.parser->request().headers.has_token("Expect", "100-continue");
  }

  const RequestHead& head() const override { return connection_.parser->request(); }
  const std::string& peer() const override { return connection_.peer; }

  Result<size_t> read(char* buffer, size_t size) override {
    QANAT_RETURN_IF_ERROR(failed_);
    Result<size_t> got = read_body(buffer, size, SteadyClock::time_point::max());
    if (!got.ok()) failed_ = got.status();
    return got;
  }

  bool client_gone() override {
    pollfd fd{connection_.fd.get(), POLLRDHUP, 0};
    return poll(&fd, 1, 0) > 0 && (fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  }

  int descriptor() const override { return connection_.passed.get(); }

  // Reads what the handler left. False when the connection cannot be used again.
  bool drain() {
    if (connection_.parser->done()) return true;
    if (awaits_continue_ || !failed_.ok()) return false;
    auto deadline = SteadyClock::now() + kDrainTime;
    std::string piece(kReadBytes, '\0');
    size_t total = 0;
    while (total <= options_.max_drain_bytes) {
      Result<size_t> got = read_body(piece.data(), piece.size(), deadline);
      if (!got.ok()) return false;
      if (*got == 0) return true;
      total += *got;
    }
    return false;
  }

 private:
  Result<size_t> read_body(char* buffer, size_t size, SteadyClock::time_point latest) {
    HttpParser& parser = *connection_.parser;
    while (!parser.done() && size > 0) {
      if (!connection_.unread().empty()) {
        QANAT_ASSIGN_OR_RETURN(auto parsed, parser.parse_body(connection_.unread(), buffer, size));
        connection_.consume(parsed.consumed);
        if (parsed.produced > 0) return parsed.produced;
        if (parsed.consumed > 0) continue;
      }
      if (size >= kDirectBytes && connection_.unread().empty()) {
        QANAT_ASSIGN_OR_RETURN(const size_t produced, receive_into(buffer, size, latest));
        if (produced > 0) return produced;
        continue;
      }
      QANAT_RETURN_IF_ERROR(receive(latest));
    }
    return size_t{0};
  }

  // A large read goes straight to where the handler wants it, and is parsed in place: what comes
  // out of a piece is never longer than the piece.
  Result<size_t> receive_into(char* buffer, size_t size, SteadyClock::time_point latest) {
    QANAT_RETURN_IF_ERROR(answer_continue());
    const size_t promised = std::min<uint64_t>(connection_.parser->promised(), size);
    QANAT_ASSIGN_OR_RETURN(const size_t got, receive_some(buffer, size, promised, latest));
    QANAT_ASSIGN_OR_RETURN(const auto parsed,
                           connection_.parser->parse_body({buffer, got}, buffer, got));
    if (parsed.consumed < got) {
      connection_.input.assign(buffer + parsed.consumed, got - parsed.consumed);
      connection_.position = 0;
    }
    return parsed.produced;
  }

  Status receive(SteadyClock::time_point latest) {
    QANAT_RETURN_IF_ERROR(answer_continue());
    std::string& input = connection_.input;
    input.erase(0, connection_.position);
    connection_.position = 0;
    const size_t before = input.size();
    input.resize(before + kReadBytes);
    const auto got = receive_some(input.data() + before, kReadBytes, 1, latest);
    input.resize(before + (got.ok() ? *got : 0));
    return got.status();
  }

  Status answer_continue() {
    const bool send = awaits_continue_ && connection_.unread().empty();
    awaits_continue_ = false;
    if (!send) return ok_status();
    return send_all(connection_.fd.get(), {"HTTP/1.1 100 Continue\r\n\r\n"},
                    options_.write_timeout);
  }

  // At least one byte. `promised`: so many will surely come, and are waited for together.
  Result<size_t> receive_some(char* buffer, size_t size, size_t promised,
                              SteadyClock::time_point latest) {
    const int fd = connection_.fd.get();
    while (true) {
      const ssize_t got = recv(fd, buffer, size, MSG_DONTWAIT);
      const int error = errno;
      if (got > 0) return static_cast<size_t>(got);
      if (got == 0) return cancelled("the client closed the connection before the end of the body");
      if (error == EINTR) continue;
      if (error != EAGAIN) return cancelled(str_cat("the client went away: ", strerror(error)));
      auto deadline = std::min(latest, SteadyClock::now() + options_.read_timeout);
      const bool many = promised >= kDirectBytes;
      if (many) set_low_water(fd, std::min(promised, kLowWater));
      Result<short> ready = wait_for(fd, POLLIN, deadline, nullptr);
      // The loop waits for the first byte of the next request.
      if (many) set_low_water(fd, 1);
      int there = 0;
      if (!ready.ok() && (ioctl(fd, FIONREAD, &there) != 0 || there == 0))
        return deadline_exceeded("the rest of the request's body did not come in time");
    }
  }

  // Wakes up the thread for so many bytes, instead of for each segment: half of what a large body
  // costs on a fast network.
  static void set_low_water(int fd, size_t bytes) {
    const int value = static_cast<int>(bytes);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value);
  }

  const ServerOptions& options_;
  Connection& connection_;
  bool awaits_continue_ = false;
  Status failed_;
};

class PendingHandle : public PendingResponse {
 public:
  explicit PendingHandle(std::shared_ptr<PendingCore> core) : core_(std::move(core)) {}
  ~PendingHandle() override { core_->complete(500, {}, ""); }
  bool complete(int status, Headers headers, std::string body) override {
    return core_->complete(status, std::move(headers), std::move(body));
  }
  void on_cancelled(std::function<void()> callback) override {
    core_->on_cancelled(std::move(callback));
  }
  bool cancelled() const override { return core_->cancelled(); }

 private:
  std::shared_ptr<PendingCore> core_;
};

class StreamHandle : public EventStream {
 public:
  explicit StreamHandle(std::shared_ptr<StreamCore> core) : core_(std::move(core)) {}
  ~StreamHandle() override { core_->close(); }
  Status send(const Event& event) override { return core_->send(format_event(event)); }
  Status send_raw(std::string bytes) override { return core_->send(std::move(bytes)); }
  void close() override { core_->close(); }
  bool closed() const override { return core_->closed(); }
  size_t queued_bytes() const override { return core_->queued_bytes(); }
  void on_closed(std::function<void()> callback) override { core_->on_closed(std::move(callback)); }

 private:
  std::shared_ptr<StreamCore> core_;
};

class HandlerResponse : public Response {
 public:
  HandlerResponse(const ServerOptions& options, std::weak_ptr<ServerLoop> loop,
                  Connection& connection, HandlerRequest& request,
                  const std::function<bool()>& keep_alive)
      : options_(options),
        loop_(std::move(loop)),
        connection_(connection),
        request_(request),
        server_keeps_alive_(keep_alive) {}

  Headers& headers() override { return headers_; }
  bool started() const override { return state_ != State::kNothing; }

  Status send(int status, std::string_view body, std::string_view content_type) override {
    if (!content_type.empty()) headers_.set("Content-Type", std::string(content_type));
    std::optional<uint64_t> length = body.size();
    if (forbids_body(status)) {
      body = {};
      length = 0;
    }
    QANAT_RETURN_IF_ERROR(start(status, length));
    if (!body.empty()) QANAT_RETURN_IF_ERROR(write(body));
    return finish();
  }

  Status start(int status, std::optional<uint64_t> content_length) override {
    if (started()) return internal_error("an answer was begun twice");
    if (status < 200 || status > 999) return internal_error("an answer with a wrong status");
    for (auto& [name, value] : headers_.fields()) {
      if (!valid_header_name(name) || !valid_header_value(value)) {
        return internal_error(str_cat("header ", qanat::quoted(name), " cannot be sent"));
      }
    }
    state_ = State::kStarted;
    headers_.set("Server-Timing", server_timing());
    const RequestHead& head = request_.head();
    no_body_ = head.method == Method::kHead || forbids_body(status);
    chunked_ = !content_length && head.version >= 11 && !forbids_body(status);
    left_ = content_length.value_or(0);
    has_length_ = content_length.has_value();
    // Decided now, since it is said in the header. Whether the rest of the body can be drained
    // shows only later; closing then is allowed.
    keep_alive_ = head.keep_alive && (has_length_ || chunked_ || no_body_) && server_keeps_alive_();
    std::optional<uint64_t> said = content_length;
    if (forbids_body(status)) said = std::nullopt;
    header_ = answer_header(options_, status, headers_, said, chunked_, keep_alive_);
    return ok_status();
  }

  Status write(std::string_view bytes) override {
    QANAT_RETURN_IF_ERROR(failed_);
    if (state_ != State::kStarted) return internal_error("bytes outside of an answer");
    if (has_length_) {
      if (bytes.size() > left_) {
        return fail(internal_error("the answer's body is longer than announced"));
      }
      left_ -= bytes.size();
    }
    if (bytes.empty()) return ok_status();
    if (no_body_) return flush_header();
    if (!chunked_) return transmit({std::exchange(header_, {}), bytes});
    char length[20];
    snprintf(length, sizeof length, "%zx\r\n", bytes.size());
    return transmit({std::exchange(header_, {}), length, bytes, "\r\n"});
  }

  Status finish() override {
    QANAT_RETURN_IF_ERROR(failed_);
    if (state_ != State::kStarted) return internal_error("the end of an answer that was not begun");
    if (has_length_ && left_ > 0 && !no_body_) {
      return fail(internal_error("the answer's body is shorter than announced"));
    }
    state_ = State::kFinished;
    std::string header = std::exchange(header_, {});
    return chunked_ && !no_body_ ? transmit({header, "0\r\n\r\n"}) : transmit({header});
  }

  std::shared_ptr<PendingResponse> defer(DeferOptions options) override {
    state_ = State::kPending;
    connection_.pending = std::make_shared<PendingCore>(loop_, connection_.id, std::move(options));
    return std::make_shared<PendingHandle>(connection_.pending);
  }

  std::shared_ptr<EventStream> stream(StreamOptions options) override {
    for (auto& [name, value] : options.headers.fields()) headers_.set(name, value);
    headers_.set("Content-Type", options.content_type);
    if (!headers_.has("Cache-Control")) headers_.set("Cache-Control", "no-store");
    connection_.stream = std::make_shared<StreamCore>(loop_, connection_.id, std::move(options));
    auto handle = std::make_shared<StreamHandle>(connection_.stream);
    if (Status status = start(200, std::nullopt); !status.ok()) {
      log_error("an event stream was not begun", {{"error", status}});
      connection_.stream->mark_closed();
      connection_.stream = nullptr;
      return handle;
    }
    state_ = State::kStreaming;
    return handle;
  }

  // After the handler.
  HandlerOutcome conclude() {
    switch (state_) {
      case State::kNothing:
        log_error("a request was not answered", {{"target", request_.head().target}});
        headers_.clear();
        (void)send(500, "", {});
        break;
      case State::kStarted:
        return HandlerOutcome::kAbort;
      case State::kPending:
        connection_.close_after_output = !request_.drain() || !request_.head().keep_alive;
        return HandlerOutcome::kPending;
      case State::kStreaming:
        connection_.close_after_output = !request_.drain() || !keep_alive_;
        connection_.chunked_stream = chunked_;
        connection_.output = std::move(header_);
        connection_.sent = 0;
        return HandlerOutcome::kStreaming;
      case State::kFinished:
        break;
    }
    if (!failed_.ok()) return HandlerOutcome::kAbort;
    return request_.drain() && keep_alive_ ? HandlerOutcome::kKeepAlive : HandlerOutcome::kClose;
  }

 private:
  // What the handler took until it began to answer, as browsers and curl show it (W3C, "Server
  // Timing").
  std::string server_timing() const {
    const std::chrono::duration<double, std::milli> took = SteadyClock::now() - began_;
    char text[48];
    snprintf(text, sizeof text, "handler;dur=%.3f", took.count());
    return text;
  }

  enum class State { kNothing, kStarted, kFinished, kPending, kStreaming };

  Status flush_header() {
    return header_.empty() ? ok_status() : transmit({std::exchange(header_, {})});
  }
  Status fail(Status status) {
    failed_ = status;
    return status;
  }
  Status transmit(std::initializer_list<std::string_view> pieces) {
    QANAT_RETURN_IF_ERROR(failed_);
    failed_ = send_all(connection_.fd.get(), pieces, options_.write_timeout);
    return failed_;
  }

  const SteadyClock::time_point began_ = SteadyClock::now();
  const ServerOptions& options_;
  const std::weak_ptr<ServerLoop> loop_;
  Connection& connection_;
  HandlerRequest& request_;
  const std::function<bool()>& server_keeps_alive_;
  Headers headers_;
  State state_ = State::kNothing;
  std::string header_;  // not yet sent
  bool no_body_ = false;
  bool chunked_ = false;
  bool has_length_ = false;
  bool keep_alive_ = false;
  uint64_t left_ = 0;
  Status failed_;
};

}  // namespace

std::string answer_header(const ServerOptions& options, int status, const Headers& headers,
                          std::optional<uint64_t> length, bool chunked, bool keep_alive) {
  std::string out = str_cat("HTTP/1.1 ", status, " ", reason_phrase(status),
                            "\r\nDate: ", http_date(), "\r\nServer: ", options.server_name, "\r\n");
  for (auto& [name, value] : headers.fields()) {
    if (!is_managed(name)) str_append(out, name, ": ", value, "\r\n");
  }
  if (length) str_append(out, "Content-Length: ", *length, "\r\n");
  if (chunked) out += "Transfer-Encoding: chunked\r\n";
  out += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return out;
}

HandlerOutcome run_handler(const ServerOptions& options, std::weak_ptr<ServerLoop> loop,
                           Connection& connection, const Handler& handler,
                           const std::function<bool()>& keep_alive) {
  HandlerRequest request(options, connection);
  HandlerResponse response(options, std::move(loop), connection, request, keep_alive);
  try {
    handler(request, response);
  } catch (const std::exception& error) {
    log_error("a handler threw an exception",
              {{"target", request.head().target}, {"what", error.what()}});
  } catch (...) {
    log_error("a handler threw", {{"target", request.head().target}});
  }
  connection.passed.reset();  // here, where closing may take its time
  return response.conclude();
}

Result<std::string> Request::read_all(size_t limit) {
  if (head().content_length.value_or(0) > limit) {
    return too_large(
        str_cat("the body has ", *head().content_length, " bytes; the limit is ", limit));
  }
  std::string out;
  std::string piece(std::min<size_t>(limit + 1, kReadBytes), '\0');
  while (true) {
    QANAT_ASSIGN_OR_RETURN(size_t got, read(piece.data(), piece.size()));
    if (got == 0) return out;
    if (out.size() + got > limit) {
      return too_large(str_cat("the body has more than ", limit, " bytes"));
    }
    out.append(piece, 0, got);
  }
}

}  // namespace qanat::net
