// Ancestors of commits.
//
// Besides its parent every commit names one ancestor further away, its jump: with J = jump of the
// parent and JJ = jump of J, it is JJ if the parent is as far from J as J is from JJ, else it is
// the parent. This is the skew-binary list of E. W. Myers, "An applicative random-access stack"
// (1983): any ancestor is reached in O(log n) steps.
#include "qanat/version/versions_impl.h"

namespace qanat::version {

Status Versions::Impl::set_parent(const RepoName& repo, std::string_view parent_id,
                                  CommitRecord& record) const {
  record.parent = parent_id;
  record.depth = 1;
  record.jump.clear();
  if (parent_id.empty()) return ok_status();
  QANAT_ASSIGN_OR_RETURN(CommitInfo parent, commit(repo, parent_id));
  record.depth = parent.record.depth + 1;
  record.started_ms = std::max(record.started_ms, parent.record.started_ms);
  record.jump = parent.id;
  if (parent.record.jump.empty()) return ok_status();
  // Jumps may lead to commits that were taken out (commit_sets.h): then the parent will do.
  QANAT_ASSIGN_OR_RETURN(const auto jump, find_commit(repo, parent.record.jump));
  if (!jump || jump->record.jump.empty()) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const auto far, find_commit(repo, jump->record.jump));
  if (far && parent.record.depth - jump->record.depth == jump->record.depth - far->record.depth) {
    record.jump = far->id;
  }
  return ok_status();
}

Result<CommitInfo> Versions::Impl::ancestor_at(const RepoName& repo, CommitInfo at,
                                               int64_t depth) const {
  while (at.record.depth > depth) {
    if (!at.record.jump.empty()) {
      QANAT_ASSIGN_OR_RETURN(auto jump, find_commit(repo, at.record.jump));
      if (jump && jump->record.depth >= depth) {
        at = *std::move(jump);
        continue;
      }
    }
    if (at.record.parent.empty()) break;  // a first commit that has lost those before it
    QANAT_ASSIGN_OR_RETURN(at, commit(repo, at.record.parent));
  }
  return at;
}

}  // namespace qanat::version
