#include "qanat/object/credentials.h"

#include <cstdlib>
#include <map>

#include "qanat/base/bytes.h"
#include "qanat/base/file_system.h"
#include "qanat/base/hash.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/object/ini_file.h"

namespace qanat::object {
namespace {

constexpr int64_t kReadAgainMs = 60'000;
constexpr uint64_t kMaxFileBytes = 1 << 20;

const std::string& or_else(const std::string& value, const std::string& otherwise) {
  return value.empty() ? otherwise : value;
}

// An absent file is an empty one.
Result<IniFile> read_ini(const std::string& path) {
  Result<std::string> text = posix_file_system().read_file(path, kMaxFileBytes);
  if (text.code() == Code::kNotFound) return IniFile();
  if (!text.ok()) return text.status().with_context("credentials");
  Result<IniFile> file = parse_ini(*text);
  if (!file.ok()) return failed_precondition(str_cat(path, ": ", file.status().message()));
  return file;
}

std::string home_file(const Environment& environment, std::string_view name) {
  return str_cat(environment("HOME"), "/", name);
}

// The two files of AWS's tools, merged: the credentials file wins.
Result<std::map<std::string, std::string>> read_profile(const Environment& environment,
                                                        std::string& profile) {
  profile = or_else(environment("AWS_PROFILE"), "default");
  const std::string credentials = or_else(environment("AWS_SHARED_CREDENTIALS_FILE"),
                                          home_file(environment, ".aws/credentials"));
  const std::string config =
      or_else(environment("AWS_CONFIG_FILE"), home_file(environment, ".aws/config"));
  std::map<std::string, std::string> settings;
  QANAT_ASSIGN_OR_RETURN(const IniFile config_file, read_ini(config));
  const std::string section = profile == "default" ? profile : str_cat("profile ", profile);
  if (auto found = config_file.find(section); found != config_file.end()) settings = found->second;
  QANAT_ASSIGN_OR_RETURN(const IniFile credentials_file, read_ini(credentials));
  if (auto found = credentials_file.find(profile); found != credentials_file.end()) {
    for (const auto& [name, value] : found->second) settings[name] = value;
  }
  return settings;
}

std::string value_of(const std::map<std::string, std::string>& settings, const std::string& name) {
  auto found = settings.find(name);
  return found == settings.end() ? std::string() : found->second;
}

Result<net::AwsKey> find_aws_key(const Environment& environment) {
  net::AwsKey key{environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY"),
                  environment("AWS_SESSION_TOKEN")};
  if (!key.id.empty() && !key.secret.empty()) return key;
  std::string profile;
  QANAT_ASSIGN_OR_RETURN(const auto settings, read_profile(environment, profile));
  key = {value_of(settings, "aws_access_key_id"), value_of(settings, "aws_secret_access_key"),
         value_of(settings, "aws_session_token")};
  if (!key.id.empty() && !key.secret.empty()) return key;
  return failed_precondition(
      str_cat("there is no access key: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor "
              "profile ",
              quoted(profile), " of ~/.aws/credentials has one"),
      "set both variables for the server, or write the profile; roles and single sign-on are not "
      "read, but a program may write their short-lived keys to that file");
}

Result<net::AwsKey> find_gcs_key(const Environment& environment) {
  net::AwsKey key{environment("GCS_HMAC_ACCESS_ID"), environment("GCS_HMAC_SECRET"), ""};
  if (!key.id.empty() && !key.secret.empty()) return key;
  const std::string path = or_else(environment("BOTO_CONFIG"), home_file(environment, ".boto"));
  QANAT_ASSIGN_OR_RETURN(IniFile file, read_ini(path));
  const auto& settings = file["Credentials"];
  key = {value_of(settings, "gs_access_key_id"), value_of(settings, "gs_secret_access_key"), ""};
  if (!key.id.empty() && !key.secret.empty()) return key;
  return failed_precondition(
      "there is no HMAC key for Google Cloud Storage",
      "make one (Cloud Storage, Settings, Interoperability) and set GCS_HMAC_ACCESS_ID and "
      "GCS_HMAC_SECRET for the server");
}

class FoundKey : public AwsCredentials {
 public:
  using Find = Result<net::AwsKey> (*)(const Environment&);
  FoundKey(Environment environment, Clock& clock, Find find)
      : environment_(std::move(environment)), clock_(clock), find_(find) {}

  Result<net::AwsKey> key() override {
    MutexLock lock(mutex_);
    if (key_ && clock_.monotonic_ms() - read_at_ms_ < kReadAgainMs) return *key_;
    return read();
  }

  bool refused(const std::string& old) override {
    MutexLock lock(mutex_);
    const auto now = read();
    return now.ok() && fingerprint(*now) != old;
  }

