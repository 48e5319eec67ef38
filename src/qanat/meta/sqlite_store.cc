#include "qanat/meta/sqlite_store.h"

#include <deque>
#include <future>
#include <map>
#include <thread>

#include "qanat/base/counters.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/meta/sqlite_log.h"
#include "qanat/meta/sqlite_reader.h"
#include "qanat/meta/sqlite_writer.h"
#include "qanat/meta/watch_hub.h"

namespace qanat::meta {
namespace {

constexpr size_t kBatchTransactions = 512;
constexpr size_t kBatchBytes = 16 << 20;
constexpr int64_t kSampleMs = 1'000;

Counter& batches() {
  static Counter& all = counter("qanat_meta_batches_total", "Groups of metadata transactions");
  return all;
}

size_t bytes_of(const Transaction& transaction) {
  size_t bytes = 0;
  for (const Operation& operation : transaction.then) bytes += operation.value.size();
  for (const Operation& operation : transaction.otherwise) bytes += operation.value.size();
  return bytes;
}

bool has_put(const Transaction& transaction) {
  auto is_put = [](const Operation& o) { return o.kind == Operation::Kind::kPut; };
  return std::any_of(transaction.then.begin(), transaction.then.end(), is_put) ||
         std::any_of(transaction.otherwise.begin(), transaction.otherwise.end(), is_put);
}

}  // namespace

// What waits for the writer: a transaction, the grant of a lease, or its end.
struct Request {
  enum class Kind { kTransaction, kGrant, kRevoke, kExpire };
  Kind kind = Kind::kTransaction;
  Transaction transaction;
  int64_t lease = 0;   // kRevoke, kExpire
  int64_t ttl_ms = 0;  // kGrant; the result's revision is the lease's id
  std::promise<Result<TransactionResult>> done;
};

struct SqliteStore::Impl {
  Impl(FileSystem& file_system, Clock& time, std::string in, SqliteOptions with)
      : files(file_system),
        clock(time),
        folder(std::move(in)),
        options(with),
        vfs(files),
        readers(vfs, folder + "/meta.db", options.readers) {}

  Status open();
  Result<TransactionResult> ask(Request request);
  Status check_space() const;

  // The writer's thread.
  void write_loop();
  std::vector<Request> take_batch();
  void run_batch(std::vector<Request> batch);
  Result<TransactionResult> execute(Request& request, const Status& space);
  std::vector<Request> expired_leases();
  int64_t compaction_target();
  void checkpoint_if_due();
  Status fold_log();
  Status stop_writing(const Status& cause);

  FileSystem& files;
  Clock& clock;
  const std::string folder;
  const SqliteOptions options;
  std::unique_ptr<FileLock> lock;
  SqliteVfs vfs;
  mutable ReaderPool readers;
  std::unique_ptr<SqliteWriter> writer;  // the writer's thread only
  std::unique_ptr<WatchHub> hub;

  mutable Mutex mutex;
  CondVar work;              // a request came, or stopping
  mutable CondVar advanced;  // revision moved
  std::deque<Request> queue GUARDED_BY(mutex);
  bool stopping GUARDED_BY(mutex) = false;
  int64_t revision GUARDED_BY(mutex) = 1;
  Status broken GUARDED_BY(mutex);  // why nothing can be written any more
  struct Lease {
    int64_t ttl_ms = 0;
    int64_t ends_ms = 0;  // monotonic
  };
  std::map<int64_t, Lease> leases GUARDED_BY(mutex);

