#include "qanat/pipeline/worker_hub.h"

#include <sys/utsname.h>

#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"

namespace qanat::pipeline {
namespace {

constexpr std::string_view kKeyName = "/v1/secret/worker";
constexpr int64_t kSilentMs = 60'000;  // a worker that says nothing for so long is not counted

// With the spec's time: a pipeline that was deleted and created again counts its versions anew, and
// a worker of before would run the code of before.
std::string payload_of(const WorkerHub::Worker& worker, const SpecRecord& spec) {
  return str_cat(worker.group.project, "/", worker.group.pipeline, "/", worker.group.version, "/",
                 worker.id, "/", spec.created_ms);
}

// Reads the files of one datum into a tree.
class OutputReader {
 public:
  OutputReader(const Scratch& scratch, content::BlobWriter& writer)
      : scratch_(scratch), writer_(writer), files_(writer) {}

  void begin() {
    edits_ = std::make_unique<content::EditBuffer>(*scratch_.file_system, scratch_.directory,
                                                   scratch_.memory_budget);
  }

  Result<content::FileRef> read_file(api::FileStreamReader& in) {
    while (true) {
      QANAT_ASSIGN_OR_RETURN(const size_t got, in.read(buffer_.data(), buffer_.size()));
      if (got == 0) return files_.finish();
      QANAT_RETURN_IF_ERROR(files_.append({buffer_.data(), got}));
    }
  }
  Status add(const std::string& path, const content::FileRef& file) {
    return edits_->add(content::TreeEdit::put(path, file));
  }
  Result<content::TreeRoot> finish() { return edits_->apply(writer_, {}); }

