// AWS Signature Version 4 (Amazon, "AWS Signature Version 4 for API requests"; for S3:
// "Authenticating Requests (AWS Signature Version 4)"): who signs a request proves to hold a secret
// key without sending it. One canonical form serves both sides: sign_request() and presign() for
// clients of S3, verify() for a server that speaks S3.
//
// Paths and queries are given as they stand on the wire (encoded); they are decoded and encoded
// again here, so that another spelling of the same request has the same signature. Pure functions.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"
#include "qanat/net/http.h"

namespace qanat::net {

struct AwsKey {
  std::string id;  // AKIA...; not secret
  std::string secret;
  std::string session_token;  // "" for long-lived keys
};

struct SigV4Scope {
  std::string region;
  std::string service = "s3";
};

// The hash of a body of which nothing is promised.
inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";

struct CanonicalRequest {
  std::string_view method;
  std::string_view path;        // encoded, begins with '/'
  std::string_view query_text;  // encoded, without '?'
  const Headers* headers = nullptr;
  std::vector<std::string> signed_headers;  // lower case; any order
  std::string_view payload_hash;            // 64 hex digits, or one of the words S3 knows
};
// The text whose hash is signed. A query parameter named X-Amz-Signature is left out. S3 encodes a
// path once and leaves it otherwise alone; all other services take away "." and ".." parts and
// encode twice. kInvalidArgument: broken percent-coding, or a signed header that is not there.
Result<std::string> canonical_text(const CanonicalRequest& request, std::string_view service);
// Headers' names as they stand in SignedHeaders: sorted, with ';' between.
std::string signed_header_list(std::vector<std::string> names);

// "AWS4-HMAC-SHA256\n<time>\n<scope>\n<hash>" signed with the key derived for that day, in hex.
std::string sigv4_signature(std::string_view secret, const SigV4Scope& scope, int64_t wall_ms,
                            std::string_view canonical);

// Signs everything in `headers`, to which it adds Host, X-Amz-Date, X-Amz-Security-Token if the key
// has one, X-Amz-Content-Sha256 for S3, and Authorization; what stood there under these names is
// replaced.
Status sign_request(const AwsKey& key, const SigV4Scope& scope, int64_t wall_ms, Method method,
                    const Url& url, std::string_view payload_hash, Headers& headers);

// The URL with a signature in its query, valid from `wall_ms` for `lifetime` (1 s to 7 days). Its
// holder must send `headers` exactly so (they are signed; Host need not be among them) with any
// body.
Result<Url> presign(const AwsKey& key, const SigV4Scope& scope, int64_t wall_ms,
                    std::chrono::seconds lifetime, Method method, Url url, const Headers& headers);

// The other side.
struct SigV4Claim {
  std::string key_id;
  int64_t signed_at_ms = 0;
  std::optional<int64_t> expires_at_ms;  // presigned only
  SigV4Scope scope;
  std::vector<std::string> signed_headers;
  std::string signature;
  std::string session_token;  // as sent, "" if none
  // What the signer says of the body: 64 hex digits (the caller compares), UNSIGNED-PAYLOAD, or a
  // STREAMING- word.
  std::string payload_hash;
};
// What a request claims; nothing is believed yet. kUnauthenticated: no signature, or a malformed
// one.
Result<SigV4Claim> read_claim(const RequestHead& request);
// Finds the secret of a key id; nothing if there is no such key.
using SecretOf = std::function<std::optional<std::string>(const std::string& key_id)>;
// The claim, if the signature is right, is of its time (15 minutes both ways; presigned: until it
// expires), and covers Host and every x-amz- header. kUnauthenticated otherwise, without a word
// that would help to forge one.
Result<SigV4Claim> verify(const RequestHead& request, const SecretOf& secret_of, int64_t wall_ms);

}  // namespace qanat::net
