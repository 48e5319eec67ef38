// The Docker runner on a private engine of its own, with a script in the worker's place: the engine
// is started and found again, images and commands are looked up, containers are kept, adopted and
// stopped. Needs root, dockerd and a static busybox.
#include "qanat/run/docker_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <optional>

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"

namespace qanat::run {
namespace {

using ::testing::HasSubstr;

class SlowDockerRunner : public ::testing::Test {
 protected:
  SlowDockerRunner() {
    char name[] = "/tmp/qanat-docker-test-XXXXXX";
    data_ = ::mkdtemp(name);
    engine_ = std::make_unique<PrivateEngine>(data_, real_clock());
  }
  ~SlowDockerRunner() override {
    EXPECT_TRUE(engine_->stop().ok());
    EXPECT_FALSE(engine_->running());
    EXPECT_TRUE(posix_file_system().remove_tree(data_).ok());
  }

  std::unique_ptr<DockerRunner> make() {
    auto runner = std::make_unique<DockerRunner>(
        DockerRunnerOptions{
            .data_folder = data_, .installation_id = "test", .worker_program = data_ + "/worker"},
        real_clock());
    runner->start();
    return runner;
  }
  // One that does not look for workers by itself.
  std::unique_ptr<DockerRunner> make_at(const std::string& data,
                                        std::optional<std::string> docker_host = {}) {
    return std::make_unique<DockerRunner>(
        DockerRunnerOptions{.data_folder = data, .docker_host = std::move(docker_host)},
        real_clock());
  }
  static std::string used(const std::string& data) {
    return posix_file_system().read_file(data + "/engine/used").value_or("");
  }
  // The ids of the running workers, once there are so many.
  std::vector<std::string> wait_for(DockerRunner& runner, size_t count) {
    std::vector<std::string> ids;
    for (int i = 0; i < 600; ++i) {
      ids.clear();
      auto groups = runner.list();
      if (groups.ok()) {
        for (const auto& group : *groups) {
          for (const auto& worker : group.workers) {
            if (worker.running) ids.push_back(worker.worker_id);
          }
        }
        if (ids.size() == count) break;
      }
      real_clock().sleep_for_ms(50);
    }
    std::sort(ids.begin(), ids.end());
    EXPECT_EQ(ids.size(), count);
    return ids;
  }

  // Ends the runner when it has looked at everything that was asked of it before, and has done what
  // follows: it starts and stops a worker of another group meanwhile, in two passes, the second of
  // which began after this call. `running` others run.
  void finish_a_pass(std::unique_ptr<DockerRunner>& runner, pipeline::WorkerGroupSpec marker,
                     size_t running) {
    marker.id = {"default", "marker", 1};
    marker.run_folder = data_ + "/run/marker";
    marker.count = 1;
    ASSERT_TRUE(posix_file_system().make_directories(marker.run_folder + "/run").ok());
    ASSERT_TRUE(runner->ensure(marker).ok());
    wait_for(*runner, running + 1);
    ASSERT_TRUE(runner->stop(marker.id).ok());
    wait_for(*runner, running);
    runner.reset();
  }

