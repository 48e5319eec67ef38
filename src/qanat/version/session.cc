#include "qanat/version/session.h"

#include "qanat/base/id.h"
#include "qanat/base/log.h"
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
  QANAT_RETURN_IF_ERROR(session->begin());
  session->thread_ = std::thread([raw = session.get()] { raw->renew_until_stopped(); });
  return session;
}

Status Session::begin() {
  const int64_t sent_ms = clock_.monotonic_ms();
  QANAT_ASSIGN_OR_RETURN(int64_t lease, store_.grant_lease(ttl_ms_));
  SessionRecord record{server_, clock_.wall_ms()};
  meta::Transaction transaction;
  transaction.when(meta::key_absent(key_)).put(key_, encode(record), lease);
  transaction.may_use_reserve = true;
  QANAT_ASSIGN_OR_RETURN(auto result, store_.commit(std::move(transaction)));
  if (!result.succeeded) return conflict("the session's record is still there");
  MutexLock lock(mutex_);
  lease_ = lease;
  create_revision_ = result.revision;
  renewed_ms_ = sent_ms;
  return ok_status();
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
      status = begin();
    }
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
