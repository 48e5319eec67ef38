// Specs: golden files for what is accepted, a table of texts for what is not.
//
// QANAT_ACCEPT=1 rewrites the golden files (tests/data/specs/*.golden) and docs/pipeline-spec.md.
#include "qanat/api/pipeline_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "qanat/api/quantity.h"
#include "qanat/api/spec_fields.h"

namespace qanat::api {
namespace {

using ::testing::HasSubstr;

// The checkout: build folders lie directly in it. (__FILE__ is relative to the folder of the
// build.)
const std::filesystem::path kRoot =
    std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void expect_golden(const std::filesystem::path& path, const std::string& text) {
  if (std::getenv("QANAT_ACCEPT") != nullptr) std::ofstream(path, std::ios::binary) << text;
  EXPECT_EQ(read_text(path), text) << path << " differs; QANAT_ACCEPT=1 rewrites it";
}

// A spec that is right, with `extra` added at its top level.
std::string minimal(const std::string& extra,
                    const std::string& input = "pfs: {repo: in, glob: /*}") {
  return "pipeline: {name: p}\ntransform: {image: i, cmd: [c]}\ninput: {" + input + "}\n" + extra;
}

PipelineSpec load_one(const std::string& text, const LoadOptions& options = {}) {
  auto loaded = load_pipeline_specs(text, options);
  EXPECT_TRUE(loaded.ok()) << loaded.status().message();
  if (!loaded.ok()) return {};
  EXPECT_EQ(loaded->size(), 1u);
  return loaded->front().spec;
}

class SpecFileTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SpecFileTest, LoadsAsRecorded) {
  const std::filesystem::path file = kRoot / "tests/data/specs" / GetParam();
  auto loaded = load_pipeline_specs(read_text(file));
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  std::string text;
  for (const LoadedSpec& spec : *loaded) {
    text += "line " + std::to_string(spec.line) + "\n" + effective_spec(spec.spec, true) + "\n";
    for (const FieldNote& note : spec.notes) {
      text += "line " + std::to_string(note.line) + ": " + note.field +
              " is reported: " + note.about + "\n";
    }
    // What is stored reads back as the same spec, and says nothing more.
    auto again = load_pipeline_specs(effective_spec(spec.spec));
    ASSERT_TRUE(again.ok()) << again.status().message();
    EXPECT_EQ(again->front().spec, spec.spec);
    EXPECT_TRUE(again->front().notes.empty());
    // So does what the user wrote.
    auto user = load_pipeline_specs(spec.user_json);
    ASSERT_TRUE(user.ok()) << user.status().message() << spec.user_json;
    EXPECT_TRUE(validate_spec(spec.spec, RunnerKind::kDocker).ok());
  }
  expect_golden(file.string() + ".golden", text);
}

INSTANTIATE_TEST_SUITE_P(All, SpecFileTest,
                         ::testing::Values("edges_and_montage.json", "word_count.yaml",
                                           "old_fields.json", "everything.yaml"),
                         [](const auto& info) {
                           std::string name = info.param;
                           return name.substr(0, name.find('.'));
                         });

TEST(PipelineSpec, TheInstallationsImageWhereNoneIsNamed) {
  const std::string text =
      "pipeline: {name: p}\ntransform: {cmd: [c]}\ninput: {pfs: {repo: in, glob: /}}";
  EXPECT_FALSE(load_pipeline_specs(text).ok());
  const auto loaded = load_pipeline_specs(text, {.default_image = "debian:12"});
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  EXPECT_EQ(loaded->front().spec.transform.image, "debian:12");
  ASSERT_EQ(loaded->front().notes.size(), 1u);
  EXPECT_EQ(loaded->front().notes[0].field, "transform.image");
  EXPECT_EQ(loaded->front().notes[0].line, 2);
  // Where there are no images, none is taken.
  const auto process =
      load_pipeline_specs(text, {.runner = RunnerKind::kProcess, .default_image = "debian:12"});
  ASSERT_TRUE(process.ok());
  EXPECT_EQ(process->front().spec.transform.image, "");
}

TEST(PipelineSpec, DefaultsAreExplicit) {
  const PipelineSpec spec = load_one(minimal(""));
  EXPECT_EQ(spec.project, "default");
  EXPECT_EQ(spec.input.pfs.name, "in");
  EXPECT_EQ(spec.input.pfs.branch, "master");
  EXPECT_EQ(spec.parallelism_constant, 1);
  EXPECT_EQ(spec.datum_tries, 3);
  EXPECT_EQ(spec.output_branch, "master");
  EXPECT_EQ(spec.transform.network, "none");
  EXPECT_EQ(load_one(minimal(""), {.default_network = "host"}).transform.network, "host");
  EXPECT_EQ(load_one(minimal(""), {.project = "other"}).project, "other");
}

TEST(PipelineSpec, CamelCaseIsTheSameSpec) {
  const std::string snake =
      R"({"pipeline":{"name":"p"},"transform":{"image":"i","cmd":["c"],"working_dir":"/w","accept_return_code":[1],
    "env":{"camelCase":"kept"}},"input":{"pfs":{"repo":"in","glob":"/*","repo_type":"user"}},"datum_tries":2,
    "parallelism_spec":{"constant":2},"datum_set_spec":{"number":3},"output_branch":"b","job_timeout":"1m"})";
  const std::string camel =
      R"({"pipeline":{"name":"p"},"transform":{"image":"i","cmd":["c"],"workingDir":"/w","acceptReturnCode":[1],
    "env":{"camelCase":"kept"}},"input":{"pfs":{"repo":"in","glob":"/*","repoType":"user"}},"datumTries":2,
    "parallelismSpec":{"constant":2},"datumSetSpec":{"number":3},"outputBranch":"b","jobTimeout":"1m"})";
  EXPECT_EQ(load_one(snake), load_one(camel));
  EXPECT_EQ(load_one(camel).transform.env.count("camelCase"), 1u);
}