 private:
  const Scratch& scratch_;
  content::BlobWriter& writer_;
  content::FileWriter files_;
  std::unique_ptr<content::EditBuffer> edits_;
  std::vector<char> buffer_ = std::vector<char>(128 << 10);
};

DatumState state_of(api::DatumOutcome outcome) {
  switch (outcome) {
    case api::DatumOutcome::kSuccess:
      return DatumState::kSuccess;
    case api::DatumOutcome::kRecovered:
      return DatumState::kRecovered;
    default:
      return DatumState::kFailed;
  }
}

JobRun::Reported reported_from(const api::DatumReport& report) {
  JobRun::Reported reported;
  reported.datum = report.id;
  reported.input_bytes = report.input_bytes;
  reported.row.state = state_of(report.state);
  reported.row.attempts = static_cast<uint64_t>(std::max<int64_t>(report.attempts, 0));
  reported.row.exit_code = report.exit_code;
  reported.row.message =
      report.hint.empty() ? report.reason : str_cat(report.reason, "\n", report.hint);
  reported.row.timings = {report.started.ms, report.download_ms, report.process_ms, 0};
  return reported;
}

}  // namespace

WorkerHub::WorkerHub(const Services& services, Find find, std::string key)
    : services_(services), find_(std::move(find)), key_(std::move(key)) {}

Result<std::unique_ptr<WorkerHub>> WorkerHub::open(const Services& services, Find find) {
  QANAT_ASSIGN_OR_RETURN(auto found, services.meta->get(kKeyName));
  std::string key;
  if (found) {
    key = found->value;
  } else {
    key = random_id() + random_id();
    QANAT_ASSIGN_OR_RETURN(const auto written,
                           services.meta->commit(meta::Transaction()
                                                     .when(meta::key_absent(kKeyName))
                                                     .put(kKeyName, key)
                                                     .or_else(meta::get(kKeyName))));
    if (!written.succeeded) key = written.results.at(0).range.items.at(0).value;
  }
  return std::unique_ptr<WorkerHub>(new WorkerHub(services, std::move(find), std::move(key)));
}

std::string WorkerHub::sign(std::string_view payload) const {
  return to_base64url(hmac_sha256(key_, payload).view());
}

std::string WorkerHub::new_credential(const WorkerGroupId& group, const std::string& worker) {
  std::string credential = random_id() + random_id();
  MutexLock lock(mutex_);
  credentials_[worker] = {group, sha256(credential)};
  return credential;
}

void WorkerHub::seen(const Worker& worker) {
  MutexLock lock(mutex_);
  seen_[worker.group][worker.id] = services_.clock->monotonic_ms();
}

bool WorkerHub::expects(const WorkerGroupId& group, std::string_view credential) const {
  const Hash hash = sha256(credential);
  MutexLock lock(mutex_);
  return std::ranges::any_of(credentials_, [&](const auto& entry) {
    const auto& [of_group, expected] = entry.second;
    return of_group == group && equal_constant_time(expected.view(), hash.view());
  });
}

Result<api::HelloAnswer> WorkerHub::hello(const api::HelloRequest& request) {
  if (request.protocol != api::kWorkerProtocol) {
    return failed_precondition(
        str_cat("the worker speaks version ", request.protocol, " of the protocol, this server ",
                api::kWorkerProtocol),
        "the two programs come from different builds: install both from one");
  }
  Worker worker;
  worker.id = request.worker;
  {
    MutexLock lock(mutex_);
    const auto found = credentials_.find(request.worker);
    if (found == credentials_.end() ||
        !equal_constant_time(found->second.second.view(), sha256(request.credential).view())) {
      return unauthenticated("the worker's credential is not known, or was used before");
    }
    worker.group = found->second.first;
  }
  const auto controller = find_(worker.group);
  if (!controller)
    return failed_precondition(str_cat(to_string(worker.group), " is not in force any more"));
  const auto spec = controller->spec();
  if (!spec) return unavailable(str_cat(to_string(worker.group), " is being loaded"), "try again");
  const api::PipelineSpec& s = spec->spec;
  api::HelloAnswer answer;
  const std::string payload = payload_of(worker, spec->record);
  answer.token = str_cat(to_base64url(payload), ".", sign(payload));
  answer.project = worker.group.project;
  answer.pipeline = worker.group.pipeline;
  answer.version = static_cast<int64_t>(worker.group.version);
  answer.transform.cmd = s.transform.cmd.empty() ? spec->record.image_command : s.transform.cmd;
  answer.transform.stdin_lines = s.transform.stdin_lines;
  answer.transform.err_cmd = s.transform.err_cmd;
  answer.transform.err_stdin = s.transform.err_stdin;
  answer.transform.image_env = spec->record.image_env;
  answer.transform.env = s.transform.env;
  answer.transform.user = s.transform.user.empty() ? spec->record.image_user : s.transform.user;
  answer.transform.working_dir =
      s.transform.working_dir.empty() ? spec->record.image_working_dir : s.transform.working_dir;
  answer.transform.accept_return_code.assign(s.transform.accept_return_code.begin(),
                                             s.transform.accept_return_code.end());
  answer.settings.datum_timeout_ms = s.datum_timeout_ms;
  answer.settings.datum_tries = s.datum_tries;
  answer.settings.max_queue_size = s.max_queue_size;
  answer.settings.memory_limit = s.resource_limits.memory;
  answer.settings.pids_limit = s.resource_limits.pids;
  answer.settings.network = s.transform.network;
  {
    MutexLock lock(mutex_);
    if (credentials_.erase(worker.id) == 0)
      return unauthenticated("the worker's credential is not known, or was used before");
  }
  seen(worker);
  return answer;
}

Result<WorkerHub::Worker> WorkerHub::authenticate(std::string_view token) const {
  const auto [encoded, signature] = split_once(token, '.');
  const auto payload = from_base64url(encoded);
  if (!payload.ok() || !equal_constant_time(signature, sign(*payload)))
    return unauthenticated("this is not a worker's token");
  const auto parts = split(*payload, '/');
  if (parts.size() != 5) return unauthenticated("this is not a worker's token");
  Worker worker;
  worker.group.project = parts[0];
  worker.group.pipeline = parts[1];
  QANAT_ASSIGN_OR_RETURN(worker.group.version, parse_u64(parts[2]));
  worker.id = parts[3];
  const auto controller = find_(worker.group);
  if (!controller)
    return unauthenticated(str_cat(to_string(worker.group), " is not in force any more"));
  const auto spec = controller->spec();
  if (!spec) return unavailable(str_cat(to_string(worker.group), " is being loaded"), "try again");
  if (parts[4] != std::to_string(spec->record.created_ms))
    return unauthenticated(str_cat(to_string(worker.group), " was another pipeline's"));
  return worker;
}

Result<std::shared_ptr<JobRun>> WorkerHub::job(const Worker& worker, const std::string& id) const {
  const auto controller = find_(worker.group);
  auto run = controller ? controller->running() : nullptr;
  if (run && run->id() == id) return run;
  if (controller) {
    // After a restart it may not have been begun again yet.
    for (const auto& waiting : controller->waiting()) {
      if (waiting.id == id)
        return unavailable(str_cat("job ", worker.group.pipeline, "@", id, " does not run yet"),
                           "try again");
    }
  }
  return not_found(str_cat("job ", worker.group.pipeline, "@", id, " does not run"));
}

Result<api::LeaseAnswer> WorkerHub::lease(const Worker& worker, const api::LeaseRequest& request) {
  seen(worker);
  stop_waiting(worker);
  const auto controller = find_(worker.group);
  if (controller) controller->worker_seen();
  if (services_.leasing_paused && services_.leasing_paused()) return api::LeaseAnswer{};
  const auto run = controller ? controller->running() : nullptr;
  if (!run) return api::LeaseAnswer{};
  const auto spec = controller->spec();
  const auto workers = static_cast<size_t>(spec ? api::worker_count(spec->spec, 1) : 1);
  return run->lease(worker.id, static_cast<size_t>(std::max<int64_t>(request.max_datums, 0)),
                    workers);
}

void WorkerHub::not_told(const Worker& worker, const api::LeaseAnswer& leased) {
  const auto run = job(worker, leased.job);
  if (!run.ok()) return;
  (*run)->take_back(worker.id, leased);
  work_available(worker.group);
}

void WorkerHub::wait_for_work(const Worker& worker, const api::LeaseRequest& request,
                              Answer answer) {
  {
    MutexLock lock(mutex_);
    parked_[worker.group][worker.id] = {worker, request, std::move(answer)};
  }
  // What became available between the worker's look and its waiting.
  work_available(worker.group);
}

void WorkerHub::stop_waiting(const Worker& worker) {
  MutexLock lock(mutex_);
  const auto group = parked_.find(worker.group);
  if (group != parked_.end()) group->second.erase(worker.id);
}

void WorkerHub::work_available(const WorkerGroupId& group) {
  std::string after;  // each worker is asked once, in the order of their ids
  while (true) {
    if (services_.leasing_paused && services_.leasing_paused()) return;
    const auto controller = find_(group);
    const auto run = controller ? controller->running() : nullptr;
    if (!run || !run->has_waiting()) return;
    Parked parked;
    {
      MutexLock lock(mutex_);
      const auto found = parked_.find(group);
      if (found == parked_.end()) return;
      const auto next = found->second.upper_bound(after);
      if (next == found->second.end()) return;
      after = next->first;
      parked = std::move(next->second);
      found->second.erase(next);
    }
    const auto spec = controller->spec();
    const auto workers = static_cast<size_t>(spec ? api::worker_count(spec->spec, 1) : 1);
    const auto leased =
        run->lease(parked.worker.id,
                   static_cast<size_t>(std::max<int64_t>(parked.request.max_datums, 0)), workers);
    if (!leased.ok()) {
      log_warning("datums cannot be handed out",
                  {{"pipeline", group.pipeline}, {"error", leased.status()}});
      controller->set_trouble(leased.status().message());
      return;
    }
    if (leased->datums.empty()) {
      // Somebody was quicker, or what waits is not for this one (see LeaseTable::lease): it goes on
      // waiting.
      MutexLock lock(mutex_);
      parked_[group].try_emplace(parked.worker.id, std::move(parked));
      continue;
    }
    if (!parked.answer(*leased)) run->take_back(parked.worker.id, *leased);
  }
}

Status WorkerHub::send_inputs(const Worker& worker, const std::string& job_id,
                              const std::vector<std::string>& datums, api::FileStreamWriter& out) {
  seen(worker);
  QANAT_ASSIGN_OR_RETURN(const auto run, job(worker, job_id));
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                         services_.contents->project(worker.group.project));
  for (const std::string& datum : datums) {
    QANAT_ASSIGN_OR_RETURN(const std::vector<DatumInput> inputs, run->inputs_of(datum));
    QANAT_RETURN_IF_ERROR(out.datum(api::json_text(api::DatumInputs{datum})));
    auto send_file = [&](const std::string& path, const content::FileRef& file) -> Status {
      QANAT_RETURN_IF_ERROR(out.begin_put(path, false));
      content::FileReader reader(content->blobs(), file);
      QANAT_RETURN_IF_ERROR(reader.read_range(
          0, file.size, [&out](std::string_view bytes) { return out.data(bytes); }));
      return out.end_put();
    };
    for (const DatumInput& input : inputs) {
      const std::string base = join_path(input.name, input.path);
      if (!input.entry.is_directory) {
        QANAT_RETURN_IF_ERROR(send_file(base, input.entry.file));
        continue;
      }
      const content::Tree tree(content->blobs(), input.entry.directory);
      QANAT_RETURN_IF_ERROR(
          tree.walk("",
                    [&](std::string_view path, const content::TreeEntry& entry) -> Result<bool> {
                      QANAT_RETURN_IF_ERROR(send_file(join_path(base, path), entry.file));
                      return true;
                    })
              .status());
    }
  }
  return ok_status();
}

