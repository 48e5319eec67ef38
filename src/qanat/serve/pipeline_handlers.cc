// Pipelines: creating, changing, showing.

#include "qanat/api/pipeline_spec.h"
#include "qanat/api/spec_validate.h"
#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/http_api.h"

namespace qanat::serve {
namespace {

api::PipelineState state_of(const pipeline::PipelineRecord& record, const std::string& trouble,
                            const pipeline::WorkerHub::Count& count) {
  if (record.stopped) return api::PipelineState::kPaused;
  if (!trouble.empty()) return api::PipelineState::kCrashing;
  return count.running > 0 ? api::PipelineState::kRunning : api::PipelineState::kStarting;
}

Result<api::PipelineInfo> show_pipeline(State& state, const pipeline::Controller& controller,
                                        bool with_spec, int64_t version = 0) {
  const std::string& project = controller.project();
  const pipeline::PipelineRecord record = controller.record();
  QANAT_ASSIGN_OR_RETURN(const auto spec,
                         pipeline::load_spec(*state.meta, project, controller.name(),
                                             version == 0 ? record.version : version,
                                             state.pipelines->services().runner_kind));
  api::PipelineInfo info;
  info.project = project;
  info.name = controller.name();
  info.description = spec->spec.description;
  info.version = spec->record.version;
  const auto count = state.pipelines->hub().count(controller.group());
  const std::string trouble = controller.trouble();
  info.state = state_of(record, trouble, count);
  info.reason = record.stopped ? record.reason : trouble;
  info.created = {record.created_ms};
  info.updated = {spec->record.created_ms};
  info.image = spec->spec.transform.image;
  info.image_digest = spec->record.image_digest;
  if (with_spec) {
    info.spec = {spec->record.user_spec};
    info.effective_spec = {spec->record.effective_spec};
  }
  for (const pipeline::InputBranch& input : record.inputs) {
    if (std::find(info.input_repos.begin(), info.input_repos.end(), input.repo) ==
        info.input_repos.end())
      info.input_repos.push_back(input.repo);
  }
  info.output_branch = record.output_branch;
  info.workers = {record.stopped ? 0 : api::worker_count(spec->spec, 1), count.running, count.busy};
  for (const pipeline::GrantedRight& right : record.rights) info.rights.push_back(right.scope);
  info.created_by = spec->record.created_by;
  const std::string prefix = pipeline::jobs_prefix(project, controller.name());
  QANAT_ASSIGN_OR_RETURN(const auto jobs, state.meta->range(meta::KeyRange::prefix(prefix),
                                                            {.limit = 1, .descending = true}));
  if (!jobs.items.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto job, pipeline::decode<pipeline::JobRecord>(
                                               jobs.items[0].key, jobs.items[0].value));
    info.last_job = show_job(state, project, controller.name(), job, &controller);
  }
  return info;
}

Result<std::shared_ptr<pipeline::Controller>> controller_of(Call& call) {
  auto controller = call.state.pipelines->find(call.project(), call.path("pipeline"));
  if (!controller)
    return not_found(str_cat("there is no pipeline ", call.path("pipeline")),
                     "`qanat list pipeline` shows the pipelines there are");
  return controller;
}

pipeline::Author author_of(const Call& call) {
  return {call.caller().name,
          [caller = call.shared_caller(), project = call.project()](std::string_view scope) {
            return caller->may(project, scope);
          },
          Tokens::key_of(call.caller())};
}

Status answer_changes(Call& call, const std::vector<pipeline::PipelineChange>& changes) {
  api::List<api::PipelineInfo> list;
  for (const pipeline::PipelineChange& change : changes) {
    const auto controller = call.state.pipelines->find(call.project(), change.name);
    if (!controller) continue;
    QANAT_ASSIGN_OR_RETURN(api::PipelineInfo info, show_pipeline(call.state, *controller, false));
    for (const api::FieldNote& note : change.notes)
      info.reported.push_back({note.field, note.about, note.line});
    list.items.push_back(std::move(info));
  }
  list.revision = call.state.meta->current_revision();
  return call.answer(list);
}

Status create_pipelines(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const std::string text, call.request.read_all(api::kMaxSpecText));
  QANAT_ASSIGN_OR_RETURN(const auto changes,
                         call.state.pipelines->create(call.project(), text, author_of(call)));
  return answer_changes(call, changes);
}

