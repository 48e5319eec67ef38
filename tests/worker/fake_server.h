// The server's side of the workers' protocol, in memory, for tests of the worker: hands out datums,
// takes results, can be stopped and started again with all it knows.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "qanat/api/worker.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/net/http_server.h"

namespace qanat::testing {

struct FakeDatum {
  std::string id;
  std::map<std::string, std::string> files;  // "<input>/<path>" -> bytes
  std::map<std::string, std::string> env;
};

struct Delivered {
  api::DatumReport report;
  std::map<std::string, std::string> files;
  std::string log;  // JSON lines
  int times = 0;
};

struct FakeCalls {
  int hellos = 0;
  int leases = 0;
  int inputs = 0;
  int results = 0;
  int renewals = 0;
  int logs = 0;
};

class FakeServer {
 public:
  // Listens at <folder>/worker.sock.
  explicit FakeServer(std::string folder);
  ~FakeServer();

  // What hello answers; set before start().
  api::HelloAnswer hello;
  std::string credential = "one-use";
  size_t batch = 100;

  void start();
  void stop();

  void add(std::vector<FakeDatum> datums) EXCLUDES(mutex_);
  void cancel(const std::string& datum) EXCLUDES(mutex_);
  void follow() EXCLUDES(mutex_);
  // Refuses everything from now on: the worker is not wanted any more.
  void dismiss() EXCLUDES(mutex_);

  // Each waits up to 60 s; false when that was not enough.
  bool wait_delivered(size_t count) EXCLUDES(mutex_);
  bool wait_leased(const std::string& datum) EXCLUDES(mutex_);
  bool wait_inputs(int calls) EXCLUDES(mutex_);
  bool wait_renewed(const std::string& datum) EXCLUDES(mutex_);
  bool wait_live(const std::string& text) EXCLUDES(mutex_);

  std::map<std::string, Delivered> delivered() EXCLUDES(mutex_);
  FakeCalls calls() EXCLUDES(mutex_);

 private:
  void handle(net::Request& request, net::Response& response) EXCLUDES(mutex_);
  void lease(net::Request& request, net::Response& response) EXCLUDES(mutex_);
  void inputs(net::Request& request, net::Response& response) EXCLUDES(mutex_);
  void results(net::Request& request, net::Response& response) EXCLUDES(mutex_);
  template <class Ready>
  bool wait(Ready ready) EXCLUDES(mutex_);

  const std::string folder_;
  std::unique_ptr<net::HttpServer> server_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool dismissed_ GUARDED_BY(mutex_) = false;
  bool follow_ GUARDED_BY(mutex_) = false;
  std::map<std::string, FakeDatum> datums_ GUARDED_BY(mutex_);
  std::deque<std::string> waiting_ GUARDED_BY(mutex_);
  std::set<std::string> leased_ GUARDED_BY(mutex_);
  std::set<std::string> cancelled_ GUARDED_BY(mutex_);
  std::set<std::string> renewed_ GUARDED_BY(mutex_);
  std::map<std::string, Delivered> delivered_ GUARDED_BY(mutex_);
  std::string live_ GUARDED_BY(mutex_);
  FakeCalls calls_ GUARDED_BY(mutex_);
};

}  // namespace qanat::testing
