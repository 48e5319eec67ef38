// Where an installation keeps its content: DIR/objects, or the store that `qanat serve --object`
// names.
//
// The choice is made once. The store's URL (never a secret) stands in meta under /v1/objects, so
// that a later start finds it without the option, and the store holds the installation's id in the
// object `installation`: a server whose content is elsewhere, or whose prefix belongs to another
// installation, does not start.
#pragma once

#include <memory>
#include <string>

#include "qanat/meta/store.h"
#include "qanat/net/http_client.h"
#include "qanat/object/object_store.h"

namespace qanat {

struct ContentObjectsOptions {
  std::string url;           // as given; "": as before, or `local_folder`
  std::string local_folder;  // DIR/objects
  std::string installation;  // its id
  net::ClientOptions client;
};

// Opens it; a store that is named is probed first, so that a wrong bucket, key, region or clock is
// said now and not at the first commit.
Result<std::unique_ptr<object::ObjectStore>> open_content_objects(
    meta::Store& meta, const ContentObjectsOptions& options);

}  // namespace qanat
