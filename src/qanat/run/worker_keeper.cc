#include "qanat/run/worker_keeper.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <string_view>
#include <utility>

#include "qanat/base/hash.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::run {
namespace {

using pipeline::WorkerEvent;
using pipeline::WorkerGroupId;
using pipeline::WorkerGroupSpec;

constexpr std::int64_t kLookEveryMs = 1000;
constexpr std::int64_t kLookAfterErrorMs = 2000;
constexpr size_t kCallsAtOnce = 6;

std::string as_text(std::string_view text) { return std::string(text); }

// Which folder is at this path. A worker sees the one that was there when it was started: if its
// group was stopped and is wanted again, that one is gone, and the way to the server with it.
std::string identity_of(const std::string& folder) {
  struct statx info = {};
  if (::statx(AT_FDCWD, folder.c_str(), 0, STATX_INO | STATX_BTIME, &info) != 0) return {};
  return str_cat(info.stx_ino, " ", info.stx_btime.tv_sec, " ", info.stx_btime.tv_nsec);
}

// Calls each once, in their order, on at most kCallsAtOnce threads, this one among them; returns
// when all have returned.
void run_side_by_side(std::vector<std::function<void()>> calls) {
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i = next++; i < calls.size(); i = next++) calls[i]();
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < std::min(calls.size(), kCallsAtOnce); ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

std::string fingerprint_of(const WorkerGroupSpec& spec) {
  std::string text =
      str_cat(spec.image_digest, "\n", spec.run_folder, "\n", identity_of(spec.run_folder + "/run"),
              "\n", spec.limits.cpus, "\n", spec.limits.memory_bytes, "\n", spec.limits.pids, "\n",
              spec.network == pipeline::Network::kHost ? "host" : "none", "\n");
  for (const auto& [name, value] : spec.env) str_append(text, name, "=", value, "\n");
  return sha256(text).to_hex().substr(0, 16);
}

WorkerKeeper::WorkerKeeper(WorkerBackend& backend, Clock& clock)
    : backend_(backend), clock_(clock) {}

WorkerKeeper::~WorkerKeeper() { stop(); }

void WorkerKeeper::start() {
  thread_ = std::thread([this] { run(); });
}

void WorkerKeeper::stop() {
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

Status WorkerKeeper::ensure(const WorkerGroupSpec& spec) {
  if (spec.count < 0 || spec.run_folder.empty() || spec.run_folder[0] != '/' ||
      !spec.new_credential) {
    return internal_error("worker group: count, run_folder or new_credential is missing");
  }
  MutexLock lock(mutex_);
  Group& group = groups_[spec.id];
  std::string fingerprint = fingerprint_of(spec);
  if (group.fingerprint != fingerprint) group.backoff.succeeded();
  group.spec = spec;
  group.fingerprint = std::move(fingerprint);
  stopping_.erase(spec.id);
  poked_ = true;
  changed_.notify_all();
  return ok_status();
}

Status WorkerKeeper::scale(const WorkerGroupId& id, int count) {
  MutexLock lock(mutex_);
  auto found = groups_.find(id);
  if (found == groups_.end()) {
    return not_found(str_cat("no workers of ", to_string(id), " are wanted"));
  }
  found->second.spec.count = std::max(count, 0);
  poked_ = true;
  changed_.notify_all();
  return ok_status();
}

Status WorkerKeeper::stop_group(const WorkerGroupId& id) {
  MutexLock lock(mutex_);
  groups_.erase(id);
  stopping_.insert(id);
  poked_ = true;
  changed_.notify_all();
  return ok_status();
}

Status WorkerKeeper::stop_unwanted() {
  MutexLock lock(mutex_);
  stop_unwanted_ = true;
  poked_ = true;
  changed_.notify_all();
  return ok_status();
}

Result<std::vector<pipeline::WorkerGroupStatus>> WorkerKeeper::list() {
  QANAT_ASSIGN_OR_RETURN(std::vector<ObservedWorker> observed, backend_.observe());
  std::map<WorkerGroupId, pipeline::WorkerGroupStatus> statuses;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, group] : groups_) {
      statuses[id].wanted = true;
      statuses[id].count = group.spec.count;
    }
  }
  for (const ObservedWorker& worker : observed) {
    statuses[worker.group].workers.push_back({worker.worker_id, worker.running});
  }
  std::vector<pipeline::WorkerGroupStatus> list;
  for (auto& [id, status] : statuses) {
    status.id = id;
    list.push_back(std::move(status));
  }
  return list;
}

