// Branches: movable names of commits, and what derives from what.
#include <set>

#include "qanat/base/name.h"
#include "qanat/version/versions_impl.h"

namespace qanat::version {
namespace {

Status branch_missing(const RepoName& repo, std::string_view branch) {
  return not_found(str_cat("branch ", repo.repo, "@", branch, " does not exist"),
                   str_cat("`qanat list branch ", repo.repo, "` shows the branches"));
}

Status owned_by_pipeline(const RepoName& repo, std::string_view branch,
                         const BranchRecord& record) {
  return failed_precondition(str_cat(repo.repo, "@", branch, " is the output of pipeline ",
                                     record.pipeline, ", which alone changes it"),
                             "create a branch of another name");
}

}  // namespace

Result<std::optional<Loaded<BranchRecord>>> Versions::Impl::branch(const RepoName& repo,
                                                                   std::string_view name) const {
  QANAT_RETURN_IF_ERROR(check_branch_name(name));
  return find<BranchRecord>(branch_key(repo.project, repo.repo, name));
}

meta::Compare Versions::Impl::branch_unchanged(const RepoName& repo, std::string_view branch,
                                               const std::optional<Loaded<BranchRecord>>& loaded) {
  return meta::mod_revision_is(branch_key(repo.project, repo.repo, branch),
                               loaded ? loaded->mod_revision : 0);
}

void Versions::Impl::put_head(meta::Transaction& transaction, const RepoName& repo,
                              std::string_view branch, const BranchRecord& record) const {
  transaction.put(branch_key(repo.project, repo.repo, branch), encode(record));
  transaction.put(head_key(repo.project, repo.repo, branch, record.head_wave),
                  encode(HeadEntry{record.head_wave, record.head}));
}

Result<BranchWritten> Versions::put_branch(const RepoName& repo, std::string_view branch,
                                           const BranchUpdate& update) {
  QANAT_RETURN_IF_ERROR(check_branch_name(branch));
  std::lock_guard lock(impl_->branch_locks.of(branch_key(repo.project, repo.repo, branch)));
  const BranchName name{repo.repo, std::string(branch)};
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  QANAT_ASSIGN_OR_RETURN(const auto there, impl_->branch(repo, branch));
  if (!there) QANAT_RETURN_IF_ERROR(impl_->make_way(repo, branch));
  BranchRecord record;
  auto change = [&](int64_t revision, int64_t number) -> Result<WaveDraft> {
    QANAT_ASSIGN_OR_RETURN(auto loaded_repo, impl_->repo(repo));
    QANAT_ASSIGN_OR_RETURN(auto old, impl_->branch(repo, branch));
    if (!old) QANAT_RETURN_IF_ERROR(impl_->check_gone(repo, branch));
    record = old ? old->record : BranchRecord{.created_ms = impl_->clock.wall_ms()};
    if (!record.pipeline.empty()) return owned_by_pipeline(repo, branch, record);
    WaveDraft draft;
    draft.cause = WaveCause::kHeadMoved;
    draft.needs_wave = false;
    draft.with.when(
        meta::mod_revision_is(repo_key(repo.project, repo.repo), loaded_repo.mod_revision));
    draft.with.when(Impl::branch_unchanged(repo, branch, old));
    if (update.provenance) {
      QANAT_RETURN_IF_ERROR(impl_->check_provenance(repo.project, name, *update.provenance));
      record.provenance = *update.provenance;
    }
    std::string head = record.head;
    if (update.head) {
      head = *update.head;
      if (!head.empty()) {
        QANAT_ASSIGN_OR_RETURN(auto commit, resolve(repo, head));
        if (!commit.record.finished() || !commit.record.error.empty()) {
          return failed_precondition(
              str_cat("commit ", commit.id, commit.record.error.empty() ? " is open" : " failed",
                      " and cannot be a branch's head"),
              commit.record.error.empty() ? "finish it first" : "");
        }
        head = commit.id;
      }
    }
    if (head == record.head) {
      draft.with.put(branch_key(repo.project, repo.repo, branch), encode(record));
      return draft;
    }
    if (!record.open.empty()) {
      return failed_precondition(str_cat("commit ", record.open, " is open on ", name.to_string()),
                                 str_cat("finish it before moving the head: `qanat finish commit ",
                                         name.to_string(), "`"));
    }
    if (!head.empty()) {
      draft.with.when(meta::key_present(commit_key(repo.project, repo.repo, head)));
    }
    record.head = head;
    record.head_wave = number;
    draft.needs_wave = true;
    draft.changed = {{name, head}};
    QANAT_ASSIGN_OR_RETURN(draft.members, impl_->members(repo.project, draft.changed, revision));
    draft.with.put(branch_key(repo.project, repo.repo, branch), encode(record));
    return draft;
  };
  QANAT_ASSIGN_OR_RETURN(auto started, impl_->start_wave(repo.project, change));
  return BranchWritten{{repo.project, name, record}, std::move(started.wave), started.revision};
}

Result<BranchInfo> Versions::inspect_branch(const RepoName& repo, std::string_view branch) const {
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  QANAT_ASSIGN_OR_RETURN(auto found, impl_->branch(repo, branch));
  if (!found) return branch_missing(repo, branch);
  return BranchInfo{repo.project, {repo.repo, std::string(branch)}, std::move(found->record)};
}

Result<Page<BranchInfo>> Versions::list_branches(const RepoName& repo,
                                                 const PageRequest& page) const {
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  return list_page<BranchInfo>(
      impl_->store, branches_prefix(repo.project, repo.repo), page, false,
      [&](const meta::KeyValue& item) -> Result<std::optional<BranchInfo>> {
        QANAT_ASSIGN_OR_RETURN(auto record, decode<BranchRecord>(item.key, item.value));
        return std::optional<BranchInfo>(
            {repo.project, {repo.repo, std::string(last_part(item.key))}, std::move(record)});
      });
}

Status Versions::delete_branch(const RepoName& repo, std::string_view branch, bool force,
                               std::string_view owner, bool keep) {
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  std::lock_guard lock(impl_->branch_locks.of(branch_key(repo.project, repo.repo, branch)));
  const BranchName name{repo.repo, std::string(branch)};
  auto check = [&]() -> Result<Loaded<BranchRecord>> {
    QANAT_ASSIGN_OR_RETURN(auto found, impl_->branch(repo, branch));
    if (!found) return branch_missing(repo, branch);
    if (!found->record.pipeline.empty() && found->record.pipeline != owner) {
      return owned_by_pipeline(repo, branch, found->record)
          .with_hint(str_cat("`qanat delete pipeline ", found->record.pipeline, "` deletes both"));
    }
    if (!found->record.open.empty() && !force) {
      return failed_precondition(
          str_cat("commit ", found->record.open, " is open on ", name.to_string()),
          "finish it first, or use --force");
    }
    QANAT_ASSIGN_OR_RETURN(
        auto derived, impl_->derived_from(
                          repo.project, [&](const BranchName& source) { return source == name; }));
    if (!derived.empty() && !force) {
      return failed_precondition(
          str_cat("branch ", name.to_string(), " is what ", join(derived, ", "), " derives from"),
          "delete what derives from it first, or use --force");
    }
    return *std::move(found);
  };
  QANAT_RETURN_IF_ERROR(impl_->settle_branch(repo, branch).status());
  // The branch goes first, and its history, which may be long, in steps: an error before leaves it
  // as it is, one after that leaves a record in the trash by which it is gone on with.
  TrashInfo gone;
  auto erase = [&](int64_t, int64_t number) -> Result<WaveDraft> {
    QANAT_ASSIGN_OR_RETURN(auto found, check());
    const bool stays = keep && impl_->trash_grace_ms > 0;
    const std::string key = branch_key(repo.project, repo.repo, branch);
    WaveDraft draft;
    draft.needs_wave = false;
    draft.with.may_use_reserve = true;
    draft.with.when(meta::mod_revision_is(key, found.mod_revision)).erase(key);
    gone = impl_->put_trash(draft.with, repo.project,
                            {.kind = "branch",
                             .repo = repo.repo,
                             .branch = std::string(branch),
                             .state = stays ? "moving" : "erasing",
                             .before_wave = number});
    if (stays) draft.with.put(trash_item_key(repo.project, gone.id, key), encode(found.record));
    return draft;
  };
  QANAT_ASSIGN_OR_RETURN(const auto done, impl_->start_wave(repo.project, erase));
  gone.mod_revision = done.revision;
  return impl_->finish_branch(repo.project, gone);
}

Result<std::vector<std::string>> Versions::Impl::derived_from(
    std::string_view project, const std::function<bool(const BranchName&)>& is_source) const {
  QANAT_ASSIGN_OR_RETURN(auto all, store.range(meta::KeyRange::prefix(branches_prefix(project))));
  std::vector<std::string> derived;
  for (const meta::KeyValue& item : all.items) {
    QANAT_ASSIGN_OR_RETURN(auto record, decode<BranchRecord>(item.key, item.value));
    if (std::any_of(record.provenance.begin(), record.provenance.end(), is_source)) {
      derived.push_back(str_cat(part_from_end(item.key, 1), "@", last_part(item.key)));
    }
  }
  return derived;
}

Status Versions::Impl::check_provenance(std::string_view project, const BranchName& branch,
                                        const std::vector<BranchName>& provenance) const {
  QANAT_ASSIGN_OR_RETURN(auto all, store.range(meta::KeyRange::prefix(branches_prefix(project))));
  std::map<BranchName, std::vector<BranchName>> sources;
  for (const meta::KeyValue& item : all.items) {
    QANAT_ASSIGN_OR_RETURN(auto record, decode<BranchRecord>(item.key, item.value));
    sources[{std::string(part_from_end(item.key, 1)), std::string(last_part(item.key))}] =
        std::move(record.provenance);
  }
  std::set<BranchName> seen;
  std::vector<BranchName> waiting;
  for (const BranchName& source : provenance) {
    QANAT_RETURN_IF_ERROR(check_branch_name(source.branch));
    QANAT_RETURN_IF_ERROR(repo({std::string(project), source.repo}).status());
    if (source.repo == branch.repo) {
      return failed_precondition(str_cat("branch ", branch.to_string(), " cannot derive from ",
                                         source.to_string(), ", a branch of its own repo"));
    }
    waiting.push_back(source);
  }
  while (!waiting.empty()) {
    BranchName at = std::move(waiting.back());
    waiting.pop_back();
    if (at == branch) {
      return failed_precondition(
          str_cat("branch ", branch.to_string(), " would derive from itself"));
    }
    if (!seen.insert(at).second) continue;
    const auto& next = sources[at];
    waiting.insert(waiting.end(), next.begin(), next.end());
  }
  return ok_status();
}

}  // namespace qanat::version
