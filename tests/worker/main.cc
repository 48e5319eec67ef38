// The tests' own program plays three parts: the tests; `qanat-worker`, which the sandbox executes;
// and, by hand, a server without a repo to try a worker in a container: `test_worker fake-server
// FOLDER DATUMS BYTES [cmd...]`.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "qanat/base/clock.h"
#include "qanat/worker/worker_main.h"
#include "worker/fake_server.h"

// A worker may not be traced, which the leak check at its end would need.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

namespace {

int serve(int argc, char** argv) {
  qanat::testing::FakeServer server(argv[2]);
  for (int i = 5; i < argc; ++i) server.hello.transform.cmd.push_back(argv[i]);
  if (argc <= 5) server.hello.transform.cmd = {"/bin/cp", "-r", "/pfs/in/.", "/pfs/out/"};
  server.start();
  const size_t count = std::stoul(argv[3]);
  std::puts("serving");
  std::fflush(stdout);
  server.add({{.id = "warm", .files = {{"in/f", "x"}}}});
  if (!server.wait_delivered(1)) return 1;
  std::vector<qanat::testing::FakeDatum> datums;
  for (size_t i = 0; i < count; ++i) {
    datums.push_back(
        {.id = "d" + std::to_string(i),
         .files = {{"in/f" + std::to_string(i), std::string(std::stoul(argv[4]), 'x')}}});
  }
  const int64_t start_ms = qanat::real_clock().monotonic_ms();
  server.add(std::move(datums));
  const bool all = server.wait_delivered(count + 1);
  const int64_t taken_ms = qanat::real_clock().monotonic_ms() - start_ms;
  for (const auto& [id, result] : server.delivered()) {
    if (result.report.state != qanat::api::DatumOutcome::kSuccess || id == "warm") {
      std::printf("%s: %s\n%s", id.c_str(), result.report.reason.c_str(), result.log.c_str());
      if (id != "warm") break;
    }
  }
  std::printf("%s: %zu datums in %ld ms, %d inputs calls, %d results calls\n",
              all ? "done" : "too slow", server.delivered().size() - 1, static_cast<long>(taken_ms),
              server.calls().inputs, server.calls().results);
  server.dismiss();
  return all ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view name = argv[0];
  if (name == "qanat-worker" || (argc > 1 && std::string_view(argv[1]) == "sandbox")) {
    return qanat::worker::worker_main(argc, argv);
  }
  if (argc > 4 && std::string_view(argv[1]) == "fake-server") return serve(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
