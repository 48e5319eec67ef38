// Projects and repos.
#include "qanat/base/log.h"
#include "qanat/base/name.h"
#include "qanat/version/versions_impl.h"

namespace qanat::version {
namespace {

constexpr int64_t kStepKeys = 500;  // keys erased in one transaction

Status repo_missing(const RepoName& name) {
  return not_found(str_cat("repo ", name.repo, " does not exist in project ", name.project),
                   "`qanat list repo` shows the repos; `qanat create repo` makes one");
}

}  // namespace

Result<PageToken> PageToken::parse(std::string_view token) {
  auto [revision, last] = split_once(token, ':');
  auto number = parse_i64(revision);
  if (!number.ok() || *number <= 0 || last.empty()) {
    return invalid_argument(str_cat("page token ", quoted(token), " is not one of this list"),
                            "begin again with the first page");
  }
  return PageToken{*number, std::string(last)};
}

Versions::Versions(meta::Store& store, Clock& clock, Readers readers, DagView* dag)
    : impl_(std::make_unique<Impl>(store, clock, std::move(readers), dag)) {}
Versions::~Versions() = default;

void Versions::set_dag(DagView* dag) { impl_->dag = dag; }

Status Versions::start() {
  if (Status status = create_project("default", ""); !status.ok()) {
    if (status.code() != Code::kAlreadyExists) return status;
  }
  QANAT_ASSIGN_OR_RETURN(auto repos, impl_->store.range(meta::KeyRange::prefix("/v1/repo/")));
  for (const meta::KeyValue& item : repos.items) {
    QANAT_ASSIGN_OR_RETURN(auto record, decode<RepoRecord>(item.key, item.value));
    if (!record.deleting) continue;
    RepoName name{std::string(part_from_end(item.key, 1)), std::string(last_part(item.key))};
    log_info("going on with the deletion of a repo", {{"repo", name.repo}});
    QANAT_RETURN_IF_ERROR(impl_->finish_deletion(name));
  }
  return impl_->resume_trash();
}

Status Versions::create_project(std::string_view project, std::string description) {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  std::string key = project_key(project);
  // Looked up first: a server must start on a full disk, which takes no puts.
  QANAT_ASSIGN_OR_RETURN(const auto found, impl_->store.get(key));
  if (found) return already_exists(str_cat("project ", project, " exists already"));
  ProjectRecord record{impl_->clock.wall_ms(), std::move(description)};
  QANAT_ASSIGN_OR_RETURN(
      auto result, impl_->store.commit(
                       meta::Transaction().when(meta::key_absent(key)).put(key, encode(record))));
  if (result.succeeded) return ok_status();
  return already_exists(str_cat("project ", project, " exists already"));
}

Result<Loaded<RepoRecord>> Versions::Impl::repo(const RepoName& name) const {
  QANAT_RETURN_IF_ERROR(check_project_name(name.project));
  QANAT_RETURN_IF_ERROR(check_repo_name(name.repo));
  QANAT_ASSIGN_OR_RETURN(auto found, find<RepoRecord>(repo_key(name.project, name.repo)));
  if (!found || found->record.deleting) return repo_missing(name);
  return *std::move(found);
}

Result<Loaded<RepoRecord>> Versions::Impl::repo_for_writing(const RepoName& name) const {
  QANAT_ASSIGN_OR_RETURN(auto found, repo(name));
  if (found.record.pipeline.empty()) return found;
  return failed_precondition(
      str_cat("repo ", name.repo, " holds the output of pipeline ", found.record.pipeline,
              ", and only that pipeline writes to it"),
      "write to one of the pipeline's input repos, or to a repo of your own");
}

Result<RepoInfo> Versions::create_repo(const RepoName& name, std::string description) {
  QANAT_RETURN_IF_ERROR(check_project_name(name.project));
  QANAT_RETURN_IF_ERROR(check_repo_name(name.repo));
  const std::string key = repo_key(name.project, name.repo);
  QANAT_ASSIGN_OR_RETURN(auto old, impl_->find<RepoRecord>(key));
  if (old && old->record.deleting) QANAT_RETURN_IF_ERROR(impl_->finish_deletion(name));
  RepoRecord record{.created_ms = impl_->clock.wall_ms(), .description = std::move(description)};
  QANAT_ASSIGN_OR_RETURN(auto result,
                         impl_->store.commit(meta::Transaction()
                                                 .when(meta::key_present(project_key(name.project)))
                                                 .when(meta::key_absent(key))
                                                 .put(key, encode(record))
                                                 .or_else(meta::get(key))));
  if (result.succeeded) return RepoInfo{name.project, name.repo, record};
  if (result.results[0].range.items.empty()) {
    return not_found(str_cat("project ", name.project, " does not exist"));
  }
  return already_exists(str_cat("repo ", name.repo, " exists already"));
}

Status Versions::update_repo(const RepoName& name, std::string description) {
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(auto found, impl_->repo(name));
    found.record.description = description;
    const std::string key = repo_key(name.project, name.repo);
    QANAT_ASSIGN_OR_RETURN(
        auto result, impl_->store.commit(meta::Transaction()
                                             .when(meta::mod_revision_is(key, found.mod_revision))
                                             .put(key, encode(found.record))));
    if (result.succeeded) return ok_status();
  }
}

