// Commits of users: start, finish, put; refs and lists; and the output commits of pipelines.
#include "qanat/api/address.h"
#include "qanat/base/id.h"
#include "qanat/base/name.h"
#include "qanat/version/commit_sets.h"
#include "qanat/version/versions_impl.h"

namespace qanat::version {
namespace {

constexpr int kAttempts = 100;

Status commit_missing(const RepoName& repo, std::string_view id) {
  return not_found(str_cat("commit ", repo.repo, "@", id, " does not exist"),
                   str_cat("`qanat list commit ", repo.repo, "` shows the commits"));
}

Status no_commit_yet(const RepoName& repo, std::string_view branch, const BranchRecord& record) {
  return not_found(
      str_cat("branch ", repo.repo, "@", branch, " has no finished commit yet"),
      record.open.empty() ? "" : str_cat("its open commit is ", repo.repo, "@", record.open));
}

// A ref that can be written to: a plain branch or id.
Result<api::Ref> parse_writable(std::string_view ref) {
  QANAT_ASSIGN_OR_RETURN(api::Ref parsed, api::parse_ref(ref));
  if (parsed.back == 0 && parsed.from_start == 0) return parsed;
  return invalid_argument(str_cat("cannot write to ", quoted(ref), ", an ancestor"),
                          "write to a branch, or to an open commit by its id");
}

}  // namespace

Result<std::optional<CommitInfo>> Versions::Impl::find_commit(const RepoName& repo,
                                                              std::string_view id) const {
  QANAT_ASSIGN_OR_RETURN(auto found, find<CommitRecord>(commit_key(repo.project, repo.repo, id)));
  if (!found) return std::optional<CommitInfo>();
  return std::optional<CommitInfo>(
      {repo.project, repo.repo, std::string(id), std::move(found->record), found->mod_revision});
}

Result<CommitInfo> Versions::Impl::commit(const RepoName& repo, std::string_view id) const {
  QANAT_ASSIGN_OR_RETURN(auto found, find_commit(repo, id));
  if (!found) return commit_missing(repo, id);
  return *std::move(found);
}

void Versions::Impl::put_commit(meta::Transaction& transaction, const RepoName& repo,
                                const std::string& id, const CommitRecord& record,
                                bool is_new) const {
  transaction.put(commit_key(repo.project, repo.repo, id), encode(record));
  if (!is_new) return;
  transaction.when(meta::key_absent(commit_key(repo.project, repo.repo, id)));
  transaction.put(log_key(repo.project, repo.repo, record.started_ms, record.depth, id), "");
  if (record.parent.empty()) return;
  transaction.put(child_key(repo.project, repo.repo, record.parent, id), "");
}

// --- Refs and lists ---

Result<CommitInfo> Versions::resolve(const RepoName& repo, std::string_view ref) const {
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  QANAT_ASSIGN_OR_RETURN(api::Ref parsed, api::parse_ref(ref));
  std::string id = parsed.name;
  if (!parsed.is_commit) {
    QANAT_ASSIGN_OR_RETURN(auto branch, impl_->branch(repo, parsed.name));
    if (!branch) {
      return not_found(str_cat("branch ", repo.repo, "@", parsed.name, " does not exist"),
                       str_cat("`qanat list branch ", repo.repo, "` shows the branches"));
    }
    if (branch->record.head.empty()) return no_commit_yet(repo, parsed.name, branch->record);
    id = branch->record.head;
  }
  QANAT_ASSIGN_OR_RETURN(CommitInfo commit, impl_->commit(repo, id));
  int64_t depth = commit.record.depth;
  if (parsed.from_start != 0) depth = static_cast<int64_t>(parsed.from_start);
  const bool below = depth - static_cast<int64_t>(parsed.back) < 1 ||
                     parsed.back > static_cast<uint64_t>(commit.record.depth);
  depth -= static_cast<int64_t>(parsed.back);
  if (depth > commit.record.depth || below) {
    return not_found(str_cat(repo.repo, "@", ref, " does not exist: ", repo.repo, "@", parsed.name,
                             " has ", commit.record.depth, " commits"));
  }
  const std::string key = thinned_key(repo.project, repo.repo);
  QANAT_ASSIGN_OR_RETURN(const auto thinned, impl_->store.get(key));
  if (!thinned) return impl_->ancestor_at(repo, std::move(commit), depth);
  // Commits were taken out: numbers from the start stay what they were, steps back are counted.
  if (parsed.from_start != 0) {
    const int64_t wanted = static_cast<int64_t>(parsed.from_start);
    QANAT_ASSIGN_OR_RETURN(commit, impl_->ancestor_at(repo, std::move(commit), wanted));
    if (commit.record.depth != wanted) {
      return not_found(str_cat("commit ", wanted, " of ", repo.repo, "@", parsed.name,
                               " was squashed or dropped"));
    }
  }
  for (uint64_t n = 0; n < parsed.back; ++n) {
    if (commit.record.parent.empty()) {
      return not_found(str_cat(repo.repo, "@", ref, " does not exist: the ancestry ends before"));
    }
    QANAT_ASSIGN_OR_RETURN(commit, impl_->commit(repo, commit.record.parent));
  }
  return commit;
}

Result<std::optional<CommitInfo>> Versions::resolve_for_write(const RepoName& repo,
                                                              std::string_view ref) const {
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  QANAT_ASSIGN_OR_RETURN(api::Ref parsed, parse_writable(ref));
  if (parsed.is_commit) {
    QANAT_ASSIGN_OR_RETURN(auto commit, impl_->commit(repo, parsed.name));
    return std::optional<CommitInfo>(std::move(commit));
  }
  QANAT_ASSIGN_OR_RETURN(auto branch, impl_->branch(repo, parsed.name));
  if (!branch) return std::optional<CommitInfo>();
  const BranchRecord& record = branch->record;
  const std::string& id = record.open.empty() ? record.head : record.open;
  if (id.empty()) return std::optional<CommitInfo>();
  QANAT_ASSIGN_OR_RETURN(auto commit, impl_->commit(repo, id));
  return std::optional<CommitInfo>(std::move(commit));
}

Result<Page<CommitInfo>> Versions::list_commits(const RepoName& repo, const CommitList& list,
                                                const PageRequest& page) const {
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  if (list.ref.empty()) {
    if (!list.from.empty()) return invalid_argument("`from` needs a ref to begin with");
    return list_page<CommitInfo>(
        impl_->store, log_prefix(repo.project, repo.repo), page, true,
        [&](const meta::KeyValue& item) -> Result<std::optional<CommitInfo>> {
          return impl_->find_commit(repo, last_part(item.key));
        });
  }
  // Finished commits never change, so the parents' chain is the same whenever it is walked.
  Page<CommitInfo> result;
  result.revision = impl_->store.current_revision();
  std::string stop;
  if (!list.from.empty()) {
    QANAT_ASSIGN_OR_RETURN(auto from, resolve(repo, list.from));
    stop = from.id;
  }
  QANAT_ASSIGN_OR_RETURN(CommitInfo at, resolve(repo, page.token.empty() ? list.ref : page.token));
  const auto limit = static_cast<size_t>(std::clamp<int64_t>(page.limit, 1, kMaxPage));
  while (at.id != stop) {
    const std::string parent = at.record.parent;
    result.items.push_back(std::move(at));
    if (parent.empty() || parent == stop) break;
    if (result.items.size() == limit) {
      result.next = parent;
      break;
    }
    QANAT_ASSIGN_OR_RETURN(at, impl_->commit(repo, parent));
  }
  return result;
}

// --- Writing ---

Result<Written> Versions::start_commit(const RepoName& repo, const CommitStart& start) {
  if (!start.branch.empty()) QANAT_RETURN_IF_ERROR(check_branch_name(start.branch));
  std::lock_guard lock(impl_->branch_locks.of(branch_key(repo.project, repo.repo, start.branch)));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    QANAT_ASSIGN_OR_RETURN(auto loaded_repo, impl_->repo_for_writing(repo));
    const int64_t now = impl_->clock.wall_ms();
    meta::Transaction transaction;
    std::string parent;
    std::optional<Loaded<BranchRecord>> old;
    if (!start.branch.empty()) {
      QANAT_ASSIGN_OR_RETURN(old, impl_->branch(repo, start.branch));
    }
    const bool makes_branch = !start.branch.empty() && !old;
    if (makes_branch || !start.parent.empty()) {
      // As what moves heads does: a squash or drop of the parent that has counted its children must
      // count again. A parent that is a branch's head is guarded by the branch. And whoever makes a
      // branch must see the deletion of one of its name.
      const std::string next = wave_next_key(repo.project);
      QANAT_ASSIGN_OR_RETURN(const auto number, impl_->store.get(next));
      transaction.when(meta::mod_revision_is(next, number ? number->mod_revision : 0))
          .put(next, number ? number->value : "1");
    }
    if (makes_branch) {
      QANAT_RETURN_IF_ERROR(impl_->make_way(repo, start.branch));
      QANAT_RETURN_IF_ERROR(impl_->check_gone(repo, start.branch));
    }
    if (!start.parent.empty()) {
      QANAT_ASSIGN_OR_RETURN(auto commit, resolve(repo, start.parent));
      if (!commit.record.finished()) {
        return failed_precondition(str_cat("commit ", commit.id, " is open and has no children"),
                                   "finish it first");
      }
      parent = commit.id;
    }
    transaction.when(
        meta::mod_revision_is(repo_key(repo.project, repo.repo), loaded_repo.mod_revision));
    const std::string id = random_id();
    if (!start.branch.empty()) {
      BranchRecord branch = old ? old->record : BranchRecord{.created_ms = now};
      if (!branch.open.empty()) {
        return failed_precondition(
            str_cat("commit ", branch.open, " is already open on ", repo.repo, "@", start.branch),
            str_cat("finish it first: `qanat finish commit ", repo.repo, "@", start.branch, "`"));
      }
      if (old && !start.parent.empty() && parent != branch.head) {
        return failed_precondition(
            str_cat("the head of ", repo.repo, "@", start.branch, " is not ", start.parent),
            "move the branch's head there first, or start the commit without a branch");
      }
      if (start.parent.empty()) parent = branch.head;
      branch.open = id;
      transaction.when(Impl::branch_unchanged(repo, start.branch, old));
      transaction.put(branch_key(repo.project, repo.repo, start.branch), encode(branch));
    }
    CommitRecord record{
        .branch = start.branch, .started_ms = now, .description = start.description};
    if (!parent.empty()) {
      QANAT_ASSIGN_OR_RETURN(auto base, impl_->commit(repo, parent));
      record.root = base.record.root;
      // Its tree is taken over: garbage collection must not have seen it go.
      transaction.when(meta::key_present(commit_key(repo.project, repo.repo, parent)));
    }
    QANAT_RETURN_IF_ERROR(impl_->set_parent(repo, parent, record));
    impl_->put_commit(transaction, repo, id, record, true);
    QANAT_ASSIGN_OR_RETURN(auto result, impl_->store.commit(std::move(transaction)));
    if (!result.succeeded) continue;
    return Written{{repo.project, repo.repo, id, record, result.revision}, {}, result.revision};
  }
  return conflict(str_cat("repo ", repo.repo, " changes faster than a commit could be started"),
                  "try again");
}

