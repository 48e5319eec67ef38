#include "qanat/api/pipeline_spec.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "qanat/api/describe.h"
#include "qanat/api/quantity.h"
#include "qanat/api/spec_check.h"
#include "qanat/api/spec_text.h"
#include "qanat/api/spec_validate.h"
#include "qanat/base/string.h"

namespace qanat::api {
namespace {

using Type = SpecNode::Type;

constexpr std::size_t kMaxProblems = 20;

// "datumTries" -> "datum_tries".
std::string snake_case(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c >= 'A' && c <= 'Z') {
      if (!out.empty()) out.push_back('_');
      out.push_back(static_cast<char>(c - 'A' + 'a'));
    } else {
      out.push_back(c);
    }
  }
  return out;
}

bool has_word(std::string_view words, std::string_view word) {
  for (const std::string_view each : split(words, ' ')) {
    if (each == word) return true;
  }
  return false;
}

std::string_view last_name(std::string_view path) {
  return path.substr(path.find_last_of('.') + 1);  // npos + 1 is 0
}

// The direct children of `prefix` ("" or "input.").
bool is_child(std::string_view path, std::string_view prefix) {
  return path.size() > prefix.size() && path.starts_with(prefix) &&
         path.find('.', prefix.size()) == std::string_view::npos;
}

const SpecField* find_field(std::string_view prefix, std::string_view name) {
  for (const SpecField& field : spec_fields()) {
    if (!is_child(field.path, prefix)) continue;
    if (last_name(field.path) == name) return &field;
    if (!field.aliases.empty() && has_word(field.aliases, name)) return &field;
  }
  return nullptr;
}

std::string unknown_field(std::string_view prefix, std::string_view shown, std::string_view name) {
  std::vector<std::string> known;
  for (const SpecField& field : spec_fields()) {
    if (is_child(field.path, prefix)) known.emplace_back(last_name(field.path));
  }
  std::string message = str_cat(shown, name, ": unknown field");
  if (const std::string near = closest_name(name, known); !near.empty()) {
    return str_cat(message, "; did you mean ", shown, near, "?");
  }
  for (const SpecField& field : spec_fields()) {  // known, but elsewhere
    if (last_name(field.path) == name) return str_cat(message, "; it belongs at ", field.path);
  }
  return message;
}

// One document on its way to a LoadedSpec. Problems are collected, so that a user sees all of them
// at once.
class SpecReader {
 public:
  SpecReader(SpecNode& document, const LoadOptions& options)
      : document_(document), options_(options) {}

  LoadedSpec read() {
    LoadedSpec out;
    out.line = document_.line;
    if (document_.type != Type::kMap) {
      problem(document_.line,
              str_cat("a pipeline spec is an object, not ", type_name(document_.type)));
      return out;
    }
    check_members(document_, "", "", true);
    if (problems_.empty()) fill(out.spec);
    if (problems_.empty()) {
      check_spec(out.spec, options_.runner, [&](std::string_view field, std::string_view message) {
        problem(line_of(field), str_cat(field, ": ", message));
      });
    }
    out.notes = std::move(notes_);
    out.user_json = to_json(document_);
    return out;
  }

  const std::vector<std::string>& problems() const { return problems_; }
  // What became of each field, for `validate`. Refused fields are among the problems too.
  const std::vector<std::string>& honoured() const { return honoured_; }
  const std::vector<FieldNote>& refused() const { return refused_; }
  std::string name() const {
    const SpecNode* node = find("pipeline.name");
    return node == nullptr ? "" : node->text;
  }

 private:
  void problem(int line, std::string_view message) {
    problems_.push_back(str_cat("line ", line, ": ", message));
  }

  // ---- First pass: every field is known, allowed here and of the right type; names become
  // canonical.

