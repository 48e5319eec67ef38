#include "qanat/run/detached_process.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qanat/base/file_system.h"
#include "qanat/base/string.h"

namespace qanat::run {
namespace {

class DetachedProcessTest : public testing::Test {
 protected:
  DetachedProcessTest() {
    std::string name = testing::TempDir() + "qanat-detached-XXXXXX";
    folder_ = mkdtemp(name.data());
    log_ = str_cat(folder_, "/log");
  }
  ~DetachedProcessTest() override { EXPECT_TRUE(posix_file_system().remove_tree(folder_).ok()); }

  // Runs a shell script to its end, and gives what is in the log then.
  std::string run(const std::string& script, DetachedProcess process = {}) {
    process.program = "/bin/sh";
    process.arguments = {"sh", "-c", script};
    process.log_file = log_;
    const Result<pid_t> child = start_detached(process);
    if (!child.ok()) return child.status().message();
    pid_ = *child;
    int status = 0;
    EXPECT_EQ(::waitpid(*child, &status, 0), *child);
    EXPECT_EQ(status, 0);
    return posix_file_system().read_file(log_).value_or("no log");
  }

  std::string folder_;
  std::string log_;
  pid_t pid_ = 0;
};

TEST_F(DetachedProcessTest, LogGetsBothStreams) {
  EXPECT_EQ(run("echo one; echo two >&2"), "one\ntwo\n");
  EXPECT_EQ(run("echo three"), "one\ntwo\nthree\n");
  EXPECT_EQ(run("echo four", {.truncate_log = true}), "four\n");
}

TEST_F(DetachedProcessTest, Environment) {
  ASSERT_EQ(::setenv("QANAT_DETACHED_TEST", "inherited", 1), 0);
  EXPECT_EQ(run("echo $QANAT_DETACHED_TEST$ONLY"), "inherited\n");
  EXPECT_EQ(run("echo $QANAT_DETACHED_TEST$ONLY",
                {.environment = std::vector<std::string>{"ONLY=this"}, .truncate_log = true}),
            "this\n");
  ::unsetenv("QANAT_DETACHED_TEST");
}

TEST_F(DetachedProcessTest, NothingOfTheServerLivesOnInIt) {
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);  // not close-on-exec
  // Field 6 of its stat is its session.
  const std::string log =
      run(str_cat("[ ! -e /proc/$$/fd/", pipe_ends[1], " ] && cut -d' ' -f6 /proc/$$/stat"));
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  EXPECT_EQ(log, str_cat(pid_, "\n"));
}

TEST_F(DetachedProcessTest, AMissingProgramIsAnErrorThatNamesIt) {
  const Result<pid_t> child = start_detached(
      {.program = str_cat(folder_, "/none"), .arguments = {"none"}, .log_file = log_});
  ASSERT_FALSE(child.ok());
  EXPECT_NE(child.status().message().find("/none"), std::string::npos) << child.status().message();
}

}  // namespace
}  // namespace qanat::run