void WorkerKeeper::set_listener(std::function<void(const WorkerEvent&)> listener) {
  MutexLock lock(listener_mutex_);
  listener_ = std::move(listener);
}

void WorkerKeeper::tell(const WorkerEvent& event) {
  log_info("worker", {{"event", as_text(to_string(event.kind))},
                      {"group", to_string(event.group)},
                      {"worker", event.worker_id},
                      {"reason", event.reason}});
  // Held during the call, so that set_listener(nullptr) waits for it.
  MutexLock lock(listener_mutex_);
  if (listener_) listener_(event);
}

void WorkerKeeper::run() {
  std::int64_t wait_ms = 0;
  while (true) {
    {
      MutexLock lock(mutex_);
      const std::int64_t until_ms = clock_.monotonic_ms() + wait_ms;
      while (!stopped_ && !poked_ && clock_.monotonic_ms() < until_ms) {
        changed_.wait_for_ms(mutex_, until_ms - clock_.monotonic_ms());
      }
      if (stopped_) return;
      poked_ = false;
    }
    wait_ms = reconcile();
  }
}

void WorkerKeeper::note_end(const ObservedWorker& worker) {
  const WorkerEnd end = backend_.ended(worker);
  WorkerEvent event;
  event.kind = WorkerEvent::Kind::kExited;
  event.group = worker.group;
  event.worker_id = worker.worker_id;
  event.exit_code = end.exit_code;
  event.oom = end.oom;
  {
    MutexLock lock(mutex_);
    auto found = groups_.find(worker.group);
    if (found == groups_.end()) return;
    Group& group = found->second;
    const std::int64_t now_ms = clock_.monotonic_ms();
    auto seen = group.seen_running.find(worker.worker_id);
    const std::int64_t life_ms =
        std::max(worker.age_ms, seen == group.seen_running.end() ? 0 : now_ms - seen->second);
    group.seen_running.erase(worker.worker_id);
    if (life_ms >= Backoff::kHealthyMs) {
      group.backoff.succeeded();
    } else {
      group.backoff.failed(now_ms);
    }
    event.failures_in_a_row = group.backoff.failures();
    event.retry_in_ms = group.backoff.wait_ms(now_ms);
    if (end.oom) {
      event.reason = str_cat("the worker was killed by the kernel: over resource_limits.memory (",
                             format_size(group.spec.limits.memory_bytes), ")");
    } else {
      event.reason = str_cat("the worker ended with code ", end.exit_code);
      if (!end.reason.empty()) str_append(event.reason, ": ", end.reason);
    }
  }
  tell(event);
}

bool WorkerKeeper::start_worker(const Work& work) {
  WorkerEvent event;
  event.group = work.spec.id;
  event.worker_id = random_id();
  Result<std::string> credential = work.spec.new_credential(event.worker_id);
  Status status = credential.ok()
                      ? backend_.start(work.spec, event.worker_id, work.fingerprint, *credential)
                      : credential.status();
  if (status.ok()) {
    event.kind = WorkerEvent::Kind::kStarted;
  } else {
    event.kind = WorkerEvent::Kind::kFailed;
    event.reason = status.message();
    if (!status.hint().empty()) str_append(event.reason, " (", status.hint(), ")");
  }
  {
    MutexLock lock(mutex_);
    auto found = groups_.find(work.spec.id);
    if (found != groups_.end()) {
      Group& group = found->second;
      const std::int64_t now_ms = clock_.monotonic_ms();
      if (status.ok()) {
        group.seen_running[event.worker_id] = now_ms;
      } else {
        // Workers that failed in the same pass count once.
        if (group.backoff.may_start(now_ms)) group.backoff.failed(now_ms);
        event.failures_in_a_row = group.backoff.failures();
        event.retry_in_ms = group.backoff.wait_ms(now_ms);
      }
    }
  }
  tell(event);
  return status.ok();
}

Status WorkerKeeper::remove_worker(const ObservedWorker& worker) {
  Status status = backend_.remove(worker);
  if (!status.ok())
    log_warning("cannot remove a worker", {{"worker", worker.worker_id}, {"error", status}});
  return status;
}