  // The writer's thread only.
  int64_t looked_ms = 0;  // by `clock`, when leases were looked at
  std::chrono::steady_clock::time_point next_look;
  struct Sample {
    int64_t at_ms;
    int64_t revision;
  };
  std::deque<Sample> samples;  // one a second: how old revisions are
  std::thread thread;
};

Status SqliteStore::Impl::open() {
  QANAT_RETURN_IF_ERROR(files.make_directories(folder));
  auto held = files.lock_file(folder + "/lock");
  if (!held.ok()) return held.status().with_context(str_cat("metadata in ", folder));
  lock = *std::move(held);
  const Status log = check_log(files, folder + "/meta.db-wal");
  if (!log.ok()) {
    if (log.code() != Code::kDataLoss || !options.accept_damaged_log) return log;
    log_error("changes behind the damage are given up, as told to", {{"error", log}});
  }
  QANAT_ASSIGN_OR_RETURN(writer, SqliteWriter::open(vfs, folder + "/meta.db"));
  if (!log.ok()) {
    // So that what lies behind the damage is not found again.
    QANAT_RETURN_IF_ERROR(fold_log());
    QANAT_ASSIGN_OR_RETURN(writer, SqliteWriter::open(vfs, folder + "/meta.db"));
  }
  looked_ms = clock.monotonic_ms();
  MutexLock hold(mutex);
  revision = writer->state().revision;
  QANAT_ASSIGN_OR_RETURN(auto granted, writer->read_leases());
  for (const auto& [id, ttl_ms] : granted) leases[id] = {ttl_ms, looked_ms + ttl_ms};
  hub = std::make_unique<WatchHub>(readers);
  hub->advance(revision);
  thread = std::thread([this] { write_loop(); });
  return ok_status();
}

Result<TransactionResult> SqliteStore::Impl::ask(Request request) {
  std::future<Result<TransactionResult>> answer = request.done.get_future();
  {
    MutexLock hold(mutex);
    if (stopping) return cancelled("the metadata store closes");
    if (!broken.ok()) return broken;
    queue.push_back(std::move(request));
    work.notify_one();
  }
  return answer.get();
}

Status SqliteStore::Impl::check_space() const {
  QANAT_ASSIGN_OR_RETURN(SpaceInfo space, files.free_space(folder));
  uint64_t reserve =
      std::max(options.reserve_bytes,
               static_cast<uint64_t>(options.reserve_fraction * static_cast<double>(space.total)));
  if (space.available >= reserve) return ok_status();
  return resource_exhausted(
      str_cat("the disk of ", folder, " is full: ", format_size(space.available), " free, and ",
              format_size(reserve), " are kept for reading and deleting"),
      "delete repos or branches that are not needed, or make the disk larger");
}

void SqliteStore::Impl::write_loop() {
  for (;;) {
    std::vector<Request> batch = take_batch();
    if (batch.empty()) break;
    run_batch(std::move(batch));
    checkpoint_if_due();
  }
}

// Waits for requests, and adds the leases that ended. Empty when the store closes.
std::vector<Request> SqliteStore::Impl::take_batch() {
  for (;;) {
    std::vector<Request> batch = expired_leases();
    MutexLock hold(mutex);
    if (queue.empty() && batch.empty() && !stopping) {
      if (leases.empty()) {
        work.wait(mutex);
      } else {
        (void)work.wait_for_ms(mutex, options.lease_poll_ms);
      }
    }
    size_t bytes = 0;
    while (!queue.empty() && batch.size() < kBatchTransactions && bytes < kBatchBytes) {
      bytes += bytes_of(queue.front().transaction);
      batch.push_back(std::move(queue.front()));
      queue.pop_front();
    }
    if (!batch.empty() || stopping) return batch;
  }
}

std::vector<Request> SqliteStore::Impl::expired_leases() {
  const auto real_now = std::chrono::steady_clock::now();
  if (real_now < next_look) return {};
  next_look = real_now + std::chrono::milliseconds(options.lease_poll_ms);
  const int64_t now = clock.monotonic_ms();
  const int64_t gap = now - looked_ms;
  std::vector<Request> ended;
  MutexLock hold(mutex);
  for (auto& [id, lease] : leases) {
    if (gap > options.sleep_gap_ms) lease.ends_ms = now + lease.ttl_ms;
    if (lease.ends_ms > now) continue;
    Request& request = ended.emplace_back();
    request.kind = Request::Kind::kExpire;
    request.lease = id;
  }
  looked_ms = now;
  return ended;
}

// Executes all of it in one SQLite transaction, makes that durable, and answers.
void SqliteStore::Impl::run_batch(std::vector<Request> batch) {
  const Status space = check_space();
  std::vector<Result<TransactionResult>> answers;
  answers.reserve(batch.size());
  Status status;
  std::map<int64_t, Lease> leases_before;  // a batch that fails changes no lease
  {
    MutexLock hold(mutex);
    status = broken;
    leases_before = leases;
  }
  if (status.ok()) status = writer->begin();
  for (Request& request : batch) {
    if (!status.ok()) break;
    answers.push_back(execute(request, space));
    // An error that is not the request's own spoils the whole batch.
    if (writer->failed()) status = answers.back().status();
  }
  if (status.ok() && writer->changed()) status = writer->compact(compaction_target());
  const bool committing = status.ok();
  if (committing) status = writer->commit();
  if (!status.ok()) {
    writer->roll_back();
    // A refused write is a clean failure; anything else at the commit leaves the outcome unknown.
    if (committing && status.code() != Code::kResourceExhausted) status = stop_writing(status);
  }
  {
    MutexLock hold(mutex);
    if (!status.ok()) leases = std::move(leases_before);
    revision = writer->state().revision;
    advanced.notify_all();
  }
  hub->advance(writer->state().revision);
  batches().add();
  for (size_t i = 0; i < batch.size(); ++i) {
    batch[i].done.set_value(status.ok() ? std::move(answers[i])
                                        : Result<TransactionResult>(status));
  }
}

Result<TransactionResult> SqliteStore::Impl::execute(Request& request, const Status& space) {
  switch (request.kind) {
    case Request::Kind::kTransaction: {
      const Transaction& transaction = request.transaction;
      if (!space.ok() && !transaction.may_use_reserve && has_put(transaction)) return space;
      MutexLock hold(mutex);
      for (const auto* branch : {&transaction.then, &transaction.otherwise}) {
        for (const Operation& operation : *branch) {
          if (operation.lease == 0 || leases.contains(operation.lease)) continue;
          return not_found(str_cat("lease ", operation.lease, " has ended"));
        }
      }
      hold.unlock();
      return writer->execute(transaction);
    }
    case Request::Kind::kGrant: {
      QANAT_ASSIGN_OR_RETURN(int64_t id, writer->grant_lease(request.ttl_ms));
      MutexLock hold(mutex);
      leases[id] = {request.ttl_ms, clock.monotonic_ms() + request.ttl_ms};
      return TransactionResult{true, id, {}};
    }
    case Request::Kind::kRevoke:
    case Request::Kind::kExpire: {
      MutexLock hold(mutex);
      auto lease = leases.find(request.lease);
      if (lease == leases.end()) {
        return not_found(str_cat("lease ", request.lease, " has ended"));
      }
      // It may have been kept alive since it was found to have ended.
      const bool renewed = lease->second.ends_ms > clock.monotonic_ms();
      if (request.kind == Request::Kind::kExpire && renewed) return TransactionResult{};
      leases.erase(lease);
      hold.unlock();
      return writer->end_lease(request.lease);
    }
  }
  return internal_error("unknown request to the metadata store");
}

int64_t SqliteStore::Impl::compaction_target() {
  const int64_t now = clock.monotonic_ms();
  const int64_t current = writer->state().revision;
  if (samples.empty() || now - samples.back().at_ms >= kSampleMs) samples.push_back({now, current});
  int64_t old = 0;
  while (!samples.empty() && now - samples.front().at_ms > options.history_ms) {
    old = samples.front().revision;
    if (samples.size() == 1 || now - samples[1].at_ms <= options.history_ms) break;
    samples.pop_front();
  }
  return std::max(std::min(old, current - options.history_revisions),
                  current - options.history_revisions_limit);
}

void SqliteStore::Impl::checkpoint_if_due() {
  const int pages = writer->log_pages();
  if (pages < options.checkpoint_pages) return;
  if (pages < 4 * options.checkpoint_pages) {
    MutexLock hold(mutex);
    if (!queue.empty()) return;
  }
  Status status = writer->checkpoint().status();
  if (status.ok()) return;
  log_warning("metadata checkpoint failed", {{"error", status.to_string()}});
  // Full or busy: the log grows on. But if a sync failed, a later one would prove nothing.
  if (status.code() != Code::kResourceExhausted && status.code() != Code::kUnavailable) {
    (void)stop_writing(status);
  }
}

// From now on every commit gets this answer.
Status SqliteStore::Impl::stop_writing(const Status& cause) {
  MutexLock hold(mutex);
  broken = unavailable(
      str_cat("metadata cannot be written any more, and writes under way may or may not be there ",
              "after a restart: ", cause.message()),
      "check the disk, then restart the server");
  log_error("metadata is read-only", {{"error", broken.to_string()}});
  return broken;
}

SqliteStore::SqliteStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(FileSystem& files, Clock& clock,
                                                       const std::string& folder,
                                                       SqliteOptions options) {
  auto impl = std::make_unique<Impl>(files, clock, folder, options);
  QANAT_RETURN_IF_ERROR(impl->open());
  return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(impl)));
}

