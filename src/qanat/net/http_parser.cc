#include "qanat/net/http_parser.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <cstring>

#include "qanat/base/string.h"

namespace qanat::net {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

// What both kinds of message fill in.
struct Message {
  RequestHead head;
  int status = 0;
  bool header_done = false;
  char* output = nullptr;
  size_t output_left = 0;
  uint64_t promised = 0;

  size_t take_body(beast::string_view body, beast::error_code& error) {
    size_t take = std::min(body.size(), output_left);
    std::memmove(output, body.data(), take);
    output += take;
    output_left -= take;
    if (take < body.size()) error = http::error::need_buffer;
    return take;
  }
};

template <bool is_request>
class Parser : public http::basic_parser<is_request> {
 public:
  explicit Parser(Message& message) : message_(message) {}

 private:
  void on_request_impl(http::verb /*method*/, beast::string_view method_text,
                       beast::string_view target, int version, beast::error_code& error) override {
    error = {};
    message_.head.method_text.assign(method_text.data(), method_text.size());
    message_.head.method = method_from_name(message_.head.method_text);
    message_.head.target.assign(target.data(), target.size());
    message_.head.version = version;
  }
  void on_response_impl(int code, beast::string_view /*reason*/, int version,
                        beast::error_code& error) override {
    error = {};
    message_.status = code;
    message_.head.version = version;
  }
  void on_field_impl(http::field /*name*/, beast::string_view name, beast::string_view value,
                     beast::error_code& error) override {
    error = {};
    // Fields after the body (trailers) are dropped: nothing here needs them.
    if (message_.header_done) return;
    message_.head.headers.add(std::string(name.data(), name.size()),
                              std::string(value.data(), value.size()));
  }
  void on_header_impl(beast::error_code& error) override {
    error = {};
    message_.header_done = true;
  }
  void on_body_init_impl(const boost::optional<std::uint64_t>& content_length,
                         beast::error_code& error) override {
    error = {};
    message_.promised = content_length.value_or(0);
  }
  std::size_t on_body_impl(beast::string_view body, beast::error_code& error) override {
    error = {};
    const size_t taken = message_.take_body(body, error);
    message_.promised -= std::min<uint64_t>(taken, message_.promised);
    return taken;
  }
  void on_chunk_header_impl(std::uint64_t size, beast::string_view /*extensions*/,
                            beast::error_code& error) override {
    error = {};
    message_.promised = size;
  }
  std::size_t on_chunk_body_impl(std::uint64_t remain, beast::string_view body,
                                 beast::error_code& error) override {
    error = {};
    const size_t taken = message_.take_body(body, error);
    message_.promised = remain - std::min<uint64_t>(taken, remain);
    return taken;
  }
  void on_finish_impl(beast::error_code& error) override { error = {}; }

  Message& message_;
};

Status parse_status(const beast::error_code& error) {
  if (error == http::error::header_limit) {
    return too_large("the HTTP header is too large");
  }
  if (error == http::error::partial_message) {
    return invalid_argument("the connection closed before the end of the HTTP message");
  }
  return invalid_argument(str_cat("malformed HTTP message: ", error.message()));
}

}  // namespace

struct HttpParser::Impl {
  Message message;
  size_t max_header_bytes = 0;
  size_t scanned = 0;  // bytes of the header known not to hold its end
  std::unique_ptr<Parser<true>> request;
  std::unique_ptr<Parser<false>> response;

  template <class Function>
  auto with(Function function) {
    return request ? function(*request) : function(*response);
  }
};

HttpParser::HttpParser(Kind kind, size_t max_header_bytes) : impl_(std::make_unique<Impl>()) {
  if (kind == Kind::kRequest) {
    impl_->request = std::make_unique<Parser<true>>(impl_->message);
  } else {
    impl_->response = std::make_unique<Parser<false>>(impl_->message);
  }
  impl_->max_header_bytes = max_header_bytes;
  impl_->with([max_header_bytes](auto& parser) {
    parser.header_limit(static_cast<std::uint32_t>(max_header_bytes) + 1);
    parser.body_limit(boost::none);
    return 0;
  });
}

HttpParser::~HttpParser() = default;

void HttpParser::expect_no_body() {
  impl_->with([](auto& parser) {
    parser.skip(true);
    return 0;
  });
}

