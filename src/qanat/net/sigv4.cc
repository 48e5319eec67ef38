#include "qanat/net/sigv4.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "qanat/base/hash.h"
#include "qanat/base/string.h"
#include "qanat/net/http_date.h"

namespace qanat::net {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr int64_t kSkewMs = 15 * 60 * 1000;
constexpr int64_t kLongestLifetimeS = 7 * 24 * 3600;
constexpr size_t kDateDigits = 8;

std::string scope_text(const SigV4Scope& scope, std::string_view date) {
  return str_cat(date, "/", scope.region, "/", scope.service, "/aws4_request");
}

// RFC 3986 section 5.2.4, as the general form of the signature wants it.
std::string without_dots(std::string_view path) {
  std::vector<std::string_view> kept;
  const std::vector<std::string_view> parts = split(path, '/');
  for (std::string_view part : parts) {
    if (part == "..") {
      if (!kept.empty()) kept.pop_back();
    } else if (!part.empty() && part != ".") {
      kept.push_back(part);
    }
  }
  std::string out = "/" + join(kept, "/");
  const bool folder = parts.back().empty() || parts.back() == "." || parts.back() == "..";
  if (folder && out.size() > 1) out += '/';
  return out;
}

Result<std::string> canonical_path(std::string_view path, std::string_view service) {
  QANAT_ASSIGN_OR_RETURN(const std::string plain, percent_decode(path));
  if (service == "s3") return encode_path(plain);
  return encode_path(encode_path(without_dots(plain)));
}

// Not Query::parse: a '+' is a plus here.
Result<std::string> canonical_query(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> parameters;
  for (std::string_view part : split(text, '&')) {
    if (part.empty()) continue;
    const auto [name, value] = split_once(part, '=');
    QANAT_ASSIGN_OR_RETURN(const std::string plain_name, percent_decode(name));
    QANAT_ASSIGN_OR_RETURN(const std::string plain_value, percent_decode(value));
    if (plain_name == "X-Amz-Signature") continue;
    parameters.emplace_back(encode_path_segment(plain_name), encode_path_segment(plain_value));
  }
  std::sort(parameters.begin(), parameters.end());
  std::string out;
  for (const auto& [name, value] : parameters) {
    str_append(out, out.empty() ? "" : "&", name, "=", value);
  }
  return out;
}

// Without spaces around it, and runs of spaces within it as one.
std::string header_value(std::string_view value) {
  std::string out;
  for (const char c : trim(value)) {
    if (c == ' ' && !out.empty() && out.back() == ' ') continue;
    out += c;
  }
  return out;
}

void tidy(std::vector<std::string>& names) {
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
}

std::vector<std::string> names_of(const Headers& headers) {
  std::vector<std::string> names;
  for (const auto& [name, value] : headers.fields()) names.push_back(to_lower(name));
  tidy(names);
  return names;
}

Status refused() {
  return unauthenticated("the signature of the request is not right",
                         "check the access key, the secret key and the clock");
}

Status malformed(std::string_view what) {
  return unauthenticated(str_cat("the request's signature is malformed: ", what));
}

// "KEY/20130524/us-east-1/s3/aws4_request"; a key may hold slashes.
Status read_credential(std::string_view text, SigV4Claim& claim, std::string& date) {
  std::vector<std::string_view> parts = split(text, '/');
  if (parts.size() < 5 || parts.back() != "aws4_request") return malformed("Credential");
  const size_t n = parts.size();
  date = parts[n - 4];
  claim.scope.region = parts[n - 3];
  claim.scope.service = parts[n - 2];
  parts.resize(n - 4);
  claim.key_id = join(parts, "/");
  if (claim.key_id.empty() || date.size() != kDateDigits) return malformed("Credential");
  return ok_status();
}

Status read_signed_headers(std::string_view text, SigV4Claim& claim) {
  for (std::string_view name : split(text, ';')) {
    if (!valid_header_name(name) || to_lower(name) != name) return malformed("SignedHeaders");
    claim.signed_headers.emplace_back(name);
  }
  return ok_status();
}

Status read_time(std::string_view text, std::string_view date, SigV4Claim& claim) {
  const auto time = parse_compact_date(text);
  if (!time.ok() || text.substr(0, kDateDigits) != date) return malformed("X-Amz-Date");
  claim.signed_at_ms = *time;
  return ok_status();
}

Result<SigV4Claim> read_header_claim(const RequestHead& request, std::string_view text) {
  SigV4Claim claim;
  std::string credential;
  std::string names;
  for (std::string_view part : split(text.substr(kAlgorithm.size()), ',')) {
    const auto [name, value] = split_once(trim(part), '=');
    if (name == "Credential") credential = value;
    if (name == "SignedHeaders") names = value;
    if (name == "Signature") claim.signature = value;
  }
  std::string date;
  QANAT_RETURN_IF_ERROR(read_credential(credential, claim, date));
  QANAT_RETURN_IF_ERROR(read_signed_headers(names, claim));
  std::string_view time = request.headers.get("X-Amz-Date");
  std::string converted;
  if (time.empty()) {
    const auto moment = parse_http_date(request.headers.get("Date"));
    if (!moment.ok()) return malformed("there is no X-Amz-Date");
    converted = format_compact_date(*moment);
    time = converted;
  }
  QANAT_RETURN_IF_ERROR(read_time(time, date, claim));
  claim.session_token = request.headers.get("X-Amz-Security-Token");
  claim.payload_hash = request.headers.get("X-Amz-Content-Sha256");
  if (claim.payload_hash.empty()) return malformed("there is no X-Amz-Content-Sha256");
  return claim;
}

Result<SigV4Claim> read_query_claim(const Query& query) {
  SigV4Claim claim;
  if (query.get_or("X-Amz-Algorithm", "") != kAlgorithm) return malformed("X-Amz-Algorithm");
  std::string date;
  QANAT_RETURN_IF_ERROR(read_credential(query.get_or("X-Amz-Credential", ""), claim, date));
  QANAT_RETURN_IF_ERROR(read_signed_headers(query.get_or("X-Amz-SignedHeaders", ""), claim));
  QANAT_RETURN_IF_ERROR(read_time(query.get_or("X-Amz-Date", ""), date, claim));
  const auto lifetime = parse_i64(query.get_or("X-Amz-Expires", ""));
  if (!lifetime.ok() || *lifetime < 1 || *lifetime > kLongestLifetimeS) {
    return malformed("X-Amz-Expires");
  }
  claim.expires_at_ms = claim.signed_at_ms + *lifetime * 1000;
  claim.signature = query.get_or("X-Amz-Signature", "");
  claim.session_token = query.get_or("X-Amz-Security-Token", "");
  claim.payload_hash = kUnsignedPayload;
  return claim;
}

bool covers(const SigV4Claim& claim, const Headers& headers) {
  const auto is_signed = [&](const std::string& name) {
    return std::find(claim.signed_headers.begin(), claim.signed_headers.end(), name) !=
           claim.signed_headers.end();
  };
  if (!is_signed("host")) return false;
  for (const auto& [name, value] : headers.fields()) {
    const std::string lower = to_lower(name);
    if (lower.starts_with("x-amz-") && !is_signed(lower)) return false;
  }
  return true;
}

bool is_timely(const SigV4Claim& claim, int64_t wall_ms) {
  if (claim.expires_at_ms) {
    return wall_ms >= claim.signed_at_ms - kSkewMs && wall_ms < *claim.expires_at_ms;
  }
  return std::abs(wall_ms - claim.signed_at_ms) <= kSkewMs;
}

}  // namespace

