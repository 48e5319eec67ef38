#include "qanat/api/spec_check.h"

#include <cmath>
#include <set>

#include "qanat/base/glob.h"
#include "qanat/base/name.h"
#include "qanat/base/string.h"

namespace qanat::api {
namespace {

constexpr std::uint64_t kMinMemory = 6u << 20;  // container engines refuse less
constexpr std::int64_t kMinPids = 8;            // the worker itself has some threads
constexpr std::int64_t kMaxTries = 1000;
constexpr std::int64_t kMaxBatch = 100000;
constexpr std::int64_t kMaxQueue = 1000;

// Variables that are not to be those of an input: Qanat's own, and what decides how programs start.
bool is_reserved(std::string_view name) {
  return name.starts_with("PACH_") || name.starts_with("PPS_") || name.starts_with("QANAT_") ||
         name.starts_with("LD_") || name == "PATH" || name == "HOME" || name == "PWD" ||
         name == "TMPDIR" || name == "IFS" || name == "BASH_ENV";
}

// What compiles but can match nothing, or means something else in Pachyderm.
Status check_glob(std::string_view glob) {
  std::string segment;  // since the last slash, without backslashes
  bool in_class = false;
  bool separates = false;  // the character before was a slash
  auto end_segment = [&]() -> Status {
    if (segment == "." || segment == "..")
      return invalid_argument(
          str_cat(quoted(glob), " can match nothing: no path has a part ", quoted(segment)),
          "write the path from the repo's root, as in \"/dir/*\"");
    segment.clear();
    return ok_status();
  };
  for (size_t i = 0; i < glob.size(); ++i) {
    const char c = glob[i];
    if (!in_class && c == '/') {
      if (separates)
        return invalid_argument(
            str_cat(quoted(glob),
                    " can match nothing: no path has an empty part, as between \"//\""),
            "write one slash");
      QANAT_RETURN_IF_ERROR(end_segment());
      separates = true;
      continue;
    }
    separates = false;
    if (c == '\\' && i + 1 < glob.size()) {
      segment += glob[++i];
      continue;
    }
    if (!in_class && i + 1 < glob.size() && glob[i + 1] == '(' &&
        std::string_view("!?*+@").find(c) != std::string_view::npos) {
      const std::string_view sign = glob.substr(i, 2);
      return invalid_argument(
          str_cat(quoted(glob), " has the extended pattern ", quoted(sign),
                  "...), which is not there"),
          "use {a,b} for alternatives and (...) for a group of its own; a \\ makes a character "
          "plain");
    }
    if (c == '[' && !in_class) {
      in_class = true;
      // The first character of a class is one of it, whatever it is.
      if (i + 1 < glob.size() && (glob[i + 1] == '!' || glob[i + 1] == '^')) ++i;
      if (i + 1 < glob.size()) ++i;
      segment += c;
      continue;
    }
    if (c == ']') in_class = false;
    segment += c;
  }
  return end_segment();
}

class Checker {
 public:
  using Problem = std::function<void(std::string_view, std::string_view)>;

  Checker(const PipelineSpec& spec, RunnerKind runner, const Problem& problem)
      : spec_(spec), runner_(runner), problem_(problem) {}

  void run() {
    name("pipeline.project", check_project_name(spec_.project));
    name("pipeline.name", check_pipeline_name(spec_.name));
    transform();
    input(spec_.input, "input");
    if (pfs_inputs(spec_.input).size() > kMaxInputs) {
      problem_("input", str_cat("more than ", kMaxInputs, " inputs"));
    }
    environment();
    scheduling();
    output();
  }

 private:
  using Names = std::set<std::string>;

  void name(std::string_view field, const Status& status) {
    if (!status.ok())
      problem_(field, status.hint().empty() ? status.message()
                                            : str_cat(status.message(), ". ", status.hint()));
  }

  void transform() {
    const Transform& t = spec_.transform;
    if (runner_ == RunnerKind::kDocker && t.image.empty()) {
      problem_("transform.image", "required: the container image with the pipeline's program");
    }
    if (t.image.find_first_of(" \t\r\n") != std::string::npos)
      problem_("transform.image", "has a space in it");
    if (runner_ == RunnerKind::kProcess && t.cmd.empty()) {
      problem_("transform.cmd",
               "required: the process runner has no image whose entrypoint it could run");
    }
    if (!t.cmd.empty() && t.cmd.front().empty()) problem_("transform.cmd", "the command is empty");
    if (!t.err_cmd.empty() && t.err_cmd.front().empty())
      problem_("transform.err_cmd", "the command is empty");
    if (!t.err_stdin.empty() && t.err_cmd.empty())
      problem_("transform.err_stdin", "given without err_cmd");
    if (!t.working_dir.empty() && t.working_dir.front() != '/') {
      problem_("transform.working_dir",
               str_cat(qanat::quoted(t.working_dir), " is not an absolute path"));
    }
    if (t.network != "none" && t.network != "host") {
      problem_("transform.network", str_cat(qanat::quoted(t.network), " is not one of none, host"));
    }
  }

