// The trash: what was deleted and can be brought back for a while.
//
// A thing in the trash is its record, and the keys that it consisted of, moved below it as they
// were. Every move puts a key at one place and takes it from the other in one transaction, so at
// each revision each commit is found exactly once: garbage collection keeps what the trash holds as
// it keeps commits. A large repo moves in many transactions; meanwhile it is gone for readers, and
// a crash leaves a mark by which start() goes on.
#include <set>

#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/name.h"
#include "qanat/version/versions_impl.h"

namespace qanat::version {
namespace {

constexpr int64_t kMoved = 25;  // keys in one transaction: a compare, a put and an erase each
constexpr size_t kMovedBytes = 512 << 10;

}  // namespace

void Versions::set_trash_grace_ms(int64_t grace_ms) { impl_->trash_grace_ms = grace_ms; }

TrashInfo Versions::Impl::put_trash(meta::Transaction& transaction, std::string_view project,
                                    TrashRecord record) const {
  const std::string id = random_id();
  record.deleted_ms = clock.wall_ms();
  record.expires_ms = record.deleted_ms + trash_grace_ms;
  transaction.put(trash_key(project, record.deleted_ms, id), encode(record));
  return {id, std::move(record)};
}

Result<std::vector<TrashInfo>> Versions::list_trash(std::string_view project) const {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  QANAT_ASSIGN_OR_RETURN(
      const auto found,
      impl_->store.range(meta::KeyRange::prefix(trash_prefix(project)), {.descending = true}));
  std::vector<TrashInfo> infos;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(auto record, decode<TrashRecord>(item.key, item.value));
    infos.push_back({std::string(last_part(item.key)), std::move(record), item.mod_revision});
  }
  return infos;
}

Result<std::optional<TrashInfo>> Versions::Impl::find_trash(std::string_view project,
                                                            std::string_view id) const {
  QANAT_ASSIGN_OR_RETURN(const auto found,
                         store.range(meta::KeyRange::prefix(trash_prefix(project))));
  for (const meta::KeyValue& item : found.items) {
    if (last_part(item.key) != id) continue;
    QANAT_ASSIGN_OR_RETURN(auto record, decode<TrashRecord>(item.key, item.value));
    return std::optional<TrashInfo>({std::string(id), std::move(record), item.mod_revision});
  }
  return std::optional<TrashInfo>();
}

Status Versions::Impl::move_to_trash(std::string_view project, std::string_view trash,
                                     const meta::KeyRange& range, const meta::Compare& guard) {
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(const auto found, store.range(range, {.limit = kMoved}));
    if (found.items.empty()) return ok_status();
    meta::Transaction step;
    step.may_use_reserve = true;
    size_t bytes = 0;
    for (const meta::KeyValue& item : found.items) {
      if (bytes > kMovedBytes) break;
      bytes += item.key.size() * 3 + item.value.size();
      step.when(meta::mod_revision_is(item.key, item.mod_revision));
      step.erase(item.key).put(trash_item_key(project, trash, item.key), item.value);
    }
    QANAT_ASSIGN_OR_RETURN(const bool ours, commit_step(std::move(step), guard));
    if (!ours) return ok_status();
  }
}

Status Versions::Impl::move_from_trash(std::string_view project, std::string_view trash,
                                       std::string_view but, const meta::Compare& guard) {
  const std::string prefix = trash_items_prefix(project, trash);
  const std::string left = but.empty() ? "" : trash_item_key(project, trash, but);
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(const auto found,
                           store.range(meta::KeyRange::prefix(prefix), {.limit = kMoved}));
    meta::Transaction step;
    step.may_use_reserve = true;
    bool any = false;
    size_t bytes = 0;
    for (const meta::KeyValue& item : found.items) {
      if (item.key == left || bytes > kMovedBytes) continue;
      any = true;
      bytes += item.key.size() * 3 + item.value.size();
      step.when(meta::mod_revision_is(item.key, item.mod_revision));
      step.erase(item.key).put(key_of_trash_item(project, trash, item.key), item.value);
    }
    if (!any) return ok_status();
    QANAT_ASSIGN_OR_RETURN(const bool ours, commit_step(std::move(step), guard));
    if (!ours) return ok_status();
  }
}