TEST(PipelineSpec, WhatProgramsWriteOutLoads) {
  // As JSON of protocol buffers: 64-bit numbers in quotes, and what is not wanted spelled out.
  const std::string written =
      R"({"pipeline":{"name":"p"},"transform":{"image":"i","cmd":["c"],"acceptReturnCode":["1"],
    "secrets":[],"imagePullSecrets":[]},"input":{"pfs":{"repo":"in","glob":"/*","joinOn":"","lazy":false}},
    "datumTries":"2","parallelismSpec":{"constant":"2"},"egress":null,"s3Out":false})";
  const std::string plain =
      R"({"pipeline":{"name":"p"},"transform":{"image":"i","cmd":["c"],"accept_return_code":[1]},
    "input":{"pfs":{"repo":"in","glob":"/*"}},"datum_tries":2,"parallelism_spec":{"constant":2}})";
  EXPECT_EQ(load_one(written), load_one(plain));
}

TEST(PipelineSpec, YamlKeepsScalarsAsWritten) {
  const PipelineSpec spec = load_one(
      "pipeline: {name: p}\ntransform:\n  image: i\n  cmd: [run, 1, 1.50, true, \"2\"]\n  env: {A: "
      "0x10, B: 1e3, C: no}\n"
      "input: {pfs: {repo: in, glob: /*}}");
  EXPECT_THAT(spec.transform.cmd, ::testing::ElementsAre("run", "1", "1.50", "true", "2"));
  EXPECT_EQ(spec.transform.env.at("A"), "0x10");
  EXPECT_EQ(spec.transform.env.at("B"), "1e3");
  EXPECT_EQ(spec.transform.env.at("C"), "no");
}

TEST(PipelineSpec, JsonStrings) {
  const PipelineSpec spec = load_one(
      R"({"pipeline":{"name":"p"},"description":"a\"\\\/\n\t\u00e9\ud83d\ude00","transform":{"image":"i"},"input":{"pfs":{"repo":"in","glob":"/"}}})");
  EXPECT_EQ(spec.description, "a\"\\/\n\t\u00e9\U0001F600");
}

TEST(PipelineSpec, WorkersAndInputs) {
  EXPECT_EQ(worker_count(load_one(minimal("parallelism_spec: {coefficient: 0.3}\n")), 1), 1);
  EXPECT_EQ(worker_count(load_one(minimal("parallelism_spec: {coefficient: 1.5}\n")), 3), 5);
  EXPECT_EQ(worker_count(load_one(minimal("parallelism_spec: {constant: 4}\n")), 3), 4);
  const PipelineSpec spec = load_one(minimal("",
                                             "union: [{pfs: {repo: a, glob: /}}, {cross: [{pfs: "
                                             "{repo: b, glob: /}}, {pfs: {repo: c, glob: /}}]}]"));
  std::string repos;
  for (const PfsInput* input : pfs_inputs(spec.input)) repos += input->repo;
  EXPECT_EQ(repos, "abc");
}

