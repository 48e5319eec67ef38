#include "qanat/cli/cli.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>

#include "qanat/api/describe.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/cli/config.h"

namespace qanat::cli {
namespace {

// Thrown through CLI11, which knows no other way out of a callback; caught in Cli::main.
struct CommandError {
  Status status;
};

constexpr int64_t kMaxNumber = 1'000'000'000;  // so that hours are still counted in milliseconds

}  // namespace

Command& Command::argument(const std::string& name, std::string& value, const std::string& help,
                           bool required) {
  app_->add_option(name, value, help)->required(required)->type_name("");
  return *this;
}
Command& Command::arguments(const std::string& name, std::vector<std::string>& values,
                            const std::string& help, bool required) {
  app_->add_option(name, values, help)->required(required)->type_name("");
  return *this;
}
Command& Command::option(const std::string& names, std::string& value, const std::string& help) {
  app_->add_option(names, value, help);
  return *this;
}
Command& Command::option(const std::string& names, std::vector<std::string>& values,
                         const std::string& help) {
  app_->add_option(names, values, help)->expected(1)->take_all();
  return *this;
}
Command& Command::option(const std::string& names, int64_t& value, const std::string& help) {
  app_->add_option(names, value, help)->check([](const std::string& text) -> std::string {
    int64_t number = 0;
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, number);
    if (read.ec == std::errc() && read.ptr == end && number >= 0 && number <= kMaxNumber) return "";
    return str_cat(qanat::quoted(text), " is no number from 0 to ", kMaxNumber);
  });
  return *this;
}
Command& Command::flag(const std::string& names, bool& value, const std::string& help) {
  app_->add_flag(names, value, help);
  return *this;
}
Command& Command::example(const std::string& text) {
  const std::string before = app_->get_footer();
  app_->footer(before.empty() ? "Examples:\n  " + text : before + "\n  " + text);
  return *this;
}
void Command::run(std::function<Status()> run) {
  app_->callback([run = std::move(run)] {
    Status status = run();
    const Status flushed = flush_output();
    if (status.ok()) status = flushed;
    if (!status.ok()) throw CommandError{std::move(status)};
  });
}

Cli::Cli()
    : app_(std::make_unique<CLI::App>("Versioned data and containerized pipelines", "qanat")) {
  app_->require_subcommand(1);
  app_->fallthrough();
  app_->add_option("--server", flags_.server, "Address of the server (QANAT_SERVER)");
  app_->add_option("--token", flags_.token, "Token (QANAT_TOKEN)");
  app_->add_option("--context", flags_.context, "Context of the configuration file");
  app_->add_option("--project", project_, "Project of names that are not project/name");
  app_->add_flag("-q,--quiet", quiet_, "No progress on standard error");
  app_->footer("qanat VERB --help and qanat VERB NOUN --help tell more.");
}
Cli::~Cli() = default;

Command Cli::command(const std::string& verb, const std::string& noun, const std::string& help) {
  CLI::App*& parent = verbs_[verb];
  if (parent == nullptr) {
    parent = app_->add_subcommand(verb, noun.empty() ? help : "");
    parent->fallthrough();
    parent->footer("");
    if (!noun.empty()) parent->require_subcommand(1);
  }
  if (noun.empty()) return Command(parent);
  CLI::App* app = parent->add_subcommand(noun, help);
  app->fallthrough();
  app->footer("");  // not the parent's
  // The verb's own line in `qanat --help` lists its nouns.
  const std::string nouns = parent->get_description();
  parent->description(nouns.empty() ? noun : nouns + ", " + noun);
  return Command(app);
}

