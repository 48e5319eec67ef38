// A server without HTTP over one file system: stores, versions and pipelines as they are, with a
// runner and a gate that do nothing; workers are played by the test, which speaks to the hub as
// they do.
#pragma once

#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "qanat/api/file_stream.h"
#include "qanat/pipeline/pipelines.h"
#include "version/bench.h"

namespace qanat::pipeline {

inline constexpr const char* kProject = "default";

class FakeRunner : public Runner {
 public:
  std::string_view name() const override { return "process"; }
  Result<ImageInfo> resolve_image(const std::string& image) override {
    ImageInfo info;
    info.name = image;
    return info;
  }
  Status check_command(const ImageInfo&, const std::vector<std::string>&,
                       const std::map<std::string, std::string>&, const std::string&) override {
    return ok_status();
  }
  Status ensure(const WorkerGroupSpec& spec) override {
    std::lock_guard lock(mutex_);
    groups_[spec.id] = spec;
    return ok_status();
  }
  Status scale(const WorkerGroupId&, int) override { return ok_status(); }
  Status stop(const WorkerGroupId& id) override {
    std::lock_guard lock(mutex_);
    groups_.erase(id);
    return ok_status();
  }
  Status stop_unwanted() override { return ok_status(); }
  Result<std::vector<WorkerGroupStatus>> list() override {
    return std::vector<WorkerGroupStatus>();
  }
  void set_listener(std::function<void(const WorkerEvent&)>) override {}

  std::vector<WorkerGroupSpec> groups() {
    std::lock_guard lock(mutex_);
    std::vector<WorkerGroupSpec> all;
    for (const auto& [id, spec] : groups_) all.push_back(spec);
    return all;
  }

 private:
  std::mutex mutex_;
  std::map<WorkerGroupId, WorkerGroupSpec> groups_;
};

class FakeGate : public WorkerGate {
 public:
  Result<std::string> open(const WorkerGroupId&) override { return std::string("/nowhere"); }
  void close(const WorkerGroupId&) override {}
};

// Files of a datum, "input/path" -> bytes.
using DatumFiles = std::map<std::string, std::string>;

class ServerWorld {
 public:
  explicit ServerWorld(FileSystem& files, Clock& clock = real_clock())
      : bench(files, "/data", clock) {
    status = bench.status;
    if (!status.ok()) return;
    Services services;
    services.meta = &bench.meta();
    services.versions = &bench.versions();
    services.contents = &bench.contents();
    services.runner = &runner;
    services.gate = &gate;
    services.logs = &logs;
    services.clock = &clock;
    services.scratch = {&files, "/data/tmp", 1 << 20};
    services.runner_kind = api::RunnerKind::kProcess;
    auto started = Pipelines::start(services);
    status = started.status();
    if (started.ok()) pipelines = *std::move(started);
  }

  Status create(const std::string& spec) {
    return pipelines->create(kProject, spec, {"test", [](std::string_view) { return true; }})
        .status();
  }

  Result<std::vector<JobRecord>> jobs(const std::string& pipeline) {
    QANAT_ASSIGN_OR_RETURN(
        const auto found,
        bench.meta().range(meta::KeyRange::prefix(jobs_prefix(kProject, pipeline))));
    std::vector<JobRecord> jobs;
    for (const auto& item : found.items) {
      QANAT_ASSIGN_OR_RETURN(auto job, decode<JobRecord>(item.key, item.value));
      jobs.push_back(std::move(job));
    }
    return jobs;
  }
  bool all_ended() {
    if (!pipelines->tell_waves(kProject).ok()) return false;
    for (const auto& controller : pipelines->list(kProject)) {
      if (controller->has_unfinished(INT64_MAX)) return false;
    }
    return true;
  }

  // The worker `id` of a pipeline's group, which said hello.
  Result<WorkerHub::Worker> worker_of(const WorkerGroupSpec& group, const std::string& id) {
    api::HelloRequest hello;
    hello.worker = id;
    QANAT_ASSIGN_OR_RETURN(hello.credential, group.new_credential(id));
    for (int attempt = 0;; ++attempt) {
      const auto answer = pipelines->hub().hello(hello);
      if (answer.ok()) return pipelines->hub().authenticate(answer->token);
      if (answer.code() != Code::kUnavailable || attempt == 1000) return answer.status();
      real_clock().sleep_for_ms(1);  // the pipeline is being loaded
    }
  }