Result<size_t> HttpParser::parse_header(std::string_view input) {
  // Empty lines before a request line are to be ignored (RFC 9112 section 2.2).
  size_t begin = 0;
  while (impl_->request && input.substr(begin).starts_with("\r\n")) begin += 2;
  std::string_view header = input.substr(begin);
  if (header.empty()) return size_t{0};
  // Whoever speaks another protocol (TLS, say) learns it at once.
  if (header[0] < 'A' || header[0] > 'z') {
    return invalid_argument("malformed HTTP message: it begins with a wrong character");
  }
  // Beast consumes a header piecemeal, which is hard to resume; it is given whole ones only.
  size_t from = impl_->scanned > 3 ? impl_->scanned - 3 : 0;
  size_t end = header.find("\r\n\r\n", from);
  size_t length = end == std::string_view::npos ? header.size() : end + 4;
  if (length > impl_->max_header_bytes) return too_large("the HTTP header is too large");
  if (end == std::string_view::npos) {
    impl_->scanned = header.size();
    return size_t{0};
  }
  // Not eager: the header alone, so that no body byte is taken without a place to put it.
  beast::error_code error;
  size_t used = impl_->with([&](auto& parser) {
    parser.eager(false);
    return parser.put(boost::asio::buffer(header.data(), length), error);
  });
  if (error) return parse_status(error);
  if (used != length || !impl_->message.header_done) {
    return invalid_argument("malformed HTTP message: the header does not end where it should");
  }
  RequestHead& head = impl_->message.head;
  if (impl_->request) {
    QANAT_RETURN_IF_ERROR(split_target(head.target, head.path, head.query_text));
    // Anything but plain chunking would have to be refused or misread.
    if (head.headers.has("Transfer-Encoding") &&
        !equal_ignoring_case(trim(head.headers.get("Transfer-Encoding")), "chunked")) {
      return invalid_argument("only Transfer-Encoding: chunked is understood");
    }
    size_t hosts = 0;
    for (auto& [name, value] : head.headers.fields()) hosts += equal_ignoring_case(name, "Host");
    if (hosts > 1 || (hosts == 0 && head.version >= 11)) {
      return invalid_argument("a request must have one Host header");
    }
    head.keep_alive = keep_alive();
    head.content_length = content_length();
    head.has_body = chunked() || head.content_length.value_or(0) > 0;
  }
  return begin + used;
}

bool HttpParser::header_done() const { return impl_->message.header_done; }

Result<HttpParser::Progress> HttpParser::parse_body(std::string_view input, char* output,
                                                    size_t output_size) {
  Message& message = impl_->message;
  message.output = output;
  message.output_left = output_size;
  beast::error_code error;
  Progress progress;
  progress.consumed = impl_->with([&](auto& parser) {
    parser.eager(true);
    if (parser.is_done() || input.empty()) return size_t{0};
    return parser.put(boost::asio::buffer(input.data(), input.size()), error);
  });
  progress.produced = output_size - message.output_left;
  message.output = nullptr;
  message.output_left = 0;
  if (error && error != http::error::need_more && error != http::error::need_buffer) {
    return parse_status(error);
  }
  return progress;
}

uint64_t HttpParser::promised() const { return impl_->message.promised; }

bool HttpParser::done() const {
  return impl_->with([](auto& parser) { return parser.is_done(); });
}

Status HttpParser::finish() {
  if (!header_done()) {
    return invalid_argument("the connection closed before the end of the HTTP header");
  }
  beast::error_code error;
  impl_->with([&](auto& parser) {
    if (!parser.is_done()) parser.put_eof(error);
    return 0;
  });
  return error ? parse_status(error) : ok_status();
}

const RequestHead& HttpParser::request() const { return impl_->message.head; }
int HttpParser::status() const { return impl_->message.status; }
const Headers& HttpParser::headers() const { return impl_->message.head.headers; }

bool HttpParser::keep_alive() const {
  return impl_->with([](auto& parser) { return parser.keep_alive(); });
}

bool HttpParser::chunked() const {
  return impl_->with([](auto& parser) { return parser.chunked(); });
}

std::optional<uint64_t> HttpParser::content_length() const {
  auto length = impl_->with([](auto& parser) { return parser.content_length(); });
  if (!length) return std::nullopt;
  return *length;
}

}  // namespace qanat::net