// Moves the log into the database, closes the writer and removes the log. Nobody reads, or will.
//
// Removed, not cut off: a power cut leaves the log there as it was, or it is gone.
Status SqliteStore::Impl::fold_log() {
  QANAT_ASSIGN_OR_RETURN(const int left, writer->checkpoint());
  if (left > 0) return unavailable("somebody reads the metadata still");
  writer.reset();
  const Status removed = files.remove(folder + "/meta.db-wal");
  return removed.code() == Code::kNotFound ? ok_status() : removed;
}

SqliteStore::~SqliteStore() {
  {
    MutexLock hold(impl_->mutex);
    impl_->stopping = true;
    impl_->work.notify_all();
  }
  impl_->thread.join();
  impl_->hub.reset();
  MutexLock hold(impl_->mutex);
  // After a failed sync nobody knows what the log is worth.
  if (!impl_->broken.ok()) return;
  if (const Status folded = impl_->fold_log(); !folded.ok()) {
    log_warning("the metadata's log stays; the next start reads it", {{"error", folded}});
  }
}

Result<RangeResult> SqliteStore::range(const KeyRange& range, const RangeOptions& options) const {
  RangeResult result;
  QANAT_RETURN_IF_ERROR(impl_->readers.read([&](Connection& connection) -> Status {
    QANAT_ASSIGN_OR_RETURN(StateRow state, read_state(connection));
    if (options.revision > state.revision || options.revision < 0) {
      return invalid_argument(
          str_cat("revision ", options.revision, " is not there yet; it is ", state.revision));
    }
    if (options.revision != 0 && options.revision < state.compacted) {
      return gone(str_cat("revision ", options.revision, " is compacted"), "list again");
    }
    RangeOptions at = options;
    if (at.revision == state.revision) at.revision = 0;
    QANAT_ASSIGN_OR_RETURN(result, read_range(connection, range, at));
    result.revision = options.revision != 0 ? options.revision : state.revision;
    return ok_status();
  }));
  return result;
}

