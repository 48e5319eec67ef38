#include "qanat/api/spec_fields.h"

#include <array>

namespace qanat::api {
namespace {

using enum FieldType;
constexpr Handling kOn = Handling::kHonoured;
constexpr Handling kNote = Handling::kReported;
constexpr Handling kNo = Handling::kRefused;

constexpr std::string_view kLater = "Not there yet.";
constexpr std::string_view kKubernetes = "Has a meaning on Kubernetes only.";
constexpr std::string_view kNoReserve =
    "Nothing is reserved on a single machine; resource_limits are enforced.";
constexpr std::string_view kNoSidecar = "There is no sidecar: the server moves the data.";
constexpr std::string_view kRequestOnly =
    "Part of a request to Pachyderm, not of a pipeline; use the flag of `update pipeline`.";

// clang-format off
constexpr SpecField kFields[] = {
    {"pipeline", "", kObject, kOn, kOn, "Names the pipeline."},
    {"pipeline.name", "", kString, kOn, kOn, "Name of the pipeline and of its output repo: letters, digits, `_`, `-`, beginning and ending with a letter or digit, at most 50."},
    {"pipeline.project", "", kObject, kOn, kOn, "The project; default `default`. A plain string is accepted too."},
    {"pipeline.project.name", "", kString, kOn, kOn, "Name of the project."},
    {"description", "", kString, kOn, kOn, "Free text, shown by list and inspect."},

    {"transform", "", kObject, kOn, kOn, "The user's program."},
    {"transform.image", "", kString, kOn, kNote, "Container image, used unmodified. Default: the installation's (`serve --default-image`). The process runner runs the machine's own programs."},
    {"transform.cmd", "", kStringList, kOn, kOn, "Command and arguments, run without a shell. Empty: the image's entrypoint."},
    {"transform.stdin", "", kStringList, kOn, kOn, "Lines given to the command's standard input."},
    {"transform.env", "", kStringMap, kOn, kOn, "Environment variables."},
    {"transform.user", "", kString, kOn, kOn, "User name or id, with an optional `:group`. Default: the image's."},
    {"transform.working_dir", "", kString, kOn, kOn, "Absolute path. Default: the image's."},
    {"transform.accept_return_code", "", kIntegerList, kOn, kOn, "Exit codes that count as success, beside 0."},
    {"transform.err_cmd", "", kStringList, kOn, kOn, "Run after a failed attempt; if it succeeds on the last one, the datum is RECOVERED: no output, and the job goes on."},
    {"transform.err_stdin", "", kStringList, kOn, kOn, "Lines given to err_cmd's standard input."},
    {"transform.network", "", kString, kOn, kNote, "Qanat's own. `none` (default unless the installation says otherwise) or `host`, which needs the scope network-host. The process runner does not separate networks."},
    {"transform.debug", "", kBool, kNote, kNote, "Workers have one log level, set at the server."},
    {"transform.memory_volume", "", kBool, kNote, kNote, "Datums lie on disk; the system's cache keeps small ones in memory."},
    {"transform.secrets", "", kAny, kNo, kNo, "Secrets are not there yet; do not put them into transform.env, which is readable by everyone who may read the spec."},
    {"transform.image_pull_secrets", "", kAny, kNo, kNo, "Secrets are not there yet; pull the image with the engine's own login before creating the pipeline."},
    {"transform.dockerfile", "", kAny, kNo, kNo, "Images are built outside; build it and name it in transform.image."},
    {"transform.build", "", kAny, kNo, kNo, "Images are built outside; build it and name it in transform.image."},
    {"transform.datum_batching", "", kAny, kNo, kNo, kLater},

    {"input", "", kInput, kOn, kOn, "What the datums are made of: exactly one of pfs, cross, union."},
    {"input.pfs", "atom", kObject, kOn, kOn, "Files of one repo, cut into datums by a glob."},
    {"input.pfs.name", "", kString, kOn, kOn, "The folder /pfs/NAME. Default: the repo's name. Not `out`."},
    {"input.pfs.repo", "", kString, kOn, kOn, "The repo."},
    {"input.pfs.branch", "", kString, kOn, kOn, "The branch; default `master`."},
    {"input.pfs.glob", "", kString, kOn, kOn, "Every file or directory that matches is a datum; `/` is the whole repo."},
    {"input.pfs.project", "", kString, kOn, kOn, "Must be the pipeline's own project: inputs of others are refused."},
    {"input.pfs.repo_type", "", kString, kOn, kOn, "Must be `user`."},
    {"input.pfs.commit", "", kString, kNo, kNo, "A pipeline follows a branch; make a branch with that commit as its head."},
    {"input.pfs.lazy", "", kBool, kNo, kNo, "Lazy files are not there yet. `false` is accepted."},
    {"input.pfs.empty_files", "", kBool, kNo, kNo, "Empty files are not there yet. `false` is accepted."},
    {"input.pfs.s3", "", kBool, kNo, kNo, "Inputs through S3 are not there yet. `false` is accepted."},
    {"input.pfs.join_on", "", kString, kNo, kNo, "Joins are not there yet; a cross with a narrow glob may do."},
    {"input.pfs.outer_join", "", kBool, kNo, kNo, "Joins are not there yet. `false` is accepted."},
    {"input.pfs.group_by", "", kString, kNo, kNo, "Groups are not there yet."},
    {"input.pfs.trigger", "", kAny, kNo, kNo, "Triggers are not there yet; commit to another branch and move this one's head when it is time."},
    {"input.cross", "", kInputList, kOn, kOn, "Every combination of the arms' datums."},
    {"input.union", "", kInputList, kOn, kOn, "The datums of all arms, one arm visible at a time."},
    {"input.join", "", kAny, kNo, kNo, "Joins are not there yet; a cross with a narrow glob may do."},
    {"input.group", "", kAny, kNo, kNo, "Groups are not there yet."},
    {"input.cron", "", kAny, kNo, kNo, "Cron inputs are not there yet; let the system's cron put a file into a repo."},
    {"input.git", "", kAny, kNo, kNo, "Git inputs were removed in Pachyderm 2.0; put the files into a repo."},

    {"parallelism_spec", "", kObject, kOn, kOn, "How many workers: constant or coefficient."},
    {"parallelism_spec.constant", "", kInteger, kOn, kOn, "Number of workers; default 1."},
    {"parallelism_spec.coefficient", "", kNumber, kOn, kOn, "Workers a node, rounded up; a single machine is one node."},
    {"resource_limits", "", kObject, kOn, kOn, "What a worker may use."},
    {"resource_limits.cpu", "", kNumber, kOn, kNote, "Cores. The process runner does not limit them."},
    {"resource_limits.memory", "", kSize, kOn, kNote, "Bytes; a datum over it is killed and says so. The process runner does not limit it."},
    {"resource_limits.pids", "", kInteger, kOn, kNote, "Qanat's own: processes and threads. The process runner does not limit them."},
    {"resource_limits.disk", "", kSize, kNote, kNote, "Disk is not limited for a worker alone; the server refuses writes before the disk is full."},
    {"resource_limits.gpu", "", kAny, kNo, kNo, "GPUs are not there yet."},
    {"resource_requests", "", kObject, kNote, kNote, kNoReserve},
    {"resource_requests.cpu", "", kNumber, kNote, kNote, kNoReserve},
    {"resource_requests.memory", "", kSize, kNote, kNote, kNoReserve},
    {"resource_requests.disk", "", kSize, kNote, kNote, kNoReserve},
    {"resource_requests.gpu", "", kAny, kNo, kNo, "GPUs are not there yet."},
    {"sidecar_resource_limits", "", kAny, kNote, kNote, kNoSidecar},
    {"sidecar_resource_requests", "", kAny, kNote, kNote, kNoSidecar},

    {"datum_timeout", "", kDuration, kOn, kOn, "Wall time of one attempt, as in `5m` or `1h30m`; default none."},
    {"datum_tries", "", kInteger, kOn, kOn, "Attempts in all, each in a clean sandbox; default 3."},
    {"job_timeout", "", kDuration, kOn, kOn, "Wall time of a job from its start; then it is KILLED. Default none."},
    {"datum_set_spec", "chunk_spec", kObject, kOn, kOn, "How many datums a worker takes at once."},
    {"datum_set_spec.number", "", kInteger, kOn, kOn, "Datums a worker leases at once. Default: chosen from the size of the job."},
    {"datum_set_spec.size_bytes", "", kSize, kNote, kNote, "Batches are counted, not measured; set number."},
    {"datum_set_spec.per_worker", "", kInteger, kNote, kNote, "Batches are leased when a worker is free, whatever their number; set number."},
    {"max_queue_size", "", kInteger, kOn, kOn, "Datums a worker has materialised or is uploading; default 1."},
    {"output_branch", "", kString, kOn, kOn, "Branch of the output repo that receives commits; default `master`."},
    {"output_merge", "", kString, kOn, kOn, "Qanat's own: when two datums write one path: `error` (default), `concat` (in datum order) or `overwrite` (last in datum order)."},
    {"reprocess_spec", "", kString, kOn, kOn, "`until_success` (default: results are reused by key) or `every_job` (never)."},
    {"share_results", "", kBool, kOn, kOn, "Qanat's own: results are shared with the project's other pipelines that set it and have the same transform; the pipeline's name is then not part of the key."},
    {"salt", "", kString, kOn, kOn, "Part of the key of every result: another salt runs everything again."},

    {"autoscaling", "standby", kBool, kNote, kNote, "Workers stay warm; an idle one costs little on a single machine."},
    {"scale_down_threshold", "", kDuration, kNote, kNote, "Workers stay warm; an idle one costs little on a single machine."},
    {"enable_stats", "", kBool, kNote, kNote, "Statistics, logs and inputs of every datum are always kept; see list datum, inspect datum and logs."},
    {"cache_size", "", kSize, kNote, kNote, "The cache is the server's, and is set there."},
    {"hashtree_spec", "", kAny, kNote, kNote, "Trees are not sharded."},
    {"metadata", "", kObject, kNote, kNote, kKubernetes},
    {"metadata.labels", "", kStringMap, kNote, kNote, kKubernetes},
    {"metadata.annotations", "", kStringMap, kNote, kNote, kKubernetes},
    {"scheduling_spec", "", kObject, kNote, kNote, kKubernetes},
    {"scheduling_spec.node_selector", "", kStringMap, kNote, kNote, kKubernetes},
    {"scheduling_spec.priority_class_name", "", kString, kNote, kNote, kKubernetes},
    {"tolerations", "", kObjectList, kNote, kNote, kKubernetes},
    {"tolerations[].key", "", kString, kNote, kNote, kKubernetes},
    {"tolerations[].operator", "", kString, kNote, kNote, kKubernetes},
    {"tolerations[].value", "", kString, kNote, kNote, kKubernetes},
    {"tolerations[].effect", "", kString, kNote, kNote, kKubernetes},
    {"tolerations[].toleration_seconds", "", kInteger, kNote, kNote, kKubernetes},
    {"pod_spec", "", kString, kNote, kNote, kKubernetes},
    {"pod_patch", "", kString, kNote, kNote, kKubernetes},
    {"spec_commit", "", kAny, kNote, kNote, "Pachyderm's own record of the spec; Qanat gives versions of its own."},

    {"incremental", "", kBool, kNo, kNo, "Incremental processing is not there yet. `false` is accepted."},
    {"egress", "", kAny, kNo, kNo, "Egress is not there yet; a last pipeline with transform.network: host can deliver."},
    {"service", "", kAny, kNo, kNo, "Services are not there yet."},
    {"spout", "", kAny, kNo, kNo, "Spouts are not there yet; put data into a repo with `put file`."},
    {"s3_out", "", kBool, kNo, kNo, "Output through S3 is not there yet. `false` is accepted."},
    {"maximum_expected_uptime", "", kDuration, kNo, kNo, "Alerts are not there yet; job_timeout ends a job that runs too long."},
    {"determined", "", kAny, kNo, kNo, "Determined is not supported."},
    {"tf_job", "", kAny, kNo, kNo, "TensorFlow jobs on Kubeflow are not supported."},
    {"update", "", kBool, kNo, kNo, kRequestOnly},
    {"reprocess", "", kBool, kNo, kNo, kRequestOnly},
    {"dry_run", "", kBool, kNo, kNo, kRequestOnly},
};
// clang-format on

std::string_view type_text(FieldType type) {
  switch (type) {
    case kString:
      return "string";
    case kBool:
      return "true or false";
    case kInteger:
      return "whole number";
    case kNumber:
      return "number";
    case kDuration:
      return "duration";
    case kSize:
      return "size";
    case kStringList:
      return "list of strings";
    case kIntegerList:
      return "list of whole numbers";
    case kStringMap:
      return "names and strings";
    case kObject:
      return "object";
    case kObjectList:
      return "list of objects";
    case kInput:
      return "input";
    case kInputList:
      return "list of inputs";
    case kAny:
      return "any";
  }
  return "";
}

void append_row(const SpecField& field, std::string& out) {
  std::string name = "`" + std::string(field.path) + "`";
  if (!field.aliases.empty()) name += " (or `" + std::string(field.aliases) + "`)";
  out += "| " + name + " | " + std::string(type_text(field.type)) + " | " +
         std::string(handling_name(field.docker)) + " | " +
         std::string(handling_name(field.process)) + " | " + std::string(field.about) + " |\n";
}

}  // namespace

std::string_view runner_kind_name(RunnerKind kind) {
  return kind == RunnerKind::kDocker ? "docker" : "process";
}

Result<RunnerKind> runner_kind_from_name(std::string_view name) {
  if (name == "docker") return RunnerKind::kDocker;
  if (name == "process") return RunnerKind::kProcess;
  return invalid_argument("there is no runner '" + std::string(name) + "'",
                          "The runners are docker and process.");
}

std::string_view handling_name(Handling handling) {
  switch (handling) {
    case Handling::kHonoured:
      return "honoured";
    case Handling::kReported:
      return "reported";
    case Handling::kRefused:
      return "refused";
  }
  return "";
}

std::span<const SpecField> spec_fields() { return kFields; }

std::string spec_fields_markdown() {
  std::string out =
      "# Fields of a pipeline spec\n\n"
      "A spec is JSON or YAML. A file may hold several: YAML documents divided by `---`, JSON "
      "objects one after another, "
      "or a list. Names are written in snake_case or camelCase. Every field of Pachyderm 1.7 to "
      "2.11 is in one of three "
      "lists, for each runner:\n\n"
      "- **honoured**: it does what it says;\n"
      "- **reported**: accepted, without effect here; `qanat validate pipeline` and `create "
      "pipeline` say so;\n"
      "- **refused**: an error that names it. Nothing is silently ignored, and unknown fields are "
      "errors.\n\n"
      "Whole numbers may stand in quotes. Durations: `300ms`, `30s`, `5m`, `1h30m`. Sizes: `64M`, "
      "`1Gi` or a number of bytes (k, M, "
      "G, T, P, E are powers of "
      "1000; Ki, Mi, Gi, Ti, Pi, Ei of 1024). The members of `input` are also those of each input "
      "in `cross` and "
      "`union`.\n\n"
      "This page is generated from `src/qanat/api/spec_fields.cc`.\n\n"
      "| field | value | docker | process | |\n| --- | --- | --- | --- | --- |\n";
  for (const SpecField& field : kFields) append_row(field, out);
  return out;
}

}  // namespace qanat::api
