#include "qanat/version/keys.h"

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

namespace qanat::version {
namespace {

std::string hex(int64_t number) { return to_hex16(static_cast<uint64_t>(number)); }

}  // namespace

std::string project_key(std::string_view project) { return str_cat("/v1/project/", project); }
std::string repos_prefix(std::string_view project) { return str_cat("/v1/repo/", project, "/"); }
std::string repo_key(std::string_view project, std::string_view repo) {
  return repos_prefix(project).append(repo);
}
std::string branches_prefix(std::string_view project) {
  return str_cat("/v1/branch/", project, "/");
}
std::string branches_prefix(std::string_view project, std::string_view repo) {
  return str_cat("/v1/branch/", project, "/", repo, "/");
}
std::string branch_key(std::string_view project, std::string_view repo, std::string_view branch) {
  return branches_prefix(project, repo).append(branch);
}
std::string commits_prefix(std::string_view project) {
  return str_cat("/v1/commit/", project, "/");
}
std::string commits_prefix(std::string_view project, std::string_view repo) {
  return str_cat("/v1/commit/", project, "/", repo, "/");
}
std::string commit_key(std::string_view project, std::string_view repo, std::string_view id) {
  return commits_prefix(project, repo).append(id);
}
std::string log_prefix(std::string_view project, std::string_view repo) {
  return str_cat("/v1/log/", project, "/", repo, "/");
}
std::string log_key(std::string_view project, std::string_view repo, int64_t started_ms,
                    int64_t depth, std::string_view id) {
  return str_cat(log_prefix(project, repo), hex(started_ms), "/", hex(depth), "/", id);
}
std::string children_prefix(std::string_view project) {
  return str_cat("/v1/child/", project, "/");
}
std::string children_prefix(std::string_view project, std::string_view repo) {
  return str_cat("/v1/child/", project, "/", repo, "/");
}
std::string children_prefix(std::string_view project, std::string_view repo,
                            std::string_view parent) {
  return str_cat("/v1/child/", project, "/", repo, "/", parent, "/");
}
std::string child_key(std::string_view project, std::string_view repo, std::string_view parent,
                      std::string_view id) {
  return children_prefix(project, repo, parent).append(id);
}
std::string heads_prefix(std::string_view project, std::string_view repo) {
  return str_cat("/v1/head/", project, "/", repo, "/");
}
std::string heads_prefix(std::string_view project, std::string_view repo, std::string_view branch) {
  return str_cat("/v1/head/", project, "/", repo, "/", branch, "/");
}
std::string head_key(std::string_view project, std::string_view repo, std::string_view branch,
                     int64_t wave) {
  return heads_prefix(project, repo, branch).append(hex(wave));
}
std::string waves_prefix(std::string_view project) { return str_cat("/v1/wave/", project, "/"); }
std::string wave_key(std::string_view project, int64_t wave) {
  return waves_prefix(project).append(hex(wave));
}
std::string wave_id_key(std::string_view project, std::string_view id) {
  return str_cat("/v1/wave-id/", project, "/", id);
}
std::string wave_next_key(std::string_view project) { return str_cat("/v1/wave-next/", project); }
std::string trash_prefix(std::string_view project) { return str_cat("/v1/trash/", project, "/"); }
std::string trash_key(std::string_view project, int64_t deleted_ms, std::string_view id) {
  return str_cat(trash_prefix(project), hex(deleted_ms), "/", id);
}
std::string trash_items_prefix(std::string_view project) {
  return str_cat("/v1/trash-item/", project, "/");
}
std::string trash_items_prefix(std::string_view project, std::string_view id) {
  return str_cat(trash_items_prefix(project), id, "/");
}
std::string trash_item_key(std::string_view project, std::string_view id, std::string_view key) {
  return trash_items_prefix(project, id).append(key.substr(std::string_view("/v1/").size()));
}
std::string key_of_trash_item(std::string_view project, std::string_view id,
                              std::string_view item) {
  return str_cat("/v1/", item.substr(trash_items_prefix(project, id).size()));
}
std::string session_key(std::string_view server) { return str_cat("/v1/session/", server); }

std::string_view last_part(std::string_view key) { return key.substr(key.rfind('/') + 1); }
std::string_view part_from_end(std::string_view key, int n) {
  for (; n > 0; --n) key = key.substr(0, key.rfind('/'));
  return last_part(key);
}

}  // namespace qanat::version