Result<RepoInfo> Versions::inspect_repo(const RepoName& name) const {
  QANAT_ASSIGN_OR_RETURN(auto found, impl_->repo(name));
  return RepoInfo{name.project, name.repo, std::move(found.record)};
}

Result<Page<RepoInfo>> Versions::list_repos(std::string_view project,
                                            const PageRequest& page) const {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  return list_page<RepoInfo>(
      impl_->store, repos_prefix(project), page, false,
      [&](const meta::KeyValue& item) -> Result<std::optional<RepoInfo>> {
        QANAT_ASSIGN_OR_RETURN(auto record, decode<RepoRecord>(item.key, item.value));
        if (record.deleting) return std::optional<RepoInfo>();
        return std::optional<RepoInfo>(
            {std::string(project), std::string(last_part(item.key)), std::move(record)});
      });
}

Result<std::vector<std::string>> Versions::derived_from(const RepoName& name) const {
  QANAT_ASSIGN_OR_RETURN(auto derived,
                         impl_->derived_from(name.project, [&](const BranchName& source) {
                           return source.repo == name.repo;
                         }));
  std::erase_if(derived, [&](const std::string& branch) {
    return branch.starts_with(str_cat(name.repo, "@"));
  });
  return derived;
}

Status Versions::delete_repo(const RepoName& name, bool force, std::string_view owner, bool keep) {
  // Fenced by wave-next: no pipeline and no branch can begin to derive from it meanwhile.
  auto mark = [&](int64_t, int64_t) -> Result<WaveDraft> {
    QANAT_ASSIGN_OR_RETURN(auto found, impl_->repo(name));
    if (!found.record.pipeline.empty() && found.record.pipeline != owner) {
      return failed_precondition(
          str_cat("repo ", name.repo, " holds the output of pipeline ", found.record.pipeline),
          str_cat("`qanat delete pipeline ", found.record.pipeline, "` deletes both"));
    }
    QANAT_ASSIGN_OR_RETURN(const auto derived, derived_from(name));
    if (!force && !derived.empty()) {
      return failed_precondition(
          str_cat("repo ", name.repo, " is what ", join(derived, ", "), " derives from"),
          "delete what derives from it first, or use --force");
    }
    found.record.deleting = true;
    const std::string key = repo_key(name.project, name.repo);
    WaveDraft draft;
    draft.needs_wave = false;
    draft.with.may_use_reserve = true;
    if (keep && impl_->trash_grace_ms > 0) {
      found.record.trash = impl_
                               ->put_trash(draft.with, name.project,
                                           {.kind = "repo", .repo = name.repo, .state = "moving"})
                               .id;
    }
    draft.with.when(meta::mod_revision_is(key, found.mod_revision)).put(key, encode(found.record));
    return draft;
  };
  QANAT_RETURN_IF_ERROR(impl_->start_wave(name.project, mark).status());
  return impl_->finish_deletion(name);
}