std::string signed_header_list(std::vector<std::string> names) {
  tidy(names);
  return join(names, ";");
}

Result<std::string> canonical_text(const CanonicalRequest& request, std::string_view service) {
  QANAT_ASSIGN_OR_RETURN(const std::string path, canonical_path(request.path, service));
  QANAT_ASSIGN_OR_RETURN(const std::string query, canonical_query(request.query_text));
  std::string out = str_cat(request.method, "\n", path, "\n", query, "\n");
  std::vector<std::string> names = request.signed_headers;
  tidy(names);
  for (const std::string& name : names) {
    std::string values;
    bool found = false;
    for (const auto& [field, value] : request.headers->fields()) {
      if (!equal_ignoring_case(field, name)) continue;
      if (found) values += ',';
      values += header_value(value);
      found = true;
    }
    if (!found) return invalid_argument(str_cat("the signed header ", name, " is not there"));
    str_append(out, name, ":", values, "\n");
  }
  str_append(out, "\n", join(names, ";"), "\n", request.payload_hash);
  return out;
}

std::string sigv4_signature(std::string_view secret, const SigV4Scope& scope, int64_t wall_ms,
                            std::string_view canonical) {
  const std::string time = format_compact_date(wall_ms);
  const std::string date = time.substr(0, kDateDigits);
  const Hash day = hmac_sha256(str_cat("AWS4", secret), date);
  const Hash region = hmac_sha256(day.view(), scope.region);
  const Hash service = hmac_sha256(region.view(), scope.service);
  const Hash key = hmac_sha256(service.view(), "aws4_request");
  return hmac_sha256(key.view(), str_cat(kAlgorithm, "\n", time, "\n", scope_text(scope, date),
                                         "\n", sha256(canonical).to_hex()))
      .to_hex();
}

