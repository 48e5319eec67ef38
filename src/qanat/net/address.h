// IP addresses, and the rule which of them a client may connect to.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::net {

struct IpAddress {
  bool v6 = false;
  std::array<uint8_t, 16> bytes{};  // the first four for IPv4

  // A literal only ("127.0.0.1", "::1"); no names, no zones, no short forms such as "127.1".
  static std::optional<IpAddress> parse(std::string_view text);
  std::string to_string() const;
  // Neither private, loopback, link-local, carrier-grade NAT, multicast, documentation, reserved
  // nor unspecified; IPv4 inside IPv6 (mapped, compatible, NAT64, 6to4) is judged as what it
  // carries.
  bool is_public() const;
  bool is_loopback() const;
  bool operator==(const IpAddress&) const = default;
};

// Asked for every address before a connection to it is made, on each hop of a redirect. Not OK:
// that address is not used.
using AddressPolicy = std::function<Status(const IpAddress&)>;
AddressPolicy any_address();
// Only addresses for which is_public() holds; kPermissionDenied otherwise. For URLs that come from
// users.
AddressPolicy public_only();

// Turns a host name into addresses. Injected, because a static program must not reach getaddrinfo:
// see resolver.h for the system's.
using Resolver = std::function<Result<std::vector<IpAddress>>(const std::string& host,
                                                              std::chrono::milliseconds timeout)>;

}  // namespace qanat::net