TEST(PipelineSpec, UnionArmsMayShareNames) {
  load_one(minimal(
      "", "union: [{pfs: {repo: a, name: x, glob: /}}, {pfs: {repo: b, name: x, glob: /}}]"));
}

TEST(PipelineSpec, ProcessRunnerReportsContainers) {
  auto loaded = load_pipeline_specs(minimal("resource_limits: {cpu: 1, memory: 64M}\n"),
                                    {.runner = RunnerKind::kProcess});
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  std::vector<std::string> fields;
  for (const FieldNote& note : loaded->front().notes) fields.push_back(note.field);
  EXPECT_THAT(fields, ::testing::ElementsAre("transform.image", "resource_limits.cpu",
                                             "resource_limits.memory"));
}

struct Bad {
  std::string text;
  std::string says;
};

TEST(PipelineSpec, ErrorsNameFieldLineAndRemedy) {
  const std::vector<Bad> table = {
      {"", "holds no pipeline spec"},
      {"---\n---\n", "holds no pipeline spec"},
      {"just text", "line 1: a pipeline spec is an object, not a string"},
      {"a: [1", "line"},
      {"{\"a\": 1,}", "line 1: expected a field name"},
      {"{\"pipeline\": {\"name\": \"p\"}\n\"x\": 1}", "line 2: expected ',' or '}'"},
      {"{\"a\": 01}", "line 1: expected a value"},
      {"{\"a\": nul}", "expected a value"},
      {"{\"a\": \"x", "a string is not closed"},
      {"{\"a\": \"\\ud800\"}", "surrogate"},
      {"{\"a\": \"\\u0000\"}", "NUL"},
      {"{\"a\": 1, \"a\": 2}", "field \"a\" is given twice"},
      {"a: 1\na: 2", "line 2: field \"a\" is given twice"},
      {std::string(200, '['), "nested too deeply"},
      {"[" + std::string(200, '['), "nested too deeply"},
      {"a: " + std::string(200, '['), "line"},
      {"pipeline: {name: \"\xff\"}", "not UTF-8"},
      {"{} , {}", "without a comma"},
      {minimal("transfrom: {}\n"), "line 4: transfrom: unknown field; did you mean transform?"},
      {"pipeline: {name: p}\ntransform:\n  image: i\n  imgae: j\n  cmd: [c]\ninput: {pfs: {repo: "
       "in, glob: /}}",
       "line 4: transform.imgae: unknown field; did you mean transform.image?"},
      {minimal("glob: /\n"), "line 4: glob: unknown field; it belongs at input.pfs.glob"},
      {minimal("datum_tries: many\n"),
       "line 4: datum_tries: expected a whole number, found a string"},
      {minimal("datum_tries: '03'\n"), "datum_tries: expected a whole number, found a string"},
      {minimal("datum_tries: 0\n"), "datum_tries: must be at least 1"},
      {minimal("datum_tries: 1.5\n"), "datum_tries: expected a whole number, found a number"},
      {minimal("datum_tries: 99999999999999999999\n"), "is too large"},
      {minimal("datum_tries: 1001\n"), "datum_tries: 1001 is not between 1 and 1000"},
      {minimal("datum_timeout: 5\n"), "datum_timeout: expected a string, as in \"5m\""},
      {minimal("datum_timeout: 5 minutes\n"),
       "datum_timeout: '5 minutes' is not a duration. Write it as 30s"},
      {minimal("resource_limits: {memory: lots}\n"),
       "resource_limits.memory: 'lots' is not a size"},
      {minimal("resource_limits: {memory: 1k}\n"), "resource_limits.memory: must be at least 6Mi"},
      {minimal("resource_limits: {cpu: -1}\n"), "resource_limits.cpu: must be more than 0"},
      {minimal("resource_limits: {gpu: {type: x, number: 1}}\n"),
       "resource_limits.gpu: refused. GPUs are not there yet"},
      {minimal("parallelism_spec: {constant: 1, coefficient: 2}\n"),
       "constant or coefficient, not both"},
      {minimal("output_merge: join\n"),
       "output_merge: \"join\" is not one of error, concat, overwrite"},
      {minimal("reprocess_spec: never\n"),
       "reprocess_spec: \"never\" is not one of until_success, every_job"},
      {minimal("output_branch: stats\n"), "output_branch: \"stats\" is reserved"},
      {minimal("output_branch: a/b\n"), "output_branch:"},
      {minimal("spout: {}\n"), "line 4: spout: refused. Spouts are not there yet"},
      {minimal("service: {internal_port: 1}\n"), "service: refused"},
      {minimal("egress: {URL: s3://b}\n"), "egress: refused"},
      {minimal("s3_out: true\n"), "s3_out: refused"},
      {minimal("s3Out: true\n"), "s3Out: refused"},
      {minimal("incremental: true\n"), "incremental: refused"},
      {minimal("maximumExpectedUptime: 1h\n"), "maximumExpectedUptime: refused"},
      {minimal("datum_set_spec: {number: 1}\nchunk_spec: {number: 2}\n"),
       "line 5: chunk_spec: datum_set_spec is given twice"},
      {minimal("pod_spec: '{'\n"), "pod_spec: is not JSON"},
      {minimal("tolerations: [{keys: a}]\n"),
       "tolerations[0].keys: unknown field; did you mean tolerations[0].key?"},
      {minimal("", "pfs: {repo: in}"), "input.pfs.glob: required"},
      {minimal("", "pfs: {glob: /}"), "input.pfs.repo: required"},
      {minimal("", "pfs: {repo: in, glob: '/[a'}"), "line 3: input.pfs.glob:"},
      {minimal("", "pfs: {repo: in, glob: ''}"), "input.pfs.glob: required"},
      {minimal("", "pfs: {repo: in, glob: //a}"), "input.pfs.glob: \"//a\" can match nothing"},
      {minimal("", "pfs: {repo: in, glob: /d//e}"), "input.pfs.glob: \"/d//e\" can match nothing"},
      {minimal("", "pfs: {repo: in, glob: /d//}"), "can match nothing: no path has an empty part"},
      {minimal("", "pfs: {repo: in, glob: /./a}"), "can match nothing: no path has a part \".\""},
      {minimal("", "pfs: {repo: in, glob: '/a/\\..'}"), "can match nothing"},
      {minimal("", "pfs: {repo: in, glob: '/!(a)'}"), "has the extended pattern \"!(\"...)"},
      {minimal("", "pfs: {repo: in, glob: '/*(a|b)'}"), "has the extended pattern \"*(\"...)"},
      {minimal("", "pfs: {repo: PATH, glob: /}"), "input.pfs.name: an input may not be named"},
      {minimal("", "pfs: {repo: in, name: PACH_JOB_ID, glob: /}"), "input.pfs.name: an input may"},
      {minimal("", "pfs: {repo: in, name: LD_PRELOAD, glob: /}"), "input.pfs.name: an input may"},
      {minimal("", "pfs: {repo: p, glob: /}"), "a pipeline cannot read its own output repo"},
      {minimal("", "pfs: {repo: in, glob: /, name: out}"), "may not be named \"out\""},
      {minimal("", "pfs: {repo: in, glob: /, name: 'a b'}"), "input.pfs.name:"},
      {minimal("", "pfs: {repo: in, glob: /, branch: 0123456789abcdef0123456789abcdef}"),
       "input.pfs.branch:"},
      {minimal("", "pfs: {repo: in, glob: /, lazy: true}"), "input.pfs.lazy: refused"},
      {minimal("", "pfs: {repo: in, glob: /, emptyFiles: true}"), "input.pfs.emptyFiles: refused"},
      {minimal("", "pfs: {repo: in, glob: /, project: x}"),
       "input.pfs.project: \"x\" is not the pipeline's own project"},
      {minimal("", "pfs: {repo: in, glob: /, repo_type: meta}"), "only user repos"},
      {minimal("", "pfs: {repo: in, glob: /, joinOn: $1}"),
       "input.pfs.joinOn: refused. Joins are not there yet"},
      {minimal("", "pfs: {repo: in, glob: /, trigger: {size: 1M}}"), "input.pfs.trigger: refused"},
      {minimal("", "join: []"), "input.join: refused"},
      {minimal("", "group: []"), "input.group: refused"},
      {minimal("", "cron: {name: t, spec: '@daily'}"), "input.cron: refused"},
      {minimal("", "git: {URL: x}"), "input.git: refused"},
      {minimal("", ""), "exactly one of pfs, cross, union, found 0"},
      {minimal("", "pfs: {repo: a, glob: /}, cross: []"),
       "exactly one of pfs, cross, union, found 2"},
      {minimal("", "cross: []"), "input.cross: has no inputs"},
      {minimal("", "cross: [{pfs: {repo: a, glob: /}}, {union: []}]"),
       "input.cross[1].union: has no inputs"},
      {minimal("", "cross: [{pfs: {repo: a, glob: /}}, {pfs: {repo: a, glob: /*}}]"),
       "input.cross[1]: two inputs of this cross are named \"a\""},
      {minimal("",
               "cross: [{pfs: {repo: a, glob: /}}, {union: [{pfs: {repo: b, glob: /}}, {pfs: "
               "{repo: a, glob: /}}]}]"),
       "two inputs of this cross are named \"a\""},
      {"pipeline: {name: p}\ntransform: {image: i}\n", "input: required"},
      {"transform: {image: i}\ninput: {pfs: {repo: in, glob: /}}", "pipeline.name: required"},
      {"pipeline: {name: -p}\ntransform: {image: i}\ninput: {pfs: {repo: in, glob: /}}",
       "line 1: pipeline.name:"},
      {"pipeline: {name: " + std::string(51, 'p') +
           "}\ntransform: {image: i}\ninput: {pfs: {repo: in, glob: /}}",
       "50"},
      {"pipeline: {name: p}\ntransform: {cmd: [c]}\ninput: {pfs: {repo: in, glob: /}}",
       "line 2: transform.image: required"},
      {"pipeline: {name: p}\ntransform: {image: i, cmd: [\"\"]}\ninput: {pfs: {repo: in, glob: /}}",
       "the command is empty"},
      {"pipeline: {name: p}\ntransform: {image: i, cmd: c}\ninput: {pfs: {repo: in, glob: /}}",
       "transform.cmd: expected a list of strings, found a string"},
      {R"({"pipeline":{"name":"p"},"transform":{"image":"i","cmd":["c",1]},"input":{"pfs":{"repo":"in","glob":"/"}}})",
       "transform.cmd[1]: expected a string (put it in quotes), found a whole number"},
      {"pipeline: {name: p}\ntransform: {image: i, secrets: [{name: s}]}\ninput: {pfs: {repo: in, "
       "glob: /}}",
       "transform.secrets: refused. Secrets are not there yet"},
      {"pipeline: {name: p}\ntransform: {image: i, network: bridge}\ninput: {pfs: {repo: in, glob: "
       "/}}",
       "transform.network: \"bridge\" is not one of none, host"},
      {"pipeline: {name: p}\ntransform: {image: i, working_dir: x}\ninput: {pfs: {repo: in, glob: "
       "/}}",
       "not an absolute path"},
      {"pipeline: {name: p}\ntransform: {image: i, accept_return_code: [256]}\ninput: {pfs: {repo: "
       "in, glob: /}}",
       "256 is not an exit code"},
      {"pipeline: {name: p}\ntransform: {image: i, err_stdin: [x]}\ninput: {pfs: {repo: in, glob: "
       "/}}",
       "given without err_cmd"},
      {"pipeline: {name: p}\ntransform: {image: i, env: {PACH_JOB_ID: x}}\ninput: {pfs: {repo: in, "
       "glob: /}}",
       "transform.env.PACH_JOB_ID: Qanat sets this variable"},
      {"pipeline: {name: p}\ntransform: {image: i, env: {'a=b': x}}\ninput: {pfs: {repo: in, glob: "
       "/}}",
       "cannot name a variable"},
      {minimal("---\n") + minimal(""), "line 5: pipeline \"p\" is already defined at line 1"},
  };
  for (const Bad& bad : table) {
    auto loaded = load_pipeline_specs(bad.text);
    ASSERT_FALSE(loaded.ok()) << bad.text;
    EXPECT_EQ(loaded.status().code(), Code::kInvalidArgument) << bad.text;
    EXPECT_THAT(loaded.status().message(), HasSubstr(bad.says)) << bad.text;
  }
}