Result<Written> Versions::finish_commit(const RepoName& repo, std::string_view ref,
                                        std::string_view description) {
  QANAT_ASSIGN_OR_RETURN(api::Ref parsed, parse_writable(ref));
  QANAT_RETURN_IF_ERROR(impl_->repo_for_writing(repo).status());
  std::string id = parsed.name;
  if (!parsed.is_commit) {
    QANAT_ASSIGN_OR_RETURN(auto branch, impl_->branch(repo, parsed.name));
    if (!branch || branch->record.open.empty()) {
      return failed_precondition(
          str_cat("no commit is open on ", repo.repo, "@", ref),
          str_cat("`qanat start commit ", repo.repo, "@", ref, "` opens one"));
    }
    id = branch->record.open;
  }
  QANAT_ASSIGN_OR_RETURN(CommitInfo commit, impl_->commit(repo, id));
  const std::string branch_name = commit.record.branch;
  std::lock_guard lock(impl_->branch_locks.of(branch_key(repo.project, repo.repo, branch_name)));
  auto finish = [&](int64_t revision, int64_t number) -> Result<WaveDraft> {
    QANAT_ASSIGN_OR_RETURN(commit, impl_->commit(repo, id));
    if (commit.record.finished()) {
      return failed_precondition(str_cat("commit ", repo.repo, "@", id, " is finished already"));
    }
    std::optional<Loaded<BranchRecord>> branch;
    if (!branch_name.empty()) {
      QANAT_ASSIGN_OR_RETURN(branch, impl_->branch(repo, branch_name));
    }
    WaveDraft draft;
    draft.cause = WaveCause::kCommit;
    draft.id = id;
    draft.with.when(
        meta::mod_revision_is(commit_key(repo.project, repo.repo, id), commit.mod_revision));
    commit.record.finished_ms = std::max(impl_->clock.wall_ms(), commit.record.started_ms);
    if (!description.empty()) commit.record.description = description;
    // A detached commit, or one whose branch was deleted, moves no head.
    draft.needs_wave = branch && branch->record.open == id;
    if (draft.needs_wave) {
      commit.record.wave = number;
      draft.changed = {{{repo.repo, branch_name}, id}};
      QANAT_ASSIGN_OR_RETURN(draft.members, impl_->members(repo.project, draft.changed, revision));
      draft.with.when(Impl::branch_unchanged(repo, branch_name, branch));
      BranchRecord record = branch->record;
      record.open.clear();
      record.head = id;
      record.head_wave = number;
      draft.with.put(branch_key(repo.project, repo.repo, branch_name), encode(record));
    }
    impl_->put_commit(draft.with, repo, id, commit.record, false);
    return draft;
  };
  QANAT_ASSIGN_OR_RETURN(auto started, impl_->start_wave(repo.project, finish));
  commit.mod_revision = started.revision;
  return Written{std::move(commit), std::move(started.wave), started.revision};
}

