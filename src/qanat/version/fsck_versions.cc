#include "qanat/version/fsck_versions.h"

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/version/commit_sets.h"
#include "qanat/version/gc_roots.h"
#include "qanat/version/keys.h"
#include "qanat/version/records.h"

namespace qanat::version {
namespace {

using content::FsckProblem;
using Problems = std::vector<FsckProblem>;

constexpr int64_t kPage = 500;

// A record that another names: nothing if it is not there or cannot be read, which is a problem of
// its own.
template <class Record>
Result<std::optional<Record>> find(const meta::Store& store, const std::string& key,
                                   int64_t revision, bool* exists = nullptr) {
  QANAT_ASSIGN_OR_RETURN(const auto item, store.get(key, revision));
  if (exists != nullptr) *exists = item.has_value();
  if (!item) return std::optional<Record>();
  auto record = decode<Record>(key, item->value);
  if (!record.ok()) return std::optional<Record>();
  return std::optional<Record>(*std::move(record));
}

// One record of a project under examination.
class Examination {
 public:
  Examination(const meta::Store& store, const std::string& project, const meta::KeyValue& item,
              int64_t revision, Problems* problems)
      : store_(store), project_(project), item_(item), revision_(revision), problems_(problems) {}

  // Decodes the record, or says that it cannot be read.
  template <class Record>
  std::optional<Record> record(const std::string& touches) {
    auto record = decode<Record>(item_.key, item_.value);
    if (record.ok()) return *std::move(record);
    add(record.status().message(), touches);
    return std::nullopt;
  }
  void add(std::string what, const std::string& touches) {
    problems_->push_back({std::move(what), item_.key, {touches}, 1});
  }
  // False: the repo is being deleted, and what is left of it means nothing.
  Result<bool> repo_stands(const std::string& repo, const std::string& touches) {
    bool exists = false;
    QANAT_ASSIGN_OR_RETURN(const auto record,
                           find<RepoRecord>(store_, repo_key(project_, repo), revision_, &exists));
    if (!exists) add(str_cat("there is no repo ", repo, " for it"), touches);
    return !record || !record->deleting;
  }
  Result<std::optional<CommitRecord>> commit(const std::string& repo, const std::string& id,
                                             std::string_view as, const std::string& touches) {
    bool exists = false;
    QANAT_ASSIGN_OR_RETURN(auto record, find<CommitRecord>(store_, commit_key(project_, repo, id),
                                                           revision_, &exists));
    if (!exists) add(str_cat("its ", as, ", commit ", id, ", is missing"), touches);
    return record;
  }
  Result<bool> exists(const std::string& key) {
    QANAT_ASSIGN_OR_RETURN(const auto item, store_.get(key, revision_));
    return item.has_value();
  }

  Status branch();
  Status commit();
  Status head();
  Status log();
  Status child();
  Status wave();
  Status trash();
  Status trash_item();

 private:
  const meta::Store& store_;
  const std::string& project_;
  const meta::KeyValue& item_;
  const int64_t revision_;
  Problems* const problems_;
};

Status Examination::branch() {
  const std::string repo(part_from_end(item_.key, 1));
  const std::string name = str_cat(repo, "@", last_part(item_.key));
  QANAT_ASSIGN_OR_RETURN(const bool stands, repo_stands(repo, name));
  const auto branch = record<BranchRecord>(name);
  if (!branch || !stands) return ok_status();
  if (!branch->head.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto head, commit(repo, branch->head, "head", name));
    if (head && !head->finished()) {
      add(str_cat("its head, commit ", branch->head, ", is not finished"), name);
    }
    if (head && !head->error.empty()) {
      add(str_cat("its head, commit ", branch->head, ", failed"), name);
    }
    const std::string key = head_key(project_, repo, last_part(item_.key), branch->head_wave);
    QANAT_ASSIGN_OR_RETURN(const auto entry, store_.get(key, revision_));
    if (!entry) {
      add(str_cat("the record of its head in wave ", branch->head_wave, " is missing"), name);
    }
  }
  if (!branch->open.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto open, commit(repo, branch->open, "open commit", name));
    if (open && open->finished()) {
      add(str_cat("its open commit, ", branch->open, ", is finished"), name);
    }
  }
  return ok_status();
}