Status Versions::undelete_repo(const RepoName& name) {
  QANAT_RETURN_IF_ERROR(check_project_name(name.project));
  QANAT_RETURN_IF_ERROR(check_repo_name(name.repo));
  const std::string key = repo_key(name.project, name.repo);
  for (int attempt = 0; attempt < 20; ++attempt) {
    QANAT_ASSIGN_OR_RETURN(auto there, impl_->find<RepoRecord>(key));
    if (there && there->record.deleting) {
      QANAT_RETURN_IF_ERROR(impl_->finish_deletion(name));
      QANAT_ASSIGN_OR_RETURN(there, impl_->find<RepoRecord>(key));
    }
    if (there) {
      return already_exists(
          str_cat("repo ", name.repo, " exists"),
          "delete or empty the one that is there first; both cannot have the name");
    }
    QANAT_ASSIGN_OR_RETURN(const auto trash, list_trash(name.project));
    const auto found = std::find_if(trash.begin(), trash.end(), [&](const TrashInfo& info) {
      return info.record.kind == "repo" && info.record.repo == name.repo &&
             info.record.state == "whole";
    });
    if (found == trash.end()) {
      return not_found(str_cat("repo ", name.repo, " is not in the trash"),
                       "`qanat list trash` shows what is; what was deleted longer ago than the "
                       "grace, or with --now, is gone");
    }
    const std::string item = trash_item_key(name.project, found->id, key);
    QANAT_ASSIGN_OR_RETURN(auto record, impl_->find<RepoRecord>(item));
    if (!record) return data_loss(str_cat("the trash of repo ", name.repo, " is damaged"));
    RepoRecord restoring = record->record;
    restoring.deleting = true;
    restoring.restoring = true;
    restoring.trash = found->id;
    TrashRecord moved = found->record;
    moved.state = "restoring";
    const std::string trash_at = trash_key(name.project, moved.deleted_ms, found->id);
    meta::Transaction begin;
    begin.when(meta::key_absent(key)).put(key, encode(restoring));
    begin.when(meta::mod_revision_is(trash_at, found->mod_revision)).put(trash_at, encode(moved));
    QANAT_ASSIGN_OR_RETURN(const auto begun, impl_->store.commit(std::move(begin)));
    if (begun.succeeded) return impl_->finish_deletion(name);
  }
  return conflict(str_cat("repo ", name.repo, " changes too fast"), "try again");
}

Status Versions::Impl::finish_restoring(const RepoName& name, const Loaded<RepoRecord>& loaded) {
  const std::string key = repo_key(name.project, name.repo);
  const std::string trash = loaded.record.trash;
  QANAT_RETURN_IF_ERROR(
      move_from_trash(name.project, trash, key, meta::mod_revision_is(key, loaded.mod_revision)));
  // Its branches may derive from others: like every change of that it writes wave-next.
  auto end = [&](int64_t, int64_t) -> Result<WaveDraft> {
    WaveDraft draft;
    draft.needs_wave = false;
    QANAT_ASSIGN_OR_RETURN(auto now, find<RepoRecord>(key));
    // Else another was faster; should it be restored anew, that goes on elsewhere.
    if (!now || now->mod_revision != loaded.mod_revision) return draft;
    QANAT_ASSIGN_OR_RETURN(const auto info, find_trash(name.project, trash));
    draft.with.when(meta::mod_revision_is(key, now->mod_revision));
    now->record.deleting = false;
    now->record.restoring = false;
    now->record.trash.clear();
    draft.with.put(key, encode(now->record));
    draft.with.erase(trash_item_key(name.project, trash, key));
    if (info) draft.with.erase(trash_key(name.project, info->record.deleted_ms, trash));
    return draft;
  };
  return start_wave(name.project, NumberedDraft(end)).status();
}