TEST(PipelineSpec, GlobsThatCanMatch) {
  for (const char* glob : {"/", "a/", "/a.b/..c/*", "/[/]x", "/[(]a", "/[!(]a", "/{a,.}b",
                           "/a\\!(b)", "/(*)-(a|b)", "/(*)/(*)", "/.*", "/**/x"}) {
    EXPECT_EQ(
        load_one(minimal("", "pfs: {repo: in, glob: '" + std::string(glob) + "'}")).input.pfs.glob,
        glob);
  }
}

TEST(PipelineSpec, AllProblemsAreToldAtOnce) {
  auto loaded = load_pipeline_specs(
      "pipeline: {nam: p}\ntransform: {image: i, secrets: [{name: s}]}\nspout: {}\n");
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.status().message(),
              ::testing::AllOf(HasSubstr("line 1: pipeline.nam"),
                               HasSubstr("line 2: transform.secrets"), HasSubstr("line 3: spout")));
}

TEST(PipelineSpec, HostileYamlIsBounded) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += before + (j < 9 ? ", " : "]\n");
  }
  EXPECT_FALSE(load_pipeline_specs(bomb).ok());
  EXPECT_FALSE(load_pipeline_specs("a: &a [*a, *a]\n").ok());
  EXPECT_EQ(load_pipeline_specs(std::string(kMaxSpecText + 1, ' ')).code(), Code::kTooLarge);
}