Status Examination::commit() {
  const std::string repo(part_from_end(item_.key, 1));
  const std::string id(last_part(item_.key));
  const std::string name = str_cat(repo, "@", id);
  QANAT_ASSIGN_OR_RETURN(const bool stands, repo_stands(repo, name));
  const auto record = this->record<CommitRecord>(name);
  if (!record || !stands) return ok_status();
  if (!record->parent.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto parent, commit(repo, record->parent, "parent", name));
    if (parent && parent->depth >= record->depth) {
      add(str_cat("its parent, commit ", record->parent, ", is not before it"), name);
    }
    QANAT_ASSIGN_OR_RETURN(const bool listed,
                           exists(child_key(project_, repo, record->parent, id)));
    if (!listed) add("it is not in the list of its parent's children", name);
  }
  if (!record->jump.empty()) {
    // Where commits were taken out, ancestry does without the jumps that led to them.
    QANAT_ASSIGN_OR_RETURN(const bool thinned, exists(thinned_key(project_, repo)));
    QANAT_ASSIGN_OR_RETURN(const bool there, exists(commit_key(project_, repo, record->jump)));
    if (there || !thinned) {
      QANAT_ASSIGN_OR_RETURN(const auto jump, commit(repo, record->jump, "ancestor", name));
      if (jump && jump->depth >= record->depth)
        add(str_cat("its ancestor, commit ", record->jump, ", is not before it"), name);
    }
  }
  QANAT_ASSIGN_OR_RETURN(const bool logged,
                         exists(log_key(project_, repo, record->started_ms, record->depth, id)));
  if (!logged) add("it is not in the list of its repo's commits", name);
  if (record->wave != 0) {
    QANAT_ASSIGN_OR_RETURN(const bool wave, exists(wave_key(project_, record->wave)));
    if (!wave) add(str_cat("its wave, ", record->wave, ", is missing"), name);
  }
  return ok_status();
}

Status Examination::head() {
  const std::string repo(part_from_end(item_.key, 2));
  const std::string name =
      str_cat(repo, "@", part_from_end(item_.key, 1), " in wave ", last_part(item_.key));
  QANAT_ASSIGN_OR_RETURN(const bool stands, repo_stands(repo, name));
  const auto entry = record<HeadEntry>(name);
  if (!entry || !stands || entry->commit.empty()) return ok_status();
  return commit(repo, entry->commit, "head then", name).status();
}

Status Examination::log() {
  const std::string repo(part_from_end(item_.key, 3));
  const std::string name = str_cat(repo, "@", last_part(item_.key));
  QANAT_ASSIGN_OR_RETURN(const bool stands, repo_stands(repo, name));
  if (!stands) return ok_status();
  return commit(repo, std::string(last_part(item_.key)), "subject", name).status();
}

Status Examination::child() {
  const std::string repo(part_from_end(item_.key, 2));
  const std::string id(last_part(item_.key));
  const std::string name = str_cat(repo, "@", id);
  QANAT_ASSIGN_OR_RETURN(const bool stands, repo_stands(repo, name));
  if (!stands) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const auto child, commit(repo, id, "subject", name));
  if (child && child->parent != part_from_end(item_.key, 1)) {
    add(str_cat("its parent is another, ", quoted(child->parent)), name);
  }
  return ok_status();
}

Status Examination::wave() {
  const std::string name = str_cat("wave ", last_part(item_.key));
  const auto wave = record<WaveRecord>(name);
  if (!wave) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const bool named, exists(wave_id_key(project_, wave->id)));
  if (!named) add(str_cat("it cannot be found by its id, ", wave->id), name);
  return ok_status();
}

Status Examination::trash_item() {
  // `<id>/commit/...`: commits hold content; the others are read where they are brought back to.
  const std::string_view rest =
      std::string_view(item_.key).substr(trash_items_prefix(project_).size());
  const auto [id, part] = split_once(rest, '/');
  if (!part.starts_with("commit/")) return ok_status();
  (void)record<CommitRecord>(
      str_cat("trash ", id, ", ", part_from_end(part, 1), "@", last_part(part)));
  return ok_status();
}

// Whether it can be brought back.
Status Examination::trash() {
  const std::string id(last_part(item_.key));
  const auto record = this->record<TrashRecord>(str_cat("trash ", id));
  if (!record || record->state != "whole" || record->kind == "commit") return ok_status();
  const std::string key = record->kind == "repo"
                              ? repo_key(project_, record->repo)
                              : branch_key(project_, record->repo, record->branch);
  QANAT_ASSIGN_OR_RETURN(const bool there, exists(trash_item_key(project_, id, key)));
  if (!there) add("what was deleted is not in it", trash_name(*record));
  return ok_status();
}

}  // namespace