  // Names visible at once must differ: those of a cross's arms. Arms of a union are never visible
  // together. Returns all names.
  Names input(const Input& in, const std::string& path) {
    if (in.kind == Input::Kind::kPfs) return pfs(in.pfs, str_cat(path, ".pfs"));
    const bool cross = in.kind == Input::Kind::kCross;
    const std::string at = str_cat(path, cross ? ".cross" : ".union");
    if (in.arms.empty()) problem_(at, "has no inputs");
    Names all;
    for (std::size_t i = 0; i < in.arms.size(); ++i) {
      const std::string arm = str_cat(at, "[", i, "]");
      for (const std::string& each : input(in.arms[i], arm)) {
        if (!all.insert(each).second && cross) {
          problem_(arm, str_cat("two inputs of this cross are named ", qanat::quoted(each),
                                "; give one another name"));
        }
      }
    }
    return all;
  }

  Names pfs(const PfsInput& in, const std::string& path) {
    name(str_cat(path, ".repo"), check_repo_name(in.repo));
    name(str_cat(path, ".branch"), check_branch_name(in.branch));
    if (in.name != in.repo) name(str_cat(path, ".name"), check_repo_name(in.name));
    if (in.name == "out") {
      problem_(str_cat(path, ".name"),
               "an input may not be named \"out\": /pfs/out is the output; set name");
    }
    if (is_reserved(in.name)) {
      problem_(
          str_cat(path, ".name"),
          str_cat("an input may not be named ", qanat::quoted(in.name),
                  ": every datum has a variable of its name, and that one is taken; set name"));
    }
    if (in.repo == spec_.name) {
      problem_(str_cat(path, ".repo"), "a pipeline cannot read its own output repo");
    }
    if (const Result<Glob> glob = Glob::compile(in.glob); !glob.ok())
      name(str_cat(path, ".glob"), glob.status());
    name(str_cat(path, ".glob"), check_glob(in.glob));
    return {in.name};
  }

  // Variables that Qanat sets may not be the spec's.
  void environment() {
    Names reserved = {"PACH_JOB_ID", "PACH_OUTPUT_COMMIT_ID", "PACH_DATUM_ID", "PPS_PIPELINE_NAME",
                      "PPS_PROJECT_NAME"};
    for (const PfsInput* in : pfs_inputs(spec_.input)) {
      reserved.insert(in->name);
      reserved.insert(in->name + "_COMMIT");
    }
    for (const auto& [variable, value] : spec_.transform.env) {
      const std::string field = str_cat("transform.env.", variable);
      if (variable.empty() || variable.find('=') != std::string::npos) {
        problem_("transform.env", str_cat(qanat::quoted(variable), " cannot name a variable"));
      } else if (reserved.contains(variable)) {
        problem_(field, "Qanat sets this variable for every datum; use another name");
      }
    }
  }

  void range(std::string_view field, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value < least || value > most) {
      problem_(field, str_cat(value, " is not between ", least, " and ", most));
    }
  }

  void scheduling() {
    if (spec_.parallelism_constant != 0)
      range("parallelism_spec.constant", spec_.parallelism_constant, 1, kMaxWorkers);
    if (spec_.parallelism_constant == 0 &&
        !(spec_.parallelism_coefficient > 0 &&
          spec_.parallelism_coefficient <= static_cast<double>(kMaxWorkers))) {
      problem_("parallelism_spec", "asks for no workers, or too many");
    }
    const ResourceLimits& limits = spec_.resource_limits;
    if (!std::isfinite(limits.cpu) || limits.cpu < 0 || (limits.cpu > 0 && limits.cpu < 0.01)) {
      problem_("resource_limits.cpu", "must be at least 0.01 cores");
    }
    if (limits.memory != 0 && limits.memory < kMinMemory)
      problem_("resource_limits.memory", "must be at least 6Mi");
    if (limits.pids != 0) range("resource_limits.pids", limits.pids, kMinPids, 1 << 22);
    range("datum_tries", spec_.datum_tries, 1, kMaxTries);
    if (spec_.datum_set_number != 0)
      range("datum_set_spec.number", spec_.datum_set_number, 1, kMaxBatch);
    range("max_queue_size", spec_.max_queue_size, 1, kMaxQueue);
    if (spec_.datum_timeout_ms < 0) problem_("datum_timeout", "is negative");
    if (spec_.job_timeout_ms < 0) problem_("job_timeout", "is negative");
  }

  void output() {
    name("output_branch", check_branch_name(spec_.output_branch));
    if (spec_.output_branch == "stats") {
      problem_("output_branch", "\"stats\" is reserved in output repos");
    }
  }

  const PipelineSpec& spec_;
  RunnerKind runner_;
  const Problem& problem_;
};

}  // namespace

void check_spec(const PipelineSpec& spec, RunnerKind runner,
                const std::function<void(std::string_view, std::string_view)>& problem) {
  Checker(spec, runner, problem).run();
}

Status validate_spec(const PipelineSpec& spec, RunnerKind runner) {
  std::vector<std::string> problems;
  check_spec(spec, runner, [&](std::string_view field, std::string_view message) {
    problems.push_back(str_cat(field, ": ", message));
  });
  return problems.empty() ? ok_status() : invalid_argument(join(problems, "\n"));
}

}  // namespace qanat::api
