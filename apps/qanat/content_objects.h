// Where an installation keeps its content: DIR/objects, or the store that `qanat serve --object`
// names.
//
// The choice is made once. The store's URL (never a secret) stands in meta under /v1/objects, so
// that a later start finds it without the option. Every store, also the default one, holds the
// installation's id in the object `installation`, and the data folder holds it in a file of that
// name. Garbage collection deletes what the metadata does not name; so metadata and content that do
// not belong together must never meet: a server whose content is elsewhere, whose store belongs to
// another installation, or whose metadata is gone does not start.
#pragma once

#include <memory>
#include <string>

#include "qanat/base/file_system.h"
#include "qanat/meta/store.h"
#include "qanat/net/http_client.h"
#include "qanat/object/object_store.h"

namespace qanat {

struct ContentObjectsOptions {
  std::string url;           // as given; "": as before, or DIR/objects
  std::string data_folder;   // DIR
  std::string installation;  // its id
  net::ClientOptions client;
};

// To be asked before metadata is begun: is there nothing that metadata was kept for? `installation`
// is not used. kDataLoss: there is, so the metadata has been lost.
Status expect_no_content(FileSystem& files, const ContentObjectsOptions& options);

// Opens it, and makes sure that it is this installation's; a store that is named is probed first,
// so that a wrong bucket, key, region or clock is said now and not at the first commit.
Result<std::unique_ptr<object::ObjectStore>> open_content_objects(
    FileSystem& files, meta::Store& meta, const ContentObjectsOptions& options);

}  // namespace qanat