Result<Written> Versions::apply(const RepoName& repo, std::string_view ref,
                                content::ContentWriter& writer, const Edit& edit,
                                std::string_view description) {
  QANAT_ASSIGN_OR_RETURN(api::Ref target, parse_writable(ref));
  // All writes of a branch take its lock, also those that name its open commit.
  std::string locked = target.name;
  if (target.is_commit) {
    QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
    QANAT_ASSIGN_OR_RETURN(auto commit, impl_->commit(repo, target.name));
    if (!commit.record.branch.empty()) locked = commit.record.branch;
  }
  std::lock_guard lock(impl_->branch_locks.of(branch_key(repo.project, repo.repo, locked)));
  bool retrying = false;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    QANAT_ASSIGN_OR_RETURN(auto loaded_repo, impl_->repo_for_writing(repo));
    // Where it goes: an open commit, or a new one on the branch's head.
    std::optional<Loaded<BranchRecord>> branch;
    std::string open = target.name;
    if (!target.is_commit) {
      QANAT_ASSIGN_OR_RETURN(branch, impl_->branch(repo, target.name));
      if (!branch) QANAT_RETURN_IF_ERROR(impl_->make_way(repo, target.name));
      open = branch ? branch->record.open : "";
    }
    std::optional<CommitInfo> base;
    if (const std::string& id = !open.empty() ? open
                                : branch      ? branch->record.head
                                              : open;
        !id.empty()) {
      QANAT_ASSIGN_OR_RETURN(base, impl_->commit(repo, id));
    }
    if (!open.empty() && base->record.finished()) {
      if (!target.is_commit) continue;  // finished between the two reads
      return failed_precondition(str_cat("commit ", repo.repo, "@", open, " is finished"),
                                 "write to its branch: that makes a new commit");
    }
    QANAT_ASSIGN_OR_RETURN(content::TreeRoot root,
                           edit(base ? base->record.root : content::TreeRoot()));
    QANAT_RETURN_IF_ERROR(writer.flush());

    if (!open.empty()) {
      base->record.root = std::move(root);
      if (!description.empty()) base->record.description = description;
      meta::Transaction transaction;
      writer.add_to(&transaction);
      transaction.when(
          meta::mod_revision_is(commit_key(repo.project, repo.repo, open), base->mod_revision));
      impl_->put_commit(transaction, repo, open, base->record, false);
      QANAT_ASSIGN_OR_RETURN(auto result, impl_->store.commit(std::move(transaction)));
      if (result.succeeded) {
        writer.committed(result.revision);
        base->mod_revision = result.revision;
        return Written{*std::move(base), {}, result.revision};
      }
      QANAT_RETURN_IF_ERROR(writer.recheck());
      continue;
    }

    CommitInfo made{repo.project, repo.repo, random_id()};
    made.record.branch = target.name;
    made.record.description = description;
    made.record.root = std::move(root);
    made.record.started_ms = impl_->clock.wall_ms();
    QANAT_RETURN_IF_ERROR(impl_->set_parent(repo, base ? base->id : "", made.record));
    made.record.finished_ms = made.record.started_ms;
    bool stale = false;  // the branch moved: the edit must be made anew
    auto draft_commit = [&](int64_t revision, int64_t number) -> Result<WaveDraft> {
      if (retrying) {
        QANAT_RETURN_IF_ERROR(writer.recheck());
        QANAT_ASSIGN_OR_RETURN(auto repo_now, impl_->repo_for_writing(repo));
        QANAT_ASSIGN_OR_RETURN(auto now, impl_->branch(repo, target.name));
        stale = (now ? now->mod_revision : 0) != (branch ? branch->mod_revision : 0) ||
                repo_now.mod_revision != loaded_repo.mod_revision;
        if (stale) return conflict("the branch moved");
      }
      retrying = true;
      if (!branch) QANAT_RETURN_IF_ERROR(impl_->check_gone(repo, target.name));
      WaveDraft draft;
      draft.cause = WaveCause::kCommit;
      draft.id = made.id;
      draft.changed = {{{repo.repo, target.name}, made.id}};
      QANAT_ASSIGN_OR_RETURN(draft.members, impl_->members(repo.project, draft.changed, revision));
      BranchRecord record =
          branch ? branch->record : BranchRecord{.created_ms = made.record.started_ms};
      record.head = made.id;
      record.head_wave = number;
      made.record.wave = number;
      writer.add_to(&draft.with);
      draft.with.when(
          meta::mod_revision_is(repo_key(repo.project, repo.repo), loaded_repo.mod_revision));
      draft.with.when(Impl::branch_unchanged(repo, target.name, branch));
      draft.with.put(branch_key(repo.project, repo.repo, target.name), encode(record));
      impl_->put_commit(draft.with, repo, made.id, made.record, true);
      return draft;
    };
    auto started = impl_->start_wave(repo.project, draft_commit);
    if (stale) continue;
    QANAT_RETURN_IF_ERROR(started.status());
    writer.committed(started->revision);
    made.mod_revision = started->revision;
    return Written{std::move(made), std::move(started->wave), started->revision};
  }
  return conflict(str_cat(repo.repo, "@", ref, " changes faster than this could be written"),
                  "try again, or gather the writes: `qanat start commit`");
}

