// Jobs and their datums. Logs are in log_handlers.cc.

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/pipeline/explain.h"
#include "qanat/pipeline/journal.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/http_api.h"
#include "qanat/serve/job_table.h"
#include "qanat/serve/log_handlers.h"

namespace qanat::serve {
namespace {

// A job of a list. Its record is read once it is known to be on the page.
struct Listed {
  int64_t wave = 0;
  std::string waiting;  // its id, if it waits
  std::shared_ptr<pipeline::Controller> controller;
};

// Jobs of one pipeline, newest first, those of waves below `before`; waiting ones included.
Result<std::vector<Listed>> jobs_of(State& state,
                                    const std::shared_ptr<pipeline::Controller>& controller,
                                    int64_t before, size_t limit) {
  std::map<int64_t, std::string, std::greater<>> waves;  // -> id, if it waits
  for (auto& waiting : controller->waiting()) {
    if (waiting.wave < before) waves.emplace(waiting.wave, std::move(waiting.id));
  }
  const std::string& project = controller->project();
  const std::string& name = controller->name();
  const std::string prefix = pipeline::jobs_prefix(project, name);
  QANAT_ASSIGN_OR_RETURN(
      const auto found,
      state.meta->range(
          meta::KeyRange::between(prefix, before == INT64_MAX
                                              ? meta::prefix_end(prefix)
                                              : pipeline::job_key(project, name, before)),
          {.limit = static_cast<int64_t>(limit), .descending = true, .keys_only = true}));
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(const uint64_t wave,
                           from_hex16(std::string_view(item.key).substr(prefix.size())));
    waves.try_emplace(static_cast<int64_t>(wave));
  }
  std::vector<Listed> jobs;
  for (auto& [wave, waiting] : waves) {
    if (jobs.size() == limit) break;
    jobs.push_back({wave, std::move(waiting), controller});
  }
  return jobs;
}

// Nothing if it is gone by now.
Result<std::optional<api::JobInfo>> show_listed(State& state, const Listed& job) {
  const std::string key =
      pipeline::job_key(job.controller->project(), job.controller->name(), job.wave);
  QANAT_ASSIGN_OR_RETURN(const auto found, state.meta->get(key));
  if (found) {
    QANAT_ASSIGN_OR_RETURN(const auto record,
                           pipeline::decode<pipeline::JobRecord>(key, found->value));
    return std::optional(show_job(state, job.controller->project(), job.controller->name(), record,
                                  job.controller.get()));
  }
  if (job.waiting.empty()) return std::optional<api::JobInfo>();
  return std::optional(show_waiting(*job.controller, {job.wave, job.waiting}));
}

Status list_jobs(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto page, call.page());
  const std::string only = call.query_or("pipeline");
  const std::string state_name = call.query_or("state");
  std::optional<api::JobState> wanted;
  if (!state_name.empty()) {
    QANAT_ASSIGN_OR_RETURN(wanted, api::parse_enum<api::JobState>(state_name));
  }
  const std::string wave_id = call.query_or("wave");
  int64_t only_wave = 0;
  if (!wave_id.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto wave,
                           call.state.versions->inspect_wave(call.project(), wave_id));
    only_wave = wave.number;
  }
  std::vector<std::shared_ptr<pipeline::Controller>> controllers;
  if (only.empty()) {
    for (auto& c : call.state.pipelines->list(call.project())) {
      if (call.caller().may_observe(call.project(), c->name())) controllers.push_back(std::move(c));
    }
  } else {
    if (!call.caller().may_observe(call.project(), only))
      return denied(call.caller(), str_cat("operator:", qualified(call.project(), only),
                                           " or reader:", qualified(call.project(), only)));
    auto controller = call.state.pipelines->find(call.project(), only);
    if (!controller)
      return not_found(str_cat("there is no pipeline ", only),
                       "`qanat list pipeline` shows the pipelines there are");
    controllers.push_back(std::move(controller));
  }
  // The token of a page is the wave below which the next one begins: a wave's jobs are never split
  // over pages.
  int64_t before = INT64_MAX;
  if (!page.token.empty()) {
    QANAT_ASSIGN_OR_RETURN(before, parse_i64(page.token));
  }
  if (only_wave != 0) before = only_wave + 1;
  const auto limit = static_cast<size_t>(page.limit);
  std::vector<Listed> jobs;
  bool more = false;
  for (const auto& controller : controllers) {
    QANAT_ASSIGN_OR_RETURN(auto own,
                           jobs_of(call.state, controller, before, only_wave != 0 ? 1 : limit + 1));
    more = more || own.size() > limit;
    for (Listed& job : own) {
      if (only_wave == 0 || job.wave == only_wave) jobs.push_back(std::move(job));
    }
  }
  std::sort(jobs.begin(), jobs.end(), [](const Listed& a, const Listed& b) {
    return a.wave != b.wave ? a.wave > b.wave : a.controller->name() < b.controller->name();
  });
  api::List<api::JobInfo> list;
  list.revision = call.state.meta->current_revision();
  if (jobs.size() > limit) {
    size_t cut = limit;
    while (cut < jobs.size() && jobs[cut].wave == jobs[limit - 1].wave) ++cut;
    more = more || cut < jobs.size();
    jobs.resize(cut);
  }
  if (more && only_wave == 0 && !jobs.empty()) list.next = std::to_string(jobs.back().wave);
  for (const Listed& job : jobs) {
    QANAT_ASSIGN_OR_RETURN(auto info, show_listed(call.state, job));
    if (info && (!wanted || info->state == *wanted)) list.items.push_back(*std::move(info));
  }
  return call.answer(list);
}

