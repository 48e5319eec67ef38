#include "qanat/version/commit_sets.h"

#include <algorithm>
#include <set>

#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/version/gc_roots.h"
#include "qanat/version/keys.h"

namespace qanat::version {
namespace {

// A transaction has 64 operations: two for each child or head entry (three for an entry and the
// head that it is of), and what goes besides is about 12.
constexpr size_t kMaxNeighbours = 20;

struct Stored {
  std::string key;
  std::string value;
  int64_t mod_revision = 0;
};

// Commits of a repo whose parent is `id`.
Result<std::vector<CommitInfo>> children_of(const meta::Store& store, const CommitInfo& commit) {
  std::vector<CommitInfo> children;
  QANAT_RETURN_IF_ERROR(
      visit_range(store, children_prefix(commit.project, commit.repo, commit.id), 0,
                  [&](const meta::KeyValue& item) -> Status {
                    const std::string id(last_part(item.key));
                    const std::string key = commit_key(commit.project, commit.repo, id);
                    QANAT_ASSIGN_OR_RETURN(const auto found, store.get(key));
                    if (!found) return ok_status();  // it went meanwhile
                    QANAT_ASSIGN_OR_RETURN(auto record, decode<CommitRecord>(key, found->value));
                    if (record.parent == commit.id) {
                      children.push_back({commit.project, commit.repo, id, std::move(record),
                                          found->mod_revision});
                    }
                    return ok_status();
                  }));
  return children;
}

// Branches of a repo whose head it is.
Result<std::vector<std::pair<Stored, BranchRecord>>> heads_of(const meta::Store& store,
                                                              const CommitInfo& commit) {
  std::vector<std::pair<Stored, BranchRecord>> heads;
  QANAT_RETURN_IF_ERROR(visit_range(
      store, branches_prefix(commit.project, commit.repo), 0,
      [&](const meta::KeyValue& item) -> Status {
        QANAT_ASSIGN_OR_RETURN(auto record, decode<BranchRecord>(item.key, item.value));
        if (record.head == commit.id) {
          heads.push_back({{item.key, item.value, item.mod_revision}, std::move(record)});
        }
        return ok_status();
      }));
  return heads;
}

// By wave-next, as all that adds a child: a squash or drop that has counted counts again. False: a
// compare of the transaction itself does not hold.
Result<bool> commit_fenced(meta::Store& store, std::string_view project,
                           const meta::Transaction& transaction) {
  const std::string key = wave_next_key(project);
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto next, store.get(key));
    const int64_t revision = next ? next->mod_revision : 0;
    meta::Transaction fenced = transaction;
    fenced.when(meta::mod_revision_is(key, revision)).put(key, next ? next->value : "1");
    fenced.or_else(meta::get(key));
    QANAT_ASSIGN_OR_RETURN(const auto done, store.commit(std::move(fenced)));
    if (done.succeeded) return true;
    const auto& now = done.results[0].range.items;
    if ((now.empty() ? 0 : now[0].mod_revision) == revision) return false;
  }
}

std::string name_of(const CommitInfo& commit) { return str_cat(commit.repo, "@", commit.id); }

}  // namespace

std::string thinned_key(std::string_view project, std::string_view repo) {
  return str_cat("/v1/thinned/", project, "/", repo);
}

Result<std::vector<CommitInfo>> CommitSets::find_set(const std::string& project,
                                                     const std::string& id,
                                                     const std::string& repo) const {
  std::vector<CommitInfo> commits;
  const auto wave = versions_.inspect_wave(project, id);
  if (wave.ok()) {
    QANAT_ASSIGN_OR_RETURN(commits, versions_.commits_of_wave(project, *wave));
    // A head that was moved to an older commit is no commit of this change.
    std::erase_if(commits, [&](const CommitInfo& commit) { return commit.id != id; });
  } else if (wave.code() != Code::kNotFound) {
    return wave.status();
  }
  if (commits.empty() && !repo.empty()) {
    QANAT_ASSIGN_OR_RETURN(commits.emplace_back(), versions_.resolve({project, repo}, id));
  }
  if (commits.empty()) {
    return not_found(
        str_cat("there is no commit ", id),
        "`qanat list commit` shows ids; write REPO@COMMIT for one that is on no branch");
  }
  return commits;
}

