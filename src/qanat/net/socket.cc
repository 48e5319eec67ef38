#include "qanat/net/socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "qanat/base/string.h"

namespace qanat::net {
namespace {

socklen_t fill_address(const IpAddress& address, uint16_t port, sockaddr_storage& out) {
  out = {};
  if (address.v6) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(out);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(port);
    std::memcpy(&in6.sin6_addr, address.bytes.data(), 16);
    return sizeof in6;
  }
  auto& in = reinterpret_cast<sockaddr_in&>(out);
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  std::memcpy(&in.sin_addr, address.bytes.data(), 4);
  return sizeof in;
}

std::string endpoint_name(const IpAddress& address, uint16_t port) {
  return address.v6 ? str_cat("[", address.to_string(), "]:", port)
                    : str_cat(address.to_string(), ":", port);
}

// The address of a Unix socket. A path beyond the kernel's limit is reached through a descriptor of
// its folder.
Status fill_unix_address(const std::string& path, sockaddr_un& out, FileDescriptor& folder) {
  out = {};
  out.sun_family = AF_UNIX;
  std::string name = path;
  if (name.size() >= sizeof out.sun_path) {
    size_t slash = path.rfind('/');
    std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    folder = FileDescriptor(open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid()) return errno_status(errno, parent);
    name = str_cat("/proc/self/fd/", folder.get(), "/", path.substr(slash + 1));
    if (name.size() >= sizeof out.sun_path) {
      return invalid_argument(str_cat("the name of socket ", path, " is too long"));
    }
  }
  std::memcpy(out.sun_path, name.c_str(), name.size() + 1);
  return ok_status();
}

Status finish_connect(int fd, const std::string& name, Deadline deadline,
                      const CancelSignal* cancel) {
  Result<short> events = wait_for(fd, POLLOUT, deadline, cancel);
  if (!events.ok()) return events.status().with_context(str_cat("connect to ", name));
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    return unavailable(str_cat("cannot connect to ", name, ": ", strerror(error)));
  }
  return ok_status();
}

}  // namespace

void FileDescriptor::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

Result<short> wait_for(int fd, short events, Deadline deadline, const CancelSignal* cancel) {
  while (true) {
    pollfd fds[2] = {{fd, events, 0}, {cancel != nullptr ? cancel->fd() : -1, POLLIN, 0}};
    auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    auto milliseconds = std::clamp<int64_t>(left.count(), 0, 1 << 30);
    int ready = poll(fds, cancel != nullptr ? 2 : 1, static_cast<int>(milliseconds));
    if (ready < 0 && errno != EINTR) return errno_status(errno, "poll");
    if (ready > 0 && fds[1].revents != 0) return cancelled("cancelled");
    if (ready > 0) return fds[0].revents;
    if (ready == 0 && left.count() <= 0) return deadline_exceeded("timed out");
  }
}

Result<FileDescriptor> connect_tcp(const IpAddress& address, uint16_t port, Deadline deadline,
                                   const CancelSignal* cancel) {
  std::string name = endpoint_name(address, port);
  FileDescriptor fd(
      socket(address.v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return errno_status(errno, "socket");
  sockaddr_storage where;
  socklen_t length = fill_address(address, port, where);
  tune_tcp(fd.get(), where);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&where), length) == 0) return fd;
  if (errno != EINPROGRESS) {
    return unavailable(str_cat("cannot connect to ", name, ": ", strerror(errno)));
  }
  QANAT_RETURN_IF_ERROR(finish_connect(fd.get(), name, deadline, cancel));
  return fd;
}

