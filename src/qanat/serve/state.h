// State: what the handlers of the API work with. Borrowed from whoever wires the server (apps/),
// and thread safe.
#pragma once

#include <string>

#include "qanat/base/clock.h"
#include "qanat/base/file_system.h"
#include "qanat/base/thread_pool.h"
#include "qanat/content/content_store.h"
#include "qanat/meta/store.h"
#include "qanat/net/http_client.h"
#include "qanat/object/object_store.h"
#include "qanat/pipeline/pipelines.h"
#include "qanat/serve/tokens.h"
#include "qanat/version/versions.h"

namespace qanat::serve {

class GcService;
class Maintenance;

struct State {
  meta::Store* meta = nullptr;
  object::ObjectStore* objects = nullptr;
  version::Versions* versions = nullptr;
  content::ContentStores* contents = nullptr;
  pipeline::Pipelines* pipelines = nullptr;
  Tokens* tokens = nullptr;
  Clock* clock = nullptr;
  net::HttpClient* fetcher =
      nullptr;  // for `put file` of URLs: with the address policy of the installation
  ThreadPool* events = nullptr;   // computes what event streams show
  ThreadPool* readers = nullptr;  // reads ahead for downloads; null: each request for itself
  GcService* gc = nullptr;
  Maintenance* maintenance = nullptr;
  int64_t trash_grace_ms = 0;
  pipeline::Scratch scratch;
  std::string runner;
  std::string installation;
  std::string version;
  std::string host;    // that it listens on: "127.0.0.1:7700"
  std::string socket;  // the path of the same API's Unix socket; "": there is none
};

}  // namespace qanat::serve
