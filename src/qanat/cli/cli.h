// Cli: the command line as a table of verbs and nouns, and what every command shares.
//
// A file of commands adds its own: `cli.command("create", "repo", "Create a repo", ...)` gives a
// Command, to which options are added and the function that runs it. Grammar: `qanat VERB NOUN
// ARGUMENTS`, as in Pachyderm 2.x; global flags may stand anywhere.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "qanat/api/address.h"
#include "qanat/base/status.h"
#include "qanat/cli/connection.h"
#include "qanat/cli/output.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's
class App;
}

namespace qanat::cli {

// One command under construction. Values are bound to variables that live as long as the Command's
// closure: use shared state.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command& argument(const std::string& name, std::string& value, const std::string& help,
                    bool required = true);
  Command& arguments(const std::string& name, std::vector<std::string>& values,
                     const std::string& help, bool required = true);
  Command& option(const std::string& names, std::string& value, const std::string& help);
  Command& option(const std::string& names, std::vector<std::string>& values,
                  const std::string& help);
  // A number, not negative.
  Command& option(const std::string& names, int64_t& value, const std::string& help);
  Command& flag(const std::string& names, bool& value, const std::string& help);
  // Examples, shown below the help.
  Command& example(const std::string& text);
  void run(std::function<Status()> run);

 private:
  CLI::App* app_;
};

class Cli {
 public:
  Cli();
  ~Cli();
  Cli(const Cli&) = delete;
  Cli& operator=(const Cli&) = delete;

  // `noun` "": the verb is a command of its own.
  Command command(const std::string& verb, const std::string& noun, const std::string& help);

  // Parses and runs. The exit code: 0; 1 for an error (printed); 2 for a command line that is not
  // understood.
  int main(int argc, const char* const* argv);

  // The server, opened at the first use.
  Result<Connection*> connection();
  // The project of an address that names none: --project, else the context's, else `default`.
  std::string project() const;
  Result<api::Address> address(const std::string& text) const;
  Result<api::JobAddress> job_address(const std::string& text) const;
  // Splits "[project/]name".
  Result<api::Address> name(const std::string& text) const;
  // -o of the command that runs.
  Result<Format> format() const { return parse_format(output_); }
  std::string& output() { return output_; }
  bool quiet() const { return quiet_; }
  bool full_ids() const { return output_ == "wide"; }

 private:
  friend class Command;
  Status check_words(int argc, const char* const* argv) const;

  std::unique_ptr<CLI::App> app_;
  std::map<std::string, CLI::App*> verbs_;
  ConnectionFlags flags_;
  std::string project_;
  std::string output_ = "table";
  bool quiet_ = false;
  std::unique_ptr<Connection> connection_;
};

// The groups of commands, a file each.
void add_project_commands(Cli& cli);
void add_repo_commands(Cli& cli);
void add_commit_commands(Cli& cli);
void add_file_commands(Cli& cli);
void add_pipeline_commands(Cli& cli);
void add_job_commands(Cli& cli);
void add_token_commands(Cli& cli);
void add_config_commands(Cli& cli);
void add_gc_commands(Cli& cli);
void add_fsck_command(Cli& cli);

// "-o" of lists and inspections.
inline constexpr const char* kFormatHelp = "table, wide, json, yaml or name";

// "4F0C..." -> "4f0c...": an id of a commit, wave or job as it is kept, also with ancestry after it
// (^2). Other texts stay as they are.
std::string lower_id(const std::string& text);

// All bytes of a file, or of standard input for "-".
Result<std::string> read_whole(const std::string& file);

}  // namespace qanat::cli
