// A connected byte stream with deadlines: a plain socket, or TLS over one. What HttpClient talks
// through.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::net {

using Deadline = std::chrono::steady_clock::time_point;

// Lets another thread end a call that waits for the network. Thread safe; stays set once set.
class CancelSignal {
 public:
  CancelSignal();
  ~CancelSignal();
  CancelSignal(const CancelSignal&) = delete;
  CancelSignal& operator=(const CancelSignal&) = delete;
  void cancel();
  bool cancelled() const;
  int fd() const { return fd_; }  // readable once cancelled

 private:
  int fd_;
};

// Used by one thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  // At least one byte, or 0 at the end. kDeadlineExceeded, kCancelled, kUnavailable (connection
  // broken).
  virtual Result<size_t> read(char* buffer, size_t size, Deadline deadline,
                              const CancelSignal* cancel) = 0;
  // Writes everything. `stop_early`, if given, is set and the call returns OK when the peer sends
  // something before all is written.
  virtual Status write(std::string_view bytes, Deadline deadline, const CancelSignal* cancel,
                       bool* stop_early) = 0;
  // The same, and passes a descriptor. Only for streams over Unix sockets; kInvalidArgument.
  virtual Status write_with_descriptor(std::string_view bytes, int descriptor, Deadline deadline,
                                       const CancelSignal* cancel);
  // False when an idle connection was closed by the peer or has unexpected bytes: not to be used
  // again.
  virtual bool usable() = 0;
};

// Takes over a connected non-blocking socket.
std::unique_ptr<Stream> plain_stream(int fd);

// Wraps a connected socket in TLS: handshake, certificate and host name checked. Owns `fd`, also on
// error. Injected into HttpClient, so that programs without TLS do not link it.
using TlsFactory = std::function<Result<std::unique_ptr<Stream>>(
    int fd, const std::string& host, Deadline deadline, const CancelSignal* cancel)>;

}  // namespace qanat::net