  // `prefix` is the table's ("input."), `shown` the user's ("input.cross[1]."). `note` is false
  // inside what was already noted.
  void check_members(SpecNode& map, std::string_view prefix, std::string_view shown, bool note) {
    std::set<std::string> seen;
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
      SpecNode& value = map.items[i];
      const SpecField* field = find_field(prefix, map.keys[i]);
      if (field == nullptr) field = find_field(prefix, snake_case(map.keys[i]));
      if (field == nullptr) {
        problem(value.line, unknown_field(prefix, shown, snake_case(map.keys[i])));
        map.names.push_back(map.keys[i]);
        continue;
      }
      const std::string name(last_name(field->path));
      const std::string path = str_cat(shown, map.keys[i]);
      map.names.push_back(name);
      if (!seen.insert(name).second) {
        problem(value.line, str_cat(path, ": ", name, " is given twice, under two spellings"));
      } else if (value.type != Type::kNull) {
        check_field(*field, value, path, note);
      }
    }
  }

  // Says that what is refused is not wanted: as specs do that were written out by a program.
  static bool is_off(const SpecField& field, const SpecNode& value) {
    if (field.type == FieldType::kBool) return value.type == Type::kBool && value.text == "false";
    if (field.type == FieldType::kString) return value.type == Type::kString && value.text.empty();
    return field.path.starts_with("transform.") && value.type == Type::kList && value.items.empty();
  }

  void check_field(const SpecField& field, SpecNode& value, const std::string& path, bool note) {
    const Handling handling = field.on(options_.runner);
    if (handling == Handling::kRefused) {
      if (is_off(field, value)) return;
      refused_.push_back({path, value.line, std::string(field.about)});
      problem(value.line, str_cat(path, ": refused. ", field.about));
      return;
    }
    if (handling == Handling::kReported && note) {
      notes_.push_back({path, value.line, std::string(field.about)});
      note = false;
    } else if (handling == Handling::kHonoured && field.type != FieldType::kObject &&
               field.type != FieldType::kObjectList && field.type != FieldType::kInput &&
               field.type != FieldType::kInputList) {
      honoured_.push_back(path);
    }
    check_value(field, value, path, note);
  }

  void check_value(const SpecField& field, SpecNode& value, const std::string& path, bool note) {
    switch (field.type) {
      case FieldType::kAny:
        return;
      case FieldType::kString:
        expect_string(value, path);
        return;
      case FieldType::kBool:
        expect(value, Type::kBool, path, "");
        return;
      case FieldType::kInteger:
        expect_integer(value, path);
        return;
      case FieldType::kNumber:
        if (value.type != Type::kInteger) expect(value, Type::kNumber, path, "");
        return;
      case FieldType::kDuration:
        if (value.type == Type::kInteger && value.text == "0") return;
        expect(value, Type::kString, path, ", as in \"5m\" or \"1h30m\"");
        return;
      case FieldType::kSize:
        if (value.type != Type::kInteger)
          expect(value, Type::kString, path, ", as in \"64M\" or \"1Gi\"");
        return;
      case FieldType::kStringList:
        if (!expect(value, Type::kList, path, " of strings")) return;
        each(value, path, [&](SpecNode& item, const std::string& at) { expect_string(item, at); });
        return;
      case FieldType::kIntegerList:
        if (!expect(value, Type::kList, path, " of whole numbers")) return;
        each(value, path, [&](SpecNode& item, const std::string& at) { expect_integer(item, at); });
        return;
      case FieldType::kStringMap:
        if (!expect(value, Type::kMap, path, " of names and strings")) return;
        for (std::size_t i = 0; i < value.keys.size(); ++i) {
          expect_string(value.items[i], str_cat(path, ".", value.keys[i]));
        }
        return;
      case FieldType::kObject:
        if (field.path == "pipeline.project" && value.type == Type::kString) return;
        if (expect(value, Type::kMap, path, "")) {
          check_members(value, str_cat(field.path, "."), str_cat(path, "."), note);
        }
        return;
      case FieldType::kObjectList:
        if (!expect(value, Type::kList, path, " of objects")) return;
        each(value, path, [&](SpecNode& item, const std::string& at) {
          if (expect(item, Type::kMap, at, "")) {
            check_members(item, str_cat(field.path, "[]."), str_cat(at, "."), note);
          }
        });
        return;
      case FieldType::kInput:
        check_input(value, path);
        return;
      case FieldType::kInputList:
        if (!expect(value, Type::kList, path, " of inputs")) return;
        each(value, path, [&](SpecNode& item, const std::string& at) { check_input(item, at); });
        return;
    }
  }

  void check_input(SpecNode& value, const std::string& path) {
    if (!expect(value, Type::kMap, path, "")) return;
    check_members(value, "input.", str_cat(path, "."), true);
    const auto given = std::count_if(value.items.begin(), value.items.end(),
                                     [](const SpecNode& item) { return item.type != Type::kNull; });
    if (given != 1) {
      problem(value.line,
              str_cat(path, ": expected exactly one of pfs, cross, union, found ", given));
    }
  }

  template <class F>
  static void each(SpecNode& list, const std::string& path, F f) {
    for (std::size_t i = 0; i < list.items.size(); ++i)
      f(list.items[i], str_cat(path, "[", i, "]"));
  }

  bool expect(const SpecNode& value, Type type, const std::string& path, std::string_view detail) {
    if (value.type == type) return true;
    problem(value.line, str_cat(path, ": expected ", type_name(type), detail, ", found ",
                                type_name(value.type)));
    return false;
  }

  // YAML's plain scalars may stand for strings: `PORT: 8080`, `- 1`.
  void expect_string(SpecNode& value, const std::string& path) {
    const bool scalar =
        value.type == Type::kBool || value.type == Type::kInteger || value.type == Type::kNumber;
    if (scalar && value.plain) {
      value.type = Type::kString;
    } else {
      expect(value, Type::kString, path, scalar ? " (put it in quotes)" : "");
    }
  }

  // Programs that write protocol buffers as JSON put whole numbers into quotes: `"constant": "2"`.
  void expect_integer(SpecNode& value, const std::string& path) {
    const std::string& text = value.text;
    const bool digits = value.type == Type::kString && !text.empty() &&
                        text.find_first_not_of("0123456789") == std::string::npos &&
                        (text.size() == 1 || text[0] != '0');
    if (digits) {
      value.type = Type::kInteger;
    } else {
      expect(value, Type::kInteger, path, "");
    }
  }

  // ---- Second pass: values into the struct. Types are right by now.

  const SpecNode* find(std::string_view path) const {
    const SpecNode* node = &document_;
    for (const std::string_view name : split(path, '.')) {
      if (node == nullptr || node->type != Type::kMap) return nullptr;
      node = node->find(name);
    }
    return node == nullptr || node->type == Type::kNull ? nullptr : node;
  }

  void get(std::string_view path, std::string& out) const {
    if (const SpecNode* node = find(path)) out = node->text;
  }
  void get(std::string_view path, bool& out) const {
    if (const SpecNode* node = find(path)) out = node->text == "true";
  }
  void get(std::string_view path, std::vector<std::string>& out) const {
    const SpecNode* node = find(path);
    if (node == nullptr) return;
    for (const SpecNode& item : node->items) out.push_back(item.text);
  }
  void get(std::string_view path, std::int64_t& out) {
    const SpecNode* node = find(path);
    if (node == nullptr) return;
    Result<std::int64_t> number = parse_i64(node->text);
    if (!number.ok()) return problem(node->line, str_cat(path, ": ", node->text, " is too large"));
    out = *number;
    // The structs use 0 for "not given"; a 0 that was given is a mistake.
    if (out <= 0) problem(node->line, str_cat(path, ": must be at least 1"));
  }
  void get(std::string_view path, double& out) {
    const SpecNode* node = find(path);
    if (node == nullptr) return;
    Result<double> number = parse_double(node->text);
    if (!number.ok() || !std::isfinite(*number) || *number <= 0) {
      return problem(node->line, str_cat(path, ": must be more than 0"));
    }
    out = *number;
  }
  void get_duration(std::string_view path, std::int64_t& out) {
    const SpecNode* node = find(path);
    if (node == nullptr) return;
    Result<std::int64_t> duration = parse_duration(node->text);
    if (!duration.ok()) return quantity_problem(*node, path, duration.status());
    out = *duration;
  }
  void get_size(std::string_view path, std::uint64_t& out) {
    const SpecNode* node = find(path);
    if (node == nullptr) return;
    Result<std::uint64_t> size = parse_size(node->text);
    if (!size.ok()) return quantity_problem(*node, path, size.status());
    out = *size;
    if (out == 0) problem(node->line, str_cat(path, ": must be more than 0"));
  }
  void quantity_problem(const SpecNode& node, std::string_view path, const Status& status) {
    problem(node.line, str_cat(path, ": ", status.message(), ". ", status.hint()));
  }

  void fill(PipelineSpec& spec) {
    fill_names(spec);
    fill_transform(spec.transform);
    if (const SpecNode* input = find("input")) {
      fill_input(*input, "input", spec.project, spec.input);
    } else {
      problem(document_.line,
              "input: required; name a repo and a glob, as in {\"pfs\": {\"repo\": \"data\", "
              "\"glob\": \"/*\"}}");
    }
    get("parallelism_spec.coefficient", spec.parallelism_coefficient);
    if (spec.parallelism_coefficient > 0) spec.parallelism_constant = 0;
    get("parallelism_spec.constant", spec.parallelism_constant);
    get("resource_limits.cpu", spec.resource_limits.cpu);
    get_size("resource_limits.memory", spec.resource_limits.memory);
    get("resource_limits.pids", spec.resource_limits.pids);
    get_duration("datum_timeout", spec.datum_timeout_ms);
    get_duration("job_timeout", spec.job_timeout_ms);
    get("datum_tries", spec.datum_tries);
    get("datum_set_spec.number", spec.datum_set_number);
    get("max_queue_size", spec.max_queue_size);
    get("output_branch", spec.output_branch);
    get("share_results", spec.share_results);
    get("salt", spec.salt);
    fill_choices(spec);
    check_reported();
  }

  void fill_names(PipelineSpec& spec) {
    spec.project = options_.project;
    if (const SpecNode* project = find("pipeline.project")) {
      if (project->type == Type::kString) spec.project = project->text;
      get("pipeline.project.name", spec.project);
    }
    if (find("pipeline.name") == nullptr) problem(document_.line, "pipeline.name: required");
    get("pipeline.name", spec.name);
    get("description", spec.description);
  }

  void fill_transform(Transform& transform) {
    transform.network = options_.default_network;
    get("transform.image", transform.image);
    if (transform.image.empty() && options_.runner == RunnerKind::kDocker &&
        !options_.default_image.empty()) {
      transform.image = options_.default_image;
      notes_.push_back({"transform.image", line_of("transform"),
                        str_cat("Not given: the installation's default, ", transform.image, ".")});
    }
    get("transform.cmd", transform.cmd);
    get("transform.stdin", transform.stdin_lines);
    get("transform.user", transform.user);
    get("transform.working_dir", transform.working_dir);
    get("transform.err_cmd", transform.err_cmd);
    get("transform.err_stdin", transform.err_stdin);
    get("transform.network", transform.network);
    if (const SpecNode* env = find("transform.env")) {
      for (std::size_t i = 0; i < env->keys.size(); ++i)
        transform.env[env->keys[i]] = env->items[i].text;
    }
    if (const SpecNode* codes = find("transform.accept_return_code")) {
      std::set<int> unique;
      for (const SpecNode& code : codes->items) {
        Result<std::int64_t> number = parse_i64(code.text);
        if (!number.ok() || *number < 0 || *number > 255) {
          problem(code.line, str_cat("transform.accept_return_code: ", code.text,
                                     " is not an exit code (0 to 255)"));
        } else {
          unique.insert(static_cast<int>(*number));
        }
      }
      transform.accept_return_code.assign(unique.begin(), unique.end());
    }
  }

  void fill_choices(PipelineSpec& spec) {
    std::string merge = "error";
    get("output_merge", merge);
    if (merge == "concat") {
      spec.output_merge = OutputMerge::kConcat;
    } else if (merge == "overwrite") {
      spec.output_merge = OutputMerge::kOverwrite;
    } else if (merge != "error") {
      problem(line_of("output_merge"), str_cat("output_merge: ", qanat::quoted(merge),
                                               " is not one of error, concat, overwrite"));
    }
    std::string reprocess = "until_success";
    get("reprocess_spec", reprocess);
    spec.reprocess_every_job = reprocess == "every_job";
    if (!spec.reprocess_every_job && reprocess != "until_success") {
      problem(line_of("reprocess_spec"), str_cat("reprocess_spec: ", qanat::quoted(reprocess),
                                                 " is not one of until_success, every_job"));
    }
    if (find("parallelism_spec.constant") && find("parallelism_spec.coefficient")) {
      problem(line_of("parallelism_spec"),
              "parallelism_spec: give constant or coefficient, not both");
    }
  }

  // What has no effect here must still make sense.
  void check_reported() {
    for (const std::string_view path : {"pod_spec", "pod_patch"}) {
      const SpecNode* node = find(path);
      if (node && !node->text.empty() && !nlohmann::json::accept(node->text)) {
        problem(node->line, str_cat(path, ": is not JSON"));
      }
    }
    std::uint64_t size = 0;
    for (const std::string_view path :
         {"resource_limits.disk", "resource_requests.memory", "resource_requests.disk",
          "datum_set_spec.size_bytes", "cache_size"}) {
      get_size(path, size);
    }
  }

  void fill_input(const SpecNode& node, const std::string& path, const std::string& project,
                  Input& out) {
    if (const SpecNode* pfs = node.find("pfs"); pfs && pfs->type == Type::kMap) {
      out.kind = Input::Kind::kPfs;
      fill_pfs(*pfs, str_cat(path, ".pfs"), project, out.pfs);
      return;
    }
    const SpecNode* cross = node.find("cross");
    const bool is_cross = cross && cross->type == Type::kList;
    out.kind = is_cross ? Input::Kind::kCross : Input::Kind::kUnion;
    const SpecNode* arms = is_cross ? cross : node.find("union");
    const std::string at = str_cat(path, is_cross ? ".cross" : ".union");
    if (arms == nullptr) return;
    for (std::size_t i = 0; i < arms->items.size(); ++i) {
      fill_input(arms->items[i], str_cat(at, "[", i, "]"), project, out.arms.emplace_back());
    }
  }

  void fill_pfs(const SpecNode& node, const std::string& path, const std::string& own_project,
                PfsInput& out) {
    const auto text = [&](std::string_view name, std::string& to) {
      const SpecNode* value = node.find(name);
      if (value && value->type == Type::kString) to = value->text;
    };
    text("repo", out.repo);
    out.name = out.repo;
    text("name", out.name);
    text("branch", out.branch);
    text("glob", out.glob);
    if (out.repo.empty()) problem(node.line, str_cat(path, ".repo: required"));
    const SpecNode* glob = node.find("glob");
    if (glob == nullptr || glob->type == Type::kNull ||
        (glob->type == Type::kString && glob->text.empty())) {
      problem(node.line, str_cat(path,
                                 ".glob: required; \"/\" is the whole repo as one datum, \"/*\" a "
                                 "datum for each entry"));
    }
    std::string project = own_project;
    text("project", project);
    if (project != own_project) {
      problem(node.line, str_cat(path, ".project: ", qanat::quoted(project),
                                 " is not the pipeline's own project ", qanat::quoted(own_project),
                                 ", and a pipeline reads repos of its own project only; get the "
                                 "files there and put them into a repo here"));
    }
    std::string repo_type = "user";
    text("repo_type", repo_type);
    if (repo_type != "user") {
      problem(node.line, str_cat(path, ".repo_type: ", qanat::quoted(repo_type),
                                 ": only user repos can be inputs"));
    }
  }

  // The line of a canonical path like "input.cross[1].pfs.glob"; of the nearest ancestor that is
  // there.
  int line_of(std::string_view path) const {
    const SpecNode* node = &document_;
    for (const std::string_view part : split(path, '.')) {
      const auto [name, index] = split_once(part, '[');
      const SpecNode* next = node->type == Type::kMap ? node->find(name) : nullptr;
      if (next && !index.empty()) {
        Result<std::uint64_t> at = parse_u64(index.substr(0, index.size() - 1));
        next = at.ok() && *at < next->items.size() ? &next->items[*at] : nullptr;
      }
      if (next == nullptr) break;
      node = next;
    }
    return node->line;
  }

  SpecNode& document_;
  const LoadOptions& options_;
  std::vector<std::string> problems_;
  std::vector<std::string> honoured_;
  std::vector<FieldNote> refused_;
  std::vector<FieldNote> notes_;
};

}  // namespace

