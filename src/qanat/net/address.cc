#include "qanat/net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "qanat/base/string.h"

namespace qanat::net {
namespace {

struct Network {
  uint32_t address;
  int bits;
};

constexpr uint32_t v4(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return a << 24 | b << 16 | c << 8 | d;
}

// IANA's registry of special-purpose addresses: everything that is not globally reachable.
constexpr Network kSpecialV4[] = {
    {v4(0, 0, 0, 0), 8},        // this network
    {v4(10, 0, 0, 0), 8},       // private
    {v4(100, 64, 0, 0), 10},    // carrier-grade NAT
    {v4(127, 0, 0, 0), 8},      // loopback
    {v4(169, 254, 0, 0), 16},   // link-local, and the metadata services of clouds
    {v4(172, 16, 0, 0), 12},    // private
    {v4(192, 0, 0, 0), 24},     // protocol assignments
    {v4(192, 0, 2, 0), 24},     // documentation
    {v4(192, 88, 99, 0), 24},   // 6to4 relays
    {v4(192, 168, 0, 0), 16},   // private
    {v4(198, 18, 0, 0), 15},    // benchmarks
    {v4(198, 51, 100, 0), 24},  // documentation
    {v4(203, 0, 113, 0), 24},   // documentation
    {v4(224, 0, 0, 0), 4},      // multicast
    {v4(240, 0, 0, 0), 4},      // reserved, broadcast
};

bool public_v4(uint32_t address) {
  return std::none_of(std::begin(kSpecialV4), std::end(kSpecialV4), [address](const Network& n) {
    return (address >> (32 - n.bits)) == (n.address >> (32 - n.bits));
  });
}

uint32_t load_v4(const uint8_t* bytes) { return v4(bytes[0], bytes[1], bytes[2], bytes[3]); }

bool all_zero(const uint8_t* begin, const uint8_t* end) {
  return std::all_of(begin, end, [](uint8_t byte) { return byte == 0; });
}

bool public_v6(const std::array<uint8_t, 16>& b) {
  const uint8_t* p = b.data();
  if (all_zero(p, p + 10)) {
    bool mapped = p[10] == 0xff && p[11] == 0xff;  // ::ffff:a.b.c.d
    bool compatible = p[10] == 0 && p[11] == 0;    // ::, ::1 and ::a.b.c.d
    if (mapped || compatible) return public_v4(load_v4(p + 12));
    return false;
  }
  if (p[0] == 0x00 && p[1] == 0x64 && p[2] == 0xff && p[3] == 0x9b) {  // NAT64
    return all_zero(p + 4, p + 12) && public_v4(load_v4(p + 12));
  }
  if (p[0] == 0x20 && p[1] == 0x02) return public_v4(load_v4(p + 2));  // 6to4
  if (p[0] == 0x20 && p[1] == 0x01 && p[2] < 0x02) return false;       // Teredo, ORCHID, others
  if (p[0] == 0x20 && p[1] == 0x01 && p[2] == 0x0d && p[3] == 0xb8) return false;  // documentation
  if (p[0] == 0x3f && p[1] == 0xff && p[2] < 0x10) return false;                   // documentation
  // Only 2000::/3 is given out: this leaves out fc00::/7, fe80::/10, ff00::/8 and all the rest.
  return (p[0] & 0xe0) == 0x20;
}

}  // namespace

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  if (text.empty() || text.size() > 45) return std::nullopt;
  std::string copy(text);  // with its final zero
  IpAddress out;
  if (inet_pton(AF_INET, copy.c_str(), out.bytes.data()) == 1) return out;
  out.v6 = true;
  if (inet_pton(AF_INET6, copy.c_str(), out.bytes.data()) == 1) return out;
  return std::nullopt;
}

std::string IpAddress::to_string() const {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(v6 ? AF_INET6 : AF_INET, bytes.data(), text, sizeof text);
  return text;
}

bool IpAddress::is_public() const {
  return v6 ? public_v6(bytes) : public_v4(load_v4(bytes.data()));
}

bool IpAddress::is_loopback() const {
  if (!v6) return bytes[0] == 127;
  if (!all_zero(bytes.data(), bytes.data() + 10)) return false;
  if (bytes[10] == 0xff && bytes[11] == 0xff) return bytes[12] == 127;
  return all_zero(bytes.data() + 10, bytes.data() + 15) && bytes[15] == 1;
}

AddressPolicy any_address() {
  return [](const IpAddress&) { return ok_status(); };
}

AddressPolicy public_only() {
  return [](const IpAddress& address) -> Status {
    if (address.is_public()) return ok_status();
    return permission_denied(
        str_cat(address.to_string(), " is a private, loopback, link-local or reserved address"),
        "the server's settings can allow such addresses for URLs");
  };
}

}  // namespace qanat::net
