// Garbage collection, the trash, and maintenance.

#include "qanat/api/gc.h"
#include "qanat/base/string.h"
#include "qanat/serve/gc_service.h"
#include "qanat/serve/http_api.h"
#include "qanat/serve/maintenance.h"

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
    if (!call.caller().may_read(call.project(), record.repo)) continue;
    list.items.push_back(
        {record.kind,
         record.kind == "repo" ? record.repo : str_cat(record.repo, "@", record.branch),
         {record.deleted_ms},
         {record.expires_ms}});
  }
  return call.answer(list);
}

Status undelete_repo(Call& call) {
  QANAT_RETURN_IF_ERROR(call.state.versions->undelete_repo({call.project(), call.path("repo")}));
  return call.answer_empty();
}

Status undelete_branch(Call& call) {
  QANAT_RETURN_IF_ERROR(call.state.versions->undelete_branch({call.project(), call.path("repo")},
                                                             call.path("branch")));
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
  handlers["inspect_maintenance"] = inspect_maintenance;
  handlers["pause"] = pause;
  handlers["resume"] = resume;
}

}  // namespace qanat::serve
