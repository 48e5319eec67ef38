#include "qanat/net/resolver.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

#include "qanat/base/string.h"

namespace qanat::net {
namespace {

Result<std::vector<IpAddress>> look_up(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0) {
    std::string message = str_cat("cannot resolve host ", host, ": ", gai_strerror(error));
    if (error == EAI_AGAIN) return unavailable(message, "name resolution does not answer now");
    return unavailable(message, "check the host's name");
  }
  std::vector<IpAddress> out;
  for (addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    IpAddress address;
    if (entry->ai_family == AF_INET) {
      std::memcpy(address.bytes.data(), &reinterpret_cast<sockaddr_in*>(entry->ai_addr)->sin_addr,
                  4);
    } else if (entry->ai_family == AF_INET6) {
      address.v6 = true;
      std::memcpy(address.bytes.data(), &reinterpret_cast<sockaddr_in6*>(entry->ai_addr)->sin6_addr,
                  16);
    } else {
      continue;
    }
    out.push_back(address);
  }
  freeaddrinfo(found);
  if (out.empty()) return unavailable(str_cat("host ", host, " has no address"));
  return out;
}

// What the caller and the look-up's thread share; whoever is last frees it.
struct LookUp {
  std::mutex mutex;
  std::condition_variable done;
  std::optional<Result<std::vector<IpAddress>>> result;
};

}  // namespace

Resolver system_resolver() {
  return [](const std::string& host,
            std::chrono::milliseconds timeout) -> Result<std::vector<IpAddress>> {
    auto shared = std::make_shared<LookUp>();
    std::thread([shared, host] {
      auto result = look_up(host);
      std::lock_guard lock(shared->mutex);
      shared->result = std::move(result);
      shared->done.notify_one();
    }).detach();
    std::unique_lock lock(shared->mutex);
    if (!shared->done.wait_for(lock, timeout, [&] { return shared->result.has_value(); })) {
      return deadline_exceeded(str_cat("resolving host ", host, " took too long"));
    }
    return std::move(*shared->result);
  };
}

}  // namespace qanat::net
