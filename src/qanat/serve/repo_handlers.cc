// Repos, branches and commits.

#include "qanat/api/address.h"
#include "qanat/base/id.h"
#include "qanat/base/name.h"
#include "qanat/base/string.h"
#include "qanat/content/uploads.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/http_api.h"

namespace qanat::serve {
namespace {

version::RepoName repo_of(const Call& call) { return {call.project(), call.path("repo")}; }

Result<api::RepoInfo> show_repo(State& state, const version::RepoInfo& repo) {
  api::RepoInfo info;
  info.project = repo.project;
  info.name = repo.repo;
  info.description = repo.record.description;
  info.created = {repo.record.created_ms};
  info.pipeline = repo.record.pipeline;
  QANAT_ASSIGN_OR_RETURN(const auto branches,
                         state.versions->list_branches({repo.project, repo.repo}, {.limit = 1000}));
  for (const version::BranchInfo& branch : branches.items) {
    info.branches.push_back(branch.name.branch);
    if (branch.name.branch != api::kDefaultBranch || branch.record.head.empty()) continue;
    const auto head = state.versions->resolve({repo.project, repo.repo}, branch.record.head);
    if (!head.ok()) continue;
    info.files = static_cast<int64_t>(head->record.root.totals.count);
    info.size_bytes = static_cast<int64_t>(head->record.root.totals.bytes);
  }
  return info;
}

Status create_repo(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::CreateRepoRequest>());
  if (!call.caller().may_write(call.project(), body.name))
    return denied(call.caller(), "writer:" + qualified(call.project(), body.name));
  if (body.name.size() == kIdLength && is_id(to_lower(body.name))) {
    return invalid_argument(
        str_cat(quoted(body.name), " cannot name a repo: it reads as a commit id"),
        "Use a name that is not 32 hex digits.");
  }
  QANAT_RETURN_IF_ERROR(check_description(body.description));
  QANAT_ASSIGN_OR_RETURN(const auto repo, call.state.versions->create_repo(
                                              {call.project(), body.name}, body.description));
  QANAT_ASSIGN_OR_RETURN(const auto info, show_repo(call.state, repo));
  return call.answer(info);
}

Status list_repos(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto request, call.page());
  QANAT_ASSIGN_OR_RETURN(const auto page, call.state.versions->list_repos(call.project(), request));
  api::List<api::RepoInfo> list;
  list.next = page.next;
  list.revision = page.revision;
  for (const version::RepoInfo& repo : page.items) {
    if (!call.caller().may_read(repo.project, repo.repo)) continue;
    QANAT_ASSIGN_OR_RETURN(list.items.emplace_back(), show_repo(call.state, repo));
  }
  return call.answer(list);
}

Status inspect_repo(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto repo, call.state.versions->inspect_repo(repo_of(call)));
  QANAT_ASSIGN_OR_RETURN(const auto info, show_repo(call.state, repo));
  return call.answer(info);
}

Status update_repo(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::UpdateRepoRequest>());
  QANAT_RETURN_IF_ERROR(check_description(body.description));
  QANAT_RETURN_IF_ERROR(call.state.versions->update_repo(repo_of(call), body.description));
  return inspect_repo(call);
}

Status delete_repo(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const bool force, call.query().get_bool("force"));
  QANAT_ASSIGN_OR_RETURN(const bool now, call.query().get_bool("now"));
  QANAT_RETURN_IF_ERROR(call.state.versions->delete_repo(repo_of(call), force, {}, !now));
  // What was sent for it ahead has nowhere to go.
  QANAT_RETURN_IF_ERROR(
      content::end_uploads_of(*call.state.meta, call.project(), call.path("repo")));
  return call.answer_empty();
}

Status list_branches(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto request, call.page());
  QANAT_ASSIGN_OR_RETURN(const auto page,
                         call.state.versions->list_branches(repo_of(call), request));
  return call.answer(
      show_page<api::BranchInfo>(page, [](const version::BranchInfo& b) { return show(b); }));
}

Status inspect_branch(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto branch,
                         call.state.versions->inspect_branch(repo_of(call), call.path("branch")));
  return call.answer(show(branch));
}

Status put_branch(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::PutBranchRequest>());
  version::Versions::BranchUpdate update;
  update.head = body.head;
  if (body.provenance) {
    update.provenance.emplace();
    for (const api::BranchRef& source : *body.provenance) {
      // What a branch is derived from shows what its repo holds.
      if (!call.caller().may_read(call.project(), source.repo))
        return denied(call.caller(), "reader:" + qualified(call.project(), source.repo));
      update.provenance->push_back({source.repo, source.branch});
    }
  }
  QANAT_ASSIGN_OR_RETURN(const auto written, call.state.versions->put_branch(
                                                 repo_of(call), call.path("branch"), update));
  return call.answer(show(written.branch));
}

