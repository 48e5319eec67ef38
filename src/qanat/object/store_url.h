// Which store, as a URL:
//   /var/lib/objects, file:///var/lib/objects
//   s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&path_style=true|false&checksum=sha256|md5|none]
//   gs://BUCKET[/PREFIX][?endpoint=URL]
//   azure://ACCOUNT/CONTAINER[/PREFIX][?endpoint=URL]
// It never holds a secret: keys come from the environment and from files (credentials.h), and a URL
// with a user name, a password or an unknown parameter is refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"
#include "qanat/net/http.h"

namespace qanat::object {

struct StoreUrl {
  enum class Kind { kLocal, kS3, kGcs, kAzure };
  // What is sent along with written bytes for the store to check (see s3_service.h).
  enum class Checksum { kSha256, kMd5, kNone };

  Kind kind = Kind::kLocal;
  std::string path;                  // local
  std::string account;               // Azure
  std::string bucket;                // or container
  std::string prefix;                // "" or ending in '/'
  std::optional<net::Url> endpoint;  // without a path, except Azure's emulator
  std::string region;
  std::optional<bool> path_style;
  std::optional<Checksum> checksum;

  // In one spelling.
  std::string to_string() const;
};

// kInvalidArgument, with a hint that shows the form.
Result<StoreUrl> parse_store_url(std::string_view text);

}  // namespace qanat::object