Result<FileDescriptor> connect_unix(const std::string& path, Deadline deadline,
                                    const CancelSignal* cancel) {
  sockaddr_un where;
  FileDescriptor folder;
  if (Status status = fill_unix_address(path, where, folder); !status.ok()) {
    return unavailable(str_cat("cannot connect to ", path, ": ", status.message()));
  }
  while (true) {
    FileDescriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return errno_status(errno, "socket");
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&where), sizeof where) == 0) return fd;
    if (errno == EINPROGRESS) {
      QANAT_RETURN_IF_ERROR(finish_connect(fd.get(), path, deadline, cancel));
      return fd;
    }
    // A full backlog is EAGAIN for Unix sockets, and poll cannot wait for it.
    if (errno != EAGAIN) {
      return unavailable(str_cat("cannot connect to ", path, ": ", strerror(errno)));
    }
    auto soon = std::min<Deadline>(deadline,
                                   std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
    Result<short> waited = wait_for(-1, 0, soon, cancel);
    if (waited.code() == Code::kCancelled) return waited.status();
    if (std::chrono::steady_clock::now() >= deadline) {
      return deadline_exceeded(str_cat("connect to ", path, ": timed out"));
    }
  }
}

Result<FileDescriptor> listen_on_tcp(const IpAddress& address, uint16_t port) {
  std::string name = endpoint_name(address, port);
  FileDescriptor fd(
      socket(address.v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return errno_status(errno, "socket");
  int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage where;
  socklen_t length = fill_address(address, port, where);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&where), length) != 0 ||
      listen(fd.get(), SOMAXCONN) != 0) {
    int error = errno;
    Status status = errno_status(error, str_cat("cannot listen on ", name));
    return error == EADDRINUSE ? status.with_hint(
                                     "another program listens there; choose another "
                                     "port, or 0 for any free one")
                               : status;
  }
  return fd;
}

Result<FileDescriptor> listen_on_unix(const std::string& path, int mode) {
  sockaddr_un where;
  FileDescriptor folder;
  QANAT_RETURN_IF_ERROR(fill_unix_address(path, where, folder));
  // Only a socket is replaced: a path given by mistake must not cost a file.
  struct stat old{};
  if (lstat(path.c_str(), &old) == 0) {
    if (!S_ISSOCK(old.st_mode)) {
      return already_exists(str_cat("cannot listen on ", path, ": a file of that name exists"));
    }
    unlink(path.c_str());
  }
  FileDescriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return errno_status(errno, "socket");
  // Nobody can connect before listen(), so the mode is in force for the first connection.
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&where), sizeof where) != 0 ||
      chmod(path.c_str(), static_cast<mode_t>(mode)) != 0 || listen(fd.get(), SOMAXCONN) != 0) {
    return errno_status(errno, str_cat("cannot listen on ", path));
  }
  return fd;
}

uint16_t local_port(int fd) {
  sockaddr_storage where{};
  socklen_t length = sizeof where;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&where), &length) != 0) return 0;
  if (where.ss_family == AF_INET) return ntohs(reinterpret_cast<sockaddr_in&>(where).sin_port);
  if (where.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6&>(where).sin6_port);
  return 0;
}

void tune_tcp(int fd, const sockaddr_storage& peer) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  bool loopback = false;
  if (peer.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer);
    loopback = ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  } else if (peer.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer);
    loopback = IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
  }
  // Where a system paces what it sends (BBR), that costs a tenth of a large put, and loopback knows
  // no congestion. Every kernel has this one; a refusal changes nothing.
  constexpr std::string_view kNoPacing = "reno";
  if (loopback) setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kNoPacing.data(), kNoPacing.size());
}

ssize_t send_some(int fd, std::string_view bytes) {
  return send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

ssize_t send_with_descriptor(int fd, std::string_view bytes, int passed) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof passed)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof passed);
  std::memcpy(CMSG_DATA(header), &passed, sizeof passed);
  return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

ssize_t receive_some(int fd, char* buffer, size_t size, FileDescriptor* passed) {
  iovec part{buffer, size};
  // What does not fit the kernel closes.
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  const int error = errno;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(header) + i * sizeof descriptor, sizeof descriptor);
      FileDescriptor owned(descriptor);
      if (i == 0) *passed = std::move(owned);
    }
  }
  errno = error;
  return got;
}

}  // namespace qanat::net
