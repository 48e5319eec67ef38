#include "qanat/net/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "qanat/base/string.h"
#include "qanat/net/socket.h"

namespace qanat::net {
namespace {

constexpr const char* kSystemAuthorities = "/etc/ssl/certs/ca-certificates.crt";

std::string openssl_errors() {
  std::string out;
  while (unsigned long error = ERR_get_error()) {
    char text[256];
    ERR_error_string_n(error, text, sizeof text);
    str_append(out, out.empty() ? "" : "; ", text);
  }
  return out.empty() ? "unknown error" : out;
}

struct FreeSsl {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using SslPointer = std::unique_ptr<SSL, FreeSsl>;

// OpenSSL writes with write(2), which raises SIGPIPE on a broken connection. Kept from this thread
// while it lives, and taken away if it came, without touching the program's own handling.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoSigpipe() {
    timespec none{};
    while (sigismember(&before_, SIGPIPE) == 0 && sigtimedwait(&pipe_, nullptr, &none) == SIGPIPE) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t pipe_;
  sigset_t before_;
};

class TlsStream : public Stream {
 public:
  TlsStream(FileDescriptor fd, SslPointer ssl) : fd_(std::move(fd)), ssl_(std::move(ssl)) {}
  ~TlsStream() override {
    NoSigpipe guard;
    ERR_clear_error();
    SSL_shutdown(ssl_.get());  // one try, without waiting for the peer's
  }

  Status handshake(Deadline deadline, const CancelSignal* cancel) {
    return run(deadline, cancel, [this] { return SSL_connect(ssl_.get()); }).status();
  }

  Result<size_t> read(char* buffer, size_t size, Deadline deadline,
                      const CancelSignal* cancel) override {
    size_t got = 0;
    QANAT_ASSIGN_OR_RETURN(bool open, run(deadline, cancel, [&] {
                             return SSL_read_ex(ssl_.get(), buffer, size, &got);
                           }));
    return open ? got : size_t{0};
  }

  Status write(std::string_view bytes, Deadline deadline, const CancelSignal* cancel,
               bool* /*stop_early*/) override {
    // Input cannot be told from session tickets without reading it, so a TLS sender does not stop
    // early.
    while (!bytes.empty()) {
      size_t sent = 0;
      QANAT_ASSIGN_OR_RETURN(bool open, run(deadline, cancel, [&] {
                               return SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &sent);
                             }));
      if (!open) return unavailable("the connection was closed by the peer");
      bytes.remove_prefix(sent);
    }
    return ok_status();
  }

  bool usable() override {
    pollfd fd{fd_.get(), POLLIN, 0};
    if (poll(&fd, 1, 0) == 0) return true;
    // Something came: fine if it is only a session ticket, which peeking processes.
    char byte = 0;
    size_t got = 0;
    ERR_clear_error();
    int result = SSL_peek_ex(ssl_.get(), &byte, 1, &got);
    return result <= 0 && SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ;
  }

 private:
  // Repeats an operation until it is done; false when the peer has closed in good order.
  template <class Operation>
  Result<bool> run(Deadline deadline, const CancelSignal* cancel, Operation operation) {
    NoSigpipe guard;
    while (true) {
      ERR_clear_error();
      errno = 0;
      int result = operation();
      if (result > 0) return true;
      int error = SSL_get_error(ssl_.get(), result);
      if (error == SSL_ERROR_ZERO_RETURN) return false;
      if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        short events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
        QANAT_RETURN_IF_ERROR(wait_for(fd_.get(), events, deadline, cancel).status());
        continue;
      }
      long verified = SSL_get_verify_result(ssl_.get());
      if (verified != X509_V_OK) {
        return permission_denied(
            str_cat("the server's certificate is not trusted: ",
                    X509_verify_cert_error_string(verified)),
            "check the host's name; for a private authority give its certificate file");
      }
      if (error == SSL_ERROR_SYSCALL) {
        return unavailable(errno != 0 ? str_cat("the TLS connection broke: ", strerror(errno))
                                      : std::string("the TLS connection was cut off"));
      }
      return unavailable(str_cat("TLS failed: ", openssl_errors()));
    }
  }

  FileDescriptor fd_;
  SslPointer ssl_;
};

bool is_literal(const std::string& host) { return IpAddress::parse(host).has_value(); }

}  // namespace

Result<TlsFactory> tls_client(const TlsOptions& options) {
  // No configuration file: it could load code chosen by whoever wrote it.
  OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (context == nullptr) return internal_error(str_cat("TLS: ", openssl_errors()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  std::string file = options.ca_file.empty() ? kSystemAuthorities : options.ca_file;
  if (SSL_CTX_load_verify_file(context.get(), file.c_str()) != 1) {
    return invalid_argument(
        str_cat("cannot read authorities from ", file, ": ", openssl_errors()),
        options.ca_file.empty() ? "install the package ca-certificates" : "it must be a PEM file");
  }
  return TlsFactory([context](int raw_fd, const std::string& host, Deadline deadline,
                              const CancelSignal* cancel) -> Result<std::unique_ptr<Stream>> {
    FileDescriptor fd(raw_fd);
    SslPointer ssl(SSL_new(context.get()));
    if (ssl == nullptr || SSL_set_fd(ssl.get(), fd.get()) != 1) {
      return internal_error(str_cat("TLS: ", openssl_errors()));
    }
    X509_VERIFY_PARAM* parameters = SSL_get0_param(ssl.get());
    bool named = true;
    if (is_literal(host)) {
      named = X509_VERIFY_PARAM_set1_ip_asc(parameters, host.c_str()) == 1;
    } else {
      X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
      named = X509_VERIFY_PARAM_set1_host(parameters, host.c_str(), host.size()) == 1 &&
              SSL_set_tlsext_host_name(ssl.get(), host.c_str()) == 1;
    }
    if (!named) return internal_error(str_cat("TLS: ", openssl_errors()));
    auto stream = std::make_unique<TlsStream>(std::move(fd), std::move(ssl));
    if (Status status = stream->handshake(deadline, cancel); !status.ok()) {
      return status.with_context(str_cat("TLS with ", host));
    }
    return std::unique_ptr<Stream>(std::move(stream));
  });
}

}  // namespace qanat::net