Result<TransactionResult> SqliteStore::commit(Transaction transaction) {
  QANAT_RETURN_IF_ERROR(check_transaction(transaction));
  Request request;
  request.transaction = std::move(transaction);
  return impl_->ask(std::move(request));
}

Result<std::unique_ptr<Watch>> SqliteStore::watch(const KeyRange& range, int64_t from_revision,
                                                  WatchCallback callback) {
  if (from_revision == 0) {
    from_revision = current_revision() + 1;
  } else {
    QANAT_RETURN_IF_ERROR(impl_->readers.read([&](Connection& connection) -> Status {
      return read_events(connection, from_revision, from_revision, 1).status();
    }));
  }
  return impl_->hub->add(range, from_revision, std::move(callback));
}

Result<int64_t> SqliteStore::grant_lease(int64_t ttl_ms) {
  if (ttl_ms <= 0) return invalid_argument(str_cat("lease of ", ttl_ms, " ms"));
  Request request;
  request.kind = Request::Kind::kGrant;
  request.ttl_ms = ttl_ms;
  QANAT_ASSIGN_OR_RETURN(TransactionResult result, impl_->ask(std::move(request)));
  return result.revision;
}

Status SqliteStore::keep_alive(int64_t lease) {
  MutexLock hold(impl_->mutex);
  auto found = impl_->leases.find(lease);
  if (found == impl_->leases.end()) return not_found(str_cat("lease ", lease, " has ended"));
  found->second.ends_ms = impl_->clock.monotonic_ms() + found->second.ttl_ms;
  return ok_status();
}

Status SqliteStore::revoke_lease(int64_t lease) {
  Request request;
  request.kind = Request::Kind::kRevoke;
  request.lease = lease;
  return impl_->ask(std::move(request)).status();
}

Result<LeaseInfo> SqliteStore::lease_info(int64_t lease) const {
  MutexLock hold(impl_->mutex);
  auto found = impl_->leases.find(lease);
  if (found == impl_->leases.end()) return not_found(str_cat("lease ", lease, " has ended"));
  return LeaseInfo{lease, found->second.ttl_ms,
                   found->second.ends_ms - impl_->clock.monotonic_ms()};
}

int64_t SqliteStore::current_revision() const {
  MutexLock hold(impl_->mutex);
  return impl_->revision;
}

Status SqliteStore::wait_revision(int64_t revision, std::chrono::milliseconds timeout) const {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  MutexLock hold(impl_->mutex);
  while (impl_->revision < revision) {
    auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      return deadline_exceeded(
          str_cat("revision ", revision, " is not there yet; it is ", impl_->revision));
    }
    (void)impl_->advanced.wait_for_ms(impl_->mutex, left.count());
  }
  return ok_status();
}

Status SqliteStore::check_integrity() const {
  return impl_->readers.read([](Connection& connection) { return check_tables(connection); });
}

}  // namespace qanat::meta