  std::string data_;
  std::unique_ptr<PrivateEngine> engine_;
};

TEST_F(SlowDockerRunner, FromNoEngineToAdoptedWorkers) {
  std::ofstream(data_ + "/worker") << "#!/bin/sh\nexec sleep 1000\n";
  ::chmod((data_ + "/worker").c_str(), 0755);
  ASSERT_TRUE(engine_->start().ok());
  EXPECT_TRUE(PrivateEngine(data_, real_clock()).running());
  ASSERT_TRUE(engine_->start().ok());  // it runs already

  auto runner = make();
  auto missing = runner->resolve_image("no/such-image:1");
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_THAT(missing.status().hint(), HasSubstr("DOCKER_HOST=unix://" + engine_->socket()));
  const std::string import =
      str_cat("cd ", data_,
              " && mkdir -p i/bin && cp $(command -v busybox) i/bin/sh && cp i/bin/sh "
              "i/bin/sleep && tar -C i -c . | docker -H unix://",
              engine_->socket(), " import - busybox:test > /dev/null");
  ASSERT_EQ(::system(import.c_str()), 0);
  auto image = runner->resolve_image("busybox:test");
  ASSERT_TRUE(image.ok()) << image.status().to_string();
  EXPECT_TRUE(image->digest.starts_with("sha256:"));
  EXPECT_TRUE(runner->check_command(*image, {"sh", "-c", "x"}, {}, "").ok());
  Status command = runner->check_command(*image, {"python3"}, {}, "");
  EXPECT_EQ(command.code(), Code::kNotFound);
  EXPECT_THAT(command.message(), HasSubstr("python3"));

  pipeline::WorkerGroupSpec spec;
  spec.id = {"default", "p", 1};
  spec.image = "busybox:test";
  spec.image_digest = image->digest;
  spec.count = 2;
  spec.limits = {.cpus = 0.5, .memory_bytes = 64 << 20, .pids = 50};
  spec.run_folder = data_ + "/run/p";
  spec.new_credential = [](const std::string&) { return Result<std::string>("c"); };
  ASSERT_TRUE(posix_file_system().make_directories(spec.run_folder + "/run").ok());
  ASSERT_TRUE(runner->ensure(spec).ok());
  const std::vector<std::string> before = wait_for(*runner, 2);

  runner = make();  // as after a restart of the server
  ASSERT_TRUE(runner->ensure(spec).ok());
  ASSERT_TRUE(runner->stop_unwanted().ok());
  ASSERT_NO_FATAL_FAILURE(finish_a_pass(runner, spec, 2));
  runner = make();
  EXPECT_EQ(wait_for(*runner, 2), before);
  ASSERT_TRUE(runner->stop(spec.id).ok());
  wait_for(*runner, 0);
}

TEST_F(SlowDockerRunner, TheEngineThatWasUsedIsTheOneUntilAnotherIsNamed) {
  // In the eyes of another data folder it is the system's engine.
  const std::string other = data_ + "/other";
  ASSERT_TRUE(posix_file_system().make_directories(other).ok());
  ASSERT_TRUE(engine_->start().ok());
  const std::string host = "unix://" + engine_->socket();
  ASSERT_TRUE(make_at(other, host)->prepare().ok());
  EXPECT_EQ(used(other), host + "\n");
  auto runner = make_at(other);
  ASSERT_TRUE(runner->prepare().ok());
  EXPECT_EQ(runner->engine_socket(), engine_->socket());

  // It is restarted. Meanwhile no other one is taken or started, by a fresh server neither.
  ASSERT_TRUE(engine_->stop().ok());
  EXPECT_EQ(runner->resolve_image("x").code(), Code::kUnavailable);
  EXPECT_EQ(runner->prepare().code(), Code::kUnavailable);
  EXPECT_EQ(make_at(other)->prepare().code(), Code::kUnavailable);
  EXPECT_FALSE(PrivateEngine(other, real_clock()).lives());

  // For its own data folder it is the private one, which is started again.
  std::ofstream(data_ + "/engine/used") << "private\n";
  auto own = make_at(data_);
  ASSERT_TRUE(own->prepare().ok());
  EXPECT_EQ(own->engine_socket(), engine_->socket());
  EXPECT_EQ(used(data_), "private\n");
  EXPECT_TRUE(runner->prepare().ok());
  EXPECT_EQ(runner->engine_socket(), engine_->socket());

  // DOCKER_HOST wins.
  std::ofstream(other + "/engine/used") << "unix:///away.sock\n";
  EXPECT_FALSE(make_at(other)->prepare().ok());
  EXPECT_TRUE(make_at(other, host)->prepare().ok());
  EXPECT_EQ(used(other), host + "\n");
}

}  // namespace
}  // namespace qanat::run
