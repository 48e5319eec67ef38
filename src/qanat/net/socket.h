// Sockets for the other files of net/: connect, listen and wait, with deadlines. Internal.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "qanat/base/status.h"
#include "qanat/net/address.h"
#include "qanat/net/stream.h"

namespace qanat::net {

// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~FileDescriptor() { reset(); }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

// Waits until one of `events` (poll's) is possible on `fd`; gives the events seen.
// kDeadlineExceeded, kCancelled.
Result<short> wait_for(int fd, short events, Deadline deadline, const CancelSignal* cancel);

// Connected, non-blocking, close-on-exec.
Result<FileDescriptor> connect_tcp(const IpAddress& address, uint16_t port, Deadline deadline,
                                   const CancelSignal* cancel);
Result<FileDescriptor> connect_unix(const std::string& path, Deadline deadline,
                                    const CancelSignal* cancel);

// Listening, non-blocking, close-on-exec.
Result<FileDescriptor> listen_on_tcp(const IpAddress& address, uint16_t port);
Result<FileDescriptor> listen_on_unix(const std::string& path, int mode);
uint16_t local_port(int fd);

// Sends at once what is written; on loopback without pacing. Not for other sockets than TCP's.
void tune_tcp(int fd, const sockaddr_storage& peer);

// write(2) to a socket without SIGPIPE.
ssize_t send_some(int fd, std::string_view bytes);
// The same to a Unix socket, and passes a descriptor with the first byte.
ssize_t send_with_descriptor(int fd, std::string_view bytes, int passed);
// recv(2) that does not wait. A descriptor that comes along replaces *passed; more than one: the
// others are closed.
ssize_t receive_some(int fd, char* buffer, size_t size, FileDescriptor* passed);

}  // namespace qanat::net
