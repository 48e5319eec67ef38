// Giving up what is not needed any more: open commits, and a pipeline's hold on its repo.
#include "qanat/api/address.h"
#include "qanat/version/versions_impl.h"

namespace qanat::version {
namespace {

constexpr int kAttempts = 100;

}  // namespace

Status Versions::discard_commit(const RepoName& repo, std::string_view ref) {
  QANAT_ASSIGN_OR_RETURN(const api::Ref parsed, api::parse_ref(ref));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    QANAT_RETURN_IF_ERROR(impl_->repo_for_writing(repo).status());
    std::string id = parsed.name;
    if (!parsed.is_commit) {
      QANAT_ASSIGN_OR_RETURN(const auto branch, impl_->branch(repo, parsed.name));
      if (!branch || branch->record.open.empty()) {
        return failed_precondition(str_cat("no commit is open on ", repo.repo, "@", ref));
      }
      id = branch->record.open;
    }
    QANAT_ASSIGN_OR_RETURN(const CommitInfo commit, impl_->commit(repo, id));
    if (commit.record.finished()) {
      return failed_precondition(str_cat("commit ", repo.repo, "@", id, " is finished"),
                                 "Only open commits can be thrown away.");
    }
    const std::string key = commit_key(repo.project, repo.repo, id);
    meta::Transaction transaction;
    transaction.when(meta::mod_revision_is(key, commit.mod_revision)).erase(key);
    transaction.erase(
        log_key(repo.project, repo.repo, commit.record.started_ms, commit.record.depth, id));
    if (!commit.record.parent.empty()) {
      transaction.erase(child_key(repo.project, repo.repo, commit.record.parent, id));
    }
    const std::string& name = commit.record.branch;
    if (!name.empty()) {
      QANAT_ASSIGN_OR_RETURN(auto branch, impl_->branch(repo, name));
      transaction.when(Impl::branch_unchanged(repo, name, branch));
      if (branch && branch->record.open == id) {
        branch->record.open.clear();
        transaction.put(branch_key(repo.project, repo.repo, name), encode(branch->record));
      }
    }
    QANAT_ASSIGN_OR_RETURN(const auto result, impl_->store.commit(std::move(transaction)));
    if (result.succeeded) return ok_status();
  }
  return conflict(
      str_cat("commit ", repo.repo, "@", ref, " changes faster than it could be thrown away"),
      "try again");
}

Status Versions::release_repo(const RepoName& name, std::string_view owner) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    QANAT_ASSIGN_OR_RETURN(auto loaded, impl_->repo(name));
    if (loaded.record.pipeline != owner) return ok_status();
    loaded.record.pipeline.clear();
    const std::string key = repo_key(name.project, name.repo);
    meta::Transaction transaction;
    transaction.when(meta::mod_revision_is(key, loaded.mod_revision))
        .put(key, encode(loaded.record));
    // Its output branches become the user's too, and derive from nothing any more.
    QANAT_ASSIGN_OR_RETURN(
        const auto branches,
        impl_->store.range(meta::KeyRange::prefix(branches_prefix(name.project, name.repo))));
    for (const meta::KeyValue& item : branches.items) {
      QANAT_ASSIGN_OR_RETURN(auto branch, decode<BranchRecord>(item.key, item.value));
      if (branch.pipeline != owner) continue;
      branch.pipeline.clear();
      branch.provenance.clear();
      transaction.when(meta::mod_revision_is(item.key, item.mod_revision))
          .put(item.key, encode(branch));
    }
    QANAT_ASSIGN_OR_RETURN(const auto result, impl_->store.commit(std::move(transaction)));
    if (result.succeeded) return ok_status();
  }
  return conflict(str_cat("repo ", name.repo, " changes too fast"), "try again");
}

}  // namespace qanat::version