Result<std::vector<LoadedSpec>> load_pipeline_specs(std::string_view text,
                                                    const LoadOptions& options) {
  QANAT_ASSIGN_OR_RETURN(std::vector<SpecNode> documents, parse_spec_text(text));
  if (documents.empty()) {
    return invalid_argument("the text holds no pipeline spec",
                            "A spec is a JSON object or a YAML document.");
  }
  std::vector<LoadedSpec> out;
  std::vector<std::string> problems;
  std::map<std::string, int> names;
  for (SpecNode& document : documents) {
    SpecReader reader(document, options);
    out.push_back(reader.read());
    const LoadedSpec& loaded = out.back();
    problems.insert(problems.end(), reader.problems().begin(), reader.problems().end());
    if (loaded.spec.name.empty()) continue;
    const auto [first, added] =
        names.emplace(str_cat(loaded.spec.project, "/", loaded.spec.name), loaded.line);
    if (!added) {
      problems.push_back(str_cat("line ", loaded.line, ": pipeline ",
                                 qanat::quoted(loaded.spec.name), " is already defined at line ",
                                 first->second));
    }
  }
  if (problems.empty()) return out;
  if (problems.size() > kMaxProblems) {
    const std::size_t more = problems.size() - kMaxProblems;
    problems.resize(kMaxProblems);
    problems.push_back(str_cat("and ", more, " more"));
  }
  return invalid_argument(join(problems, "\n"), "docs/pipeline-spec.md lists every field.");
}

