// The one place that turns a URL into a store, and the test at a server's start that the store can
// do what will be asked of it.
#pragma once

#include <memory>
#include <string_view>

#include "qanat/base/clock.h"
#include "qanat/base/file_system.h"
#include "qanat/base/status.h"
#include "qanat/net/http_client.h"
#include "qanat/object/credentials.h"
#include "qanat/object/local_object_store.h"
#include "qanat/object/object_store.h"
#include "qanat/object/remote_object_store.h"
#include "qanat/object/store_client.h"
#include "qanat/object/store_url.h"

namespace qanat::object {

struct OpenOptions {
  // Name resolution and TLS, for remote stores.
  net::ClientOptions client;
  Environment environment = process_environment();
  RetryOptions retry;
  RemoteStoreOptions remote;
  LocalObjectStoreOptions local;
  FileSystem* files = &posix_file_system();  // borrowed
  Clock* clock = &real_clock();              // borrowed
};

// Asks a remote store nothing yet. Errors: kInvalidArgument (URL), kFailedPrecondition (no
// credentials), as a hint says.
Result<std::unique_ptr<ObjectStore>> open_object_store(std::string_view url,
                                                       const OpenOptions& options);
Result<std::unique_ptr<ObjectStore>> open_object_store(const StoreUrl& url,
                                                       const OpenOptions& options);

// Writes, reads in part, lists and removes a small object under probe/. Not OK: the store cannot be
// used, and the hint says what to do about it. That it may not be listed is only worth a warning.
Status probe_object_store(ObjectStore& store);

}  // namespace qanat::object