  Result<DatumFiles> inputs(const WorkerHub::Worker& worker, const std::string& job,
                            const std::string& datum) {
    std::string stream;
    api::FileStreamWriter out([&](std::string_view bytes) {
      stream += bytes;
      return ok_status();
    });
    QANAT_RETURN_IF_ERROR(pipelines->hub().send_inputs(worker, job, {datum}, out));
    QANAT_RETURN_IF_ERROR(out.finish());
    DatumFiles files;
    api::FileStreamReader in = reader(stream);
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const auto frame, in.next());
      if (!frame) return files;
      if (frame->type != api::FrameType::kPut) continue;
      QANAT_ASSIGN_OR_RETURN(files[frame->path], in.read_all(1 << 20));
    }
  }

  Result<api::ResultsAnswer> report(const WorkerHub::Worker& worker, const std::string& job,
                                    const std::string& datum, const DatumFiles& output,
                                    api::DatumOutcome outcome = api::DatumOutcome::kSuccess) {
    std::string stream;
    api::FileStreamWriter out([&](std::string_view bytes) {
      stream += bytes;
      return ok_status();
    });
    api::DatumReport head;
    head.id = datum;
    head.state = outcome;
    head.attempts = 1;
    QANAT_RETURN_IF_ERROR(out.datum(api::json_text(head)));
    for (const auto& [path, bytes] : output) QANAT_RETURN_IF_ERROR(out.put(path, bytes));
    QANAT_RETURN_IF_ERROR(out.finish());
    api::FileStreamReader in = reader(stream);
    // Shared: an answer that comes after a crash finds nobody here.
    const auto answer = std::make_shared<std::promise<Result<api::ResultsAnswer>>>();
    auto answered = answer->get_future();
    QANAT_RETURN_IF_ERROR(pipelines->hub().take_results(worker, job, in, [&answer] {
      return [answer](const Result<api::ResultsAnswer>& result) { answer->set_value(result); };
    }));
    return answered.get();
  }

  // Copies inputs to the outputs, two datums at a time, until every job has ended or something
  // fails. Datums with a file whose bytes are "fail" do.
  Status work_until_ended(int64_t patience_ms = 20'000) {
    const int64_t deadline = real_clock().monotonic_ms() + patience_ms;
    std::map<WorkerGroupId, WorkerHub::Worker> workers;
    while (!all_ended()) {
      if (real_clock().monotonic_ms() > deadline) return deadline_exceeded("jobs do not end");
      bool idle = true;
      for (const WorkerGroupSpec& group : runner.groups()) {
        if (!workers.contains(group.id)) {
          QANAT_ASSIGN_OR_RETURN(workers[group.id], worker_of(group, "w-" + group.id.pipeline));
        }
        const WorkerHub::Worker& me = workers[group.id];
        QANAT_ASSIGN_OR_RETURN(const auto leased,
                               pipelines->hub().lease(me, {.max_datums = 2, .wait_ms = 0}));
        for (const api::LeasedDatum& datum : leased.datums) {
          QANAT_RETURN_IF_ERROR(run_datum(me, leased.job, datum.id));
          idle = false;
        }
      }
      QANAT_RETURN_IF_ERROR(bench.meta().get("/v1/alive").status());
      if (idle) real_clock().sleep_for_ms(1);
      if (stop && stop()) return unavailable("stopped");
    }
    return ok_status();
  }

  version::Bench bench;
  FakeRunner runner;
  FakeGate gate;
  LiveLogs logs;
  Status status;
  std::unique_ptr<Pipelines> pipelines;
  std::function<bool()> stop;
  std::map<std::string, std::map<std::string, int>> ran;  // job -> datum -> acknowledged reports

 private:
  Status run_datum(const WorkerHub::Worker& me, const std::string& job, const std::string& datum) {
    QANAT_ASSIGN_OR_RETURN(const DatumFiles in, inputs(me, job, datum));
    DatumFiles out;
    auto outcome = api::DatumOutcome::kSuccess;
    for (const auto& [path, bytes] : in) {
      out[path.substr(path.find('/') + 1)] = bytes;
      if (bytes == "fail") outcome = api::DatumOutcome::kFailed;
    }
    if (outcome == api::DatumOutcome::kFailed) out.clear();
    QANAT_RETURN_IF_ERROR(report(me, job, datum, out, outcome).status());
    ++ran[job][datum];
    return ok_status();
  }

  static api::FileStreamReader reader(const std::string& stream) {
    auto position = std::make_shared<size_t>(0);
    return api::FileStreamReader([&stream, position](char* buffer, size_t size) -> Result<size_t> {
      const size_t n = std::min(size, stream.size() - *position);
      std::copy_n(stream.data() + *position, n, buffer);
      *position += n;
      return n;
    });
  }
};

}  // namespace qanat::pipeline