Status CommitSets::check_ended(const std::string& project,
                               const std::vector<CommitInfo>& going) const {
  if (jobs_ == nullptr) return ok_status();
  std::set<std::string> ids;
  for (const CommitInfo& commit : going) {
    if (!ids.insert(commit.id).second) continue;
    const auto wave = versions_.inspect_wave(project, commit.id);
    if (wave.code() == Code::kNotFound) continue;
    if (!wave.ok()) return wave.status();
    for (const std::string& member : wave->record.members) {
      QANAT_RETURN_IF_ERROR(jobs_->check_ended(project, member, *wave));
    }
  }
  return ok_status();
}

Status CommitSets::check(const Request& request, const std::vector<CommitInfo>& going) const {
  QANAT_RETURN_IF_ERROR(check_ended(request.project, going));
  std::set<std::pair<std::string, std::string>> names;
  for (const CommitInfo& commit : going) names.emplace(commit.repo, commit.id);
  for (const CommitInfo& commit : going) {
    if (!commit.record.finished()) {
      return failed_precondition(str_cat("commit ", name_of(commit), " is open"),
                                 "finish it, or throw it away with `qanat delete commit`");
    }
    if (commit.record.origin == CommitOrigin::kPipeline && jobs_ != nullptr) {
      meta::Transaction unused;  // whether it would go
      QANAT_RETURN_IF_ERROR(jobs_->remove_job(commit.project, commit.record.pipeline,
                                              commit.record.wave, std::nullopt, "", unused));
    }
    if (request.how == How::kSquash) {
      QANAT_ASSIGN_OR_RETURN(const auto heads, heads_of(store_, commit));
      if (!heads.empty()) {
        return failed_precondition(
            str_cat("commit ", name_of(commit), " is the head of branch ", commit.repo, "@",
                    last_part(heads[0].first.key), ": there is nothing to squash it into"),
            "`qanat drop commit` takes a head out, and moves its branch back");
      }
      continue;
    }
    QANAT_ASSIGN_OR_RETURN(const auto children, children_of(store_, commit));
    for (const CommitInfo& child : children) {
      if (names.contains({child.repo, child.id})) continue;
      return failed_precondition(
          str_cat("commit ", name_of(commit), " has a child, ", name_of(child)),
          "`qanat squash commit` takes it out and keeps the child; or drop the child first");
    }
  }
  return ok_status();
}

Result<std::vector<CommitInfo>> CommitSets::remove(const Request& request) {
  QANAT_ASSIGN_OR_RETURN(std::vector<CommitInfo> going,
                         find_set(request.project, request.id, request.repo));
  // What was made from them by later changes.
  std::set<std::string> ids = {request.id};
  std::vector<std::string> more;
  QANAT_RETURN_IF_ERROR(versions_.visit_downstream(
      request.project, going,
      [&](const CommitInfo& other, const CommitInput& from) -> Result<bool> {
        if (!ids.insert(other.id).second) return true;
        if (!request.recursive) {
          return failed_precondition(
              str_cat("commit ", name_of(other), ", of another change, was made from ", from.repo,
                      "@", from.commit),
              "--recursive takes out what was made from it, too");
        }
        more.push_back(other.id);
        return true;
      }));
  for (const std::string& id : more) {
    QANAT_ASSIGN_OR_RETURN(const auto set, find_set(request.project, id, ""));
    going.insert(going.end(), set.begin(), set.end());
  }
  // Newest changes first, and in each what is made from others first.
  std::stable_sort(going.begin(), going.end(), [](const CommitInfo& a, const CommitInfo& b) {
    return a.record.wave < b.record.wave;
  });
  std::reverse(going.begin(), going.end());
  for (const CommitInfo& commit : going) {
    if (request.may) QANAT_RETURN_IF_ERROR(request.may(commit));
  }
  QANAT_RETURN_IF_ERROR(check(request, going));

  std::string trash;
  const int64_t now = clock_.wall_ms();
  TrashRecord record{.kind = "commit",
                     .commit = request.id,
                     .deleted_ms = now,
                     .expires_ms = now + request.trash_grace_ms,
                     .state = "moving",
                     .how = request.how == How::kSquash ? "squash" : "drop"};
  if (request.trash_grace_ms > 0) {
    trash = random_id();
    meta::Transaction begin;
    begin.put(trash_key(request.project, now, trash), encode(record));
    begin.may_use_reserve = true;
    QANAT_RETURN_IF_ERROR(store_.commit(std::move(begin)).status());
  }
  Status removed;
  for (size_t i = 0; i < going.size() && removed.ok(); ++i) {
    removed = remove_one(request, trash, going[i]);
  }
  if (!trash.empty()) {
    meta::Transaction end;
    record.state = "whole";
    // Looked at, not concluded from an error: it may have happened all the same.
    QANAT_ASSIGN_OR_RETURN(
        const auto items,
        store_.range(meta::KeyRange::prefix(trash_items_prefix(request.project, trash)),
                     {.limit = 1, .keys_only = true}));
    if (!removed.ok() && items.items.empty()) {
      end.erase(trash_key(request.project, now, trash));
    } else {
      end.put(trash_key(request.project, now, trash), encode(record));
    }
    end.may_use_reserve = true;
    QANAT_RETURN_IF_ERROR(store_.commit(std::move(end)).status());
  }
  QANAT_RETURN_IF_ERROR(removed);
  return going;
}

