// qanat: the command line, and with `qanat serve` the server.

#include <csignal>

#include "qanat/cli/cli.h"
#include "serve_command.h"

int main(int argc, char** argv) {
  // A reader that went away is an error of the write, not the end of the program.
  std::signal(SIGPIPE, SIG_IGN);
  qanat::cli::Cli cli;
  qanat::cli::add_repo_commands(cli);
  qanat::cli::add_commit_commands(cli);
  qanat::cli::add_file_commands(cli);
  qanat::cli::add_pipeline_commands(cli);
  qanat::cli::add_job_commands(cli);
  qanat::cli::add_token_commands(cli);
  qanat::cli::add_config_commands(cli);
  qanat::cli::add_fsck_command(cli);
  qanat::add_serve_command(cli);
  return cli.main(argc, argv);
}
