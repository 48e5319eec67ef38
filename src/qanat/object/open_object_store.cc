#include "qanat/object/open_object_store.h"

#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/object/azure_service.h"
#include "qanat/object/s3_service.h"

namespace qanat::object {
namespace {

constexpr std::string_view kUsualRegion = "us-east-1";
constexpr std::string_view kAmazon = ".amazonaws.com";
constexpr std::string_view kAmazonInChina = ".amazonaws.com.cn";

std::string_view amazon_domain(std::string_view region) {
  return region.starts_with("cn-") ? kAmazonInChina : kAmazon;
}

Result<std::unique_ptr<BlobService>> open_s3(const StoreUrl& url, const OpenOptions& options) {
  QANAT_ASSIGN_OR_RETURN(const AwsSettings settings, aws_settings(options.environment));
  S3Options s3;
  s3.bucket = url.bucket;
  s3.shown = url.to_string();
  s3.region = !url.region.empty()        ? url.region
              : !settings.region.empty() ? settings.region
                                         : std::string(kUsualRegion);
  s3.checksum = url.checksum.value_or(StoreUrl::Checksum::kSha256);
  if (url.endpoint) {
    s3.endpoint = *url.endpoint;
  } else {
    const std::string text = settings.endpoint_url.empty()
                                 ? str_cat("https://s3.", s3.region, amazon_domain(s3.region))
                                 : settings.endpoint_url;
    Result<net::Url> endpoint = net::Url::parse(text);
    if (!endpoint.ok()) return endpoint.status().with_context("AWS_ENDPOINT_URL");
    if (endpoint->path != "/" || !endpoint->query_text.empty()) {
      return invalid_argument("AWS_ENDPOINT_URL has more than a host and a port");
    }
    s3.endpoint = *std::move(endpoint);
  }
  // Names in front of the host need a wildcard in DNS and in the certificate, which Amazon has, but
  // not for names with dots.
  const bool amazon =
      s3.endpoint.host.ends_with(kAmazon) || s3.endpoint.host.ends_with(kAmazonInChina);
  s3.path_style = url.path_style.value_or(!amazon || url.bucket.find('.') != std::string::npos);
  auto credentials = aws_credentials(options.environment, *options.clock);
  QANAT_RETURN_IF_ERROR(credentials->key().status());
  return std::unique_ptr<BlobService>(std::make_unique<S3Service>(
      std::move(s3), std::move(credentials), options.client, options.retry, *options.clock));
}

Result<std::unique_ptr<BlobService>> open_gcs(const StoreUrl& url, const OpenOptions& options) {
  S3Options s3;
  s3.bucket = url.bucket;
  s3.shown = url.to_string();
  s3.region = "auto";
  s3.endpoint = url.endpoint ? *url.endpoint : *net::Url::parse("https://storage.googleapis.com");
  s3.path_style = true;
  // Its conditions are headers of its own, which do not go together with S3's.
  s3.conditional_writes = false;
  s3.checksum = StoreUrl::Checksum::kMd5;
  s3.is_google = true;
  auto credentials = gcs_credentials(options.environment, *options.clock);
  QANAT_RETURN_IF_ERROR(credentials->key().status());
  return std::unique_ptr<BlobService>(std::make_unique<S3Service>(
      std::move(s3), std::move(credentials), options.client, options.retry, *options.clock));
}

Result<std::unique_ptr<BlobService>> open_azure(const StoreUrl& url, const OpenOptions& options) {
  QANAT_ASSIGN_OR_RETURN(AzureCredentials credentials,
                         azure_credentials(options.environment, url.account));
  AzureOptions azure;
  azure.account = url.account;
  azure.container = url.bucket;
  azure.shown = url.to_string();
  if (url.endpoint) {
    azure.endpoint = *url.endpoint;
  } else {
    const std::string text = credentials.endpoint.empty()
                                 ? str_cat("https://", url.account, ".blob.core.windows.net")
                                 : credentials.endpoint;
    QANAT_ASSIGN_OR_RETURN(azure.endpoint, net::Url::parse(text));
    while (azure.endpoint.path.size() > 1 && azure.endpoint.path.back() == '/') {
      azure.endpoint.path.pop_back();
    }
  }
  return std::unique_ptr<BlobService>(std::make_unique<AzureService>(
      std::move(azure), std::move(credentials), options.client, options.retry, *options.clock));
}

Status check_probe(ObjectStore& store, const std::string& key, const std::string& bytes) {
  constexpr int64_t kFrom = 100;
  const auto length = static_cast<int64_t>(bytes.size());
  QANAT_ASSIGN_OR_RETURN(const std::string part, store.read(key, kFrom, length - kFrom));
  if (part != std::string_view(bytes).substr(kFrom)) {
    return data_loss("what was read from it is not what was written");
  }
  QANAT_ASSIGN_OR_RETURN(const int64_t size, store.size(key));
  if (size != length) return data_loss("it says another size than was written");
  // A list may be late; that it is answered is what counts.
  const Status listed = store.list(key, [](const ObjectInfo&) { return ok_status(); });
  if (listed.code() != Code::kPermissionDenied) return listed;
  log_warning("the object store may not be listed: what dying servers leave in it stays",
              {{"store", store.describe()}, {"answer", listed.message()}});
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<ObjectStore>> open_object_store(const StoreUrl& url,
                                                       const OpenOptions& options) {
  Result<std::unique_ptr<BlobService>> service = invalid_argument("");
  switch (url.kind) {
    case StoreUrl::Kind::kLocal: {
      QANAT_ASSIGN_OR_RETURN(auto local,
                             LocalObjectStore::open(*options.files, url.path, options.local));
      return std::unique_ptr<ObjectStore>(std::move(local));
    }
    case StoreUrl::Kind::kS3:
      service = open_s3(url, options);
      break;
    case StoreUrl::Kind::kGcs:
      service = open_gcs(url, options);
      break;
    case StoreUrl::Kind::kAzure:
      service = open_azure(url, options);
      break;
  }
  if (!service.ok())
    return service.status().with_context(str_cat("object store ", url.to_string()));
  return std::unique_ptr<ObjectStore>(
      std::make_unique<RemoteObjectStore>(*std::move(service), url.prefix, options.remote));
}

Result<std::unique_ptr<ObjectStore>> open_object_store(std::string_view url,
                                                       const OpenOptions& options) {
  QANAT_ASSIGN_OR_RETURN(const StoreUrl parsed, parse_store_url(url));
  return open_object_store(parsed, options);
}

Status probe_object_store(ObjectStore& store) {
  const std::string key = str_cat("probe/", random_id());
  const std::string bytes = system_random().bytes(1000);
  Status status = store.write(key, bytes);
  if (status.ok()) {
    status = check_probe(store, key, bytes);
    const Status removed = store.remove(key);
    if (status.ok()) status = removed;
  }
  return status.with_context(store.describe());
}

}  // namespace qanat::object