TEST(PipelineSpec, WhatIsNoTextIsRefused) {
  for (const std::string_view text : {std::string_view("1R\0___:H`~~:", 12),
                                      std::string_view("a\0", 2), std::string_view("\0", 1),
                                      std::string_view("\xff\xfe"
                                                       "a"),
                                      std::string_view("a: \xc3"), std::string_view("{}\0", 3)}) {
    EXPECT_EQ(load_pipeline_specs(text).code(), Code::kInvalidArgument);
  }
}

// The library gives documents without end for some of these.
TEST(PipelineSpec, AStrayCommaIsSaid) {
  for (const char* text : {",", ", a", "{a: 1} ,", "{a: 1}\n,", "--- ,", "... ,", "!x ,", "&a ,",
                           "%x\n,", "a: b\n---\n,", "---\n---\n,"}) {
    const auto loaded = load_pipeline_specs(text);
    EXPECT_EQ(loaded.code(), Code::kInvalidArgument) << text;
    EXPECT_NE(loaded.status().message().find("line "), std::string::npos)
        << text << ": " << loaded.status().message();
  }
}

TEST(SpecFields, TableIsConsistent) {
  std::set<std::string_view> paths;
  for (const SpecField& field : spec_fields()) {
    EXPECT_TRUE(paths.insert(field.path).second) << field.path;
    EXPECT_FALSE(field.about.empty()) << field.path;
    const size_t dot = field.path.find_last_of('.');
    if (dot == std::string_view::npos) continue;
    std::string_view parent = field.path.substr(0, dot);
    if (parent.ends_with("[]")) parent.remove_suffix(2);
    EXPECT_TRUE(paths.contains(parent)) << field.path << " comes before its parent";
  }
}

