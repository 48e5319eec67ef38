// What the .cc files behind Versions share. Internal to version.
#pragma once

#include <array>
#include <atomic>
#include <mutex>

#include "qanat/base/string.h"
#include "qanat/version/keys.h"
#include "qanat/version/versions.h"

namespace qanat::version {

// A record with the revision of its last change.
template <class Record>
struct Loaded {
  Record record;
  int64_t mod_revision = 0;
};

// A bounded set of mutexes for an unbounded set of names: they only save retries, so two names may
// share one.
class NamedMutexes {
 public:
  std::mutex& of(std::string_view name) {
    return stripes_[std::hash<std::string_view>()(name) % stripes_.size()];
  }

 private:
  std::array<std::mutex, 64> stripes_;
};

struct Versions::Impl {
  Impl(meta::Store& meta_store, Clock& time, Readers content_readers, DagView* dag_view)
      : store(meta_store), clock(time), readers(std::move(content_readers)), dag(dag_view) {}

  // --- Records ---
  template <class Record>
  Result<std::optional<Loaded<Record>>> find(const std::string& key, int64_t revision = 0) const {
    QANAT_ASSIGN_OR_RETURN(auto item, store.get(key, revision));
    if (!item) return std::optional<Loaded<Record>>();
    QANAT_ASSIGN_OR_RETURN(Record record, decode<Record>(key, item->value));
    return std::optional<Loaded<Record>>({std::move(record), item->mod_revision});
  }
  // kNotFound with a hint if it is not there, is being deleted, or the name is no name.
  Result<Loaded<RepoRecord>> repo(const RepoName& name) const;
  // The same, and kPermissionDenied-like refusal if it is a pipeline's.
  Result<Loaded<RepoRecord>> repo_for_writing(const RepoName& name) const;
  Result<std::optional<Loaded<BranchRecord>>> branch(const RepoName& repo,
                                                     std::string_view name) const;
  Result<std::optional<CommitInfo>> find_commit(const RepoName& repo, std::string_view id) const;
  Result<CommitInfo> commit(const RepoName& repo, std::string_view id) const;

  // --- Ancestry (ancestry.cc) ---
  // Sets parent, depth and jump of a commit that follows `parent` ("": the first).
  Status set_parent(const RepoName& repo, std::string_view parent, CommitRecord& record) const;
  // The ancestor of `commit`, or itself, at `depth`, which is 1 to the commit's own. O(log depth).
  Result<CommitInfo> ancestor_at(const RepoName& repo, CommitInfo commit, int64_t depth) const;

  // --- Waves (waves.cc) ---
  // A wave whose draft needs to know the number it will have. Called with the lock of the
  // project's waves held: it may read, but not start another wave.
  using NumberedDraft = std::function<Result<WaveDraft>(int64_t revision, int64_t number)>;
  struct Started {
    std::optional<WaveInfo> wave;
    int64_t revision = 0;
  };
  Result<Started> start_wave(std::string_view project, const NumberedDraft& draft);
  Result<std::vector<std::string>> members(std::string_view project,
                                           const std::vector<HeadChange>& changed,
                                           int64_t revision) const;

  // --- Provenance of branches (branches.cc) ---
  // The branches that derive directly from one for which `is_source` holds, as "repo@branch".
  Result<std::vector<std::string>> derived_from(
      std::string_view project, const std::function<bool(const BranchName&)>& is_source) const;
  // kFailedPrecondition if `branch` would derive from itself; kNotFound for a repo that is missing.
  Status check_provenance(std::string_view project, const BranchName& branch,
                          const std::vector<BranchName>& provenance) const;

  // --- Deletion (repos.cc) ---
  // Removes all of a repo that is marked as deleting, moves it to the trash, or back from there, as
  // its record says. Not from within a draft: it may start a wave itself.
  Status finish_deletion(const RepoName& name);
  Status finish_restoring(const RepoName& name, const Loaded<RepoRecord>& loaded);