 private:
  // Keeps what it had when the files cannot be read: they may be just being written.
  Result<net::AwsKey> read() REQUIRES(mutex_) {
    Result<net::AwsKey> found = find_(environment_);
    if (found.ok()) {
      key_ = *found;
    } else if (!key_) {
      return found.status();
    }
    read_at_ms_ = clock_.monotonic_ms();
    return *key_;
  }

  const Environment environment_;
  Clock& clock_;
  const Find find_;
  Mutex mutex_;
  std::optional<net::AwsKey> key_ GUARDED_BY(mutex_);
  int64_t read_at_ms_ GUARDED_BY(mutex_) = 0;
};

// "Name=value;Name=value"; a value may hold '='.
std::map<std::string, std::string> connection_parts(std::string_view text) {
  std::map<std::string, std::string> parts;
  for (std::string_view part : split(text, ';')) {
    const auto [name, value] = split_once(part, '=');
    parts[to_lower(trim(name))] = trim(value);
  }
  return parts;
}

Status set_azure_key(std::string_view text, const std::string& account, AzureCredentials& found) {
  const auto key = from_base64(text);
  if (!key.ok() || key->empty()) {
    return failed_precondition("the Azure storage account's key is not base64",
                               "copy it again from the account's page \"Access keys\"");
  }
  found.key = net::AzureKey{account, *key};
  return ok_status();
}

std::string without_question_mark(std::string text) {
  if (!text.empty() && text[0] == '?') text.erase(0, 1);
  return text;
}

Status other_account(std::string_view variable, std::string_view theirs, std::string_view ours) {
  return failed_precondition(
      str_cat(variable, " is for the account ", quoted(theirs), ", the URL for ", quoted(ours)),
      "make them the same");
}

}  // namespace

Environment process_environment() {
  return [](const std::string& name) -> std::string {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? "" : value;
  };
}

std::string fingerprint(const net::AwsKey& key) {
  return sha256(str_cat(key.id, "\n", key.secret, "\n", key.session_token)).to_hex();
}

std::unique_ptr<AwsCredentials> aws_credentials(Environment environment, Clock& clock) {
  return std::make_unique<FoundKey>(std::move(environment), clock, find_aws_key);
}

std::unique_ptr<AwsCredentials> gcs_credentials(Environment environment, Clock& clock) {
  return std::make_unique<FoundKey>(std::move(environment), clock, find_gcs_key);
}

Result<AwsSettings> aws_settings(const Environment& environment) {
  AwsSettings found;
  found.region = or_else(environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"));
  found.endpoint_url = or_else(environment("AWS_ENDPOINT_URL_S3"), environment("AWS_ENDPOINT_URL"));
  if (!found.region.empty() && !found.endpoint_url.empty()) return found;
  std::string profile;
  QANAT_ASSIGN_OR_RETURN(const auto settings, read_profile(environment, profile));
  if (found.region.empty()) found.region = value_of(settings, "region");
  if (found.endpoint_url.empty()) found.endpoint_url = value_of(settings, "endpoint_url");
  return found;
}

Result<AzureCredentials> azure_credentials(const Environment& environment,
                                           const std::string& account) {
  AzureCredentials found;
  if (const std::string text = environment("AZURE_STORAGE_CONNECTION_STRING"); !text.empty()) {
    auto parts = connection_parts(text);
    if (!parts["accountname"].empty() && parts["accountname"] != account) {
      return other_account("AZURE_STORAGE_CONNECTION_STRING", parts["accountname"], account);
    }
    found.endpoint = parts["blobendpoint"];
    if (found.endpoint.empty() && !parts["endpointsuffix"].empty()) {
      found.endpoint = str_cat(or_else(parts["defaultendpointsprotocol"], "https"), "://", account,
                               ".blob.", parts["endpointsuffix"]);
    }
    if (!parts["accountkey"].empty()) {
      QANAT_RETURN_IF_ERROR(set_azure_key(parts["accountkey"], account, found));
    }
    found.sas = without_question_mark(parts["sharedaccesssignature"]);
    if (found.key || !found.sas.empty()) return found;
  }
  if (const std::string set = environment("AZURE_STORAGE_ACCOUNT");
      !set.empty() && set != account) {
    return other_account("AZURE_STORAGE_ACCOUNT", set, account);
  }
  if (const std::string key = environment("AZURE_STORAGE_KEY"); !key.empty()) {
    QANAT_RETURN_IF_ERROR(set_azure_key(key, account, found));
    return found;
  }
  found.sas = without_question_mark(environment("AZURE_STORAGE_SAS_TOKEN"));
  if (!found.sas.empty()) return found;
  return failed_precondition(
      str_cat("there is no key for the Azure storage account ", account),
      "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING for the "
      "server");
}

}  // namespace qanat::object
