// The keys of versions in meta (docs/architecture.md, "Meta"). Numbers are 16 hex digits, so that
// keys sort as numbers do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::version {

std::string project_key(std::string_view project);
std::string repos_prefix(std::string_view project);
std::string repo_key(std::string_view project, std::string_view repo);
std::string branches_prefix(std::string_view project);  // of all repos
std::string branches_prefix(std::string_view project, std::string_view repo);
std::string branch_key(std::string_view project, std::string_view repo, std::string_view branch);
std::string commits_prefix(std::string_view project);  // of all repos
std::string commits_prefix(std::string_view project, std::string_view repo);
std::string commit_key(std::string_view project, std::string_view repo, std::string_view id);
// Commits of a repo in the order in which they were started:
// `log/<p>/<repo>/<started ms>/<depth>/<id>` -> "". The depth keeps a parent before its child when
// both were started in one millisecond.
std::string log_prefix(std::string_view project, std::string_view repo);
std::string log_key(std::string_view project, std::string_view repo, int64_t started_ms,
                    int64_t depth, std::string_view id);
// The commits whose parent a commit is: `child/<p>/<repo>/<parent>/<id>` -> "". Written with the
// commit's record, whose parent it repeats.
std::string children_prefix(std::string_view project);                         // of all repos
std::string children_prefix(std::string_view project, std::string_view repo);  // of all parents
std::string children_prefix(std::string_view project, std::string_view repo,
                            std::string_view parent);
std::string child_key(std::string_view project, std::string_view repo, std::string_view parent,
                      std::string_view id);
std::string heads_prefix(std::string_view project, std::string_view repo);  // of all branches
std::string heads_prefix(std::string_view project, std::string_view repo, std::string_view branch);
std::string head_key(std::string_view project, std::string_view repo, std::string_view branch,
                     int64_t wave);
std::string waves_prefix(std::string_view project);
std::string wave_key(std::string_view project, int64_t wave);
std::string wave_id_key(std::string_view project, std::string_view id);
// Holds the next wave's number. Every transaction that starts a wave or changes the DAG (creates,
// updates, stops, starts or deletes a pipeline) writes it: whoever compares its mod revision sees
// an unchanged DAG.
std::string wave_next_key(std::string_view project);
std::string session_key(std::string_view server);
// What was deleted: `trash/<p>/<deleted ms>/<id>`. Its parts: `trash-item/<p>/<id>/` and the key
// they had, without `/v1/`.
std::string trash_prefix(std::string_view project);
std::string trash_key(std::string_view project, int64_t deleted_ms, std::string_view id);
std::string trash_items_prefix(std::string_view project);
std::string trash_items_prefix(std::string_view project, std::string_view id);
// Where a key lies in the trash, and back.
std::string trash_item_key(std::string_view project, std::string_view id, std::string_view key);
std::string key_of_trash_item(std::string_view project, std::string_view id, std::string_view item);

// The part of a key after its last '/'.
std::string_view last_part(std::string_view key);
// The n-th part from the end; 0 is the last.
std::string_view part_from_end(std::string_view key, int n);

}  // namespace qanat::version
