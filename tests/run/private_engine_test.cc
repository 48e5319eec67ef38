// The private engine's care for one that lives and does not answer, and which engine the Docker
// runner waits for; nothing here needs Docker. The rest is in docker_runner_test.cc.
#include "qanat/run/private_engine.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"
#include "qanat/run/detached_process.h"
#include "qanat/run/docker_runner.h"

namespace qanat::run {
namespace {

using ::testing::HasSubstr;

class PrivateEngines : public ::testing::Test {
 protected:
  PrivateEngines() {
    char name[] = "/tmp/qanat-engine-test-XXXXXX";
    data_ = ::mkdtemp(name);
    EXPECT_TRUE(posix_file_system().make_directories(data_ + "/engine/root").ok());
  }
  ~PrivateEngines() override {
    if (pipe_ >= 0) ::close(pipe_);
    EXPECT_TRUE(posix_file_system().remove_tree(data_).ok());
  }

  // Something that lives with the arguments of a dockerd with this data root. They can be seen only
  // a moment after exec: it has begun to run when both ends of a pipe have been opened.
  pid_t start_deaf_dockerd(const std::string& root) {
    const std::string pipe = data_ + "/pipe";
    EXPECT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    const Result<pid_t> child = start_detached(
        {.program = "/bin/sh",
         .arguments = {"dockerd", "-c", "read _ < \"$0\"", pipe, "--data-root", root},
         .log_file = data_ + "/engine/log"});
    EXPECT_TRUE(child.ok()) << child.status().to_string();
    pipe_ = ::open(pipe.c_str(), O_WRONLY | O_CLOEXEC);
    return child.ok() ? *child : -1;
  }
  void note_pid(pid_t pid) { std::ofstream(data_ + "/engine/pid") << pid; }
  std::string read(const std::string& name) {
    return posix_file_system().read_file(data_ + "/engine/" + name).value_or("");
  }
  static void end(pid_t pid) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }

  std::string data_;
  int pipe_ = -1;  // nothing is written to it
};

TEST_F(PrivateEngines, OneThatLivesAndDoesNotAnswerIsWaitedForAndLeftAlone) {
  ManualClock clock;
  PrivateEngine engine(data_, clock);
  const pid_t deaf = start_deaf_dockerd(data_ + "/engine/root");
  note_pid(deaf);
  ASSERT_TRUE(engine.lives());
  EXPECT_FALSE(engine.running());
  Status status;
  std::atomic<bool> returned = false;
  std::thread start([&] {
    status = engine.start();
    returned = true;
  });
  while (!returned) {
    if (clock.sleepers() > 0) clock.advance_ms(1000);
    std::this_thread::yield();
  }
  start.join();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr(str_cat("process ", deaf)));
  EXPECT_THAT(status.hint(), HasSubstr(str_cat("kill ", deaf)));
  EXPECT_EQ(read("pid"), std::to_string(deaf));
  EXPECT_EQ(::kill(deaf, 0), 0);
  end(deaf);
  EXPECT_FALSE(engine.lives());
}

TEST_F(PrivateEngines, AnotherProcessOfThatNumberIsNotTakenForIt) {
  PrivateEngine engine(data_, real_clock());
  const pid_t other = start_deaf_dockerd("/elsewhere/engine/root");
  note_pid(other);
  EXPECT_FALSE(engine.lives());
  EXPECT_TRUE(engine.stop().ok());
  EXPECT_EQ(::kill(other, 0), 0);
  end(other);
}

TEST_F(PrivateEngines, TheRunnerWaitsForTheEngineThatItUsedAndStartsNoOther) {
  std::ofstream(data_ + "/engine/used") << "unix://" << data_ << "/away.sock\n";
  DockerRunner runner({.data_folder = data_}, real_clock());
  const Status status = runner.prepare();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr(data_ + "/away.sock"));
  EXPECT_THAT(status.hint(), HasSubstr("remove " + data_ + "/engine/used"));
  EXPECT_FALSE(PrivateEngine(data_, real_clock()).lives());
  EXPECT_EQ(read("log"), "");

  std::ofstream(data_ + "/engine/used") << "nonsense\n";
  EXPECT_EQ(runner.prepare().code(), Code::kDataLoss);
}

}  // namespace
}  // namespace qanat::run
