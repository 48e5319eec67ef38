// TLS for HttpClient (OpenSSL): TLS 1.2 or newer, peer and host name verified, SNI sent. OpenSSL's
// configuration file is not loaded.
#pragma once

#include <string>

#include "qanat/net/stream.h"

namespace qanat::net {

struct TlsOptions {
  // PEM file with the authorities to trust; "" is the system's
  // (/etc/ssl/certs/ca-certificates.crt).
  std::string ca_file;
};

Result<TlsFactory> tls_client(const TlsOptions& options);

}  // namespace qanat::net
