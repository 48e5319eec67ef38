// The client's TLS against a small OpenSSL server whose authority is made here.
#include "qanat/net/tls.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <fstream>
#include <thread>

#include "qanat/net/http_client.h"
#include "qanat/net/socket.h"

namespace qanat::net {
namespace {

using Key = std::shared_ptr<EVP_PKEY>;
using Certificate = std::shared_ptr<X509>;

Key make_key() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }

void add_extension(X509* certificate, X509* issuer, int id, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value);
  ASSERT_NE(extension, nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

Certificate make_certificate(const char* name, const Key& key, const Certificate& issuer,
                             const Key& issuer_key, const char* alternative_names) {
  Certificate out(X509_new(), X509_free);
  X509_set_version(out.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(out.get()), issuer ? 2 : 1);
  X509_gmtime_adj(X509_getm_notBefore(out.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(out.get()), 3600);
  X509_set_pubkey(out.get(), key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(out.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
  X509* signer = issuer ? issuer.get() : out.get();
  X509_set_issuer_name(out.get(), X509_get_subject_name(signer));
  if (!issuer) add_extension(out.get(), signer, NID_basic_constraints, "critical,CA:TRUE");
  if (alternative_names != nullptr) {
    add_extension(out.get(), signer, NID_subject_alt_name, alternative_names);
  }
  X509_sign(out.get(), issuer_key.get(), EVP_sha256());
  return out;
}

class TlsTest : public testing::Test {
 protected:
  void SetUp() override {
    Key authority_key = make_key();
    Certificate authority =
        make_certificate("test authority", authority_key, nullptr, authority_key, nullptr);
    Key key = make_key();
    Certificate certificate =
        make_certificate("server", key, authority, authority_key, "DNS:shop.example,IP:127.0.0.1");
    ca_file_ = testing::TempDir() + "/qanat_tls_ca.pem";
    FILE* file = fopen(ca_file_.c_str(), "w");
    PEM_write_X509(file, authority.get());
    fclose(file);
    context_.reset(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
    SSL_CTX_use_certificate(context_.get(), certificate.get());
    SSL_CTX_use_PrivateKey(context_.get(), key.get());
    listener_ = *listen_on_tcp(*IpAddress::parse("127.0.0.1"), 0);
    port_ = local_port(listener_.get());
    thread_ = std::thread([this] { serve(); });
  }
  void TearDown() override {
    stop_.cancel();
    thread_.join();
  }

  // One connection after another; answers every request with the SNI name, until the client closes.
  void serve() {
    while (true) {
      auto far = std::chrono::steady_clock::now() + std::chrono::minutes(1);
      if (!wait_for(listener_.get(), POLLIN, far, &stop_).ok()) return;
      FileDescriptor fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      timeval limit{5, 0};
      setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      std::shared_ptr<SSL> ssl(SSL_new(context_.get()), SSL_free);
      SSL_set_fd(ssl.get(), fd.get());
      if (SSL_accept(ssl.get()) != 1) continue;
      std::string input;
      char buffer[4096];
      int got = 0;
      while ((got = SSL_read(ssl.get(), buffer, sizeof buffer)) > 0) {
        input.append(buffer, static_cast<size_t>(got));
        if (input.find("\r\n\r\n") == std::string::npos) continue;
        bool cut = input.starts_with("GET /cut ");
        input.clear();
        const char* sni = SSL_get_servername(ssl.get(), TLSEXT_NAMETYPE_host_name);
        std::string name = sni != nullptr ? sni : "none";
        std::string answer =
            "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(name.size() + (cut ? 10 : 0)) +
            "\r\n\r\n" + name;
        SSL_write(ssl.get(), answer.data(), static_cast<int>(answer.size()));
        ++answered_;
        if (cut) break;
      }
      ++connections_;
    }
  }

  ClientOptions options(const std::string& ca_file) {
    ClientOptions out;
    out.tls = *tls_client({ca_file});
    out.resolver = [](const std::string&, Milliseconds) -> Result<std::vector<IpAddress>> {
      return std::vector<IpAddress>{*IpAddress::parse("127.0.0.1")};
    };
    return out;
  }
  ClientRequest request(const std::string& host, const std::string& path = "/") {
    ClientRequest out;
    out.url = *Url::parse("https://" + host + ":" + std::to_string(port_) + path);
    return out;
  }

  std::string ca_file_;
  std::shared_ptr<SSL_CTX> context_;
  FileDescriptor listener_;
  uint16_t port_ = 0;
  CancelSignal stop_;
  std::thread thread_;
  std::atomic<int> answered_{0};
  std::atomic<int> connections_{0};
};

TEST_F(TlsTest, TrustedServerByNameAndByAddress) {
  for (auto [host, sni] : {std::pair{"shop.example", "shop.example"}, {"127.0.0.1", "none"}}) {
    HttpClient client(options(ca_file_));
    for (int i = 0; i < 2; ++i) {
      auto answer = client.send(request(host));
      ASSERT_TRUE(answer.ok()) << answer.status().to_string();
      EXPECT_EQ(*(*answer)->read_all(100), sni);
    }
  }
  EXPECT_EQ(answered_.load(), 4);
  EXPECT_LE(connections_.load(), 2) << "connections were not kept";
}

TEST_F(TlsTest, WrongHostNameIsRefused) {
  HttpClient client(options(ca_file_));
  auto answer = client.send(request("other.example"));
  EXPECT_EQ(answer.code(), Code::kPermissionDenied) << answer.status().to_string();
  EXPECT_EQ(answered_.load(), 0);
}

TEST_F(TlsTest, UnknownAuthorityIsRefused) {
  std::string other = testing::TempDir() + "/qanat_tls_other.pem";
  Key key = make_key();
  Certificate certificate = make_certificate("somebody else", key, nullptr, key, nullptr);
  FILE* file = fopen(other.c_str(), "w");
  PEM_write_X509(file, certificate.get());
  fclose(file);
  HttpClient client(options(other));
  auto answer = client.send(request("shop.example"));
  EXPECT_EQ(answer.code(), Code::kPermissionDenied) << answer.status().to_string();
  EXPECT_EQ(answered_.load(), 0);
}

TEST_F(TlsTest, TruncatedAnswerIsAnError) {
  HttpClient client(options(ca_file_));
  auto answer = client.send(request("shop.example", "/cut"));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ((*answer)->read_all(100).code(), Code::kUnavailable);
}

TEST_F(TlsTest, PlainHttpDoesNotHang) {
  HttpClient client;
  auto answer = client.send(request("127.0.0.1"));
  EXPECT_EQ(answer.code(), Code::kInvalidArgument) << "https without TLS";
  ClientRequest plain = request("127.0.0.1");
  plain.url.scheme = "http";
  plain.total_timeout = Milliseconds(5'000);
  EXPECT_FALSE(client.send(plain).ok());
}

TEST(TlsClientTest, MissingAuthoritiesAreNamed) {
  auto factory = tls_client({"/nonexistent.pem"});
  ASSERT_FALSE(factory.ok());
  EXPECT_NE(factory.status().message().find("/nonexistent.pem"), std::string::npos);
}

}  // namespace
}  // namespace qanat::net
