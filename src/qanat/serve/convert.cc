#include "qanat/serve/convert.h"

#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/pipeline/explain.h"
#include "qanat/pipeline/job_run.h"

namespace qanat::serve {

api::BranchInfo show(const version::BranchInfo& branch) {
  api::BranchInfo info;
  info.project = branch.project;
  info.repo = branch.name.repo;
  info.name = branch.name.branch;
  info.head = branch.record.head;
  info.open_commit = branch.record.open;
  for (const version::BranchName& source : branch.record.provenance)
    info.provenance.push_back({source.repo, source.branch});
  info.created = {branch.record.created_ms};
  return info;
}

api::CommitInfo show(const version::CommitInfo& commit) {
  const version::CommitRecord& record = commit.record;
  api::CommitInfo info;
  info.project = commit.project;
  info.repo = commit.repo;
  info.branch = record.branch;
  info.id = commit.id;
  info.parent = record.parent;
  info.state = !record.finished()     ? api::CommitState::kOpen
               : record.error.empty() ? api::CommitState::kFinished
                                      : api::CommitState::kFailed;
  info.kind = record.origin == version::CommitOrigin::kPipeline ? api::CommitKind::kAuto
                                                                : api::CommitKind::kUser;
  info.error = record.error;
  info.description = record.description;
  info.started = {record.started_ms};
  info.finished = {record.finished_ms};
  info.root = content::tree_hash(record.root).to_hex();
  info.files = static_cast<int64_t>(record.root.totals.count);
  info.size_bytes = static_cast<int64_t>(record.root.totals.bytes);
  for (const version::CommitInput& input : record.inputs) {
    if (!input.commit.empty()) info.provenance.push_back({input.repo, input.branch, input.commit});
  }
  info.pipeline = record.pipeline;
  info.pipeline_version = record.spec_version;
  info.image_digest = record.image;
  info.wave = record.wave;
  return info;
}

std::string show_path(std::string_view path, bool is_directory) {
  if (path.empty()) return "/";
  return str_cat("/", path, is_directory ? "/" : "");
}

api::FileInfo show_file(std::string_view path, const content::TreeEntry& entry) {
  api::FileInfo info;
  info.path = show_path(path, entry.is_directory);
  info.type = entry.is_directory ? api::FileType::kDirectory : api::FileType::kFile;
  info.size_bytes = static_cast<int64_t>(entry.bytes());
  if (entry.is_directory) info.files = static_cast<int64_t>(entry.files());
  info.hash = entry.content_id().to_hex();
  return info;
}

api::WaveInfo show(std::string_view project, const version::WaveInfo& wave) {
  api::WaveInfo info;
  info.project = project;
  info.id = wave.record.id;
  info.number = wave.number;
  info.cause = wave.record.cause == version::WaveCause::kCommit      ? api::WaveCause::kCommit
               : wave.record.cause == version::WaveCause::kHeadMoved ? api::WaveCause::kHeadMoved
                                                                     : api::WaveCause::kPipeline;
  info.created = {wave.record.created_ms};
  for (const version::HeadChange& change : wave.record.changed)
    info.changed.push_back({change.branch.repo, change.branch.branch, change.commit});
  info.pipelines = wave.record.members;
  return info;
}

bool may_see(const Caller& caller, const std::string& project, const version::WaveInfo& wave) {
  if (caller.is_admin()) return true;
  for (const version::HeadChange& change : wave.record.changed) {
    if (caller.may_read(project, change.branch.repo)) return true;
  }
  for (const std::string& member : wave.record.members) {
    if (caller.may_observe(project, member)) return true;
  }
  return false;
}

Result<version::WaveInfo> find_wave(State& state, const Caller& caller, const std::string& project,
                                    const std::string& id) {
  auto wave = state.versions->inspect_wave(project, id);
  if (wave.ok() ? !may_see(caller, project, *wave) : wave.code() == Code::kNotFound)
    return not_found(str_cat("there is no wave ", id), "`qanat list commit` shows the waves");
  return wave;
}

api::JobInfo show_job(State& state, const std::string& project, const std::string& pipeline,
                      const pipeline::JobRecord& stored, const pipeline::Controller* controller) {
  pipeline::JobRecord record = stored;
  int64_t running = 0;
  if (controller != nullptr && !is_final(record.state)) {
    const auto run = controller->running();
    if (run && run->id() == record.id) {
      record = run->record(&running);
      if (run->idle()) record.state = api::JobState::kFinishing;
    }
    // What keeps it from going on, no worker that starts, say.
    if (record.reason.empty()) record.reason = controller->trouble();
  }
  api::JobInfo info;
  info.project = project;
  info.pipeline = pipeline;
  info.id = record.id;
  info.state = record.state;
  info.reason = record.reason;
  info.pipeline_version = record.spec_version;
  info.created = {record.created_ms};
  info.started = {record.started_ms};
  info.finished = {record.finished_ms};
  for (const pipeline::JobInput& input : record.inputs)
    info.inputs.push_back({input.name, input.repo, input.branch, input.commit});
  if (is_final(record.state)) info.output_commit = record.id;
  const pipeline::JobCounts& c = record.counts;
  info.datums.total = c.total;
  info.datums.processed = c.processed;
  info.datums.skipped = c.skipped;
  info.datums.failed = c.failed;
  info.datums.recovered = c.recovered;
  info.datums.running = running;
  info.datums.waiting = is_final(record.state)
                            ? 0
                            : std::max<int64_t>(0, c.total - c.processed - c.skipped - c.failed -
                                                       c.recovered - running);
  info.download_bytes = c.download_bytes;
  info.upload_bytes = c.upload_bytes;
  info.restarts = c.restarts;
  info.wave = record.wave;
  const auto spec = pipeline::load_spec(*state.meta, project, pipeline, record.spec_version,
                                        state.pipelines->services().runner_kind);
  if (spec.ok()) {
    info.image_digest = (*spec)->record.image_digest;
    info.output_branch = (*spec)->spec.output_branch;
    info.key_components = (*spec)->record.components;
  }
  if (record.base_wave != 0) {
    const auto base = state.versions->inspect_wave(project, record.base_wave);
    if (base.ok()) info.parent_job = base->record.id;
  }
  return info;
}

api::JobInfo show_waiting(const pipeline::Controller& controller,
                          const pipeline::Controller::Waiting& waiting) {
  api::JobInfo info;
  info.project = controller.project();
  info.pipeline = controller.name();
  info.id = waiting.id;
  info.state = api::JobState::kCreated;
  info.reason = controller.trouble();
  info.pipeline_version = controller.record().version;
  info.wave = waiting.wave;
  for (const pipeline::InputBranch& input : controller.record().inputs)
    info.inputs.push_back({input.repo, input.repo, input.branch, ""});
  return info;
}

api::DatumInfo show_datum(const pipeline::JobRecord& job, std::string_view sort_key,
                          const pipeline::DatumRow& row) {
  api::DatumInfo info;
  info.id = pipeline::datum_id(sort_key).to_hex();
  info.job = job.id;
  switch (row.state) {
    case pipeline::DatumState::kPending:
      info.state = is_final(job.state) ? api::DatumState::kUnrun : api::DatumState::kStarting;
      break;
    case pipeline::DatumState::kFailed:
      info.state = api::DatumState::kFailed;
      break;
    case pipeline::DatumState::kRecovered:
      info.state = api::DatumState::kRecovered;
      break;
    default:
      info.state = pipeline::outcome_in(row, job.id) == pipeline::DatumOutcomeInJob::kRan
                       ? api::DatumState::kSuccess
                       : api::DatumState::kSkipped;
  }
  for (const pipeline::DatumInput& input : row.inputs) {
    api::DatumInputInfo shown;
    shown.name = input.name;
    for (const pipeline::JobInput& source : job.inputs) {
      if (source.name != input.name) continue;
      shown.repo = source.repo;
      shown.branch = source.branch;
      shown.commit = source.commit;
    }
    shown.path = "/" + input.path;
    shown.size_bytes = static_cast<int64_t>(input.entry.bytes());
    shown.hash = input.entry.content_id().to_hex();
    info.inputs.push_back(std::move(shown));
  }
  info.result_job = row.origin;
  info.attempts = static_cast<int64_t>(row.attempts);
  info.started = {row.timings.started_ms};
  info.download_ms = row.timings.download_ms;
  info.process_ms = row.timings.process_ms;
  info.upload_ms = row.timings.upload_ms;
  info.download_bytes = static_cast<int64_t>(row.input_bytes());
  info.upload_bytes = static_cast<int64_t>(row.output.totals.bytes);
  info.exit_code = row.exit_code;
  info.message = row.message;
  info.key = row.result_key.to_hex();
  info.reason = pipeline::reason_name(row.reason);
  if (info.state == api::DatumState::kUnrun) info.reason = pipeline::why_unrun(job);
  if (info.state == api::DatumState::kSkipped) {
    info.reason = row.decided_in == job.id ? str_cat("same result key as in job ", row.origin)
                                           : "unchanged since job " + row.origin;
  }
  return info;
}

Result<std::optional<pipeline::JobRecord>> find_job(State& state, const std::string& project,
                                                    const std::string& pipeline,
                                                    const std::string& id) {
  if (!is_id(id))
    return invalid_argument(str_cat(quoted(id), " is not the id of a job"),
                            "a job's id has 32 hex digits; `qanat list job` shows them");
  const auto wave = state.versions->inspect_wave(project, id);
  if (!wave.ok()) {
    if (wave.code() == Code::kNotFound)
      return not_found(str_cat("there is no job ", pipeline, "@", id),
                       "`qanat list job -p " + pipeline + "` shows its jobs");
    return wave.status();
  }
  const std::string key = pipeline::job_key(project, pipeline, wave->number);
  QANAT_ASSIGN_OR_RETURN(const auto found, state.meta->get(key));
  if (!found) return std::optional<pipeline::JobRecord>();
  QANAT_ASSIGN_OR_RETURN(auto record, pipeline::decode<pipeline::JobRecord>(key, found->value));
  return std::optional<pipeline::JobRecord>(std::move(record));
}

Result<api::JobInfo> find_job_info(State& state, const std::string& project,
                                   const std::string& pipeline, const std::string& id) {
  QANAT_ASSIGN_OR_RETURN(const auto record, find_job(state, project, pipeline, id));
  const auto controller = state.pipelines->find(project, pipeline);
  if (record) return show_job(state, project, pipeline, *record, controller.get());
  if (controller) {
    for (const auto& waiting : controller->waiting()) {
      if (waiting.id == id) return show_waiting(*controller, waiting);
    }
  }
  return not_found(str_cat("there is no job ", pipeline, "@", id),
                   "`qanat list job -p " + pipeline + "` shows its jobs");
}

}  // namespace qanat::serve