// A verb or noun that is not there, with the nearest that is: CLI11 only says that a subcommand is
// missing.
Status Cli::check_words(int argc, const char* const* argv) const {
  // Flags of all commands may come before.
  while (argc > 1 && argv[1][0] == '-') {
    const std::string_view flag = argv[1];
    const bool has_value =
        flag == "--server" || flag == "--token" || flag == "--context" || flag == "--project";
    if (!has_value && flag != "-q" && flag != "--quiet" && flag.find('=') == std::string_view::npos)
      return ok_status();
    const int words = has_value ? 2 : 1;
    argc -= words;
    argv += words;
  }
  if (argc < 2) return ok_status();
  auto unknown = [](std::string_view what, const std::string& word,
                    const std::vector<std::string>& known) {
    const std::string near = api::closest_name(word, known);
    return invalid_argument(
        str_cat("there is no ", what, " ", qanat::quoted(word)),
        near.empty() ? "`qanat --help` lists the commands" : str_cat("did you mean ", near, "?"));
  };
  const auto verb = verbs_.find(argv[1]);
  if (verb == verbs_.end()) {
    std::vector<std::string> known;
    for (const auto& [name, app] : verbs_) known.push_back(name);
    return unknown("command", argv[1], known);
  }
  const auto nouns = verb->second->get_subcommands([](const CLI::App*) { return true; });
  if (nouns.empty() || argc < 3 || argv[2][0] == '-') return ok_status();
  std::vector<std::string> known;
  for (const CLI::App* noun : nouns) known.push_back(noun->get_name());
  if (std::find(known.begin(), known.end(), argv[2]) != known.end()) return ok_status();
  return unknown(str_cat("command `qanat ", argv[1], "` for a"), argv[2], known);
}

int Cli::main(int argc, const char* const* argv) {
  if (const Status status = check_words(argc, argv); !status.ok()) {
    print_error(status);
    return 2;
  }
  try {
    app_->parse(argc, argv);
  } catch (const CommandError& error) {
    print_error(error.status);
    return 1;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app_->exit(error);  // --help
    print_error(invalid_argument(
        error.what(), "`qanat --help` lists the commands; `qanat VERB NOUN --help` explains one."));
    return 2;
  }
  return 0;
}

Result<Connection*> Cli::connection() {
  if (!connection_) {
    QANAT_ASSIGN_OR_RETURN(connection_, Connection::open(flags_));
  }
  return connection_.get();
}

std::string Cli::project() const {
  if (!project_.empty()) return project_;
  const auto config = load_config();
  if (config.ok()) {
    const std::string name = flags_.context.empty() ? config->current : flags_.context;
    const auto context = config->contexts.find(name);
    if (context != config->contexts.end() && !context->second.project.empty()) {
      return context->second.project;
    }
  }
  return std::string(api::kDefaultProject);
}

namespace {

// The same of the id in an address.
std::string with_lower_id(const std::string& text) {
  const size_t at = text.find('@');
  if (at == std::string::npos || text.find(':') < at) return text;
  const size_t end = std::min(text.find(':', at), text.size());
  return str_cat(text.substr(0, at + 1), lower_id(text.substr(at + 1, end - at - 1)),
                 text.substr(end));
}

// Whether a name is written with its project.
bool names_project(const std::string& text) {
  const size_t end = text.find_first_of("@:");
  return text.substr(0, end).find('/') != std::string::npos;
}

}  // namespace

Result<api::Address> Cli::address(const std::string& text) const {
  QANAT_ASSIGN_OR_RETURN(api::Address address, api::parse_address(with_lower_id(text)));
  if (!names_project(text)) address.project = project();
  return address;
}

Result<api::JobAddress> Cli::job_address(const std::string& text) const {
  QANAT_ASSIGN_OR_RETURN(api::JobAddress address, api::parse_job_address(with_lower_id(text)));
  if (!names_project(text)) address.project = project();
  return address;
}

Result<api::Address> Cli::name(const std::string& text) const {
  QANAT_ASSIGN_OR_RETURN(api::Address address, api::parse_name_address(text));
  if (!names_project(text)) address.project = project();
  return address;
}

std::string lower_id(const std::string& text) {
  const size_t end = std::min(text.find_first_of("^~."), text.size());
  const std::string id = to_lower(text.substr(0, end));
  return is_id(id) ? id + text.substr(end) : text;
}

Result<std::string> read_whole(const std::string& file) {
  const int fd = file == "-" ? STDIN_FILENO : ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno_status(errno, file);
  std::string text;
  char buffer[65536];
  ssize_t got = 0;
  do {
    got = ::read(fd, buffer, sizeof buffer);
    if (got > 0) text.append(buffer, static_cast<size_t>(got));
  } while (got > 0 || (got < 0 && errno == EINTR));
  const int error = errno;
  if (fd != STDIN_FILENO) ::close(fd);
  if (got < 0) return errno_status(error, file);
  return text;
}

}  // namespace qanat::cli
