#include "qanat/net/http_client.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/net/http_parser.h"
#include "qanat/net/socket.h"

namespace qanat::net {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr size_t kBufferBytes = 64 << 10;
constexpr size_t kSourceBytes = 256 << 10;  // of a streamed body at a time
constexpr Milliseconds kContinueWait{1'000};

bool is_idempotent(Method method) {
  return method == Method::kGet || method == Method::kHead || method == Method::kPut ||
         method == Method::kDelete || method == Method::kOptions;
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

std::string connection_key(const Url& url, const std::string& unix_socket) {
  return unix_socket.empty() ? str_cat(url.scheme, "://", url.host, ":", url.port)
                             : str_cat("unix:", unix_socket);
}

// All time limits of one request.
struct Limits {
  Deadline total = Deadline::max();
  Milliseconds idle{};

  Deadline next() const { return std::min(total, SteadyClock::now() + idle); }
};

// A connection with the bytes read ahead from it.
struct Connection {
  std::string key;
  std::unique_ptr<Stream> stream;
  std::string input;
  size_t position = 0;
  SteadyClock::time_point idle_since;
  bool reused = false;

  std::string_view unread() const { return std::string_view(input).substr(position); }
  // Reads more behind what is unread; 0 at the end of the connection.
  Result<size_t> fill(Deadline deadline, const CancelSignal* cancel) {
    input.erase(0, position);
    position = 0;
    size_t before = input.size();
    input.resize(before + kBufferBytes);
    Result<size_t> got = stream->read(input.data() + before, kBufferBytes, deadline, cancel);
    input.resize(before + (got.ok() ? *got : 0));
    return got;
  }
};

}  // namespace

struct HttpClient::Impl {
  explicit Impl(ClientOptions o) : options(std::move(o)) {}

  std::unique_ptr<Connection> take_idle(const std::string& key) {
    while (true) {
      std::unique_ptr<Connection> found;
      {
        MutexLock lock(mutex);
        // The most recently used is the most likely to be alive.
        auto it = std::find_if(idle.rbegin(), idle.rend(),
                               [&key](const auto& connection) { return connection->key == key; });
        if (it == idle.rend()) return nullptr;
        found = std::move(*it);
        idle.erase(std::next(it).base());
      }
      if (SteadyClock::now() - found->idle_since < options.keep_alive && found->stream->usable()) {
        found->reused = true;
        return found;
      }
    }
  }

  void give_back(std::unique_ptr<Connection> connection) {
    connection->idle_since = SteadyClock::now();
    connection->input = {};
    connection->position = 0;
    std::unique_ptr<Connection> dropped;  // closed outside of the lock
    MutexLock lock(mutex);
    if (options.max_idle_connections == 0) return;
    if (idle.size() >= options.max_idle_connections) {
      dropped = std::move(idle.front());
      idle.erase(idle.begin());
    }
    idle.push_back(std::move(connection));
  }

  Result<std::vector<IpAddress>> addresses_of(const std::string& host) const {
    if (auto literal = IpAddress::parse(host)) return std::vector<IpAddress>{*literal};
    if (host == "localhost") {
      return std::vector<IpAddress>{*IpAddress::parse("127.0.0.1"), *IpAddress::parse("::1")};
    }
    if (!options.resolver) {
      return unavailable(str_cat("cannot resolve host ", host, ": this program resolves no names"));
    }
    return options.resolver(host, options.connect_timeout);
  }

  Result<FileDescriptor> open_socket(const Url& url, const std::string& unix_socket,
                                     const Limits& limits, const CancelSignal* cancel) const {
    auto deadline = [&] {
      return std::min(limits.total, SteadyClock::now() + options.connect_timeout);
    };
    if (!unix_socket.empty()) return connect_unix(unix_socket, deadline(), cancel);
    QANAT_ASSIGN_OR_RETURN(std::vector<IpAddress> addresses, addresses_of(url.host));
    Status last = unavailable(str_cat("host ", url.host, " has no address"));
    for (const IpAddress& address : addresses) {
      if (options.address_policy) {
        if (Status allowed = options.address_policy(address); !allowed.ok()) {
          last = allowed.with_context(str_cat("host ", url.host));
          continue;
        }
      }
      Result<FileDescriptor> fd = connect_tcp(address, url.port, deadline(), cancel);
      if (fd.ok() || fd.code() == Code::kCancelled) return fd;
      last = fd.status();
    }
    return last;
  }

  Result<std::unique_ptr<Connection>> open(const Url& url, const std::string& unix_socket,
                                           const Limits& limits, const CancelSignal* cancel) const {
    bool secure = url.scheme == "https" && unix_socket.empty();
    if (secure && !options.tls) return invalid_argument("this program does not speak https");
    QANAT_ASSIGN_OR_RETURN(FileDescriptor fd, open_socket(url, unix_socket, limits, cancel));
    auto connection = std::make_unique<Connection>();
    connection->key = connection_key(url, unix_socket);
    if (secure) {
      auto deadline = std::min(limits.total, SteadyClock::now() + options.connect_timeout);
      QANAT_ASSIGN_OR_RETURN(connection->stream,
                             options.tls(fd.release(), url.host, deadline, cancel));
    } else {
      connection->stream = plain_stream(fd.release());
    }
    return connection;
  }

  const ClientOptions options;
  Mutex mutex;
  std::vector<std::unique_ptr<Connection>> idle GUARDED_BY(mutex);
};

namespace {

class Answer : public ClientResponse {
 public:
  using GiveBack = std::function<void(std::unique_ptr<Connection>)>;
  Answer(std::unique_ptr<Connection> connection, std::unique_ptr<HttpParser> parser, Url url,
         Limits limits, std::shared_ptr<CancelSignal> cancel, GiveBack give_back)
      : connection_(std::move(connection)),
        parser_(std::move(parser)),
        url_(std::move(url)),
        limits_(limits),
        cancel_(std::move(cancel)),
        give_back_(std::move(give_back)) {
    if (parser_->done()) recycle();
  }

  int status() const override { return parser_->status(); }
  const Headers& headers() const override { return parser_->headers(); }
  std::optional<uint64_t> content_length() const override { return parser_->content_length(); }
  const Url& url() const override { return url_; }

  Result<size_t> read(char* buffer, size_t size) override {
    QANAT_RETURN_IF_ERROR(failed_);
    Result<size_t> got = read_body(buffer, size);
    if (!got.ok()) {
      failed_ = got.status();
      connection_.reset();
    }
    return got;
  }

 private:
  Result<size_t> read_body(char* buffer, size_t size) {
    while (!parser_->done() && size > 0) {
      auto parsed = parser_->parse_body(connection_->unread(), buffer, size);
      if (!parsed.ok()) return unavailable(str_cat("broken answer: ", parsed.status().message()));
      connection_->position += parsed->consumed;
      if (parser_->done()) recycle();
      if (parsed->produced > 0) return parsed->produced;
      if (parsed->consumed > 0) continue;
      QANAT_ASSIGN_OR_RETURN(size_t got, connection_->fill(limits_.next(), cancel_.get()));
      if (got > 0) continue;
      if (!parser_->finish().ok()) {
        return unavailable("the connection closed before the end of the answer");
      }
      connection_.reset();
    }
    return size_t{0};
  }

  // The answer is read: its connection can serve another request, if nothing unexpected came behind
  // it.
  void recycle() {
    if (parser_->keep_alive() && give_back_ && connection_->unread().empty()) {
      give_back_(std::move(connection_));
    }
    connection_.reset();
  }

  std::unique_ptr<Connection> connection_;
  std::unique_ptr<HttpParser> parser_;
  Url url_;
  Limits limits_;
  std::shared_ptr<CancelSignal> cancel_;
  GiveBack give_back_;  // empty: not to be used again
  Status failed_;
};

// One exchange on one connection: writes the request, reads the answer's header.
class Exchange {
 public:
  Exchange(const ClientOptions& options, const ClientRequest& request, const Url& url,
           const Headers& headers, Connection& connection, const Limits& limits)
      : options_(options),
        request_(request),
        url_(url),
        headers_(headers),
        connection_(connection),
        limits_(limits) {}

  Result<std::unique_ptr<HttpParser>> run() {
    QANAT_ASSIGN_OR_RETURN(std::string header, make_header());
    // A small body goes with the header, in one packet.
    bool together = !request_.source && !request_.expect_continue &&
                    header.size() + request_.body.size() <= kBufferBytes;
    if (together) header += request_.body;
    Status written = request_.descriptor < 0
                         ? write(header, nullptr)
                         : connection_.stream->write_with_descriptor(
                               header, request_.descriptor, limits_.next(), request_.cancel.get());
    if (written.ok() && !together) written = write_body();
    if (!source_failed_.ok()) return source_failed_;
    if (!written.ok()) {
      body_sent_ = false;
      if (written.code() != Code::kUnavailable) return written;
      // The server may have said why it closed the connection.
      auto parser = read_header();
      if (parser.ok()) return parser;
      return written;
    }
    if (early_) return std::move(early_);
    return read_header();
  }

  bool body_sent() const { return body_sent_; }
  bool answer_began() const { return answer_began_; }
  bool source_used() const { return source_used_; }

 private:
  Result<std::string> make_header() {
    std::string_view method = method_name(request_.method);
    if (method.empty()) return invalid_argument("the request has no method");
    std::string out = str_cat(method, " ", url_.target(), " HTTP/1.1\r\n");
    if (!headers_.has("Host")) str_append(out, "Host: ", url_.authority(), "\r\n");
    if (!headers_.has("User-Agent")) str_append(out, "User-Agent: ", options_.user_agent, "\r\n");
    for (auto& [name, value] : headers_.fields()) {
      if (!valid_header_name(name) || !valid_header_value(value)) {
        return invalid_argument(str_cat("header ", qanat::quoted(name), " cannot be sent"));
      }
      str_append(out, name, ": ", value, "\r\n");
    }
    bool has_body = request_.source || !request_.body.empty() || request_.method == Method::kPost ||
                    request_.method == Method::kPut || request_.method == Method::kPatch;
    if (request_.source && !request_.source_length) {
      out += "Transfer-Encoding: chunked\r\n";
    } else if (has_body) {
      str_append(out, "Content-Length: ",
                 request_.source ? *request_.source_length : request_.body.size(), "\r\n");
    }
    if (request_.expect_continue && has_body) out += "Expect: 100-continue\r\n";
    out += "\r\n";
    return out;
  }

  Status write(std::string_view bytes, bool* stop_early) {
    return connection_.stream->write(bytes, limits_.next(), request_.cancel.get(), stop_early);
  }

  Status write_body() {
    if (request_.expect_continue) {
      QANAT_RETURN_IF_ERROR(wait_for_continue());
      if (early_) {
        body_sent_ = false;
        return ok_status();
      }
    }
    bool stop = false;
    if (request_.source) {
      QANAT_RETURN_IF_ERROR(write_source(stop));
    } else {
      // In pieces, so that the idle time-out is one of progress.
      for (size_t at = 0; at < request_.body.size() && !stop; at += kBufferBytes) {
        QANAT_RETURN_IF_ERROR(
            write(std::string_view(request_.body).substr(at, kBufferBytes), &stop));
      }
    }
    if (stop) body_sent_ = false;
    return ok_status();
  }

  // After "Expect: 100-continue". A server that does not know it stays silent: then the body is
  // sent anyway.
  Status wait_for_continue() {
    Limits brief{std::min(limits_.total, SteadyClock::now() + kContinueWait), kContinueWait};
    auto parser = read_one_header(brief);
    if (parser.ok()) {
      if ((*parser)->status() != 100) early_ = *std::move(parser);
      return ok_status();
    }
    return parser.code() == Code::kDeadlineExceeded ? ok_status() : parser.status();
  }

  Status write_source(bool& stop) {
    bool chunked = !request_.source_length.has_value();
    uint64_t left = request_.source_length.value_or(0);
    std::string buffer;
    source_used_ = true;
    while (!stop) {
      // Room for a chunk's length in front: ten characters are enough for any piece.
      constexpr size_t kFront = 10;
      buffer.resize(kFront + kSourceBytes);
      Result<size_t> got = request_.source(buffer.data() + kFront, kSourceBytes);
      if (!got.ok()) return source_failed_ = got.status();
      if (!chunked && *got > left) {
        return source_failed_ = internal_error("the request's body is longer than announced");
      }
      left -= chunked ? 0 : *got;
      if (*got == 0) {
        if (left > 0) {
          return source_failed_ = internal_error("the request's body is shorter than announced");
        }
        return chunked ? write("0\r\n\r\n", &stop) : ok_status();
      }
      if (!chunked) {
        QANAT_RETURN_IF_ERROR(write({buffer.data() + kFront, *got}, &stop));
        continue;
      }
      char length[16];
      int digits = snprintf(length, sizeof length, "%zx\r\n", *got);
      size_t begin = kFront - static_cast<size_t>(digits);
      std::memcpy(buffer.data() + begin, length, static_cast<size_t>(digits));
      buffer.resize(kFront + *got);
      buffer += "\r\n";
      QANAT_RETURN_IF_ERROR(write(std::string_view(buffer).substr(begin), &stop));
    }
    return ok_status();
  }

  // Skips "100 Continue" and its kin.
  Result<std::unique_ptr<HttpParser>> read_header() {
    while (true) {
      auto parser = read_one_header(limits_);
      if (!parser.ok() || (*parser)->status() >= 200) return parser;
      if ((*parser)->status() == 101) return unavailable("the server switched protocols unasked");
    }
  }

  Result<std::unique_ptr<HttpParser>> read_one_header(const Limits& limits) {
    auto parser =
        std::make_unique<HttpParser>(HttpParser::Kind::kResponse, options_.max_header_bytes);
    if (request_.method == Method::kHead) parser->expect_no_body();
    while (true) {
      if (!connection_.unread().empty()) {
        Result<size_t> used = parser->parse_header(connection_.unread());
        if (!used.ok()) return unavailable(str_cat("broken answer: ", used.status().message()));
        connection_.position += *used;
        if (parser->header_done()) return parser;
      }
      QANAT_ASSIGN_OR_RETURN(size_t got, connection_.fill(limits.next(), request_.cancel.get()));
      if (got == 0) return unavailable("the server closed the connection without an answer");
      answer_began_ = true;
    }
  }

  const ClientOptions& options_;
  const ClientRequest& request_;
  const Url& url_;
  const Headers& headers_;
  Connection& connection_;
  const Limits& limits_;
  std::unique_ptr<HttpParser> early_;  // an answer that came instead of "100 Continue"
  Status source_failed_;
  bool body_sent_ = true;
  bool answer_began_ = false;
  bool source_used_ = false;
};

}  // namespace

Result<std::string> ClientResponse::read_all(size_t limit) {
  std::string out;
  std::string piece(kBufferBytes, '\0');
  while (true) {
    QANAT_ASSIGN_OR_RETURN(size_t got, read(piece.data(), piece.size()));
    if (got == 0) return out;
    if (out.size() + got > limit) {
      return too_large(str_cat("the answer has more than ", limit, " bytes"));
    }
    out.append(piece, 0, got);
  }
}

HttpClient::HttpClient(ClientOptions options) : impl_(std::make_shared<Impl>(std::move(options))) {}
HttpClient::~HttpClient() = default;

namespace {

Result<std::unique_ptr<ClientResponse>> send_to(const std::shared_ptr<HttpClient::Impl>& impl,
                                                const ClientRequest& request, const Url& url,
                                                const Headers& headers, const Limits& limits) {
  const std::string& unix_socket =
      request.unix_socket.empty() ? url.unix_socket : request.unix_socket;
  std::string where = unix_socket.empty() ? url.authority() : unix_socket;
  if (request.descriptor >= 0 && unix_socket.empty()) {
    return invalid_argument("a descriptor can be passed through a Unix socket only");
  }
  bool fresh = false;
  while (true) {
    std::unique_ptr<Connection> connection;
    if (!fresh) connection = impl->take_idle(connection_key(url, unix_socket));
    if (connection == nullptr) {
      QANAT_ASSIGN_OR_RETURN(connection,
                             impl->open(url, unix_socket, limits, request.cancel.get()));
    }
    Exchange exchange(impl->options, request, url, headers, *connection, limits);
    auto parser = exchange.run();
    if (parser.ok()) {
      Answer::GiveBack give_back;
      if (exchange.body_sent()) {
        give_back = [weak = std::weak_ptr(impl)](std::unique_ptr<Connection> used) {
          if (auto alive = weak.lock()) alive->give_back(std::move(used));
        };
      }
      return std::unique_ptr<ClientResponse>(
          std::make_unique<Answer>(std::move(connection), *std::move(parser), url, limits,
                                   request.cancel, std::move(give_back)));
    }
    // The server may have closed a kept connection just before the request arrived.
    bool repeat = connection->reused && !exchange.answer_began() && !exchange.source_used() &&
                  is_idempotent(request.method) && parser.code() == Code::kUnavailable;
    if (!repeat) return parser.status().with_context(where);
    fresh = true;
  }
}

}  // namespace

Result<std::unique_ptr<ClientResponse>> HttpClient::send(const ClientRequest& request) {
  Limits limits;
  limits.idle = request.idle_timeout.value_or(impl_->options.idle_timeout);
  if (request.total_timeout) limits.total = SteadyClock::now() + *request.total_timeout;
  Url url = request.url;
  Headers headers = request.headers;
  bool follows = request.max_redirects > 0 && request.unix_socket.empty() &&
                 (request.method == Method::kGet || request.method == Method::kHead);
  for (int redirects = 0;; ++redirects) {
    QANAT_ASSIGN_OR_RETURN(std::unique_ptr<ClientResponse> answer,
                           send_to(impl_, request, url, headers, limits));
    if (!follows || !is_redirect(answer->status()) || !answer->headers().has("Location")) {
      return answer;
    }
    if (redirects == request.max_redirects) {
      return failed_precondition(str_cat("more than ", request.max_redirects, " redirects from ",
                                         request.url.to_string()));
    }
    Result<Url> next = url.resolve(answer->headers().get("Location"));
    if (!next.ok()) return next.status().with_context("redirect");
    if (next->scheme == "unix") return permission_denied("a redirect to a Unix socket is refused");
    if (connection_key(*next, "") != connection_key(url, "")) {
      for (const char* secret : {"Authorization", "Cookie", "Proxy-Authorization", "Host"}) {
        headers.remove(secret);
      }
    }
    // A short body is read, so that the connection can be used again.
    (void)answer->read_all(kBufferBytes);
    url = *std::move(next);
  }
}

}  // namespace qanat::net