Status Versions::undelete_branch(const RepoName& repo, std::string_view branch) {
  QANAT_RETURN_IF_ERROR(check_branch_name(branch));
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  std::lock_guard lock(impl_->branch_locks.of(branch_key(repo.project, repo.repo, branch)));
  QANAT_ASSIGN_OR_RETURN(const bool restored, impl_->settle_branch(repo, branch));
  if (restored) return ok_status();  // asked again, after an error
  QANAT_ASSIGN_OR_RETURN(const auto trash, list_trash(repo.project));
  const auto found = std::find_if(trash.begin(), trash.end(), [&](const TrashInfo& info) {
    return info.record.kind == "branch" && info.record.repo == repo.repo &&
           info.record.branch == branch && info.record.state == "whole";
  });
  if (found == trash.end()) {
    return not_found(str_cat("branch ", repo.repo, "@", branch, " is not in the trash"),
                     "`qanat list trash` shows what is");
  }
  const std::string key = branch_key(repo.project, repo.repo, branch);
  const std::string trash_at = trash_key(repo.project, found->record.deleted_ms, found->id);
  // The branch first, with the newest entry of its history; then the rest.
  TrashInfo restoring = *found;
  auto restore = [&](int64_t, int64_t) -> Result<WaveDraft> {
    QANAT_ASSIGN_OR_RETURN(auto loaded_repo, impl_->repo(repo));
    QANAT_ASSIGN_OR_RETURN(const auto there, impl_->branch(repo, branch));
    if (there) {
      return already_exists(str_cat("branch ", repo.repo, "@", branch, " exists"),
                            "delete the one that is there first");
    }
    QANAT_RETURN_IF_ERROR(impl_->check_gone(repo, branch));
    const std::string item = trash_item_key(repo.project, found->id, key);
    QANAT_ASSIGN_OR_RETURN(auto record, impl_->find<BranchRecord>(item));
    if (!record) return data_loss("the trash of the branch is damaged");
    WaveDraft draft;
    draft.needs_wave = false;
    BranchRecord& restored = record->record;
    QANAT_RETURN_IF_ERROR(impl_->check_provenance(repo.project, {repo.repo, std::string(branch)},
                                                  restored.provenance));
    for (std::string* id : {&restored.head, &restored.open}) {
      if (id->empty()) continue;
      const std::string commit = commit_key(repo.project, repo.repo, *id);
      QANAT_ASSIGN_OR_RETURN(const auto exists, impl_->store.get(commit));
      if (!exists) {
        return failed_precondition(
            str_cat("commit ", repo.repo, "@", *id, ", which the branch names, is gone"),
            "bring the commit back first: `qanat undelete commit`");
      }
      draft.with.when(meta::key_present(commit));
    }
    restoring.record.state = "restoring";
    draft.with.when(
        meta::mod_revision_is(repo_key(repo.project, repo.repo), loaded_repo.mod_revision));
    draft.with.when(meta::key_absent(key)).put(key, encode(restored));
    draft.with.when(meta::mod_revision_is(trash_at, found->mod_revision))
        .put(trash_at, encode(restoring.record));
    draft.with.erase(item);
    if (restored.head_wave != 0) {
      const std::string head = head_key(repo.project, repo.repo, branch, restored.head_wave);
      draft.with.put(head, encode(HeadEntry{restored.head_wave, restored.head}));
      draft.with.erase(trash_item_key(repo.project, found->id, head));
    }
    return draft;
  };
  QANAT_ASSIGN_OR_RETURN(const auto begun,
                         impl_->start_wave(repo.project, Impl::NumberedDraft(restore)));
  restoring.mod_revision = begun.revision;
  return impl_->finish_branch(repo.project, restoring);
}

Status Versions::Impl::finish_branch(std::string_view project, const TrashInfo& info) {
  TrashRecord record = info.record;
  const std::string trash_at = trash_key(project, record.deleted_ms, info.id);
  const meta::Compare unchanged = meta::mod_revision_is(trash_at, info.mod_revision);
  // Not what a branch of this name has that was made since.
  const meta::KeyRange heads =
      meta::KeyRange::between(heads_prefix(project, record.repo, record.branch),
                              head_key(project, record.repo, record.branch, record.before_wave));
  meta::Transaction end;
  end.may_use_reserve = true;
  end.when(unchanged);
  if (record.state == "moving") {
    QANAT_RETURN_IF_ERROR(move_to_trash(project, info.id, heads, unchanged));
    record.state = "whole";
    end.put(trash_at, encode(record));
  } else if (record.state == "erasing") {
    QANAT_RETURN_IF_ERROR(erase_in_steps(heads, unchanged));
    end.erase(trash_at);
  } else {
    // Into the branch that the restoration has made, by the same transaction as this record.
    QANAT_RETURN_IF_ERROR(
        move_from_trash(project, info.id, "",
                        meta::create_revision_is(branch_key(project, record.repo, record.branch),
                                                 info.mod_revision)));
    end.erase(trash_at);
  }
  // If the compare does not hold, another was faster.
  return store.commit(std::move(end)).status();
}

