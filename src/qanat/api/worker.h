// The protocol between server and workers (docs/architecture.md, "Workers"): JSON bodies, and the
// heads of FileStreams.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/jobs.h"
#include "qanat/api/time.h"

namespace qanat::api {

inline constexpr int64_t kWorkerProtocol = 1;

struct HelloRequest {
  std::string worker;
  std::string credential;
  int64_t protocol = kWorkerProtocol;
  std::string arch;
  std::string version;
};
template <class V>
void describe(V& v, HelloRequest& t) {
  v.type("HelloRequest", "A worker's first words.");
  v.required("worker", t.worker, "Its id.");
  v.required("credential", t.credential, "The one-use credential it was started with.");
  v.required("protocol", t.protocol, "Version of this protocol.");
  v.required("arch", t.arch, "Architecture of the worker's program.");
  v.optional("version", t.version, "Version of Qanat.");
}

// What the worker runs for each datum: the user's transform, with the image's defaults filled in by
// the server.
struct WorkerTransform {
  std::vector<std::string> cmd;
  std::vector<std::string> stdin_lines;
  std::map<std::string, std::string> env;
  std::string user;
  std::string working_dir;
  std::vector<int64_t> accept_return_code;
  std::vector<std::string> err_cmd;
  std::vector<std::string> err_stdin;
};
template <class V>
void describe(V& v, WorkerTransform& t) {
  v.type("WorkerTransform", "What a worker runs for each datum.");
  v.required("cmd", t.cmd, "Program and arguments.");
  v.optional("stdin", t.stdin_lines, "Lines for its standard input.");
  v.optional("env", t.env, "Variables: the image's, then the spec's.");
  v.optional("user", t.user, "Name or uid, with optional :group; absent: root.");
  v.optional("working_dir", t.working_dir, "Absent: /.");
  v.optional("accept_return_code", t.accept_return_code, "Exit codes that are success beside 0.");
  v.optional("err_cmd", t.err_cmd, "Run after a failed attempt.");
  v.optional("err_stdin", t.err_stdin, "Lines for its standard input.");
}

struct WorkerSettings {
  int64_t datum_tries = 3;
  int64_t datum_timeout_ms = 0;
  int64_t max_queue_size = 1;
  int64_t batch_size = 0;
  int64_t max_log_bytes = 16 << 20;
  int64_t renew_ms = 5'000;
  int64_t memory_bytes = 0;
  std::string network = "none";
};
template <class V>
void describe(V& v, WorkerSettings& t) {
  v.type("WorkerSettings", "How a worker works.");
  v.required("datum_tries", t.datum_tries, "Attempts in all.");
  v.optional("datum_timeout_ms", t.datum_timeout_ms, "Of one attempt; absent: none.");
  v.required("max_queue_size", t.max_queue_size, "Datums materialised or being uploaded at once.");
  v.optional("batch_size", t.batch_size, "Datums to lease at once; absent: the server chooses.");
  v.required("max_log_bytes", t.max_log_bytes,
             "Of a datum's log; what is beyond is dropped, and said.");
  v.required("renew_ms", t.renew_ms, "How often to renew.");
  v.optional("memory_bytes", t.memory_bytes, "The memory limit, for naming it when it is hit.");
  v.optional("network", t.network, "none or host, for the hint when a datum fails.");
}

struct HelloResponse {
  std::string token;
  std::string project;
  std::string pipeline;
  int64_t version = 0;
  WorkerTransform transform;
  WorkerSettings settings;
};
template <class V>
void describe(V& v, HelloResponse& t) {
  v.type("HelloResponse", "What the worker is to do.");
  v.required("token", t.token, "For every other call, as a bearer token.");
  v.required("project", t.project, "The project.");
  v.required("pipeline", t.pipeline, "The pipeline.");
  v.required("version", t.version, "Version of its spec.");
  v.required("transform", t.transform, "What to run.");
  v.required("settings", t.settings, "How.");
}

struct LeaseRequest {
  int64_t max_datums = 0;
  int64_t wait_ms = 20'000;
  std::vector<std::string> holding;
};
template <class V>
void describe(V& v, LeaseRequest& t) {
  v.type("LeaseRequest",
         "Asks for datums; answered when there are some, else with 204 when `wait_ms` are over.");
  v.optional("max_datums", t.max_datums, "At most so many; absent: the server chooses.");
  v.optional("wait_ms", t.wait_ms, "At most 20,000.");
  v.optional("holding", t.holding, "Ids of the datums the worker has in hand.");
}

struct LeasedInput {
  std::string name;
  std::string path;
  int64_t size_bytes = 0;
  int64_t files = 0;
};
template <class V>
void describe(V& v, LeasedInput& t) {
  v.type("LeasedInput", "One input of a datum.");
  v.required("name", t.name, "The folder under /pfs.");
  v.required("path", t.path, "The path its glob matched, in the repo, without a leading slash.");
  v.optional("size_bytes", t.size_bytes, "Bytes under it.");
  v.optional("files", t.files, "Files under it.");
}

struct LeasedDatum {
  std::string id;
  int64_t index = 0;
  std::map<std::string, std::string> env;
  std::vector<LeasedInput> inputs;
};
template <class V>
void describe(V& v, LeasedDatum& t) {
  v.type("LeasedDatum", "A datum to be run.");
  v.required("id", t.id, "Its id.");
  v.required("index", t.index, "Its place in the order of the job's datums.");
  v.optional("env", t.env,
             "Variables of this datum (PACH_DATUM_ID, <input>, <input>_COMMIT, ...).");
  v.required("inputs", t.inputs, "Its inputs.");
}

struct LeaseResponse {
  std::string batch;
  std::string job;
  std::vector<LeasedDatum> datums;
  int64_t lease_ms = 30'000;
};
template <class V>
void describe(V& v, LeaseResponse& t) {
  v.type("LeaseResponse", "Datums to be run.");
  v.required("batch", t.batch, "Id of this lease.");
  v.required("job", t.job, "Their job.");
  v.required("datums", t.datums, "The datums, in order.");
  v.required("lease_ms", t.lease_ms,
             "Renew before this is over, counted from when the request was sent.");
}

// JSON of a `datum` frame in the answer of `inputs`. Its `put` frames follow, with paths
// `<input>/<path>`.
struct InputsHead {
  std::string id;
};
template <class V>
void describe(V& v, InputsHead& t) {
  v.type("InputsHead", "The input files of a datum follow.");
  v.required("id", t.id, "The datum.");
}

// JSON of the `head` frame of `results`.
struct ResultsHead {
  std::string job;
  std::string batch;
};
template <class V>
void describe(V& v, ResultsHead& t) {
  v.type("ResultsHead", "Results of datums of one job follow.");
  v.required("job", t.job, "The job.");
  v.optional("batch", t.batch, "Id of their lease.");
}

enum class ResultState { kSuccess, kFailed, kRecovered };
inline std::vector<EnumValue> enum_values(ResultState) {
  return {{0, "success"}, {1, "failed"}, {2, "recovered"}};
}

// JSON of a `datum` frame of `results`. Its output files (`put`, paths under /pfs/out) follow, then
// its `log`: LogLines as JSON, one a line, without pipeline, job, datum and worker.
struct ResultHead {
  std::string id;
  ResultState state = ResultState::kSuccess;
  int64_t attempts = 1;
  Timestamp started;
  int64_t download_ms = 0;
  int64_t process_ms = 0;
  int64_t upload_ms = 0;
  int64_t download_bytes = 0;
  int64_t upload_bytes = 0;
  int64_t exit_code = 0;
  bool out_of_memory = false;
  bool timed_out = false;
  std::string message;
};
template <class V>
void describe(V& v, ResultHead& t) {
  v.type("ResultHead", "The result of a datum.");
  v.required("id", t.id, "The datum.");
  v.required("state", t.state, "How it ended.");
  v.required("attempts", t.attempts, "Runs of the command.");
  v.optional("started", t.started, "When the last began.");
  v.optional("download_ms", t.download_ms, "Time to bring the inputs.");
  v.optional("process_ms", t.process_ms, "Time the command ran, last attempt.");
  v.optional("upload_ms", t.upload_ms, "Time to collect the outputs.");
  v.optional("download_bytes", t.download_bytes, "Bytes of inputs.");
  v.optional("upload_bytes", t.upload_bytes, "Bytes of outputs.");
  v.optional("exit_code", t.exit_code, "Of the last run; 128 + signal when killed.");
  v.optional("out_of_memory", t.out_of_memory, "It was killed at the memory limit.");
  v.optional("timed_out", t.timed_out, "It was killed at datum_timeout.");
  v.optional("message", t.message, "Why it failed, for a person.");
}

struct ResultsResponse {
  std::vector<std::string> accepted;
  std::vector<std::string> ignored;
};
template <class V>
void describe(V& v, ResultsResponse& t) {
  v.type("ResultsResponse", "Results are durable.");
  v.required("accepted", t.accepted, "Ids of datums whose results count.");
  v.optional("ignored", t.ignored,
             "Ids of datums that had a result already or are not of this worker any more.");
}

struct RenewRequest {
  std::string job;
  std::vector<std::string> datums;
};
template <class V>
void describe(V& v, RenewRequest& t) {
  v.type("RenewRequest", "Keeps leases.");
  v.optional("job", t.job, "The job of the datums.");
  v.required("datums", t.datums, "What the worker has in hand.");
}

struct RenewResponse {
  std::vector<std::string> cancelled;
  int64_t lease_ms = 30'000;
  bool exit = false;
};
template <class V>
void describe(V& v, RenewResponse& t) {
  v.type("RenewResponse", "Leases are kept.");
  v.optional("cancelled", t.cancelled, "Ids of datums to kill and forget.");
  v.required("lease_ms", t.lease_ms, "As in a lease.");
  v.optional("exit", t.exit, "The worker is not wanted any more: kill what runs and exit.");
}

struct LiveLogRequest {
  std::string job;
  std::string datum;
  std::vector<LogLine> lines;
};
template <class V>
void describe(V& v, LiveLogRequest& t) {
  v.type("LiveLogRequest", "Log lines for those who follow; may be lost.");
  v.required("job", t.job, "The job.");
  v.required("datum", t.datum, "The datum.");
  v.required("lines", t.lines, "Lines, without the fields that are known.");
}

}  // namespace qanat::api