  // --- Trash (trash.cc) ---
  Result<std::optional<TrashInfo>> find_trash(std::string_view project, std::string_view id) const;
  // Those below work in transactions of a bounded number of keys. Each compares `guard` too: that
  // what is being done is still to be done. Where it does not hold somebody else has ended it, and
  // what lies under these keys by now may be another's: they leave it, and give OK.
  Status move_to_trash(std::string_view project, std::string_view trash,
                       const meta::KeyRange& range, const meta::Compare& guard);
  // Moves what is in the trash back, but for the key `but`.
  Status move_from_trash(std::string_view project, std::string_view trash, std::string_view but,
                         const meta::Compare& guard);
  // Ascending. Without a guard: for keys that nobody uses again.
  Status erase_in_steps(const meta::KeyRange& range,
                        const std::optional<meta::Compare>& guard = std::nullopt);
  // Gives it without its revision.
  TrashInfo put_trash(meta::Transaction& transaction, std::string_view project,
                      TrashRecord record) const;
  // Ends the deletion or restoration of a branch that its record in the trash says has begun.
  Status finish_branch(std::string_view project, const TrashInfo& info);
  // Ends all that a crash, an error or another server has left half done of a branch's deletions
  // and restorations. Gives whether it has restored the branch.
  Result<bool> settle_branch(const RepoName& repo, std::string_view branch);
  // For who makes a branch, which is not there: none of an earlier one's history may be left.
  // make_way() sees to that; check_gone() makes sure of it, in the draft or once wave-next has been
  // read that the transaction compares, by kConflict.
  Status make_way(const RepoName& repo, std::string_view branch);
  Status check_gone(const RepoName& repo, std::string_view branch) const;
  // What a crash left half done.
  Status resume_trash();
  // Commits one step. False: its guard does not hold (any more).
  Result<bool> commit_step(meta::Transaction step, const std::optional<meta::Compare>& guard);

  // Puts a commit's record, and its place in the log and below its parent if it is new.
  void put_commit(meta::Transaction& transaction, const RepoName& repo, const std::string& id,
                  const CommitRecord& record, bool is_new) const;
  // Puts a branch whose head is `record.head` from wave record.head_wave on.
  void put_head(meta::Transaction& transaction, const RepoName& repo, std::string_view branch,
                const BranchRecord& record) const;
  // Compares that the branch is as loaded (absent: nullopt).
  static meta::Compare branch_unchanged(const RepoName& repo, std::string_view branch,
                                        const std::optional<Loaded<BranchRecord>>& loaded);

  meta::Store& store;
  Clock& clock;
  const Readers readers;
  std::atomic<DagView*> dag;
  std::atomic<int64_t> trash_grace_ms = kDefaultTrashGraceMs;
  NamedMutexes branch_locks;   // taken first
  NamedMutexes project_locks;  // then this one
};

// A page's token: the revision of the list and the last item's name.
struct PageToken {
  int64_t revision = 0;
  std::string last;
  static Result<PageToken> parse(std::string_view token);  // kInvalidArgument
  std::string to_string() const { return str_cat(revision, ":", last); }
};

constexpr int64_t kMaxPage = 1'000;

// One page of the keys of a prefix, at the revision of the first page. `make` turns an item into an
// entry of the list, or into nothing. Names must sort as their keys do.
template <class T>
Result<Page<T>> list_page(
    const meta::Store& store, const std::string& prefix, const PageRequest& request,
    bool descending, const std::function<Result<std::optional<T>>(const meta::KeyValue&)>& make) {
  PageToken token;
  meta::KeyRange range = meta::KeyRange::prefix(prefix);
  if (!request.token.empty()) {
    QANAT_ASSIGN_OR_RETURN(token, PageToken::parse(request.token));
    (descending ? range.end : range.begin) =
        descending ? prefix + token.last : meta::key_after(prefix + token.last);
  }
  const int64_t limit = std::clamp<int64_t>(request.limit, 1, kMaxPage);
  QANAT_ASSIGN_OR_RETURN(
      auto found,
      store.range(range, {.limit = limit, .revision = token.revision, .descending = descending}));
  Page<T> page;
  page.revision = found.revision;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(std::optional<T> entry, make(item));
    if (entry) page.items.push_back(*std::move(entry));
  }
  if (found.more) {
    page.next = PageToken{found.revision, found.items.back().key.substr(prefix.size())}.to_string();
  }
  return page;
}

}  // namespace qanat::version
