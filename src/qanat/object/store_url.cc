#include "qanat/object/store_url.h"

#include "qanat/base/string.h"
#include "qanat/object/object_store.h"

namespace qanat::object {
namespace {

constexpr std::string_view kForms =
    "DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or azure://ACCOUNT/CONTAINER/PREFIX, with "
    "?endpoint=URL&region=NAME where need be";

bool is_bucket_name(std::string_view name) {
  if (name.size() < 3 || name.size() > 222) return false;
  for (const char c : name) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '.' || c == '_' || c == '$';
    if (!good) return false;
  }
  return name != "..." && name.front() != '.' && name.back() != '.';
}

bool is_region_name(std::string_view name) {
  for (const char c : name) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_';
    if (!good) return false;
  }
  return !name.empty() && name.size() <= 64;
}

Status set_prefix(std::string_view text, StoreUrl& url) {
  while (!text.empty() && text.back() == '/') text.remove_suffix(1);
  if (text.empty()) return ok_status();
  QANAT_RETURN_IF_ERROR(check_key(text));
  url.prefix = str_cat(text, "/");
  return ok_status();
}

Status set_endpoint(std::string_view text, StoreUrl& url) {
  QANAT_ASSIGN_OR_RETURN(net::Url endpoint, net::Url::parse(text));
  if (endpoint.scheme != "http" && endpoint.scheme != "https") {
    return invalid_argument("endpoint= is not an http or https URL");
  }
  while (endpoint.path.size() > 1 && endpoint.path.back() == '/') endpoint.path.pop_back();
  if (!endpoint.query_text.empty() ||
      (endpoint.path != "/" && url.kind != StoreUrl::Kind::kAzure)) {
    return invalid_argument("endpoint= has more than a host and a port",
                            "such as endpoint=https://minio.example.org:9000");
  }
  url.endpoint = std::move(endpoint);
  return ok_status();
}

Status set_parameter(std::string_view name, std::string_view value, StoreUrl& url) {
  const bool s3 = url.kind == StoreUrl::Kind::kS3;
  if (name == "endpoint") return set_endpoint(value, url);
  if (name == "region" && s3) {
    if (!is_region_name(value)) {
      return invalid_argument(str_cat("region=", value, " is not the name of a region"));
    }
    url.region = value;
    return ok_status();
  }
  if (name == "path_style" && s3) {
    if (value != "true" && value != "false") {
      return invalid_argument("path_style= is true or false");
    }
    url.path_style = value == "true";
    return ok_status();
  }
  if (name == "checksum" && s3) {
    if (value == "sha256") {
      url.checksum = StoreUrl::Checksum::kSha256;
    } else if (value == "md5") {
      url.checksum = StoreUrl::Checksum::kMd5;
    } else if (value == "none") {
      url.checksum = StoreUrl::Checksum::kNone;
    } else {
      return invalid_argument("checksum= is sha256, md5 or none");
    }
    return ok_status();
  }
  return invalid_argument(str_cat("unknown parameter ", quoted(name)), std::string(kForms));
}

Result<StoreUrl> parse_remote(StoreUrl::Kind kind, std::string_view rest) {
  StoreUrl url;
  url.kind = kind;
  const auto [place, parameters] = split_once(rest, '?');
  if (place.find('@') != std::string_view::npos) {
    return invalid_argument("it holds a user name or a key",
                            "keys come from the environment or a credentials file");
  }
  auto [bucket, prefix] = split_once(place, '/');
  if (kind == StoreUrl::Kind::kAzure) {
    url.account = bucket;
    std::tie(bucket, prefix) = split_once(prefix, '/');
    if (!is_bucket_name(url.account)) {
      return invalid_argument("the account's name is missing or malformed", std::string(kForms));
    }
  }
  url.bucket = bucket;
  if (!is_bucket_name(url.bucket)) {
    return invalid_argument(str_cat("the ", kind == StoreUrl::Kind::kAzure ? "container" : "bucket",
                                    "'s name is missing or malformed"),
                            std::string(kForms));
  }
  QANAT_RETURN_IF_ERROR(set_prefix(prefix, url));
  QANAT_ASSIGN_OR_RETURN(const net::Query query, net::Query::parse(parameters));
  for (const auto& [name, value] : query.parameters()) {
    QANAT_RETURN_IF_ERROR(set_parameter(name, value, url));
  }
  return url;
}

Result<StoreUrl> parse(std::string_view text) {
  const size_t colon = text.find("://");
  if (colon == std::string_view::npos) {
    if (text.empty()) return invalid_argument("it is empty", std::string(kForms));
    StoreUrl url;
    url.path = text;
    return url;
  }
  const std::string scheme = to_lower(text.substr(0, colon));
  const std::string_view rest = text.substr(colon + 3);
  if (scheme == "file") {
    StoreUrl url;
    QANAT_ASSIGN_OR_RETURN(url.path, net::percent_decode(rest));
    if (url.path.empty() || url.path[0] != '/') {
      return invalid_argument("a file URL has three slashes", "such as file:///var/lib/objects");
    }
    return url;
  }
  if (scheme == "s3") return parse_remote(StoreUrl::Kind::kS3, rest);
  if (scheme == "gs") return parse_remote(StoreUrl::Kind::kGcs, rest);
  if (scheme == "azure") return parse_remote(StoreUrl::Kind::kAzure, rest);
  return invalid_argument(str_cat("no store has the scheme ", quoted(scheme)), std::string(kForms));
}

}  // namespace

Result<StoreUrl> parse_store_url(std::string_view text) {
  Result<StoreUrl> url = parse(text);
  // The text itself is not repeated: it may hold what should not be shown.
  if (!url.ok()) return url.status().with_context("object store URL");
  return url;
}

std::string StoreUrl::to_string() const {
  if (kind == Kind::kLocal) return path;
  std::string out = kind == Kind::kS3    ? str_cat("s3://", bucket)
                    : kind == Kind::kGcs ? str_cat("gs://", bucket)
                                         : str_cat("azure://", account, "/", bucket);
  if (!prefix.empty()) {
    str_append(out, "/", std::string_view(prefix).substr(0, prefix.size() - 1));
  }
  net::Query query;
  if (endpoint) {
    std::string text = endpoint->to_string();
    if (text.ends_with("/")) text.pop_back();
    query.add("endpoint", text);
  }
  if (!region.empty()) query.add("region", region);
  if (path_style) query.add("path_style", *path_style ? "true" : "false");
  if (checksum) {
    query.add("checksum", *checksum == Checksum::kSha256 ? "sha256"
                          : *checksum == Checksum::kMd5  ? "md5"
                                                         : "none");
  }
  if (!query.empty()) str_append(out, "?", query.encode());
  return out;
}

}  // namespace qanat::object