std::string_view output_merge_name(OutputMerge merge) {
  switch (merge) {
    case OutputMerge::kError:
      return "error";
    case OutputMerge::kConcat:
      return "concat";
    case OutputMerge::kOverwrite:
      return "overwrite";
  }
  return "";
}

std::int64_t worker_count(const PipelineSpec& spec, std::int64_t nodes) {
  if (spec.parallelism_constant > 0) return spec.parallelism_constant;
  const double wanted = std::ceil(spec.parallelism_coefficient *
                                  static_cast<double>(std::max<std::int64_t>(nodes, 1)));
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(wanted), 1, kMaxWorkers);
}

std::vector<const PfsInput*> pfs_inputs(const Input& input) {
  if (input.kind == Input::Kind::kPfs) return {&input.pfs};
  std::vector<const PfsInput*> out;
  for (const Input& arm : input.arms) {
    const std::vector<const PfsInput*> inner = pfs_inputs(arm);
    out.insert(out.end(), inner.begin(), inner.end());
  }
  return out;
}

ValidateResponse validate_pipeline_specs(std::string_view text, const LoadOptions& options) {
  ValidateResponse response;
  auto documents = text.size() > kMaxSpecText
                       ? Result<std::vector<SpecNode>>(too_large("the spec is too long"))
                       : parse_spec_text(text);
  if (!documents.ok()) {
    response.errors.push_back(documents.status().message());
    return response;
  }
  if (documents->empty()) response.errors.emplace_back("the text holds no spec");
  for (SpecNode& document : *documents) {
    SpecReader reader(document, options);
    const LoadedSpec loaded = reader.read();
    ValidatedPipeline pipeline;
    pipeline.name = reader.name();
    pipeline.honoured = reader.honoured();
    for (const FieldNote& note : loaded.notes) {
      pipeline.reported.push_back({note.field, note.about, note.line});
    }
    for (const FieldNote& field : reader.refused()) {
      pipeline.refused.push_back({field.field, field.about, field.line});
    }
    response.errors.insert(response.errors.end(), reader.problems().begin(),
                           reader.problems().end());
    response.pipelines.push_back(std::move(pipeline));
  }
  response.ok = response.errors.empty();
  return response;
}

}  // namespace qanat::api
