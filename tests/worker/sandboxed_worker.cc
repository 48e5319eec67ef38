#include "worker/sandboxed_worker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "qanat/base/file_system.h"

namespace qanat::testing {
namespace {

std::string fresh_folder() {
  char name[] = "/tmp/qanat-worker-test-XXXXXX";
  return ::mkdtemp(name);
}

std::string own_program() {
  char path[4096];
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
  return std::string(path, n > 0 ? static_cast<size_t>(n) : 0);
}

}  // namespace

SandboxedWorker::SandboxedWorker()
    : folder_(fresh_folder()), sockets_(folder_ + "/run"), server_(sockets_) {
  ::mkdir(sockets_.c_str(), 0755);
  ::mkdir((folder_ + "/state").c_str(), 0755);
}

SandboxedWorker::~SandboxedWorker() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  server_.stop();
  EXPECT_TRUE(posix_file_system().remove_tree(folder_).ok());
}

void SandboxedWorker::run_script(const std::string& script) {
  server_.hello.transform.cmd = {"sh"};
  server_.hello.transform.stdin_lines = {script};
}

void SandboxedWorker::start() {
  server_.start();
  const std::string program = own_program();
  std::vector<std::string> arguments = {program,
                                        "sandbox",
                                        "--state=" + folder_ + "/state",
                                        "--program=" + program,
                                        "--sockets=" + sockets_,
                                        "--hide=/home",
                                        "--exit-file=" + folder_ + "/exit"};
  std::vector<std::string> environment = {"QANAT_WORKER_ID=w1", "QANAT_WORKER_CREDENTIAL=one-use"};
  std::vector<char*> argv, env;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  for (std::string& variable : environment) env.push_back(variable.data());
  argv.push_back(nullptr);
  env.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 1, (folder_ + "/log").c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
  ASSERT_EQ(::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), env.data()), 0);
  ::posix_spawn_file_actions_destroy(&actions);
}

int SandboxedWorker::wait() {
  int status = 0;
  EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
  pid_ = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string SandboxedWorker::output() const {
  return posix_file_system().read_file(folder_ + "/log").value_or("");
}

std::string SandboxedWorker::exit_file() const {
  return posix_file_system().read_file(folder_ + "/exit").value_or("");
}

}  // namespace qanat::testing
