#include "qanat/version/gc_roots.h"

#include "qanat/base/string.h"
#include "qanat/version/keys.h"

namespace qanat::version {
namespace {

constexpr int64_t kPage = 1000;
// Branches and newest commits that the report names one by one; all others are their repo's.
constexpr size_t kMaxNamed = 10'000;
constexpr int64_t kNewest = 100;  // of a repo

Status visit_commit(
    const meta::KeyValue& item, const content::Holder& holder,
    const std::function<Status(const content::Holder&, const content::Reference&)>& visit) {
  QANAT_ASSIGN_OR_RETURN(const auto commit, decode<CommitRecord>(item.key, item.value));
  return content::visit_root_references(
      commit.root, content::NodeUse::kContent,
      [&](const content::Reference& reference) { return visit(holder, reference); });
}

}  // namespace

std::string trash_name(const TrashRecord& record) {
  if (record.kind == "repo") return str_cat("repo ", record.repo);
  if (record.kind == "branch") return str_cat("branch ", record.repo, "@", record.branch);
  return str_cat("commit ", record.commit);
}

Status visit_range(const meta::Store& store, const std::string& prefix, int64_t revision,
                   const std::function<Status(const meta::KeyValue& item)>& visit) {
  meta::KeyRange range = meta::KeyRange::prefix(prefix);
  while (true) {
    QANAT_ASSIGN_OR_RETURN(const auto found,
                           store.range(range, {.limit = kPage, .revision = revision}));
    for (const meta::KeyValue& item : found.items) QANAT_RETURN_IF_ERROR(visit(item));
    if (!found.more || found.items.empty()) return ok_status();
    range.begin = meta::key_after(found.items.back().key);
  }
}

Status visit_trash_items(
    meta::Store& store, Clock& clock, const content::RootSource::Request& request,
    std::string_view prefix,
    const std::function<Status(const std::string& name, const meta::KeyValue& item)>& visit) {
  return visit_range(
      store, trash_prefix(request.project), request.revision,
      [&](const meta::KeyValue& item) -> Status {
        QANAT_ASSIGN_OR_RETURN(const auto record, decode<TrashRecord>(item.key, item.value));
        if (request.without_expired && record.state == "whole" &&
            (request.now || record.expires_ms <= clock.wall_ms())) {
          return ok_status();
        }
        const std::string name = trash_name(record);
        return visit_range(store, trash_item_key(request.project, last_part(item.key), prefix),
                           request.revision,
                           [&](const meta::KeyValue& part) { return visit(name, part); });
      });
}

Status VersionRoots::prepare(std::string_view project, bool now) {
  return versions_.empty_trash(project, now);
}

Status VersionRoots::visit_roots(
    const Request& request,
    const std::function<Status(const content::Holder&, const content::Reference&)>& visit) {
  if (request.rank == content::RootRank::kVersions) {
    QANAT_RETURN_IF_ERROR(visit_named(request, visit));
    return visit_range(store_, commits_prefix(request.project), request.revision,
                       [&](const meta::KeyValue& item) -> Status {
                         return visit_commit(
                             item, {"repo", std::string(part_from_end(item.key, 1))}, visit);
                       });
  }
  if (request.rank != content::RootRank::kTrash) return ok_status();
  return visit_trash_items(store_, clock_, request, "/v1/commit/",
                           [&](const std::string& name, const meta::KeyValue& item) {
                             return visit_commit(item, {"trash", name}, visit);
                           });
}

// What people see first is accounted first: the heads of branches, what is open on them, then each
// repo's newest commits, from new to old. They come again among all commits, so this need not be
// complete: what cannot be read here is found there.
Status VersionRoots::visit_named(
    const Request& request,
    const std::function<Status(const content::Holder&, const content::Reference&)>& visit) {
  size_t named = 0;
  auto visit_one = [&](std::string_view repo, std::string_view id,
                       const content::Holder& holder) -> Status {
    if (id.empty() || ++named > kMaxNamed) return ok_status();
    QANAT_ASSIGN_OR_RETURN(const auto item,
                           store_.get(commit_key(request.project, repo, id), request.revision));
    return item ? visit_commit(*item, holder, visit) : ok_status();
  };
  QANAT_RETURN_IF_ERROR(visit_range(
      store_, branches_prefix(request.project), request.revision,
      [&](const meta::KeyValue& item) -> Status {
        const auto branch = decode<BranchRecord>(item.key, item.value);
        if (!branch.ok()) return ok_status();
        const std::string_view repo = part_from_end(item.key, 1);
        const std::string name = str_cat(repo, "@", last_part(item.key));
        QANAT_RETURN_IF_ERROR(visit_one(repo, branch->head, {"branch", name}));
        return visit_one(repo, branch->open, {"open commit", str_cat(repo, "@", branch->open)});
      }));
  return visit_range(
      store_, repos_prefix(request.project), request.revision,
      [&](const meta::KeyValue& item) -> Status {
        if (named >= kMaxNamed) return ok_status();
        const std::string_view repo = last_part(item.key);
        QANAT_ASSIGN_OR_RETURN(
            const auto newest,
            store_.range(meta::KeyRange::prefix(log_prefix(request.project, repo)),
                         {.limit = kNewest, .revision = request.revision, .descending = true}));
        for (const meta::KeyValue& logged : newest.items) {
          const std::string_view id = last_part(logged.key);
          QANAT_RETURN_IF_ERROR(visit_one(repo, id, {"commit", str_cat(repo, "@", id)}));
        }
        return ok_status();
      });
}

Status VersionRoots::visit_references(content::NodeUse, const content::Blob&,
                                      const content::ReferenceVisitor&) {
  return not_found("not a node of versions");
}

Status VersionRoots::visit_result(std::string_view, const content::ReferenceVisitor&) {
  return not_found("not a result of versions");
}

}  // namespace qanat::version
