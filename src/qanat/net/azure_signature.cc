#include "qanat/net/azure_signature.h"

#include <algorithm>
#include <map>
#include <vector>

#include "qanat/base/bytes.h"
#include "qanat/base/clock.h"
#include "qanat/base/hash.h"
#include "qanat/base/string.h"
#include "qanat/net/http_date.h"

namespace qanat::net {
namespace {

constexpr std::string_view kSasVersion = "2020-12-06";

std::string canonical_headers(const Headers& headers) {
  std::map<std::string, std::string> found;
  for (const auto& [name, value] : headers.fields()) {
    const std::string lower = to_lower(name);
    if (!lower.starts_with("x-ms-")) continue;
    std::string& values = found[lower];
    if (!values.empty()) values += ',';
    values += trim(value);
  }
  std::string out;
  for (const auto& [name, value] : found) str_append(out, name, ":", value, "\n");
  return out;
}

Result<std::string> canonical_resource(std::string_view account, const Url& url) {
  QANAT_ASSIGN_OR_RETURN(const Query query, Query::parse(url.query_text));
  std::map<std::string, std::vector<std::string>> parameters;
  for (const auto& [name, value] : query.parameters()) parameters[to_lower(name)].push_back(value);
  std::string out = str_cat("/", account, url.path);
  for (auto& [name, values] : parameters) {
    std::sort(values.begin(), values.end());
    str_append(out, "\n", name, ":", join(values, ","));
  }
  return out;
}

// Whole seconds, which is all that a signature may have.
std::string sas_time(int64_t wall_ms) { return format_rfc3339(wall_ms / 1000 * 1000); }

}  // namespace

Result<std::string> azure_string_to_sign(std::string_view account, std::string_view method,
                                         const Url& url, const Headers& headers,
                                         uint64_t content_length) {
  std::string out(method);
  const std::string length = content_length == 0 ? "" : std::to_string(content_length);
  // x-ms-date is always sent, so Date stays empty.
  str_append(out, "\n", headers.get("Content-Encoding"), "\n", headers.get("Content-Language"),
             "\n", length, "\n", headers.get("Content-MD5"), "\n", headers.get("Content-Type"),
             "\n\n", headers.get("If-Modified-Since"), "\n", headers.get("If-Match"), "\n",
             headers.get("If-None-Match"), "\n", headers.get("If-Unmodified-Since"), "\n",
             headers.get("Range"), "\n");
  QANAT_ASSIGN_OR_RETURN(const std::string resource, canonical_resource(account, url));
  str_append(out, canonical_headers(headers), resource);
  return out;
}

Status sign_azure_request(const AzureKey& key, int64_t wall_ms, Method method, const Url& url,
                          uint64_t content_length, Headers& headers) {
  headers.remove("Authorization");
  headers.set("x-ms-date", format_http_date(wall_ms));
  QANAT_ASSIGN_OR_RETURN(
      const std::string text,
      azure_string_to_sign(key.account, method_name(method), url, headers, content_length));
  headers.set("Authorization", str_cat("SharedKey ", key.account, ":",
                                       to_base64(hmac_sha256(key.key, text).view())));
  return ok_status();
}

std::string azure_sas_query(const AzureKey& key, const AzureGrant& grant) {
  const std::string start = sas_time(grant.starts_ms);
  const std::string end = sas_time(grant.expires_ms);
  const std::string protocol = grant.https_only ? "https" : "https,http";
  const std::string resource =
      str_cat("/blob/", key.account, "/", grant.container, "/", grant.blob);
  // Fields that stay empty: stored policy, IP range; after the resource's kind: snapshot time,
  // encryption scope, and five response headers.
  const std::string text = str_cat(grant.permissions, "\n", start, "\n", end, "\n", resource,
                                   "\n\n\n", protocol, "\n", kSasVersion, "\nb\n\n\n\n\n\n\n");
  const std::string signature = to_base64(hmac_sha256(key.key, text).view());
  return str_cat("sv=", kSasVersion, "&st=", encode_path_segment(start),
                 "&se=", encode_path_segment(end), "&sr=b&sp=", grant.permissions,
                 "&spr=", encode_path_segment(protocol), "&sig=", encode_path_segment(signature));
}

}  // namespace qanat::net