Status sign_request(const AwsKey& key, const SigV4Scope& scope, int64_t wall_ms, Method method,
                    const Url& url, std::string_view payload_hash, Headers& headers) {
  headers.remove("Authorization");
  headers.set("Host", url.authority());
  const std::string time = format_compact_date(wall_ms);
  headers.set("X-Amz-Date", time);
  headers.remove("X-Amz-Security-Token");
  if (!key.session_token.empty()) headers.set("X-Amz-Security-Token", key.session_token);
  if (scope.service == "s3") headers.set("X-Amz-Content-Sha256", std::string(payload_hash));
  CanonicalRequest request{method_name(method), url.path,    url.query_text, &headers,
                           names_of(headers),   payload_hash};
  QANAT_ASSIGN_OR_RETURN(const std::string canonical, canonical_text(request, scope.service));
  headers.set("Authorization",
              str_cat(kAlgorithm, " Credential=", key.id, "/",
                      scope_text(scope, std::string_view(time).substr(0, kDateDigits)),
                      ", SignedHeaders=", signed_header_list(request.signed_headers),
                      ", Signature=", sigv4_signature(key.secret, scope, wall_ms, canonical)));
  return ok_status();
}

Result<Url> presign(const AwsKey& key, const SigV4Scope& scope, int64_t wall_ms,
                    std::chrono::seconds lifetime, Method method, Url url, const Headers& headers) {
  if (lifetime.count() < 1 || lifetime.count() > kLongestLifetimeS) {
    return invalid_argument(
        str_cat("a presigned URL lives 1 second to 7 days, not ", lifetime.count(), " seconds"));
  }
  Headers all = headers;
  all.set("Host", url.authority());
  const std::vector<std::string> names = names_of(all);
  const std::string time = format_compact_date(wall_ms);
  const auto add = [&url](std::string_view name, std::string_view value) {
    str_append(url.query_text, url.query_text.empty() ? "" : "&", name, "=",
               encode_path_segment(value));
  };
  add("X-Amz-Algorithm", kAlgorithm);
  add("X-Amz-Credential",
      str_cat(key.id, "/", scope_text(scope, std::string_view(time).substr(0, kDateDigits))));
  add("X-Amz-Date", time);
  add("X-Amz-Expires", std::to_string(lifetime.count()));
  if (!key.session_token.empty()) add("X-Amz-Security-Token", key.session_token);
  add("X-Amz-SignedHeaders", signed_header_list(names));
  CanonicalRequest request{method_name(method), url.path, url.query_text, &all, names,
                           kUnsignedPayload};
  QANAT_ASSIGN_OR_RETURN(const std::string canonical, canonical_text(request, scope.service));
  add("X-Amz-Signature", sigv4_signature(key.secret, scope, wall_ms, canonical));
  return url;
}

Result<SigV4Claim> read_claim(const RequestHead& request) {
  const std::string_view authorization = request.headers.get("Authorization");
  if (authorization.starts_with(str_cat(kAlgorithm, " "))) {
    return read_header_claim(request, authorization);
  }
  const auto query = request.query();
  if (!query.ok() || !query->has("X-Amz-Signature")) {
    return unauthenticated("the request is not signed",
                           "sign it with AWS Signature Version 4 and a key of this server");
  }
  return read_query_claim(*query);
}

Result<SigV4Claim> verify(const RequestHead& request, const SecretOf& secret_of, int64_t wall_ms) {
  QANAT_ASSIGN_OR_RETURN(SigV4Claim claim, read_claim(request));
  const std::optional<std::string> secret = secret_of(claim.key_id);
  if (!covers(claim, request.headers))
    return malformed("SignedHeaders leaves out what it must not");
  const auto canonical =
      canonical_text(CanonicalRequest{request.method_text, request.path, request.query_text,
                                      &request.headers, claim.signed_headers, claim.payload_hash},
                     claim.scope.service);
  if (!canonical.ok()) return malformed(canonical.status().message());
  // Computed also for an unknown key, so that time does not tell which keys there are.
  const std::string expected =
      sigv4_signature(secret.value_or("no such key"), claim.scope, claim.signed_at_ms, *canonical);
  if (!equal_constant_time(expected, claim.signature) || !secret) return refused();
  if (!is_timely(claim, wall_ms)) {
    return unauthenticated(
        claim.expires_at_ms && wall_ms >= *claim.expires_at_ms
            ? "the presigned URL has expired"
            : "the request was signed more than 15 minutes before or after the server's time",
        "set the clock");
  }
  return claim;
}

}  // namespace qanat::net
