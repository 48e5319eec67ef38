#include "qanat/base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstdio>
#include <cstdlib>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

// Inlined, because cuts hash many short keys.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace qanat {
namespace {

// OpenSSL fails here only when memory runs out.
void require(bool success) {
  if (success) return;
  std::fputs("qanat: SHA-256 failed in OpenSSL: out of memory?\n", stderr);
  std::abort();
}

// Fetched once: looking an algorithm up costs more than hashing a small blob. Never freed, so that
// it outlives every user.
const EVP_MD* sha256_algorithm() {
  static const EVP_MD* const algorithm = [] {
    // The configuration file belongs to whoever made the image that the worker runs in.
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
    EVP_MD* fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    require(fetched != nullptr);
    return fetched;
  }();
  return algorithm;
}

EVP_MD_CTX* context_of(void* context) { return static_cast<EVP_MD_CTX*>(context); }
XXH3_state_t* state_of(void* state) { return static_cast<XXH3_state_t*>(state); }

}  // namespace

Result<Hash> Hash::from_hex(std::string_view text) {
  if (text.size() != 2 * kSize) {
    return invalid_argument(str_cat("a hash is 64 hex digits, not ", quoted(text.substr(0, 80))));
  }
  QANAT_ASSIGN_OR_RETURN(std::string bytes, qanat::from_hex(text));
  return from_bytes(bytes);
}

Result<Hash> Hash::from_bytes(std::string_view bytes) {
  if (bytes.size() != kSize) return data_loss(str_cat("a hash has 32 bytes, not ", bytes.size()));
  Hash hash;
  std::memcpy(hash.bytes.data(), bytes.data(), kSize);
  return hash;
}

std::string Hash::to_hex() const { return qanat::to_hex(view()); }

Hash sha256(std::string_view bytes) {
  thread_local Sha256 hasher;
  hasher.update(bytes);
  return hasher.finish();
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  require(context_ != nullptr);
  require(EVP_DigestInit_ex2(context_of(context_), sha256_algorithm(), nullptr) == 1);
}
Sha256::~Sha256() { EVP_MD_CTX_free(context_of(context_)); }
Sha256::Sha256(Sha256&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
Sha256& Sha256::operator=(Sha256&& other) noexcept {
  std::swap(context_, other.context_);
  return *this;
}

void Sha256::update(std::string_view bytes) {
  require(EVP_DigestUpdate(context_of(context_), bytes.data(), bytes.size()) == 1);
}

Hash Sha256::finish() {
  Hash hash;
  require(EVP_DigestFinal_ex(context_of(context_), hash.bytes.data(), nullptr) == 1);
  require(EVP_DigestInit_ex2(context_of(context_), nullptr, nullptr) == 1);
  return hash;
}

Hash hmac_sha256(std::string_view key, std::string_view message) {
  Hash hash;
  // OpenSSL takes a null key as "the one before".
  const char* key_bytes = key.empty() ? "" : key.data();
  require(HMAC(sha256_algorithm(), key_bytes, static_cast<int>(key.size()),
               reinterpret_cast<const unsigned char*>(message.data()), message.size(),
               hash.bytes.data(), nullptr) != nullptr);
  return hash;
}

bool equal_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

uint64_t hash64(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Hasher64::Hasher64() : state_(XXH3_createState()) {
  require(state_ != nullptr);
  XXH3_64bits_reset(state_of(state_));
}
Hasher64::~Hasher64() { XXH3_freeState(state_of(state_)); }
Hasher64::Hasher64(Hasher64&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
Hasher64& Hasher64::operator=(Hasher64&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

void Hasher64::update(std::string_view bytes) {
  XXH3_64bits_update(state_of(state_), bytes.data(), bytes.size());
}

uint64_t Hasher64::finish() {
  const uint64_t hash = XXH3_64bits_digest(state_of(state_));
  XXH3_64bits_reset(state_of(state_));
  return hash;
}

}  // namespace qanat
