#include "qanat/serve/job_table.h"

#include "qanat/base/string.h"
#include "qanat/pipeline/journal.h"
#include "qanat/serve/convert.h"

namespace qanat::serve {

Status check_may_look_inside(const Caller& caller, const std::string& project,
                             const std::string& pipeline,
                             const std::vector<pipeline::JobInput>& inputs) {
  if (caller.may_operate(project, pipeline)) return ok_status();
  for (const pipeline::JobInput& input : inputs) {
    if (caller.may_read(project, input.repo)) continue;
    return permission_denied(
        str_cat("the token ", caller.name, " lacks reader:", qualified(project, input.repo),
                ": datums and logs of pipeline ", pipeline, " show what its inputs hold"),
        str_cat("ask for a token with that scope, or with operator:", qualified(project, pipeline),
                ": `qanat create token`"));
  }
  return ok_status();
}

Result<JobTable> JobTable::open(State& state, const std::string& project,
                                const std::string& pipeline, const std::string& job) {
  JobTable table;
  table.name_ = str_cat(pipeline, "@", job);
  QANAT_ASSIGN_OR_RETURN(auto record, find_job(state, project, pipeline, job));
  if (!record) {
    QANAT_RETURN_IF_ERROR(find_job_info(state, project, pipeline, job).status());
    return failed_precondition(
        str_cat("job ", table.name_, " waits for its inputs and has no datums yet"));
  }
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content, state.contents->project(project));
  table.reader_ = &content->blobs();
  if (!is_final(record->state)) {
    const auto controller = state.pipelines->find(project, pipeline);
    const auto run = controller ? controller->running() : nullptr;
    if (run && run->id() == job) {
      record = run->record();
      table.running_ = run->running();
    }
  }
  table.record_ = *std::move(record);
  QANAT_ASSIGN_OR_RETURN(
      table.root_, content::MapRoot::from_text(table.record_.table.empty() ? table.record_.plan
                                                                           : table.record_.table));
  if (!table.record_.journal.empty()) {
    QANAT_ASSIGN_OR_RETURN(const Hash head, Hash::from_hex(table.record_.journal));
    QANAT_RETURN_IF_ERROR(pipeline::read_journal(
        *table.reader_, head, [&table](const pipeline::JournalEntry& entry) -> Status {
          if (table.reported_.size() >= kMaxJournalRows) return ok_status();
          QANAT_ASSIGN_OR_RETURN(table.reported_[entry.sort_key], pipeline::decode_row(entry.row));
          return ok_status();
        }));
  }
  return table;
}

Result<bool> JobTable::visit(
    std::string_view after,
    const std::function<Result<bool>(std::string_view, const pipeline::DatumRow&)>& visit) const {
  return pipeline::DatumTable(*reader_, root_)
      .visit(
          [&](std::string_view sort_key, const pipeline::DatumRow& row) -> Result<bool> {
            const auto reported = reported_.find(sort_key);
            return visit(sort_key, reported == reported_.end() ? row : reported->second);
          },
          after);
}

Result<pipeline::KeyedRow> JobTable::find(const std::string& id) const {
  QANAT_ASSIGN_OR_RETURN(const auto ids, content::MapRoot::from_text(record_.ids));
  QANAT_ASSIGN_OR_RETURN(auto found, pipeline::DatumTable(*reader_, root_).find_by_id(id, ids));
  if (!found)
    return not_found(str_cat("job ", name_, " has no datum ", id),
                     "`qanat list datum " + name_ + "` shows its datums");
  const auto reported = reported_.find(found->sort_key);
  if (reported != reported_.end()) found->row = reported->second;
  return *std::move(found);
}

api::DatumInfo JobTable::show(std::string_view sort_key, const pipeline::DatumRow& row) const {
  api::DatumInfo info = show_datum(record_, sort_key, row);
  const auto worker = running_.find(info.id);
  if (worker != running_.end()) {
    info.state = api::DatumState::kRunning;
    info.worker = worker->second;
  }
  return info;
}

}  // namespace qanat::serve