Status WorkerHub::take_results(const Worker& worker, const std::string& job_id,
                               api::FileStreamReader& in,
                               const std::function<ResultsAnswered()>& was_read) {
  seen(worker);
  QANAT_ASSIGN_OR_RETURN(const auto run, job(worker, job_id));
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                         services_.contents->project(worker.group.project));
  auto stored = std::make_unique<ReportContent>(*content);
  OutputReader output(services_.scratch, *stored);
  std::vector<JobRun::Reported> reports;
  auto end_datum = [&]() -> Status {
    if (reports.empty()) return ok_status();
    JobRun::Reported& report = reports.back();
    QANAT_ASSIGN_OR_RETURN(content::TreeRoot tree, output.finish());
    report.output_bytes = tree.totals.bytes;
    if (report.row.state == DatumState::kSuccess) report.row.output = std::move(tree);
    return ok_status();
  };
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto frame, in.next());
    if (!frame) break;
    if (frame->type == api::FrameType::kDatum) {
      QANAT_RETURN_IF_ERROR(end_datum());
      QANAT_ASSIGN_OR_RETURN(const auto report, api::parse_json<api::DatumReport>(frame->json));
      reports.push_back(reported_from(report));
      output.begin();
      continue;
    }
    if (reports.empty())
      return invalid_argument("a result's files come before the datum they belong to");
    if (frame->type == api::FrameType::kPut) {
      QANAT_ASSIGN_OR_RETURN(const content::FileRef file, output.read_file(in));
      QANAT_RETURN_IF_ERROR(output.add(frame->path, file));
    } else if (frame->type == api::FrameType::kLog) {
      QANAT_ASSIGN_OR_RETURN(reports.back().row.log, output.read_file(in));
    } else {
      return invalid_argument("a stream of results holds only datums, files and logs");
    }
  }
  QANAT_RETURN_IF_ERROR(end_datum());
  run->report(std::move(reports), std::move(stored),
              [answer = was_read()](Result<std::vector<std::string>> unknown) {
                if (!unknown.ok()) return answer(unknown.status());
                api::ResultsAnswer durable;
                durable.unknown = *std::move(unknown);
                answer(durable);
              });
  return ok_status();
}

