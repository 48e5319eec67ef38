// A pipeline's spec: what its author writes, as structs, with every default made explicit.
//
// `load_pipeline_specs` reads JSON and YAML with several specs in a text (YAML documents,
// concatenated JSON objects, or an array), in snake_case or camelCase, with the names of old
// Pachyderm specs (`atom`, `chunk_spec`, `standby`). It checks everything that can be known without
// a server: types, names, globs, clashes, quantities; unknown and unsupported fields are errors
// that name the field, its line and the nearest known name. What depends on the installation (repos
// exist, cycles, rights, images) is checked when the pipeline is created.
//
// All of this is pure and safe for hostile text: nesting, size and node count are bounded.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/spec_fields.h"
#include "qanat/base/status.h"

namespace qanat::api {

// One repo's files, cut into datums by a glob.
struct PfsInput {
  std::string name;  // the folder /pfs/<name>; default: the repo's name
  std::string repo;
  std::string branch = "master";
  std::string glob;

  friend bool operator==(const PfsInput&, const PfsInput&) = default;
};

// A tree of inputs. Exactly one of the members is used, as `kind` says.
struct Input {
  enum class Kind { kPfs, kCross, kUnion };
  Kind kind = Kind::kPfs;
  PfsInput pfs;             // kPfs
  std::vector<Input> arms;  // kCross, kUnion: at least one, in spec order

  friend bool operator==(const Input&, const Input&) = default;
};

struct Transform {
  std::string image;                     // may be empty for the process runner only
  std::vector<std::string> cmd;          // run without a shell; empty: the image's entrypoint
  std::vector<std::string> stdin_lines;  // field `stdin`: each followed by a newline, piped to cmd
  std::map<std::string, std::string> env;
  std::string user;                     // name or uid, with optional :group; empty: the image's
  std::string working_dir;              // empty: the image's
  std::vector<int> accept_return_code;  // ascending, unique; success beside 0
  std::vector<std::string>
      err_cmd;  // run after a failed attempt; its success makes the datum RECOVERED
  std::vector<std::string> err_stdin;
  std::string network = "none";  // "none" or "host"

  friend bool operator==(const Transform&, const Transform&) = default;
};

struct ResourceLimits {
  double cpu = 0;            // cores; 0: no limit
  std::uint64_t memory = 0;  // bytes; 0: no limit
  std::int64_t pids = 0;     // processes and threads; 0: the runner's own limit

  friend bool operator==(const ResourceLimits&, const ResourceLimits&) = default;
};

enum class OutputMerge { kError, kConcat, kOverwrite };
std::string_view output_merge_name(OutputMerge merge);  // "error", "concat", "overwrite"

struct PipelineSpec {
  std::string project = "default";
  std::string name;
  std::string description;
  Transform transform;
  Input input;
  // Workers: constant if not 0, else ceil(coefficient * nodes).
  std::int64_t parallelism_constant = 1;
  double parallelism_coefficient = 0;
  ResourceLimits resource_limits;
  std::int64_t datum_timeout_ms = 0;  // per attempt; 0: none
  std::int64_t job_timeout_ms = 0;    // from the job's start; 0: none
  std::int64_t datum_tries = 3;       // attempts in all
  std::int64_t datum_set_number = 0;  // datums a worker leases at once; 0: Qanat chooses
  std::int64_t max_queue_size = 1;    // datums a worker has materialised or is uploading
  std::string output_branch = "master";
  OutputMerge output_merge = OutputMerge::kError;
  bool reprocess_every_job = false;  // reprocess_spec: every_job
  bool share_results = false;        // the pipeline's name is not part of a result's key
  std::string salt;                  // part of a result's key

  friend bool operator==(const PipelineSpec&, const PipelineSpec&) = default;
};

// How many workers the spec asks for on so many nodes; at least 1.
std::int64_t worker_count(const PipelineSpec& spec, std::int64_t nodes);

// Every pfs input of the tree, in spec order.
std::vector<const PfsInput*> pfs_inputs(const Input& input);

// A field that was accepted without effect, to be shown to the user.
struct FieldNote {
  std::string field;  // as written, with indexes: "input.cross[1].pfs.lazy"
  int line = 0;       // 1-based in the text
  std::string about;  // why it has no effect

  friend bool operator==(const FieldNote&, const FieldNote&) = default;
};

struct LoadedSpec {
  PipelineSpec spec;
  std::string
      user_json;  // the document as the user wrote it (names and values untouched), as compact JSON
  int line = 1;   // where it begins in the text
  std::vector<FieldNote> notes;  // reported fields, in text order
};

struct LoadOptions {
  RunnerKind runner = RunnerKind::kDocker;
  std::string project = "default";       // of specs that name none
  std::string default_network = "none";  // of specs that name none
  // Of specs that name none; noted where it is taken. "": they must name one. Only for containers.
  std::string default_image;
};

// What an installation takes unless told otherwise: Pachyderm's, so that specs without an image
// load.
inline constexpr std::string_view kDefaultImage = "ubuntu:20.04";

inline constexpr std::size_t kMaxSpecText = 4u << 20;  // bytes

// All specs of a text, or one error that lists every problem found, a line each ("line 7:
// transform.imgae: unknown field; did you mean transform.image?"). An empty text is an error.
Result<std::vector<LoadedSpec>> load_pipeline_specs(std::string_view text,
                                                    const LoadOptions& options = {});

// The spec with every default written out, as JSON (2 spaces of indent if `pretty`).
// load_pipeline_specs reads it back to an equal spec with no notes.
std::string effective_spec(const PipelineSpec& spec, bool pretty = false);

// The checks beyond single fields: names, globs, clashes, quantities. load_pipeline_specs has
// already called it; for specs built in code.
Status validate_spec(const PipelineSpec& spec, RunnerKind runner);

}  // namespace qanat::api
