// How requests to Azure Blob Storage are authorized: Shared Key (Microsoft, "Authorize with Shared
// Key", versions from 2015-02-21 on) in a header, and service shared access signatures ("Create a
// service SAS", version 2020-12-06) in a URL. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/net/http.h"

namespace qanat::net {

struct AzureKey {
  std::string account;
  std::string key;  // plain bytes: the key as Azure shows it, decoded from base64
};

// The text that Shared Key signs. `content_length` is the body's; the path is as on the wire.
Result<std::string> azure_string_to_sign(std::string_view account, std::string_view method,
                                         const Url& url, const Headers& headers,
                                         uint64_t content_length);
// Sets x-ms-date and Authorization; the signature covers all x-ms- headers, the standard ones, the
// path and the query.
Status sign_azure_request(const AzureKey& key, int64_t wall_ms, Method method, const Url& url,
                          uint64_t content_length, Headers& headers);

struct AzureGrant {
  std::string container;
  std::string blob;         // plain, not encoded
  std::string permissions;  // "r" read, "c" create, "w" write; in Azure's order "racwd..."
  int64_t starts_ms = 0;
  int64_t expires_ms = 0;
  bool https_only = false;
};
// The query ("sv=...&sig=...") that lets its holder do what the grant says to that blob.
std::string azure_sas_query(const AzureKey& key, const AzureGrant& grant);

}  // namespace qanat::net
