// Looking back: provenance of commits, and the history of paths.
#include <deque>
#include <set>

#include "qanat/base/bytes.h"
#include "qanat/base/path.h"
#include "qanat/content/path_difference.h"
#include "qanat/version/versions_impl.h"

namespace qanat::version {
namespace {

using CommitName = std::pair<std::string, std::string>;  // repo, id

constexpr int64_t kWavesRead = 256;  // at a time

// [first, last]: waves in which a commit was the head of a branch.
struct Interval {
  int64_t first;
  int64_t last;
};

}  // namespace

// Where the commit was a head: by the entries of its branch's history. (A head moved to it under
// another branch is found through that branch.)
static Result<std::vector<Interval>> head_intervals(const meta::Store& store,
                                                    const std::string& heads_of_repo,
                                                    std::string_view id, int64_t last_wave) {
  QANAT_ASSIGN_OR_RETURN(auto entries, store.range(meta::KeyRange::prefix(heads_of_repo)));
  std::vector<Interval> intervals;
  for (size_t i = 0; i < entries.items.size(); ++i) {
    const meta::KeyValue& item = entries.items[i];
    QANAT_ASSIGN_OR_RETURN(auto entry, decode<HeadEntry>(item.key, item.value));
    if (entry.commit != id) continue;
    QANAT_ASSIGN_OR_RETURN(uint64_t first, from_hex16(last_part(item.key)));
    int64_t last = last_wave;
    if (i + 1 < entries.items.size() &&
        part_from_end(entries.items[i + 1].key, 1) == part_from_end(item.key, 1)) {
      QANAT_ASSIGN_OR_RETURN(uint64_t next, from_hex16(last_part(entries.items[i + 1].key)));
      last = static_cast<int64_t>(next) - 1;
    }
    intervals.push_back({static_cast<int64_t>(first), last});
  }
  return intervals;
}

Result<Provenance> Versions::provenance(const RepoName& repo, std::string_view ref,
                                        int64_t limit) const {
  QANAT_ASSIGN_OR_RETURN(CommitInfo start, resolve(repo, ref));
  Provenance result;
  // Upstream: the inputs that the records name, breadth first.
  std::set<CommitName> seen{{start.repo, start.id}};
  std::deque<CommitInfo> waiting{start};
  while (!waiting.empty() && !result.more) {
    CommitInfo at = std::move(waiting.front());
    waiting.pop_front();
    for (const CommitInput& input : at.record.inputs) {
      if (input.commit.empty() || !seen.insert({input.repo, input.commit}).second) continue;
      QANAT_ASSIGN_OR_RETURN(auto found,
                             impl_->find_commit({repo.project, input.repo}, input.commit));
      if (!found) continue;  // its repo was deleted by force
      if (static_cast<int64_t>(result.upstream.size()) == limit) {
        result.more = true;
        break;
      }
      waiting.push_back(*found);
      result.upstream.push_back(*std::move(found));
    }
  }
  if (result.more) return result;
  QANAT_RETURN_IF_ERROR(visit_downstream(
      repo.project, {start}, [&](CommitInfo made, const CommitInput&) -> Result<bool> {
        result.more = static_cast<int64_t>(result.downstream.size()) == limit;
        if (!result.more) result.downstream.push_back(std::move(made));
        return !result.more;
      }));
  return result;
}

Status Versions::visit_downstream(
    std::string_view project, const std::vector<CommitInfo>& starts,
    const std::function<Result<bool>(CommitInfo made, const CommitInput& from)>& visit) const {
  // Output commits of the waves in which one of these, or one already found, was a head. Going
  // through the waves in order, whatever a commit was made from is found before it.
  QANAT_ASSIGN_OR_RETURN(int64_t last, last_wave(project));
  std::set<CommitName> sources;
  std::map<int64_t, int64_t> to_read;  // first -> last wave
  auto add = [&](const CommitInfo& commit) -> Status {
    sources.insert({commit.repo, commit.id});
    QANAT_ASSIGN_OR_RETURN(
        auto intervals,
        head_intervals(impl_->store, heads_prefix(project, commit.repo), commit.id, last));
    for (const Interval& interval : intervals) {
      int64_t& end = to_read[interval.first];
      end = std::max(end, interval.last);
    }
    return ok_status();
  };
  for (const CommitInfo& start : starts) QANAT_RETURN_IF_ERROR(add(start));
  int64_t done = 0;  // waves up to it were read
  while (!to_read.empty()) {
    const auto [first, end] = *to_read.begin();
    const int64_t from = std::max(first, done + 1);
    if (from > end) {
      to_read.erase(to_read.begin());
      continue;
    }
    QANAT_ASSIGN_OR_RETURN(auto waves,
                           waves_after(project, from - 1, std::min(kWavesRead, end - from + 1)));
    if (waves.empty()) break;
    for (const WaveInfo& wave : waves) {
      if (wave.number > end) break;
      done = wave.number;
      bool widened = false;
      for (const std::string& member : wave.record.members) {
        if (sources.contains({member, wave.record.id})) continue;
        QANAT_ASSIGN_OR_RETURN(auto found,
                               impl_->find_commit({std::string(project), member}, wave.record.id));
        if (!found) continue;
        const auto& inputs = found->record.inputs;
        const auto source = std::find_if(
            inputs.begin(), inputs.end(),
            [&](const CommitInput& input) { return sources.contains({input.repo, input.commit}); });
        if (source == inputs.end()) continue;
        QANAT_RETURN_IF_ERROR(add(*found));
        widened = true;
        const CommitInput by = *source;
        QANAT_ASSIGN_OR_RETURN(const bool go_on, visit(*std::move(found), by));
        if (!go_on) return ok_status();
      }
      if (widened) break;
    }
  }
  return ok_status();
}

Result<std::vector<CommitInfo>> Versions::children(const RepoName& repo,
                                                   const CommitInfo& commit) const {
  QANAT_ASSIGN_OR_RETURN(
      auto branches,
      impl_->store.range(meta::KeyRange::prefix(branches_prefix(repo.project, repo.repo))));
  std::vector<CommitInfo> children;
  std::set<std::string> seen;
  for (const meta::KeyValue& item : branches.items) {
    QANAT_ASSIGN_OR_RETURN(auto record, decode<BranchRecord>(item.key, item.value));
    for (const std::string& id : {record.head, record.open}) {
      if (id.empty()) continue;
      QANAT_ASSIGN_OR_RETURN(auto tip, impl_->commit(repo, id));
      if (tip.record.depth <= commit.record.depth) continue;
      const std::string tip_id = tip.id;
      QANAT_ASSIGN_OR_RETURN(auto child,
                             impl_->ancestor_at(repo, std::move(tip), commit.record.depth + 1));
      if (child.id == commit.id && tip_id != commit.id) {
        // Commits between were taken out, so the child lies deeper: one by one.
        QANAT_ASSIGN_OR_RETURN(child, impl_->commit(repo, tip_id));
        while (child.record.parent != commit.id && !child.record.parent.empty()) {
          QANAT_ASSIGN_OR_RETURN(child, impl_->commit(repo, child.record.parent));
        }
      }
      if (child.record.parent != commit.id || !seen.insert(child.id).second) continue;
      children.push_back(std::move(child));
    }
  }
  return children;
}

Result<PathHistory> Versions::history(const RepoName& repo, std::string_view ref,
                                      std::string_view path, const HistoryRequest& request) const {
  QANAT_ASSIGN_OR_RETURN(std::string at_path, parse_path(path));
  QANAT_ASSIGN_OR_RETURN(content::BlobReader * reader, impl_->readers(repo.project));
  QANAT_ASSIGN_OR_RETURN(CommitInfo at, resolve(repo, ref));
  auto entry_of = [&](const content::TreeRoot& root) -> Result<std::optional<content::TreeEntry>> {
    // The root directory always exists; an empty one counts as nothing there.
    if (at_path.empty() && root.empty()) return std::optional<content::TreeEntry>();
    return content::Tree(*reader, root).find(at_path);
  };
  PathHistory history;
  QANAT_ASSIGN_OR_RETURN(auto entry, entry_of(at.record.root));
  for (;;) {
    ++history.searched;
    std::optional<CommitInfo> parent;
    if (!at.record.parent.empty()) {
      QANAT_ASSIGN_OR_RETURN(parent, impl_->commit(repo, at.record.parent));
    }
    std::optional<content::TreeEntry> before;
    if (parent) {
      QANAT_ASSIGN_OR_RETURN(const bool differs, content::differs_at(*reader, parent->record.root,
                                                                     at.record.root, at_path));
      before = entry;
      if (differs) {
        QANAT_ASSIGN_OR_RETURN(before, entry_of(parent->record.root));
      }
    }
    if (before != entry) {
      auto kind = !before ? PathChange::Kind::kAdded
                  : entry ? PathChange::Kind::kChanged
                          : PathChange::Kind::kDeleted;
      history.changes.push_back({std::move(at), kind, entry});
    }
    if (!parent) return history;
    if (static_cast<int64_t>(history.changes.size()) >= request.limit ||
        history.searched >= request.search_limit) {
      history.next = parent->id;
      return history;
    }
    at = *std::move(parent);
    entry = std::move(before);
  }
}

}  // namespace qanat::version
