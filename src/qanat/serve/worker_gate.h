// HttpWorkerGate: serves workers, each group of them on a Unix socket in a folder of its own:
// DATA/run/<hash of the group>/run/worker.sock.
//
// The folder, not the socket, is what workers see, so that a restarted server's new socket is found
// by old workers. The socket's mode lets any user of the machine connect; what protects it is the
// folder (0711 below a private data folder) and the token of every call.
//
// Thread safe.
#pragma once

#include <map>
#include <string>

#include "qanat/base/thread_annotations.h"
#include "qanat/net/http_server.h"
#include "qanat/pipeline/services.h"
#include "qanat/pipeline/worker_hub.h"

namespace qanat::serve {

class HttpWorkerGate : public pipeline::WorkerGate {
 public:
  // `folder`: DATA/run. `server` outlives it.
  HttpWorkerGate(net::HttpServer& server, std::string folder)
      : server_(server), folder_(std::move(folder)) {}

  // For wiring: the hub is made after its pipelines, which need the gate. Before the first worker
  // speaks.
  void set_hub(pipeline::WorkerHub* hub) { hub_ = hub; }

  Result<std::string> open(const pipeline::WorkerGroupId& group) override;
  void close(const pipeline::WorkerGroupId& group) override;

 private:
  void handle(const pipeline::WorkerGroupId& group, net::Request& request, net::Response& response);
  Status dispatch(const pipeline::WorkerGroupId& group, net::Request& request,
                  net::Response& response);

  net::HttpServer& server_;
  const std::string folder_;
  std::atomic<pipeline::WorkerHub*> hub_{nullptr};
  Mutex mutex_;
  std::map<pipeline::WorkerGroupId, net::HttpServer::ListenerId> listeners_ GUARDED_BY(mutex_);
};

}  // namespace qanat::serve
