// Where the keys of object stores come from: the environment, and the files that AWS's tools and
// gsutil use. Never from a URL, never into a log.
//
// AWS, and what is compatible: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; else
// the profile AWS_PROFILE ("default") of AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials) and
// AWS_CONFIG_FILE (~/.aws/config), which are read again once a minute, and at once when the store
// refuses the key: a program that renews short-lived keys there needs no restart.
// GCS: GCS_HMAC_ACCESS_ID and GCS_HMAC_SECRET; else gs_access_key_id and gs_secret_access_key in
// section [Credentials] of BOTO_CONFIG (~/.boto).
// Azure: AZURE_STORAGE_CONNECTION_STRING; else AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, with
// AZURE_STORAGE_ACCOUNT, if set, equal to the URL's account.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/clock.h"
#include "qanat/base/status.h"
#include "qanat/net/azure_signature.h"
#include "qanat/net/sigv4.h"

namespace qanat::object {

// The value of an environment variable, "" if it is not set. Injected, so that tests own it.
using Environment = std::function<std::string(const std::string& name)>;
Environment process_environment();

// Thread safe.
class AwsCredentials {
 public:
  virtual ~AwsCredentials() = default;
  // The key to sign with now. kFailedPrecondition, with a hint, if there is none.
  virtual Result<net::AwsKey> key() = 0;
  // The store refused the key of this fingerprint. True if another one is there now, so that trying
  // again makes sense.
  virtual bool refused(const std::string& fingerprint) = 0;
};
// Tells keys apart without saying them.
std::string fingerprint(const net::AwsKey& key);

// `clock` is borrowed. Does not read anything yet.
std::unique_ptr<AwsCredentials> aws_credentials(Environment environment, Clock& clock);
std::unique_ptr<AwsCredentials> gcs_credentials(Environment environment, Clock& clock);

// Settings of the profile other than keys: AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or
// AWS_ENDPOINT_URL, else `region` and `endpoint_url` of the profile. "" where there is none.
struct AwsSettings {
  std::string region;
  std::string endpoint_url;
};
Result<AwsSettings> aws_settings(const Environment& environment);

struct AzureCredentials {
  std::optional<net::AzureKey> key;
  std::string sas;       // a query without '?'; used if there is no key
  std::string endpoint;  // from a connection string; "" if none
};
// kFailedPrecondition, with a hint, if there is none for `account`.
Result<AzureCredentials> azure_credentials(const Environment& environment,
                                           const std::string& account);

}  // namespace qanat::object
