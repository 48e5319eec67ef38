// Waves: what each change of heads and of the DAG starts.
#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/name.h"
#include "qanat/version/versions_impl.h"

namespace qanat::version {
namespace {

constexpr int kAttempts = 200;

// The next wave's number is the text of `wave-next`; absent, it is 1.
struct WaveNext {
  int64_t number = 1;
  int64_t mod_revision = 0;
  int64_t revision = 0;  // of the store, when it was read
};

Result<WaveNext> read_next(const meta::Store& store, const std::string& key) {
  QANAT_ASSIGN_OR_RETURN(auto found, store.range(meta::KeyRange::single(key)));
  WaveNext next{.revision = found.revision};
  if (found.items.empty()) return next;
  next.mod_revision = found.items[0].mod_revision;
  QANAT_ASSIGN_OR_RETURN(next.number, parse_i64(found.items[0].value));
  return next;
}

Result<WaveInfo> decode_wave(const meta::KeyValue& item) {
  QANAT_ASSIGN_OR_RETURN(uint64_t number, from_hex16(last_part(item.key)));
  QANAT_ASSIGN_OR_RETURN(auto record, decode<WaveRecord>(item.key, item.value));
  return WaveInfo{static_cast<int64_t>(number), std::move(record), item.create_revision};
}

Status wave_missing(std::string_view wave) {
  return not_found(str_cat("wave ", wave, " does not exist"),
                   "`qanat list commit` shows the waves");
}

}  // namespace

Result<Versions::Impl::Started> Versions::Impl::start_wave(std::string_view project,
                                                           const NumberedDraft& draft_wave) {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  const std::string next_key = wave_next_key(project);
  std::lock_guard lock(project_locks.of(project));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    QANAT_ASSIGN_OR_RETURN(WaveNext next, read_next(store, next_key));
    // What the draft reads is at least as new as `next`; that `wave-next` is still the same at the
    // commit means that the DAG is.
    QANAT_ASSIGN_OR_RETURN(WaveDraft draft, draft_wave(next.revision, next.number));
    WaveInfo wave{next.number,
                  {.id = draft.id.empty() ? random_id() : draft.id,
                   .cause = draft.cause,
                   .changed = draft.changed,
                   .members = draft.members,
                   .created_ms = clock.wall_ms()}};
    meta::Transaction transaction = std::move(draft.with);
    transaction.when(meta::mod_revision_is(next_key, next.mod_revision));
    transaction.put(next_key, std::to_string(next.number + (draft.needs_wave ? 1 : 0)));
    if (draft.needs_wave) {
      transaction.put(wave_key(project, wave.number), encode(wave.record));
      transaction.put(wave_id_key(project, wave.record.id), std::to_string(wave.number));
      for (const HeadChange& change : draft.changed) {
        transaction.put(head_key(project, change.branch.repo, change.branch.branch, wave.number),
                        encode(HeadEntry{wave.number, change.commit}));
      }
    }
    QANAT_ASSIGN_OR_RETURN(auto result, store.commit(std::move(transaction)));
    if (!result.succeeded) continue;
    wave.revision = result.revision;
    Started started{.revision = result.revision};
    if (draft.needs_wave) started.wave = std::move(wave);
    return started;
  }
  return conflict(str_cat("project ", project, " changes faster than this could be done"),
                  "try again");
}

Result<std::vector<std::string>> Versions::Impl::members(std::string_view project,
                                                         const std::vector<HeadChange>& changed,
                                                         int64_t revision) const {
  DagView* view = dag;
  if (view == nullptr) return std::vector<std::string>();
  std::vector<BranchName> branches;
  for (const HeadChange& change : changed) branches.push_back(change.branch);
  return view->downstream(project, branches, revision);
}

Result<WaveInfo> Versions::start_wave(std::string_view project, const DraftWave& draft) {
  QANAT_ASSIGN_OR_RETURN(auto started, impl_->start_wave(project, [&](int64_t revision, int64_t) {
    return draft(revision);
  }));
  if (started.wave) return *std::move(started.wave);
  return WaveInfo{.number = 0, .record = {}, .revision = started.revision};
}

Result<WaveInfo> Versions::inspect_wave(std::string_view project, std::string_view id) const {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  if (!is_id(id)) return wave_missing(quoted(id));
  QANAT_ASSIGN_OR_RETURN(auto number, impl_->store.get(wave_id_key(project, id)));
  if (!number) return wave_missing(id);
  QANAT_ASSIGN_OR_RETURN(int64_t parsed, parse_i64(number->value));
  return inspect_wave(project, parsed);
}

Result<WaveInfo> Versions::inspect_wave(std::string_view project, int64_t number) const {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  QANAT_ASSIGN_OR_RETURN(auto item, impl_->store.get(wave_key(project, number)));
  if (!item) return wave_missing(std::to_string(number));
  return decode_wave(*item);
}

Result<Page<WaveInfo>> Versions::list_waves(std::string_view project,
                                            const PageRequest& page) const {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  return list_page<WaveInfo>(impl_->store, waves_prefix(project), page, true,
                             [](const meta::KeyValue& item) -> Result<std::optional<WaveInfo>> {
                               QANAT_ASSIGN_OR_RETURN(auto wave, decode_wave(item));
                               return std::optional<WaveInfo>(std::move(wave));
                             });
}

