// What workers and the server say to each other, over the Unix socket of the worker's group
// (docs/architecture.md, "Workers").
//
// Every call but hello carries "Authorization: Bearer <token of hello>". A worker holds the datums
// it has leased until it has delivered their results or the server has cancelled them; it names all
// of them in each renewal, so that a restarted server knows who works on what. Results may be sent
// twice (the answer was lost): job and datum make that harmless.
//
//   POST /worker/v1/hello    HelloRequest -> HelloAnswer
//   POST /worker/v1/lease    LeaseRequest -> LeaseAnswer, or 204 when there was nothing for 20 s
//   GET  /worker/v1/inputs?job=J&datum=D&datum=D...
//                            -> FileStream: per datum a frame DatumInputs, then puts
//                            `<input>/<path>`
//   POST /worker/v1/results?job=J
//                            FileStream: per datum a frame DatumReport, its output files (paths
//                            under /pfs/out), its log (LogLine as JSON, a line each, without the
//                            fields that are known) -> ResultsAnswer once durable
//   POST /worker/v1/renew    RenewRequest -> RenewAnswer
//   POST /worker/v1/logs     LogPush -> 204: lines for those who follow now; the durable log comes
//                            with the result
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/log_line.h"
#include "qanat/api/time.h"

namespace qanat::api {

inline constexpr int32_t kWorkerProtocol = 2;

struct HelloRequest {
  std::string credential;  // one-use, from the worker's environment; sent as the bearer token
  std::string worker;
  int32_t protocol = kWorkerProtocol;
  std::string architecture;
};
template <class V>
void describe(V& v, HelloRequest& t) {
  v.type("WorkerHelloRequest", "A worker introduces itself, once.");
  v.required("worker", t.worker, "Its id, as the runner gave it.");
  v.required("protocol", t.protocol, "Version of this protocol.");
  v.required("architecture", t.architecture, "What the worker was built for, e.g. amd64.");
}

// How to run user code; the same for all datums of a pipeline version.
struct WorkerTransform {
  std::vector<std::string> cmd;
  std::vector<std::string> stdin_lines;
  std::vector<std::string> err_cmd;
  std::vector<std::string> err_stdin;
  std::vector<std::string> image_env;
  std::map<std::string, std::string> env;
  std::string user;
  std::string working_dir;
  std::vector<int32_t> accept_return_code;
};
template <class V>
void describe(V& v, WorkerTransform& t) {
  v.type("WorkerTransform", "How a worker runs user code.");
  v.required("cmd", t.cmd, "Program and arguments; the image's own if the spec has none.");
  v.optional("stdin", t.stdin_lines, "Lines piped to cmd.");
  v.optional("err_cmd", t.err_cmd, "Run after a failed attempt.");
  v.optional("err_stdin", t.err_stdin, "Lines piped to err_cmd.");
  v.optional("image_env", t.image_env, "The image's variables, NAME=value.");
  v.optional("env", t.env, "The transform's variables, over the image's.");
  v.optional("user", t.user, "As in the spec, else the image's USER.");
  v.optional("working_dir", t.working_dir, "As in the spec, else the image's WORKDIR.");
  v.optional("accept_return_code", t.accept_return_code, "Exit codes that mean success beside 0.");
}

struct WorkerSettings {
  int64_t datum_timeout_ms = 0;
  int64_t datum_tries = 3;
  int64_t max_queue_size = 1;
  int64_t log_limit = 1 << 20;
  int64_t renew_every_ms = 3000;
  uint64_t memory_limit = 0;
  int64_t pids_limit = 0;
  std::string network = "none";
};
template <class V>
void describe(V& v, WorkerSettings& t) {
  v.type("WorkerSettings", "Limits and rhythm of a worker.");
  v.optional("datum_timeout_ms", t.datum_timeout_ms, "Per attempt; 0: none.");
  v.optional("datum_tries", t.datum_tries, "Attempts in all.");
  v.optional("max_queue_size", t.max_queue_size, "Datums fetched ahead or waiting for upload.");
  v.optional("log_limit", t.log_limit, "Bytes kept of each output stream of a datum.");
  v.optional("renew_every_ms", t.renew_every_ms, "How often to renew.");
  v.optional("memory_limit", t.memory_limit, "resource_limits.memory in bytes, for messages.");
  v.optional("pids_limit", t.pids_limit, "resource_limits.pids, for messages.");
  v.optional("network", t.network, "transform.network, for messages.");
}

struct HelloAnswer {
  std::string token;
  std::string project;
  std::string pipeline;
  int64_t version = 0;
  WorkerTransform transform;
  WorkerSettings settings;
};
template <class V>
void describe(V& v, HelloAnswer& t) {
  v.type("WorkerHelloAnswer", "What a worker needs to begin.");
  v.required("token", t.token, "For all further calls; outlives a restart of the server.");
  v.required("project", t.project, "");
  v.required("pipeline", t.pipeline, "");
  v.required("version", t.version, "Of the pipeline's spec.");
  v.required("transform", t.transform, "");
  v.required("settings", t.settings, "");
}

struct LeaseRequest {
  int64_t max_datums = 0;
  int64_t wait_ms = 20000;
};
template <class V>
void describe(V& v, LeaseRequest& t) {
  v.type("WorkerLeaseRequest", "Asks for datums.");
  v.optional("max_datums", t.max_datums, "0: as many as the server thinks fit.");
  v.optional("wait_ms", t.wait_ms, "Wait so long for a datum, at most 20 s; 0: do not wait.");
}

struct DatumInput {
  std::string name;
  std::string path;
};
template <class V>
void describe(V& v, DatumInput& t) {
  v.type("WorkerDatumInput", "What one input gives to a datum.");
  v.required("name", t.name, "Of the input: the folder /pfs/<name>.");
  v.required("path", t.path, "Of the match in the repo, without leading slash; empty: the root.");
}

struct LeasedDatum {
  std::string id;
  int64_t index = 0;
  std::map<std::string, std::string> env;
  std::vector<DatumInput> inputs;
  uint64_t bytes = 0;
  uint64_t files = 0;
};
template <class V>
void describe(V& v, LeasedDatum& t) {
  v.type("WorkerLeasedDatum", "A datum to run.");
  v.required("id", t.id, "");
  v.required("index", t.index, "Its number in the job's order.");
  v.optional("env", t.env, "PACH_JOB_ID and all others that depend on job or datum.");
  v.required("inputs", t.inputs, "");
  v.optional("bytes", t.bytes, "Of all its input files.");
  v.optional("files", t.files, "Number of its input files.");
}

struct LeaseAnswer {
  std::string batch;
  std::string job;
  std::vector<LeasedDatum> datums;
};
template <class V>
void describe(V& v, LeaseAnswer& t) {
  v.type("WorkerLeaseAnswer", "Datums to run, all of one job.");
  v.required("batch", t.batch, "For logs.");
  v.required("job", t.job, "");
  v.required("datums", t.datums, "");
}

struct DatumInputs {
  std::string id;
};
template <class V>
void describe(V& v, DatumInputs& t) {
  v.type("WorkerDatumInputs", "Head of a datum's files in a FileStream.");
  v.required("id", t.id, "");
}

enum class DatumOutcome { kSuccess, kFailed, kRecovered };
inline std::vector<EnumValue> enum_values(DatumOutcome) {
  return {{0, "SUCCESS"}, {1, "FAILED"}, {2, "RECOVERED"}};
}

struct DatumReport {
  std::string id;
  DatumOutcome state = DatumOutcome::kSuccess;
  int64_t attempts = 0;
  int64_t exit_code = 0;
  std::string reason;
  std::string hint;
  Timestamp started;
  Timestamp finished;
  int64_t download_ms = 0;
  int64_t process_ms = 0;
  int64_t user_ms = 0;
  int64_t system_ms = 0;
  uint64_t input_bytes = 0;
  uint64_t input_files = 0;
  uint64_t output_bytes = 0;
  uint64_t output_files = 0;
};
template <class V>
void describe(V& v, DatumReport& t) {
  v.type("WorkerDatumReport", "How a datum went. Its files follow (on success), then its log.");
  v.required("id", t.id, "");
  v.required("state", t.state, "");
  v.required("attempts", t.attempts, "Made by this worker.");
  v.optional("exit_code", t.exit_code, "Of the last attempt; 128 + signal.");
  v.optional("reason", t.reason, "Why it failed, for people.");
  v.optional("hint", t.hint, "What to do about it.");
  v.optional("started", t.started, "When its first attempt began.");
  v.optional("finished", t.finished, "When its last attempt ended.");
  v.optional("download_ms", t.download_ms, "Fetching inputs; shared with its batch.");
  v.optional("process_ms", t.process_ms, "User code, all attempts.");
  v.optional("user_ms", t.user_ms, "Processor time in user mode.");
  v.optional("system_ms", t.system_ms, "Processor time in the kernel.");
  v.optional("input_bytes", t.input_bytes, "");
  v.optional("input_files", t.input_files, "");
  v.optional("output_bytes", t.output_bytes,
             "0 where the output was too large to be counted first.");
  v.optional("output_files", t.output_files, "As output_bytes.");
}

struct ResultsAnswer {
  std::vector<std::string> unknown;
};
template <class V>
void describe(V& v, ResultsAnswer& t) {
  v.type("WorkerResultsAnswer", "All results are durable, or known not to be wanted.");
  v.optional("unknown", t.unknown, "Datums that nobody waits for any more; not an error.");
}

struct HeldDatums {
  std::string job;
  std::vector<std::string> datums;
};
template <class V>
void describe(V& v, HeldDatums& t) {
  v.type("WorkerHeldDatums", "Datums of one job that a worker has in hand.");
  v.required("job", t.job, "");
  v.required("datums", t.datums, "");
}

struct RenewRequest {
  std::vector<HeldDatums> held;
};
template <class V>
void describe(V& v, RenewRequest& t) {
  v.type("WorkerRenewRequest", "Keeps the leases of everything in hand, and takes no others.");
  v.required("held", t.held, "Empty when idle: the worker is alive.");
}

struct RenewAnswer {
  std::vector<HeldDatums> cancelled;
  bool follow = false;
};
template <class V>
void describe(V& v, RenewAnswer& t) {
  v.type("WorkerRenewAnswer", "");
  v.optional(
      "cancelled", t.cancelled,
      "Datums to give up at once, their processes killed. (A datum has one id in all jobs.)");
  v.optional("follow", t.follow, "Somebody follows this pipeline's log: send lines as they come.");
}

struct LogPush {
  std::string job;
  std::string datum;
  std::vector<LogLine> lines;
};
template <class V>
void describe(V& v, LogPush& t) {
  v.type("WorkerLogPush", "Log lines of the datum that runs now.");
  v.required("job", t.job, "");
  v.required("datum", t.datum, "");
  v.required("lines", t.lines, "");
}

}  // namespace qanat::api