std::int64_t WorkerKeeper::reconcile() {
  Result<std::vector<ObservedWorker>> observed = backend_.observe();
  if (!observed.ok()) {
    std::vector<WorkerEvent> events;
    {
      MutexLock lock(mutex_);
      for (auto& [id, group] : groups_) {
        if (group.spec.count == 0) continue;
        WorkerEvent event;
        event.kind = WorkerEvent::Kind::kFailed;
        event.group = id;
        event.reason = observed.status().message();
        if (!observed.status().hint().empty()) {
          str_append(event.reason, " (", observed.status().hint(), ")");
        }
        event.retry_in_ms = kLookAfterErrorMs;
        events.push_back(std::move(event));
      }
    }
    for (const WorkerEvent& event : events) tell(event);
    return kLookAfterErrorMs;
  }
  std::vector<ObservedWorker> remove;
  std::vector<ObservedWorker> ended;
  std::vector<Work> works;
  std::int64_t next_ms = kLookEveryMs;
  {
    MutexLock lock(mutex_);
    const std::int64_t now_ms = clock_.monotonic_ms();
    std::map<WorkerGroupId, std::vector<const ObservedWorker*>> running;
    std::set<WorkerGroupId> seen;
    std::set<std::string_view> ids;
    for (const ObservedWorker& worker : *observed) {
      seen.insert(worker.group);
      ids.insert(worker.worker_id);
      auto found = groups_.find(worker.group);
      if (found == groups_.end()) {
        if (stop_unwanted_ || stopping_.count(worker.group) > 0) remove.push_back(worker);
      } else if (worker.fingerprint != found->second.fingerprint) {
        remove.push_back(worker);
      } else if (!worker.running) {
        remove.push_back(worker);
        // Once, however often its removal fails.
        if (found->second.told_ended.insert(worker.worker_id).second) ended.push_back(worker);
      } else {
        running[worker.group].push_back(&worker);
        auto [since, added] = found->second.seen_running.emplace(worker.worker_id, now_ms);
        if (now_ms - since->second >= Backoff::kHealthyMs) found->second.backoff.succeeded();
      }
    }
    std::erase_if(stopping_, [&](const WorkerGroupId& id) { return seen.count(id) == 0; });
    for (auto& [id, group] : groups_) {
      std::erase_if(group.told_ended,
                    [&](const std::string& worker) { return !ids.contains(worker); });
      std::vector<const ObservedWorker*>& workers = running[id];
      const int surplus = static_cast<int>(workers.size()) - group.spec.count;
      for (int i = 0; i < surplus; ++i) remove.push_back(*workers[workers.size() - 1 - i]);
    }
  }
  // How they ended decides when the next ones may start, and must be asked before they are removed.
  std::vector<std::function<void()>> calls;
  for (const ObservedWorker& worker : ended) calls.push_back([&] { note_end(worker); });
  run_side_by_side(std::exchange(calls, {}));
  {
    MutexLock lock(mutex_);
    const std::int64_t now_ms = clock_.monotonic_ms();
    for (auto& [id, group] : groups_) {
      int running = 0;
      for (const ObservedWorker& worker : *observed) {
        if (worker.group == id && worker.running && worker.fingerprint == group.fingerprint) {
          ++running;
        }
      }
      const int missing = group.spec.count - running;
      if (missing <= 0) continue;
      if (group.backoff.may_start(now_ms)) {
        // After a failure one worker goes first.
        works.push_back(
            {group.spec, group.fingerprint, group.backoff.failures() > 0 ? 1 : missing});
        if (group.backoff.failures() > 0 && missing > 1) next_ms = 0;
      } else {
        next_ms = std::min(next_ms, group.backoff.wait_ms(now_ms));
      }
    }
  }
  // Starts and removals take turns, so that many of the one do not hold up the other.
  std::atomic<bool> not_removed{false};
  std::vector<std::atomic<bool>> failed(works.size());
  std::vector<std::function<void()>> starts;
  for (size_t i = 0; i < works.size(); ++i) {
    for (int n = 0; n < works[i].starts; ++n) {
      starts.push_back([this, &work = works[i], &failed = failed[i]] {
        if (!failed && !start_worker(work)) failed = true;
      });
    }
  }
  for (size_t i = 0; i < std::max(starts.size(), remove.size()); ++i) {
    if (i < starts.size()) calls.push_back(std::move(starts[i]));
    if (i < remove.size()) {
      calls.push_back([this, &worker = remove[i], &not_removed] {
        if (!remove_worker(worker).ok()) not_removed = true;
      });
    }
  }
  run_side_by_side(std::move(calls));
  return not_removed ? std::min(next_ms, kLookAfterErrorMs) : next_ms;
}

}  // namespace qanat::run