Status CommitSets::remove_one(const Request& request, const std::string& trash,
                              const CommitInfo& was) {
  const RepoName repo{was.project, was.repo};
  auto draft_removal = [&](int64_t) -> Result<WaveDraft> {
    QANAT_ASSIGN_OR_RETURN(const CommitInfo commit, versions_.resolve(repo, was.id));
    WaveDraft draft;
    draft.needs_wave = false;
    meta::Transaction& change = draft.with;
    change.may_use_reserve = true;
    auto take = [&](const std::string& key, const std::string& value) {
      change.erase(key);
      if (!trash.empty()) change.put(trash_item_key(was.project, trash, key), value);
    };
    const std::string key = commit_key(was.project, was.repo, was.id);
    change.when(meta::mod_revision_is(key, commit.mod_revision));
    take(key, encode(commit.record));
    take(log_key(was.project, was.repo, commit.record.started_ms, commit.record.depth, was.id), "");
    const std::string& parent = commit.record.parent;
    if (!parent.empty()) change.erase(child_key(was.project, was.repo, parent, was.id));
    change.put(thinned_key(was.project, was.repo), "");

    QANAT_ASSIGN_OR_RETURN(const auto children, children_of(store_, commit));
    if (request.how == How::kDrop && !children.empty()) {
      return failed_precondition(str_cat("commit ", name_of(commit), " has a child by now"));
    }
    if (!children.empty()) {
      change.add(meta::erase_range(
          meta::KeyRange::prefix(children_prefix(was.project, was.repo, was.id))));
    }
    for (CommitInfo child : children) {
      const std::string key_of_child = commit_key(was.project, was.repo, child.id);
      change.when(meta::mod_revision_is(key_of_child, child.mod_revision));
      child.record.parent = parent;
      // Ancestry goes without the jump where it is not there: see ancestry.cc.
      if (child.record.jump == was.id) child.record.jump = parent;
      change.put(key_of_child, encode(child.record));
      if (parent.empty()) continue;
      change.put(child_key(was.project, was.repo, parent, child.id), "");
    }

    // The history of heads: from where it was a head on, the entry before it counts.
    QANAT_ASSIGN_OR_RETURN(const auto heads, heads_of(store_, commit));
    if (request.how == How::kSquash && !heads.empty()) {
      return failed_precondition(str_cat("commit ", name_of(commit), " is a head by now"));
    }
    std::vector<meta::KeyValue> entries;
    QANAT_RETURN_IF_ERROR(visit_range(
        store_, heads_prefix(was.project, was.repo), 0, [&](const meta::KeyValue& item) -> Status {
          QANAT_ASSIGN_OR_RETURN(const auto entry, decode<HeadEntry>(item.key, item.value));
          if (entry.commit == was.id) entries.push_back(item);
          return ok_status();
        }));
    if (children.size() + entries.size() + heads.size() > kMaxNeighbours) {
      return failed_precondition(str_cat("commit ", name_of(commit), " has ", children.size(),
                                         " children and was a head ", entries.size(),
                                         " times: that is more than can be changed at once"));
    }
    std::optional<int64_t> head_wave;
    std::set<std::string> moved_back;
    for (const meta::KeyValue& item : entries) {
      const std::string_view branch = part_from_end(item.key, 1);
      const auto head = std::find_if(heads.begin(), heads.end(), [&](const auto& found) {
        return last_part(found.first.key) == branch;
      });
      QANAT_ASSIGN_OR_RETURN(const uint64_t wave, from_hex16(last_part(item.key)));
      QANAT_ASSIGN_OR_RETURN(const auto before,
                             versions_.head_at_wave(repo, branch, static_cast<int64_t>(wave) - 1));
      const bool current =
          head != heads.end() && head->second.head_wave == static_cast<int64_t>(wave);
      // What the branch had before is what the commit was made on, unless its head was moved.
      if (before && before->commit == commit.record.parent) {
        take(item.key, item.value);
        if (current) head_wave = before->wave;
      } else {
        change.put(item.key, encode(HeadEntry{static_cast<int64_t>(wave), commit.record.parent}));
        if (current) head_wave = commit.record.parent.empty() ? 0 : static_cast<int64_t>(wave);
      }
      if (!current) continue;
      BranchRecord moved = head->second;
      moved.head = commit.record.parent;
      moved.head_wave = *head_wave;
      change.when(meta::mod_revision_is(head->first.key, head->first.mod_revision));
      change.put(head->first.key, encode(moved));
      moved_back.insert(head->first.key);
    }
    for (const auto& [stored, branch] : heads) {
      if (moved_back.contains(stored.key)) continue;
      BranchRecord moved = branch;
      moved.head = commit.record.parent;
      change.when(meta::mod_revision_is(stored.key, stored.mod_revision));
      change.put(stored.key, encode(moved));
    }
    if (commit.record.origin == CommitOrigin::kPipeline && jobs_ != nullptr) {
      QANAT_RETURN_IF_ERROR(jobs_->remove_job(was.project, commit.record.pipeline,
                                              commit.record.wave, head_wave, trash, change));
    }
    return draft;
  };
  return versions_.start_wave(was.project, draft_removal).status();
}