Status update_pipelines(Call& call) {
  pipeline::UpdateFlags flags;
  QANAT_ASSIGN_OR_RETURN(flags.reprocess, call.query().get_bool("reprocess"));
  QANAT_ASSIGN_OR_RETURN(flags.keep_results, call.query().get_bool("keep_results"));
  QANAT_ASSIGN_OR_RETURN(const std::string text, call.request.read_all(api::kMaxSpecText));
  QANAT_ASSIGN_OR_RETURN(const auto changes, call.state.pipelines->update(call.project(), text,
                                                                          flags, author_of(call)));
  return answer_changes(call, changes);
}

Status validate_pipelines(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const std::string text, call.request.read_all(api::kMaxSpecText));
  const auto& services = call.state.pipelines->services();
  return call.answer(
      api::validate_pipeline_specs(text, {.runner = services.runner_kind,
                                          .project = call.project(),
                                          .default_network = services.default_network,
                                          .default_image = services.default_image}));
}

Status list_pipelines(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto page, call.page());
  api::List<api::PipelineInfo> list;
  list.revision = call.state.meta->current_revision();
  for (const auto& controller : call.state.pipelines->list(call.project())) {
    if (controller->name() <= page.token ||
        !call.caller().may_observe(call.project(), controller->name()))
      continue;
    if (list.items.size() == static_cast<size_t>(page.limit)) {
      list.next = list.items.back().name;
      break;
    }
    QANAT_ASSIGN_OR_RETURN(list.items.emplace_back(),
                           show_pipeline(call.state, *controller, false));
  }
  return call.answer(list);
}

Status inspect_pipeline(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto controller, controller_of(call));
  QANAT_ASSIGN_OR_RETURN(const uint64_t version, call.query().get_uint("version", 0));
  QANAT_ASSIGN_OR_RETURN(
      const auto info, show_pipeline(call.state, *controller, true, static_cast<int64_t>(version)));
  return call.answer(info);
}

Status start_pipeline(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto controller, controller_of(call));
  QANAT_RETURN_IF_ERROR(call.state.pipelines->start_pipeline(call.project(), controller->name()));
  return inspect_pipeline(call);
}

Status stop_pipeline(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto controller, controller_of(call));
  QANAT_RETURN_IF_ERROR(call.state.pipelines->stop_pipeline(
      call.project(), controller->name(), str_cat("stopped with token ", call.caller().name)));
  return inspect_pipeline(call);
}

Status delete_pipeline(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const bool force, call.query().get_bool("force"));
  QANAT_ASSIGN_OR_RETURN(const bool keep_repo, call.query().get_bool("keep_repo"));
  QANAT_RETURN_IF_ERROR(call.state.pipelines->delete_pipeline(call.project(), call.path("pipeline"),
                                                              keep_repo, force));
  return call.answer_empty();
}

}  // namespace

void add_pipeline_handlers(Handlers& handlers) {
  handlers["create_pipelines"] = create_pipelines;
  handlers["update_pipelines"] = update_pipelines;
  handlers["validate_pipelines"] = validate_pipelines;
  handlers["list_pipelines"] = list_pipelines;
  handlers["inspect_pipeline"] = inspect_pipeline;
  handlers["start_pipeline"] = start_pipeline;
  handlers["stop_pipeline"] = stop_pipeline;
  handlers["delete_pipeline"] = delete_pipeline;
}

}  // namespace qanat::serve
