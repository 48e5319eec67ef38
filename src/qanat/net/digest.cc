#include "qanat/net/digest.h"

#include <openssl/evp.h>

#include <cstdlib>

namespace qanat::net {

std::string md5(std::string_view bytes) {
  static const EVP_MD* kind = EVP_MD_fetch(nullptr, "MD5", nullptr);
  std::string digest(16, '\0');
  // Fails only where OpenSSL was built without MD5, or memory ran out.
  if (kind == nullptr ||
      EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(digest.data()),
                 nullptr, kind, nullptr) != 1) {
    std::abort();
  }
  return digest;
}

}  // namespace qanat::net