// --- Output commits ---

Result<meta::Transaction> Versions::output_branch_transaction(
    std::string_view project, const BranchName& branch, std::string_view pipeline,
    const std::vector<BranchName>& provenance) const {
  const RepoName repo{std::string(project), branch.repo};
  QANAT_RETURN_IF_ERROR(check_repo_name(branch.repo));
  const std::string key = repo_key(project, branch.repo);
  meta::Transaction transaction;
  QANAT_ASSIGN_OR_RETURN(auto old_repo, impl_->find<RepoRecord>(key));
  if (old_repo && old_repo->record.deleting) {
    // Not ended here: the lock of the project's waves is held, and a restoration takes it.
    return conflict(str_cat("repo ", branch.repo, " is being deleted or restored"), "try again");
  }
  const int64_t now = impl_->clock.wall_ms();
  transaction.when(meta::mod_revision_is(key, old_repo ? old_repo->mod_revision : 0));
  if (!old_repo) {
    RepoRecord record{.created_ms = now,
                      .description = str_cat("Output of pipeline ", pipeline),
                      .pipeline = std::string(pipeline)};
    transaction.put(key, encode(record));
  } else if (old_repo->record.pipeline != pipeline) {
    return failed_precondition(
        str_cat("repo ", branch.repo, " exists already and is not the output of pipeline ",
                pipeline),
        "give the pipeline another name, or delete the repo");
  }
  QANAT_RETURN_IF_ERROR(impl_->check_provenance(project, branch, provenance));
  std::vector<std::string> sources;
  for (const BranchName& source : provenance) sources.push_back(repo_key(project, source.repo));
  std::sort(sources.begin(), sources.end());
  sources.erase(std::unique(sources.begin(), sources.end()), sources.end());
  for (const std::string& source : sources) transaction.when(meta::key_present(source));
  QANAT_ASSIGN_OR_RETURN(auto old, impl_->branch(repo, branch.branch));
  BranchRecord record = old ? old->record : BranchRecord{.created_ms = now};
  record.pipeline = pipeline;
  record.provenance = provenance;
  if (!old) QANAT_RETURN_IF_ERROR(impl_->check_gone(repo, branch.branch));
  transaction.when(Impl::branch_unchanged(repo, branch.branch, old));
  transaction.put(branch_key(project, branch.repo, branch.branch), encode(record));
  return transaction;
}