Status delete_branch(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const bool force, call.query().get_bool("force"));
  QANAT_ASSIGN_OR_RETURN(const bool now, call.query().get_bool("now"));
  QANAT_RETURN_IF_ERROR(
      call.state.versions->delete_branch(repo_of(call), call.path("branch"), force, {}, !now));
  return call.answer_empty();
}

Status start_commit(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::StartCommitRequest>());
  QANAT_RETURN_IF_ERROR(check_description(body.description));
  QANAT_ASSIGN_OR_RETURN(const auto written,
                         call.state.versions->start_commit(
                             repo_of(call), {body.branch, body.parent, body.description}));
  return call.answer(show(written.commit));
}

Status finish_commit(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::FinishCommitRequest>());
  QANAT_RETURN_IF_ERROR(check_description(body.description));
  QANAT_ASSIGN_OR_RETURN(
      const auto written,
      call.state.versions->finish_commit(repo_of(call), call.path("ref"), body.description));
  return call.answer(show(written.commit));
}

Status delete_commit(Call& call) {
  QANAT_RETURN_IF_ERROR(call.state.versions->discard_commit(repo_of(call), call.path("ref")));
  return call.answer_empty();
}

Status list_commits(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto request, call.page());
  QANAT_ASSIGN_OR_RETURN(
      const auto page, call.state.versions->list_commits(
                           repo_of(call), {call.query_or("ref"), call.query_or("from")}, request));
  return call.answer(
      show_page<api::CommitInfo>(page, [](const version::CommitInfo& c) { return show(c); }));
}

Status inspect_commit(Call& call) {
  const auto found = call.state.versions->resolve(repo_of(call), call.path("ref"));
  if (found.code() == Code::kNotFound && is_id(call.path("ref"))) {
    // A job's output has its id before there is such a commit.
    const std::string name = str_cat(call.path("repo"), "@", call.path("ref"));
    const auto job = find_job_info(call.state, call.project(), call.path("repo"), call.path("ref"));
    if (job.ok() && !is_final(job->state))
      return not_found(str_cat("commit ", name, " is being made by job ", name, ", which is ",
                               api::enum_name(job->state)),
                       str_cat("wait for it with `qanat wait commit ", name, "`"));
  }
  QANAT_ASSIGN_OR_RETURN(const auto commit, found);
  api::CommitInfo info = show(commit);
  QANAT_ASSIGN_OR_RETURN(const auto children, call.state.versions->children(repo_of(call), commit));
  for (const version::CommitInfo& child : children) info.children.push_back(child.id);
  return call.answer(info);
}

Status provenance(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const std::string repo, call.required("repo"));
  QANAT_ASSIGN_OR_RETURN(const std::string ref, call.required("ref"));
  QANAT_ASSIGN_OR_RETURN(const auto commit,
                         call.state.versions->resolve({call.project(), repo}, ref));
  QANAT_ASSIGN_OR_RETURN(const auto found,
                         call.state.versions->provenance({call.project(), repo}, commit.id));
  api::ProvenanceInfo info;
  info.commit = show(commit);
  info.more = found.more;
  auto add = [&call](const std::vector<version::CommitInfo>& from,
                     std::vector<api::CommitInfo>& to) {
    for (const version::CommitInfo& c : from) {
      if (call.caller().may_read(c.project, c.repo)) to.push_back(show(c));
    }
  };
  add(found.upstream, info.upstream);
  add(found.downstream, info.downstream);
  return call.answer(info);
}

}  // namespace

void add_repo_handlers(Handlers& handlers) {
  handlers["create_repo"] = create_repo;
  handlers["list_repos"] = list_repos;
  handlers["inspect_repo"] = inspect_repo;
  handlers["update_repo"] = update_repo;
  handlers["delete_repo"] = delete_repo;
  handlers["list_branches"] = list_branches;
  handlers["inspect_branch"] = inspect_branch;
  handlers["put_branch"] = put_branch;
  handlers["delete_branch"] = delete_branch;
  handlers["start_commit"] = start_commit;
  handlers["finish_commit"] = finish_commit;
  handlers["delete_commit"] = delete_commit;
  handlers["list_commits"] = list_commits;
  handlers["inspect_commit"] = inspect_commit;
  handlers["provenance"] = provenance;
}

}  // namespace qanat::serve