Result<bool> Versions::Impl::settle_branch(const RepoName& repo, std::string_view branch) {
  bool restored = false;
  QANAT_ASSIGN_OR_RETURN(const auto trash,
                         store.range(meta::KeyRange::prefix(trash_prefix(repo.project))));
  for (const meta::KeyValue& item : trash.items) {
    QANAT_ASSIGN_OR_RETURN(auto record, decode<TrashRecord>(item.key, item.value));
    if (record.kind != "branch" || record.state == "whole") continue;
    if (record.repo != repo.repo || record.branch != branch) continue;
    restored |= record.state == "restoring";
    QANAT_RETURN_IF_ERROR(finish_branch(
        repo.project, {std::string(last_part(item.key)), std::move(record), item.mod_revision}));
  }
  // Without a record: what came back with its repo, which had been deleted in the meantime.
  QANAT_ASSIGN_OR_RETURN(const auto there, this->branch(repo, branch));
  if (there) return restored;
  QANAT_RETURN_IF_ERROR(
      erase_in_steps(meta::KeyRange::prefix(heads_prefix(repo.project, repo.repo, branch)),
                     meta::key_absent(branch_key(repo.project, repo.repo, branch))));
  return false;
}

Status Versions::Impl::make_way(const RepoName& repo, std::string_view branch) {
  return check_gone(repo, branch).ok() ? ok_status() : settle_branch(repo, branch).status();
}

Status Versions::Impl::check_gone(const RepoName& repo, std::string_view branch) const {
  QANAT_ASSIGN_OR_RETURN(
      const auto heads,
      store.range(meta::KeyRange::prefix(heads_prefix(repo.project, repo.repo, branch)),
                  {.limit = 1, .keys_only = true}));
  if (heads.items.empty()) return ok_status();
  // Or another has made it by now: then the transaction will find out.
  QANAT_ASSIGN_OR_RETURN(const auto there, this->branch(repo, branch));
  if (there) return ok_status();
  return conflict(str_cat("branch ", repo.repo, "@", branch, " is being deleted"), "try again");
}

Status Versions::Impl::resume_trash() {
  QANAT_ASSIGN_OR_RETURN(const auto found, store.range(meta::KeyRange::prefix("/v1/trash/")));
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(auto record, decode<TrashRecord>(item.key, item.value));
    if (record.state == "whole" || record.kind == "repo") continue;  // repos: by their own record
    const std::string project(part_from_end(item.key, 2));
    const std::string trash(last_part(item.key));
    log_info("going on with a change of the trash", {{"kind", record.kind}, {"id", trash}});
    if (record.kind == "branch") {
      QANAT_RETURN_IF_ERROR(finish_branch(project, {trash, std::move(record), item.mod_revision}));
      continue;
    }
    // Commits: those that are here have gone, the others stay.
    record.state = "whole";
    meta::Transaction end;
    end.when(meta::mod_revision_is(item.key, item.mod_revision)).put(item.key, encode(record));
    QANAT_RETURN_IF_ERROR(store.commit(std::move(end)).status());
  }
  return ok_status();
}

Status Versions::empty_trash(std::string_view project, bool now) {
  QANAT_ASSIGN_OR_RETURN(const auto trash, list_trash(project));
  std::set<std::string, std::less<>> stay;
  for (const TrashInfo& info : trash) {
    if (info.record.state != "whole" || (!now && info.record.expires_ms > impl_->clock.wall_ms())) {
      stay.insert(info.id);
      continue;
    }
    const std::string key = trash_key(project, info.record.deleted_ms, info.id);
    meta::Transaction gone;
    gone.when(meta::mod_revision_is(key, info.mod_revision)).erase(key);
    QANAT_RETURN_IF_ERROR(impl_->store.commit(std::move(gone)).status());
  }
  // Parts without a record, also those that an earlier time has left.
  const std::string prefix = trash_items_prefix(project);
  std::string from = prefix;
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(
        const auto next, impl_->store.range(meta::KeyRange::between(from, meta::prefix_end(prefix)),
                                            {.limit = 1, .keys_only = true}));
    if (next.items.empty()) return ok_status();
    const std::string id(
        split_once(std::string_view(next.items[0].key).substr(prefix.size()), '/').first);
    const std::string items = trash_items_prefix(project, id);
    if (!stay.contains(id)) {
      QANAT_ASSIGN_OR_RETURN(const auto record, impl_->find_trash(project, id));
      if (!record) QANAT_RETURN_IF_ERROR(impl_->erase_in_steps(meta::KeyRange::prefix(items)));
    }
    from = meta::prefix_end(items);
  }
}

}  // namespace qanat::version