Result<meta::Transaction> Versions::output_transaction(std::string_view project,
                                                       const OutputCommit& output) const {
  const RepoName repo{std::string(project), output.branch.repo};
  const std::string& branch_name = output.branch.branch;
  QANAT_ASSIGN_OR_RETURN(auto loaded_repo, impl_->repo(repo));
  QANAT_ASSIGN_OR_RETURN(auto branch, impl_->branch(repo, branch_name));
  if (!branch) {
    return not_found(str_cat("output branch ", output.branch.to_string(), " does not exist"));
  }
  if (branch->record.head_wave >= output.wave) {
    return failed_precondition(str_cat("the head of ", output.branch.to_string(), " is at wave ",
                                       branch->record.head_wave, ", not before wave ",
                                       output.wave));
  }
  CommitRecord record{.origin = CommitOrigin::kPipeline,
                      .branch = branch_name,
                      .wave = output.wave,
                      .started_ms = output.started_ms,
                      .description = output.description,
                      .root = output.root,
                      .error = output.error,
                      .pipeline = output.pipeline,
                      .spec_version = output.spec_version,
                      .image = output.image,
                      .inputs = output.inputs};
  QANAT_RETURN_IF_ERROR(impl_->set_parent(repo, branch->record.head, record));
  record.finished_ms = std::max(impl_->clock.wall_ms(), record.started_ms);
  meta::Transaction transaction;
  transaction.may_use_reserve = true;  // it ends what is under way
  transaction.when(meta::mod_revision_is(repo_key(project, repo.repo), loaded_repo.mod_revision));
  transaction.when(Impl::branch_unchanged(repo, branch_name, branch));
  impl_->put_commit(transaction, repo, output.id, record, true);
  if (output.error.empty()) {
    BranchRecord moved = branch->record;
    moved.head = output.id;
    moved.head_wave = output.wave;
    impl_->put_head(transaction, repo, branch_name, moved);
  }
  return transaction;
}

}  // namespace qanat::version