Status Versions::settle_output(std::string_view project, const BranchName& branch) {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  QANAT_RETURN_IF_ERROR(check_repo_name(branch.repo));
  const RepoName repo{std::string(project), branch.repo};
  QANAT_RETURN_IF_ERROR(impl_->finish_deletion(repo));
  QANAT_ASSIGN_OR_RETURN(const auto there, impl_->branch(repo, branch.branch));
  return there ? ok_status() : impl_->make_way(repo, branch.branch);
}

Status Versions::Impl::finish_deletion(const RepoName& name) {
  const std::string key = repo_key(name.project, name.repo);
  QANAT_ASSIGN_OR_RETURN(auto found, find<RepoRecord>(key));
  if (!found || !found->record.deleting) return ok_status();
  if (found->record.restoring) return finish_restoring(name, *found);
  const std::string trash = found->record.trash;
  // Another may come to the end first, and a new repo of this name get commits.
  const meta::Compare unchanged = meta::mod_revision_is(key, found->mod_revision);
  for (const std::string& prefix :
       {branches_prefix(name.project, name.repo), heads_prefix(name.project, name.repo),
        log_prefix(name.project, name.repo), children_prefix(name.project, name.repo),
        commits_prefix(name.project, name.repo)}) {
    const meta::KeyRange range = meta::KeyRange::prefix(prefix);
    QANAT_RETURN_IF_ERROR(trash.empty() ? erase_in_steps(range, unchanged)
                                        : move_to_trash(name.project, trash, range, unchanged));
  }
  meta::Transaction last;
  last.when(unchanged).erase(key);
  last.may_use_reserve = true;
  if (!trash.empty()) {
    QANAT_ASSIGN_OR_RETURN(auto record, find_trash(name.project, trash));
    if (!record) {
      QANAT_ASSIGN_OR_RETURN(const auto now, store.get(key));
      if (!holds(unchanged, now ? &*now : nullptr)) return ok_status();  // ended, and emptied
      return data_loss(str_cat("the trash record of repo ", name.repo, " is missing"));
    }
    const std::string trash_at = trash_key(name.project, record->record.deleted_ms, trash);
    record->record.state = "whole";
    found->record.deleting = false;
    found->record.trash.clear();
    last.when(meta::mod_revision_is(trash_at, record->mod_revision));
    last.put(trash_at, encode(record->record));
    last.put(trash_item_key(name.project, trash, key), encode(found->record));
  }
  // If a compare does not hold, another server was faster.
  return store.commit(std::move(last)).status();
}

Status Versions::Impl::erase_in_steps(const meta::KeyRange& range,
                                      const std::optional<meta::Compare>& guard) {
  for (;;) {
    QANAT_ASSIGN_OR_RETURN(auto found, store.range(range, {.limit = kStepKeys, .keys_only = true}));
    if (found.items.empty()) return ok_status();
    meta::Transaction step;
    step.add(meta::erase_range(
        meta::KeyRange::between(range.begin, meta::key_after(found.items.back().key))));
    QANAT_ASSIGN_OR_RETURN(const bool ours, commit_step(std::move(step), guard));
    if (!ours) return ok_status();
  }
}

Result<bool> Versions::Impl::commit_step(meta::Transaction step,
                                         const std::optional<meta::Compare>& guard) {
  if (guard) step.when(*guard).or_else(meta::get(guard->key));
  QANAT_ASSIGN_OR_RETURN(const auto result, store.commit(std::move(step)));
  if (result.succeeded || !guard) return true;
  const auto& found = result.results[0].range.items;
  return holds(*guard, found.empty() ? nullptr : found.data());
}

}  // namespace qanat::version
