// The process runner's own part, with a script in the worker's place: starting, finding again,
// replacing, stopping.
#include "qanat/run/process_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "qanat/base/file_system.h"

namespace qanat::run {
namespace {

class ProcessRunners : public ::testing::Test {
 protected:
  ProcessRunners() {
    char name[] = "/tmp/qanat-run-test-XXXXXX";
    data_ = ::mkdtemp(name);
    spec_.id = {"default", "p", 2};
    spec_.run_folder = data_ + "/run/p";
    spec_.new_credential = [](const std::string&) { return Result<std::string>("c"); };
    EXPECT_TRUE(posix_file_system().make_directories(spec_.run_folder + "/run").ok());
  }
  ~ProcessRunners() override {
    auto runner = make();
    EXPECT_TRUE(runner->stop_unwanted().ok());
    EXPECT_TRUE(wait_for(*runner, 0));
    runner.reset();
    EXPECT_TRUE(posix_file_system().remove_tree(data_).ok());
  }

  std::unique_ptr<ProcessRunner> make() {
    auto runner = std::make_unique<ProcessRunner>(
        ProcessRunnerOptions{.data_folder = data_, .worker_program = data_ + "/worker"},
        real_clock());
    EXPECT_TRUE(runner->start().ok());
    return runner;
  }
  void program(const std::string& script) {
    std::ofstream(data_ + "/worker") << "#!/bin/sh\n" << script << "\n";
    ::chmod((data_ + "/worker").c_str(), 0755);
  }
  // Until the runner has so many running workers.
  bool wait_for(ProcessRunner& runner, size_t count) {
    for (int i = 0; i < 1000; ++i) {
      size_t running = 0;
      ids_.clear();
      auto groups = runner.list();
      if (!groups.ok()) return false;
      for (const auto& group : *groups) {
        for (const auto& worker : group.workers) {
          running += worker.running ? 1 : 0;
          ids_.push_back(worker.worker_id);
        }
      }
      if (running == count && ids_.size() == count) return true;
      real_clock().sleep_for_ms(10);
    }
    return false;
  }

  // Ends the runner when it has looked at everything that was asked of it before, and has done what
  // follows: it starts and stops a worker of another group meanwhile, in two passes, the second of
  // which began after this call. `running` others run.
  void finish_a_pass(std::unique_ptr<ProcessRunner>& runner, size_t running) {
    pipeline::WorkerGroupSpec marker = spec_;
    marker.id = {"default", "marker", 1};
    marker.run_folder = data_ + "/run/marker";
    marker.count = 1;
    ASSERT_TRUE(posix_file_system().make_directories(marker.run_folder + "/run").ok());
    ASSERT_TRUE(runner->ensure(marker).ok());
    ASSERT_TRUE(wait_for(*runner, running + 1));
    ASSERT_TRUE(runner->stop(marker.id).ok());
    ASSERT_TRUE(wait_for(*runner, running));
    runner.reset();
  }

  std::string data_;
  pipeline::WorkerGroupSpec spec_;
  std::vector<std::string> ids_;
};

TEST_F(ProcessRunners, WorkersOutliveTheRunnerAndAreAdopted) {
  program("exec sleep 1000");
  spec_.count = 2;
  auto runner = make();
  ASSERT_TRUE(runner->ensure(spec_).ok());
  ASSERT_TRUE(wait_for(*runner, 2));
  std::vector<std::string> before = ids_;
  runner.reset();
  runner = make();
  ASSERT_TRUE(runner->ensure(spec_).ok());
  ASSERT_TRUE(runner->stop_unwanted().ok());
  ASSERT_NO_FATAL_FAILURE(finish_a_pass(runner, 2));
  runner = make();
  ASSERT_TRUE(wait_for(*runner, 2));
  EXPECT_EQ(ids_, before);
  ASSERT_TRUE(runner->stop(spec_.id).ok());
  EXPECT_TRUE(wait_for(*runner, 0));
}

TEST_F(ProcessRunners, AWorkerThatEndsIsReplacedAndItsWordsAreKept) {
  program(
      "echo no luck today >&2; for a; do case $a in --exit-file=*) echo exit 9 > ${a#*=};; esac; "
      "done; exit 9");
  Mutex mutex;
  CondVar changed;
  std::vector<pipeline::WorkerEvent> exits;
  auto runner = make();
  runner->set_listener([&](const pipeline::WorkerEvent& event) {
    MutexLock lock(mutex);
    if (event.kind == pipeline::WorkerEvent::Kind::kExited) exits.push_back(event);
    changed.notify_all();
  });
  ASSERT_TRUE(runner->ensure(spec_).ok());
  {
    MutexLock lock(mutex);
    while (exits.size() < 2) ASSERT_TRUE(changed.wait_for_ms(mutex, 10'000));
    EXPECT_EQ(exits[1].exit_code, 9);
    EXPECT_THAT(exits[1].reason, ::testing::HasSubstr("no luck today"));
    EXPECT_GT(exits[1].retry_in_ms, exits[0].retry_in_ms);
  }
  runner->set_listener(nullptr);
}

// One that ends at once may be gone before its start time can be read: its state then names none.
TEST_F(ProcessRunners, AWorkerThatEndedBeforeItWasLookedAtIsNotTakenForARunningOne) {
  const std::string worker = spec_.run_folder + "/workers/w";
  ASSERT_TRUE(posix_file_system().make_directories(worker).ok());
  const pid_t child = ::fork();
  if (child == 0) ::_exit(9);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  std::ofstream(worker + "/state") << child << "\n0\n1\ndefault\np\n2\nfingerprint\n";
  auto runner = make();
  EXPECT_TRUE(runner->stop_unwanted().ok());
  EXPECT_TRUE(wait_for(*runner, 0));
  EXPECT_FALSE(posix_file_system().exists(worker));
}

TEST_F(ProcessRunners, CommandsAreLookedUpOnThisMachine) {
  auto runner = make();
  EXPECT_TRUE(runner->check_command({}, {"sh", "-c", "x"}, {}, "").ok());
  EXPECT_TRUE(runner->check_command({}, {"/pfs/code/run.py"}, {}, "").ok());
  Status missing = runner->check_command({}, {"no-such-program"}, {}, "");
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_FALSE(missing.hint().empty());
  EXPECT_FALSE(runner->check_command({}, {}, {}, "").ok());
}

}  // namespace
}  // namespace qanat::run