Result<std::vector<WaveInfo>> Versions::waves_after(std::string_view project, int64_t after,
                                                    int64_t limit) const {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  QANAT_ASSIGN_OR_RETURN(
      auto found,
      impl_->store.range(meta::KeyRange::between(wave_key(project, after + 1),
                                                 meta::prefix_end(waves_prefix(project))),
                         {.limit = limit}));
  std::vector<WaveInfo> waves;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(auto wave, decode_wave(item));
    waves.push_back(std::move(wave));
  }
  return waves;
}

Result<int64_t> Versions::last_wave(std::string_view project) const {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  QANAT_ASSIGN_OR_RETURN(WaveNext next, read_next(impl_->store, wave_next_key(project)));
  return next.number - 1;
}

Result<std::optional<HeadEntry>> Versions::head_at_wave(const RepoName& repo,
                                                        std::string_view branch,
                                                        int64_t wave) const {
  QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  QANAT_RETURN_IF_ERROR(check_branch_name(branch));
  QANAT_ASSIGN_OR_RETURN(
      auto found, impl_->store.range(
                      meta::KeyRange::between(heads_prefix(repo.project, repo.repo, branch),
                                              head_key(repo.project, repo.repo, branch, wave + 1)),
                      {.limit = 1, .descending = true}));
  if (found.items.empty()) return std::optional<HeadEntry>();
  const meta::KeyValue& item = found.items[0];
  QANAT_ASSIGN_OR_RETURN(HeadEntry entry, decode<HeadEntry>(item.key, item.value));
  if (entry.commit.empty()) return std::optional<HeadEntry>();  // the head was taken away
  QANAT_ASSIGN_OR_RETURN(uint64_t number, from_hex16(last_part(item.key)));
  entry.wave = static_cast<int64_t>(number);
  return std::optional<HeadEntry>(std::move(entry));
}

Result<std::vector<CommitInfo>> Versions::commits_of_wave(std::string_view project,
                                                          const WaveInfo& wave) const {
  std::vector<CommitInfo> commits;
  auto add = [&](const std::string& repo, const std::string& id) -> Status {
    if (id.empty()) return ok_status();
    QANAT_ASSIGN_OR_RETURN(auto found, impl_->find_commit({std::string(project), repo}, id));
    if (found) commits.push_back(*std::move(found));
    return ok_status();
  };
  for (const HeadChange& change : wave.record.changed) {
    QANAT_RETURN_IF_ERROR(add(change.branch.repo, change.commit));
  }
  // A pipeline's output repo has its name.
  for (const std::string& member : wave.record.members) {
    QANAT_RETURN_IF_ERROR(add(member, wave.record.id));
  }
  return commits;
}

Result<std::unique_ptr<meta::Watch>> Versions::watch_waves(std::string_view project,
                                                           int64_t from_revision,
                                                           OnWaves on_waves) const {
  QANAT_RETURN_IF_ERROR(check_project_name(project));
  return impl_->store.watch(meta::KeyRange::prefix(waves_prefix(project)), from_revision,
                            [on_waves = std::move(on_waves)](const meta::WatchBatch& batch) {
                              std::vector<WaveInfo> waves;
                              Status status = batch.status;
                              for (const meta::Event& event : batch.events) {
                                if (event.deleted) continue;
                                auto wave = decode_wave(event.item);
                                if (!wave.ok()) {
                                  status = wave.status();
                                  break;
                                }
                                waves.push_back(*std::move(wave));
                              }
                              if (!status.ok() || !waves.empty())
                                on_waves(status, batch.revision, waves);
                            });
}

Result<std::unique_ptr<meta::Watch>> Versions::watch_commits(const RepoName& repo,
                                                             int64_t from_revision,
                                                             OnCommits on_commits) const {
  QANAT_RETURN_IF_ERROR(check_project_name(repo.project));
  if (!repo.repo.empty()) QANAT_RETURN_IF_ERROR(impl_->repo(repo).status());
  const std::string prefix =
      repo.repo.empty() ? commits_prefix(repo.project) : commits_prefix(repo.project, repo.repo);
  return impl_->store.watch(
      meta::KeyRange::prefix(prefix), from_revision,
      [project = repo.project, on_commits = std::move(on_commits)](const meta::WatchBatch& batch) {
        std::vector<CommitInfo> commits;
        Status status = batch.status;
        for (const meta::Event& event : batch.events) {
          if (event.deleted) continue;
          auto record = decode<CommitRecord>(event.item.key, event.item.value);
          if (!record.ok()) {
            status = record.status();
            break;
          }
          commits.push_back({project, std::string(part_from_end(event.item.key, 1)),
                             std::string(last_part(event.item.key)), *std::move(record),
                             event.item.mod_revision});
        }
        if (!status.ok() || !commits.empty()) on_commits(status, batch.revision, commits);
      });
}

}  // namespace qanat::version
