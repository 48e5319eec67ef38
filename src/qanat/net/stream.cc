#include "qanat/net/stream.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "qanat/base/string.h"
#include "qanat/net/socket.h"

namespace qanat::net {

CancelSignal::CancelSignal() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
CancelSignal::~CancelSignal() {
  if (fd_ >= 0) close(fd_);
}

void CancelSignal::cancel() {
  // Never read, so it stays readable.
  uint64_t one = 1;
  [[maybe_unused]] ssize_t written = write(fd_, &one, sizeof one);
}

bool CancelSignal::cancelled() const {
  pollfd fd{fd_, POLLIN, 0};
  return poll(&fd, 1, 0) > 0;
}

namespace {

class PlainStream : public Stream {
 public:
  explicit PlainStream(int fd) : fd_(fd) {}

  Result<size_t> read(char* buffer, size_t size, Deadline deadline,
                      const CancelSignal* cancel) override {
    while (true) {
      ssize_t got = recv(fd_.get(), buffer, size, MSG_DONTWAIT);
      if (got >= 0) return static_cast<size_t>(got);
      if (errno == EINTR) continue;
      if (errno != EAGAIN) {
        return unavailable(str_cat("the connection broke: ", strerror(errno)));
      }
      QANAT_RETURN_IF_ERROR(wait_for(fd_.get(), POLLIN, deadline, cancel).status());
    }
  }

  Status write(std::string_view bytes, Deadline deadline, const CancelSignal* cancel,
               bool* stop_early) override {
    return write(bytes, -1, deadline, cancel, stop_early);
  }

  Status write_with_descriptor(std::string_view bytes, int descriptor, Deadline deadline,
                               const CancelSignal* cancel) override {
    return write(bytes, descriptor, deadline, cancel, nullptr);
  }

  bool usable() override { return !has_input(); }

 private:
  Status write(std::string_view bytes, int descriptor, Deadline deadline,
               const CancelSignal* cancel, bool* stop_early) {
    while (!bytes.empty()) {
      if (stop_early != nullptr && has_input()) {
        *stop_early = true;
        return ok_status();
      }
      const ssize_t sent = descriptor < 0 ? send_some(fd_.get(), bytes)
                                          : send_with_descriptor(fd_.get(), bytes, descriptor);
      if (sent >= 0) {
        descriptor = -1;
        bytes.remove_prefix(static_cast<size_t>(sent));
        continue;
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN) {
        return unavailable(str_cat("the connection broke: ", strerror(errno)));
      }
      short events = stop_early != nullptr ? POLLOUT | POLLIN : POLLOUT;
      QANAT_RETURN_IF_ERROR(wait_for(fd_.get(), events, deadline, cancel).status());
    }
    return ok_status();
  }

  // Bytes, an end or an error: all are a reason to stop sending and look.
  bool has_input() {
    pollfd fd{fd_.get(), POLLIN, 0};
    return poll(&fd, 1, 0) > 0;
  }

  FileDescriptor fd_;
};

}  // namespace

Status Stream::write_with_descriptor(std::string_view /*bytes*/, int /*descriptor*/,
                                     Deadline /*deadline*/, const CancelSignal* /*cancel*/) {
  return invalid_argument("a descriptor can be passed through a Unix socket only");
}

std::unique_ptr<Stream> plain_stream(int fd) { return std::make_unique<PlainStream>(fd); }

}  // namespace qanat::net