Status visit_trash_records(
    const meta::Store& store, const std::string& project, std::string_view prefix,
    const std::function<Status(const std::string& label, const meta::KeyValue& item)>& visit) {
  return visit_records(store, trash_prefix(project), [&](const meta::KeyValue& item) -> Status {
    const auto record = decode<TrashRecord>(item.key, item.value);
    if (!record.ok()) return ok_status();
    const std::string label = str_cat("trash, ", trash_name(*record), ": ");
    return visit_records(store, trash_item_key(project, last_part(item.key), prefix),
                         [&](const meta::KeyValue& part) { return visit(label, part); });
  });
}

Status visit_records(const meta::Store& store, const std::string& prefix,
                     const std::function<Status(const meta::KeyValue& item)>& visit) {
  meta::KeyRange range = meta::KeyRange::prefix(prefix);
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto page, store.range(range, {.limit = kPage}));
    for (const meta::KeyValue& item : page.items) QANAT_RETURN_IF_ERROR(visit(item));
    if (!page.more || page.items.empty()) return ok_status();
    range.begin = meta::key_after(page.items.back().key);
  }
}

Status check_records(const meta::Store& store, const std::string& prefix, const CheckRecord& check,
                     const std::function<Status(content::FsckProblem)>& report, uint64_t* count) {
  return visit_records(store, prefix, [&](const meta::KeyValue& item) -> Status {
    ++*count;
    Problems problems;
    QANAT_RETURN_IF_ERROR(check(item, 0, &problems));
    while (!problems.empty()) {
      problems.clear();
      const int64_t revision = store.current_revision();
      const auto again = store.get(item.key, revision);
      Status status = again.status();
      if (again.ok() && *again) status = check(**again, revision, &problems);
      if (status.code() == Code::kGone) {  // compacted meanwhile: once more
        problems.resize(1);
        continue;
      }
      QANAT_RETURN_IF_ERROR(status);
      break;
    }
    for (FsckProblem& problem : problems) QANAT_RETURN_IF_ERROR(report(std::move(problem)));
    return ok_status();
  });
}

Result<uint64_t> FsckVersions::check_records(
    const std::string& project, const std::function<Status(content::FsckProblem)>& report) {
  uint64_t count = 0;
  auto check = [&](const std::string& prefix, Status (Examination::*examine)()) {
    return version::check_records(
        store_, prefix,
        [&](const meta::KeyValue& item, int64_t revision, Problems* problems) {
          return (Examination(store_, project, item, revision, problems).*examine)();
        },
        report, &count);
  };
  QANAT_RETURN_IF_ERROR(version::check_records(
      store_, repos_prefix(project),
      [&](const meta::KeyValue& item, int64_t revision, Problems* problems) {
        Examination(store_, project, item, revision, problems)
            .record<RepoRecord>(str_cat("repo ", last_part(item.key)));
        return ok_status();
      },
      report, &count));
  QANAT_RETURN_IF_ERROR(check(branches_prefix(project), &Examination::branch));
  QANAT_RETURN_IF_ERROR(check(commits_prefix(project), &Examination::commit));
  QANAT_RETURN_IF_ERROR(check(waves_prefix(project), &Examination::wave));
  QANAT_RETURN_IF_ERROR(check(str_cat("/v1/head/", project, "/"), &Examination::head));
  QANAT_RETURN_IF_ERROR(check(str_cat("/v1/log/", project, "/"), &Examination::log));
  QANAT_RETURN_IF_ERROR(check(children_prefix(project), &Examination::child));
  QANAT_RETURN_IF_ERROR(check(trash_prefix(project), &Examination::trash));
  // Of what lies there, that it can be read.
  QANAT_RETURN_IF_ERROR(version::check_records(
      store_, trash_items_prefix(project),
      [&](const meta::KeyValue& item, int64_t revision, Problems* problems) {
        return Examination(store_, project, item, revision, problems).trash_item();
      },
      report, &count));
  return count;
}

Status FsckVersions::visit_roots(const std::string& project,
                                 const std::function<Status(const content::FsckRoot&)>& visit) {
  auto visit_commit = [&](const std::string& label, const meta::KeyValue& item) -> Status {
    const auto record = decode<CommitRecord>(item.key, item.value);
    if (!record.ok() || record->root.empty()) return ok_status();
    return visit({str_cat(label, part_from_end(item.key, 1), "@", last_part(item.key), ":/"),
                  record->root, content::FsckUse::kTree});
  };
  QANAT_RETURN_IF_ERROR(
      visit_records(store_, commits_prefix(project),
                    [&](const meta::KeyValue& item) { return visit_commit("", item); }));
  return visit_trash_records(store_, project, "/v1/commit/", visit_commit);
}

Status FsckVersions::visit_node(content::FsckUse, const content::Blob&, bool,
                                const content::FsckVisit&) {
  return not_found("not a node of versions");
}

}  // namespace qanat::version
