// Session: this server's leased record in meta, by which others know that it lives.
//
// Garbage collection waits for every session that began before a pack was condemned. So a
// transaction that makes content visible compares the creation revision of the session its writer
// began in (content/content_writer.h does). A server that was taken for dead, because its lease ran
// out, publishes nothing of what it began before; it starts anew under the same key, and its
// writers begin again.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/content_store.h"
#include "qanat/meta/store.h"

namespace qanat::version {

// Thread safe. Owns a thread that keeps the lease alive, and begins a new session when it was lost.
class Session {
 public:
  static constexpr int64_t kDefaultTtlMs = 30'000;

  // `server` names this process for people, e.g. "host:pid"; the record's key has a random id.
  // `store` and `clock` must outlive it.
  static Result<std::unique_ptr<Session>> start(meta::Store& store, Clock& clock,
                                                std::string server, int64_t ttl_ms = kDefaultTtlMs);
  // Revokes the lease (best effort), which removes the record.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The session that lives now, for writers that begin now.
  content::SessionMark mark() const;

  // False when two thirds of the lease's time have passed since the last successful renewal was
  // sent: act as if it were lost.
  bool alive() const;

 private:
  Session(meta::Store& store, Clock& clock, std::string server, int64_t ttl_ms);
  Status begin();
  void renew_until_stopped();

  meta::Store& store_;
  Clock& clock_;
  const std::string key_;
  const std::string server_;
  const int64_t ttl_ms_;
  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  int64_t lease_ GUARDED_BY(mutex_) = 0;
  int64_t create_revision_ GUARDED_BY(mutex_) = 0;
  int64_t renewed_ms_ GUARDED_BY(mutex_) = 0;  // monotonic, when the renewal was sent
  std::thread thread_;
};

}  // namespace qanat::version