api::RenewAnswer WorkerHub::renew(const Worker& worker, const api::RenewRequest& request) {
  seen(worker);
  api::RenewAnswer answer;
  for (const api::HeldDatums& held : request.held) {
    const auto run = job(worker, held.job);
    if (run.ok()) {
      auto lost = (*run)->renew(worker.id, held.datums);
      if (!lost.empty()) answer.cancelled.push_back({held.job, std::move(lost)});
    } else if (run.code() != Code::kUnavailable) {
      // One that has not been begun again yet is left to the worker until it is known to be over.
      answer.cancelled.push_back(held);
    }
  }
  answer.follow = true;
  return answer;
}

void WorkerHub::add_logs(const Worker& worker, const api::LogPush& push) {
  // Lines that come after their job's end are in its durable log.
  if (!job(worker, push.job).ok()) return;
  std::vector<LiveLine> lines;
  for (const api::LogLine& line : push.lines) {
    lines.push_back({worker.group.project, worker.group.pipeline, push.job, push.datum, worker.id,
                     api::json_text(line)});
  }
  services_.logs->add(lines);
}

void WorkerHub::worker_ended(const WorkerGroupId& group, const std::string& worker, bool oom,
                             const std::string& reason) {
  {
    MutexLock lock(mutex_);
    credentials_.erase(worker);
    seen_[group].erase(worker);
    parked_[group].erase(worker);
    // Groups come and go with each version of a pipeline.
    if (seen_[group].empty()) seen_.erase(group);
    if (parked_[group].empty()) parked_.erase(group);
  }
  const auto controller = find_(group);
  const auto run = controller ? controller->running() : nullptr;
  if (!run) return;
  const Status status = run->worker_lost(worker, oom, reason);
  if (!status.ok())
    log_warning("a lost worker's datum could not be recorded",
                {{"pipeline", group.pipeline}, {"error", status}});
  work_available(group);
}

void WorkerHub::forget(const WorkerGroupId& group) {
  MutexLock lock(mutex_);
  seen_.erase(group);
  parked_.erase(group);
  std::erase_if(credentials_, [&](const auto& entry) { return entry.second.first == group; });
}

WorkerHub::Count WorkerHub::count(const WorkerGroupId& group) const {
  Count count;
  const auto controller = find_(group);
  const auto run = controller ? controller->running() : nullptr;
  if (run) {
    std::map<std::string, bool> busy;
    for (const auto& [datum, worker] : run->running()) busy[worker] = true;
    count.busy = static_cast<int64_t>(busy.size());
  }
  MutexLock lock(mutex_);
  const auto found = seen_.find(group);
  if (found == seen_.end()) return count;
  const int64_t now = services_.clock->monotonic_ms();
  for (const auto& [worker, time] : found->second) count.running += now - time < kSilentMs ? 1 : 0;
  return count;
}

}  // namespace qanat::pipeline
