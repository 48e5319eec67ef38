// Garbage collection, the trash, and maintenance.

#include "qanat/api/commit_sets.h"
#include "qanat/api/gc.h"
#include "qanat/base/string.h"
#include "qanat/pipeline/commit_jobs.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/gc_service.h"
#include "qanat/serve/http_api.h"
#include "qanat/serve/maintenance.h"
#include "qanat/version/commit_sets.h"

namespace qanat::serve {
namespace {

Status collect_garbage(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::CollectGarbageRequest>());
  QANAT_ASSIGN_OR_RETURN(const auto info,
                         call.state.gc->start(call.project(), body.dry_run, body.now));
  return call.answer(info);
}

Status inspect_collection(Call& call) { return call.answer(call.state.gc->info(call.project())); }

Status list_trash(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto trash, call.state.versions->list_trash(call.project()));
  api::List<api::TrashInfo> list;
  list.revision = call.state.meta->current_revision();
  for (const version::TrashInfo& info : trash) {
    const version::TrashRecord& record = info.record;
    const bool may = record.repo.empty() ? call.caller().is_admin()
                                         : call.caller().may_read(call.project(), record.repo);
    if (!may || record.state == "erasing") continue;
    const std::string name = record.kind == "repo"     ? record.repo
                             : record.kind == "branch" ? str_cat(record.repo, "@", record.branch)
                                                       : record.commit;
    list.items.push_back({record.kind, name, {record.deleted_ms}, {record.expires_ms}});
  }
  return call.answer(list);
}

Status undelete_repo(Call& call) {
  QANAT_RETURN_IF_ERROR(call.state.versions->undelete_repo({call.project(), call.path("repo")}));
  // The output of a deleted pipeline comes back without it.
  QANAT_RETURN_IF_ERROR(call.state.pipelines->release_if_orphan(call.project(), call.path("repo")));
  return call.answer_empty();
}

Status undelete_branch(Call& call) {
  QANAT_RETURN_IF_ERROR(call.state.versions->undelete_branch({call.project(), call.path("repo")},
                                                             call.path("branch")));
  return call.answer_empty();
}

Status remove_commits(Call& call, version::CommitSets::How how) {
  version::CommitSets::Request request;
  request.project = call.project();
  request.id = call.path("commit");
  request.repo = call.query_or("repo");
  request.how = how;
  QANAT_ASSIGN_OR_RETURN(request.recursive, call.query().get_bool("recursive"));
  QANAT_ASSIGN_OR_RETURN(const bool now, call.query().get_bool("now"));
  request.trash_grace_ms = now ? 0 : call.state.trash_grace_ms;
  request.may = [&call](const version::CommitInfo& commit) -> Status {
    const bool user = commit.record.origin == version::CommitOrigin::kUser;
    if (user ? call.caller().may_write(commit.project, commit.repo)
             : call.caller().may_operate(commit.project, commit.record.pipeline)) {
      return ok_status();
    }
    return denied(call.caller(),
                  str_cat(user ? "writer:" : "operator:", qualified(commit.project, commit.repo)));
  };
  // A change of which the token may see nothing is as one that is not there: what it lacks would
  // tell what the change reached.
  const auto wave = find_wave(call.state, call.caller(), request.project, request.id);
  if (!wave.ok()) {
    if (wave.code() != Code::kNotFound) return wave.status();
    if (request.repo.empty())
      return not_found(
          str_cat("there is no commit ", request.id),
          "`qanat list commit` shows ids; write REPO@COMMIT for one that is on no branch");
    if (!call.caller().may_read(request.project, request.repo))
      return denied(call.caller(), "reader:" + request.repo);
    QANAT_RETURN_IF_ERROR(
        call.state.versions->resolve({request.project, request.repo}, request.id).status());
  }
  pipeline::RemovedJobs jobs(*call.state.meta, *call.state.versions);
  version::CommitSets sets(*call.state.meta, *call.state.clock, *call.state.versions, &jobs);
  QANAT_ASSIGN_OR_RETURN(const auto gone, sets.remove(request));
  api::RemovedCommits answer;
  for (const version::CommitInfo& commit : gone)
    answer.commits.push_back(str_cat(commit.repo, "@", commit.id));
  return call.answer(answer);
}

Status squash_commit(Call& call) { return remove_commits(call, version::CommitSets::How::kSquash); }
Status drop_commit(Call& call) { return remove_commits(call, version::CommitSets::How::kDrop); }

Status undelete_commit(Call& call) {
  version::CommitSets sets(*call.state.meta, *call.state.clock, *call.state.versions, nullptr);
  QANAT_RETURN_IF_ERROR(sets.undelete(call.project(), call.path("commit")).status());
  return call.answer_empty();
}

Status inspect_maintenance(Call& call) { return call.answer(call.state.maintenance->info()); }

Status pause(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::PauseRequest>());
  QANAT_RETURN_IF_ERROR(call.state.maintenance->pause(body.reason));
  return call.answer(call.state.maintenance->info());
}

Status resume(Call& call) {
  QANAT_RETURN_IF_ERROR(call.state.maintenance->resume());
  return call.answer(call.state.maintenance->info());
}

}  // namespace

void add_gc_handlers(Handlers& handlers) {
  handlers["collect_garbage"] = collect_garbage;
  handlers["inspect_collection"] = inspect_collection;
  handlers["list_trash"] = list_trash;
  handlers["undelete_repo"] = undelete_repo;
  handlers["undelete_branch"] = undelete_branch;
  handlers["squash_commit"] = squash_commit;
  handlers["drop_commit"] = drop_commit;
  handlers["undelete_commit"] = undelete_commit;
  handlers["inspect_maintenance"] = inspect_maintenance;
  handlers["pause"] = pause;
  handlers["resume"] = resume;
}

}  // namespace qanat::serve