Result<int64_t> CommitSets::undelete(std::string_view project, std::string_view id) {
  QANAT_ASSIGN_OR_RETURN(const auto trash, versions_.list_trash(project));
  const auto found = std::find_if(trash.begin(), trash.end(), [&](const TrashInfo& info) {
    return info.record.kind == "commit" && info.record.commit == id && info.record.state == "whole";
  });
  if (found == trash.end()) {
    return not_found(str_cat("commit ", id, " is not in the trash"),
                     "`qanat list trash` shows what is");
  }
  const std::string trash_at = trash_key(project, found->record.deleted_ms, found->id);
  std::vector<meta::KeyValue> items;
  QANAT_RETURN_IF_ERROR(visit_range(store_, trash_items_prefix(project, found->id), 0,
                                    [&](const meta::KeyValue& item) -> Status {
                                      items.push_back(item);
                                      return ok_status();
                                    }));
  // Each on its own, as long as the record is there: then it has been a root all the time.
  int64_t commits = 0;
  bool left = false;  // a commit that could not be brought back, and can be another time
  for (const meta::KeyValue& item : items) {
    const std::string key = key_of_trash_item(project, found->id, item.key);
    if (key.starts_with("/v1/head/")) continue;
    meta::Transaction back;
    back.may_use_reserve = true;
    back.when(meta::mod_revision_is(trash_at, found->mod_revision));
    back.when(meta::mod_revision_is(item.key, item.mod_revision));
    back.when(meta::key_absent(key));
    // A job's pipeline has its output repo's name.
    if (key.starts_with("/v1/commit/") || key.starts_with("/v1/log/") ||
        key.starts_with("/v1/job/")) {
      const int up = key.starts_with("/v1/log/") ? 3 : 1;
      back.when(meta::key_present(repo_key(project, part_from_end(key, up))));
    }
    if (key.starts_with("/v1/job/")) {
      back.when(meta::key_present(str_cat("/v1/pipeline/", project, "/", part_from_end(key, 1))));
    }
    back.put(key, item.value).erase(item.key);
    if (!key.starts_with("/v1/commit/")) {
      QANAT_RETURN_IF_ERROR(store_.commit(std::move(back)).status());
      continue;
    }
    QANAT_ASSIGN_OR_RETURN(const auto record, decode<CommitRecord>(item.key, item.value));
    if (!record.parent.empty()) {
      back.put(child_key(project, part_from_end(key, 1), record.parent, last_part(key)), "");
    }
    QANAT_ASSIGN_OR_RETURN(const bool done, commit_fenced(store_, project, back));
    if (done) {
      ++commits;
    } else {
      left = true;
    }
  }
  if (!left) {
    meta::Transaction end;
    end.when(meta::mod_revision_is(trash_at, found->mod_revision)).erase(trash_at);
    QANAT_RETURN_IF_ERROR(store_.commit(std::move(end)).status());
  }
  if (commits == 0) {
    return failed_precondition(
        str_cat("commit ", id, " could not be brought back"),
        "its repo is gone (`qanat undelete repo` may bring it back), or has a commit of this id");
  }
  return commits;
}

}  // namespace qanat::version
