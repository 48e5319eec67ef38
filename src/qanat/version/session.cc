#include "qanat/version/session.h"

#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/content/epoch.h"
#include "qanat/content/uploads.h"
#include "qanat/version/keys.h"
#include "qanat/version/records.h"

namespace qanat::version {

Session::Session(meta::Store& store, Clock& clock, std::string server, int64_t ttl_ms)
    : store_(store),
      clock_(clock),
      key_(session_key(random_id())),
      server_(std::move(server)),
      ttl_ms_(ttl_ms) {}

Result<std::unique_ptr<Session>> Session::start(meta::Store& store, Clock& clock,
                                                std::string server, int64_t ttl_ms) {
  std::unique_ptr<Session> session(new Session(store, clock, std::move(server), ttl_ms));
  session->started_ms_ = clock.wall_ms();
  QANAT_RETURN_IF_ERROR(session->begin_session());
  session->thread_ = std::thread([raw = session.get()] { raw->renew_until_stopped(); });
  return session;
}

SessionRecord Session::record() const {
  SessionRecord record{server_, started_ms_, {}};
  for (const auto& [name, project] : projects_)
    record.epochs[name] = static_cast<int64_t>(project.epoch);
  if (beginning_) record.epochs[beginning_->first] = static_cast<int64_t>(beginning_->second);
  return record;
}

Status Session::begin_session() {
  MutexLock record_lock(record_mutex_);
  const int64_t sent_ms = clock_.monotonic_ms();
  QANAT_ASSIGN_OR_RETURN(int64_t lease, store_.grant_lease(ttl_ms_));
  meta::Transaction transaction;
  transaction.may_use_reserve = true;
  {
    MutexLock lock(mutex_);
    transaction.when(meta::key_absent(key_)).put(key_, encode(record()), lease);
  }
  QANAT_ASSIGN_OR_RETURN(auto result, store_.commit(std::move(transaction)));
  if (!result.succeeded) return conflict("the session's record is still there");
  record_stale_ = false;
  MutexLock lock(mutex_);
  lease_ = lease;
  create_revision_ = result.revision;
  renewed_ms_ = sent_ms;
  return ok_status();
}

Status Session::write_record() {
  meta::Transaction transaction;
  transaction.may_use_reserve = true;
  {
    MutexLock lock(mutex_);
    transaction.when(meta::create_revision_is(key_, create_revision_))
        .put(key_, encode(record()), lease_);
  }
  record_stale_ = true;
  QANAT_ASSIGN_OR_RETURN(auto result, store_.commit(std::move(transaction)));
  if (!result.succeeded) {
    return unavailable("this server's session ended", "try again; the server begins a new one");
  }
  record_stale_ = false;
  return ok_status();
}

Result<content::EpochPins::Pin> Session::begin(std::string_view project) {
  {
    MutexLock lock(mutex_);
    if (auto found = projects_.find(project); found != projects_.end()) {
      found->second.pins[++last_pin_] = found->second.epoch;
      return Pin{last_pin_, {key_, create_revision_}};
    }
  }
  MutexLock record_lock(record_mutex_);
  bool fresh = false;
  {
    MutexLock lock(mutex_);
    fresh = !projects_.contains(project);
  }
  if (fresh) {
    QANAT_ASSIGN_OR_RETURN(const uint64_t epoch, content::read_epoch(store_, project));
    // Pinned before it can be seen, so that nobody's pin can be taken before the record is durable.
    {
      MutexLock lock(mutex_);
      beginning_ = std::pair(std::string(project), epoch);
    }
    const Status written = write_record();
    MutexLock lock(mutex_);
    if (written.ok()) projects_[beginning_->first].epoch = beginning_->second;
    beginning_.reset();
    if (!written.ok()) return written;
  }
  MutexLock lock(mutex_);
  Project& known = projects_[std::string(project)];
  known.pins[++last_pin_] = known.epoch;
  return Pin{last_pin_, {key_, create_revision_}};
}

void Session::began(uint64_t pin, uint64_t epoch) {
  MutexLock lock(mutex_);
  for (auto& [name, project] : projects_) {
    if (auto found = project.pins.find(pin); found != project.pins.end()) found->second = epoch;
  }
}

void Session::end(uint64_t pin) {
  MutexLock lock(mutex_);
  for (auto& [name, project] : projects_) project.pins.erase(pin);
}

Status Session::publish() {
  MutexLock record_lock(record_mutex_);
  std::vector<std::string> names;
  {
    MutexLock lock(mutex_);
    for (const auto& [name, project] : projects_) names.push_back(name);
  }
  bool raised = record_stale_;
  for (const std::string& name : names) {
    QANAT_ASSIGN_OR_RETURN(uint64_t epoch, content::read_epoch(store_, name));
    MutexLock lock(mutex_);
    Project& project = projects_[name];
    for (const auto& [pin, since] : project.pins) epoch = std::min(epoch, since);
    if (epoch <= project.epoch) continue;
    // From here on new pins are taken at the new value: what their writers read is at least it.
    project.epoch = epoch;
    raised = true;
  }
  return raised ? write_record() : ok_status();
}

Result<std::optional<uint64_t>> Session::lowest_session(std::string_view project) {
  QANAT_ASSIGN_OR_RETURN(const auto found, store_.range(meta::KeyRange::prefix(session_key(""))));
  std::optional<uint64_t> lowest;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(const auto record, decode<SessionRecord>(item.key, item.value));
    const auto epoch = record.epochs.find(std::string(project));
    if (epoch == record.epochs.end()) continue;
    lowest = std::min(lowest.value_or(UINT64_MAX), static_cast<uint64_t>(epoch->second));
  }
  return lowest;
}

Result<std::optional<uint64_t>> Session::lowest_upload(std::string_view project) {
  QANAT_ASSIGN_OR_RETURN(const auto uploads, content::list_uploads(store_, project));
  std::optional<uint64_t> lowest;
  for (const content::Upload& upload : uploads) {
    lowest = std::min(lowest.value_or(UINT64_MAX), upload.record.epoch);
  }
  return lowest;
}

void Session::renew_until_stopped() {
  for (;;) {
    int64_t lease;
    {
      MutexLock lock(mutex_);
      if (!stopping_) (void)wake_.wait_for_ms(mutex_, std::max<int64_t>(ttl_ms_ / 4, 1));
      if (stopping_) return;
      lease = lease_;
    }
    const int64_t sent_ms = clock_.monotonic_ms();
    Status status = store_.keep_alive(lease);
    if (status.ok()) {
      MutexLock lock(mutex_);
      renewed_ms_ = sent_ms;
    } else if (status.code() == Code::kNotFound) {
      log_warning("this server's session was lost; beginning a new one", {{"server", server_}});
      status = begin_session();
    }
    if (status.ok()) status = publish();
    if (!status.ok()) log_warning("the session could not be renewed", {{"error", status}});
  }
}

Session::~Session() {
  int64_t lease;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    lease = lease_;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  if (lease != 0) (void)store_.revoke_lease(lease);
}

content::SessionMark Session::mark() const {
  MutexLock lock(mutex_);
  return {key_, create_revision_};
}

bool Session::alive() const {
  MutexLock lock(mutex_);
  return clock_.monotonic_ms() - renewed_ms_ < ttl_ms_ * 2 / 3;
}

}  // namespace qanat::version