Status inspect_job(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto job, find_job_info(call.state, call.project(),
                                                       call.path("pipeline"), call.path("job")));
  return call.answer(job);
}

Status stop_job(Call& call) {
  const auto controller = call.state.pipelines->find(call.project(), call.path("pipeline"));
  if (!controller) return not_found(str_cat("there is no pipeline ", call.path("pipeline")));
  QANAT_RETURN_IF_ERROR(controller->stop_job(call.path("job")));
  return inspect_job(call);
}

// ---- Datums ----

Result<JobTable> open_table(Call& call) {
  const std::string pipeline = call.path("pipeline");
  QANAT_ASSIGN_OR_RETURN(JobTable table,
                         JobTable::open(call.state, call.project(), pipeline, call.path("job")));
  QANAT_RETURN_IF_ERROR(
      check_may_look_inside(call.caller(), call.project(), pipeline, table.job().inputs));
  return table;
}

Status list_datums(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const JobTable table, open_table(call));
  QANAT_ASSIGN_OR_RETURN(const auto page, call.page());
  std::optional<api::DatumState> wanted;
  if (const std::string name = call.query_or("state"); !name.empty()) {
    QANAT_ASSIGN_OR_RETURN(wanted, api::parse_enum<api::DatumState>(name));
  }
  const std::string path = call.query_or("path");
  std::string after;
  if (!page.token.empty()) {
    QANAT_ASSIGN_OR_RETURN(after, from_base64url(page.token));
  }
  api::List<api::DatumInfo> list;
  list.revision = call.state.meta->current_revision();
  std::string last;
  QANAT_ASSIGN_OR_RETURN(
      const bool at_end,
      table.visit(
          after, [&](std::string_view sort_key, const pipeline::DatumRow& row) -> Result<bool> {
            if (list.items.size() == static_cast<size_t>(page.limit)) return false;
            last = sort_key;
            api::DatumInfo info = table.show(sort_key, row);
            if (wanted && info.state != *wanted) return true;
            if (!path.empty() && std::none_of(info.inputs.begin(), info.inputs.end(),
                                              [&](const api::DatumInputInfo& i) {
                                                return i.path == path || i.path == "/" + path;
                                              }))
              return true;
            list.items.push_back(std::move(info));
            return true;
          }));
  if (!at_end) list.next = to_base64url(last);
  return call.answer(list);
}

Status inspect_datum(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const JobTable table, open_table(call));
  QANAT_ASSIGN_OR_RETURN(const auto found, table.find(call.path("datum")));
  return call.answer(table.show(found.sort_key, found.row));
}

Status explain_datum(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const JobTable table, open_table(call));
  QANAT_ASSIGN_OR_RETURN(const auto found, table.find(call.path("datum")));
  const auto kind = call.state.pipelines->services().runner_kind;
  QANAT_ASSIGN_OR_RETURN(
      const auto spec, pipeline::load_spec(*call.state.meta, call.project(), call.path("pipeline"),
                                           table.job().spec_version, kind));
  pipeline::ExplainRequest request;
  request.job = table.job().id;
  request.row = found.row;
  if (is_final(table.job().state)) request.unrun = pipeline::why_unrun(table.job());
  request.code = spec->components;
  request.texts = pipeline::component_texts(spec->spec, spec->record.image_digest);
  if (table.job().base_wave != 0) {
    const std::string key =
        pipeline::job_key(call.project(), call.path("pipeline"), table.job().base_wave);
    QANAT_ASSIGN_OR_RETURN(const auto stored, call.state.meta->get(key));
    if (stored) {
      QANAT_ASSIGN_OR_RETURN(const auto base,
                             pipeline::decode<pipeline::JobRecord>(key, stored->value));
      request.base_job = base.id;
      QANAT_ASSIGN_OR_RETURN(const auto root, content::MapRoot::from_text(base.table));
      QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                             call.state.contents->project(call.project()));
      QANAT_ASSIGN_OR_RETURN(request.base_row,
                             pipeline::DatumTable(content->blobs(), root).find(found.sort_key));
      QANAT_ASSIGN_OR_RETURN(const auto base_spec,
                             pipeline::load_spec(*call.state.meta, call.project(),
                                                 call.path("pipeline"), base.spec_version, kind));
      request.base_code = base_spec->components;
      request.base_texts =
          pipeline::component_texts(base_spec->spec, base_spec->record.image_digest);
    }
  }
  pipeline::Explanation explanation = pipeline::explain_datum(request);
  api::DatumExplanation answer;
  answer.datum = table.show(found.sort_key, found.row);
  answer.decision = explanation.decision;
  answer.compared_with = explanation.compared_with;
  answer.reasons = std::move(explanation.reasons);
  return call.answer(answer);
}

}  // namespace

void add_job_handlers(Handlers& handlers) {
  handlers["list_jobs"] = list_jobs;
  handlers["inspect_job"] = inspect_job;
  handlers["stop_job"] = stop_job;
  handlers["list_datums"] = list_datums;
  handlers["inspect_datum"] = inspect_datum;
  handlers["explain_datum"] = explain_datum;
  handlers["logs"] = logs;
}

}  // namespace qanat::serve
