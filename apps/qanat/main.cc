// qanat: the command line, and with `qanat serve` the server.

#include <malloc.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "qanat/cli/cli.h"
#include "serve_command.h"

namespace {

// Buffers of a megabyte come and go all the time. By its defaults glibc gives each back to the
// kernel, and the page faults of the next one cost more than what is done with it; and it keeps
// memory for eight times as many threads as there are processors.
void tune_allocator() {
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
  mallopt(M_ARENA_MAX, static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 2u, 16u)));
}

}  // namespace

int main(int argc, char** argv) {
  tune_allocator();
  // A reader that went away is an error of the write, not the end of the program.
  std::signal(SIGPIPE, SIG_IGN);
  qanat::cli::Cli cli;
  qanat::cli::add_project_commands(cli);
  qanat::cli::add_repo_commands(cli);
  qanat::cli::add_commit_commands(cli);
  qanat::cli::add_file_commands(cli);
  qanat::cli::add_pipeline_commands(cli);
  qanat::cli::add_job_commands(cli);
  qanat::cli::add_token_commands(cli);
  qanat::cli::add_config_commands(cli);
  qanat::cli::add_gc_commands(cli);
  qanat::cli::add_fsck_command(cli);
  qanat::add_serve_command(cli);
  return cli.main(argc, argv);
}