TEST(SpecFields, DocumentationIsGenerated) {
  expect_golden(kRoot / "docs/pipeline-spec.md", spec_fields_markdown());
}

TEST(Quantity, Durations) {
  const std::pair<const char*, int64_t> good[] = {
      {"0", 0},         {"0s", 0},          {"300ms", 300},    {"30s", 30000},
      {"5m", 300000},   {"1h30m", 5400000}, {"1.5h", 5400000}, {"1h1m1s1ms", 3661001},
      {"300s", 300000}, {"24h", 86400000}};
  for (const auto& [text, ms] : good) {
    auto parsed = parse_duration(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, ms) << text;
    EXPECT_EQ(*parse_duration(write_duration(ms)), ms);
  }
  for (const char* text :
       {"", "5", "m", "5x", "1m1h", "1s1s", "-5s", "5 s", "1..5s", "999999999h", "1.s"}) {
    EXPECT_FALSE(parse_duration(text).ok()) << text;
  }
  EXPECT_EQ(write_duration(5400000), "1h30m");
}

TEST(Quantity, Sizes) {
  const std::pair<const char*, uint64_t> good[] = {
      {"0", 0},         {"1000000", 1000000},  {"64M", 64000000}, {"64Mi", 64 << 20},
      {"1Gi", 1 << 30}, {"1.5Gi", 3ull << 29}, {"10k", 10000},    {"2T", 2000000000000}};
  for (const auto& [text, bytes] : good) {
    auto parsed = parse_size(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, bytes) << text;
    EXPECT_EQ(*parse_size(write_size(bytes)), bytes);
  }
  for (const char* text : {"", "M", "5x", "-5", "5 M", "1.M", "100E", "5MiB"})
    EXPECT_FALSE(parse_size(text).ok()) << text;
  EXPECT_EQ(write_size(1 << 30), "1Gi");
  EXPECT_EQ(write_size(64000000), "64M");
}

}  // namespace
}  // namespace qanat::api
