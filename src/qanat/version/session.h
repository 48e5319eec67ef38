// Session: this server's leased record in meta, by which others know that it lives.
//
// Garbage collection waits for every session that began before a pack was condemned. So a
// transaction that makes content visible compares the creation revision of the session its writer
// began in (content/content_writer.h does). A server that was taken for dead, because its lease ran
// out, publishes nothing of what it began before; it starts anew under the same key, and its
// writers begin again.
//
// The record also says, for each project, the lowest epoch in which a living writer began
// (content/epoch_pins.h). A writer that begins takes its pin at what the record says, or is just
// made to say, before it reads the epoch; the record rises to the lowest pin, or to the epoch read
// before if there is none. So a writer never lives below what the record says: what it reads after
// it took the pin is at least what any rise was computed from.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "qanat/base/clock.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/content_store.h"
#include "qanat/meta/store.h"
#include "qanat/version/records.h"

namespace qanat::version {

// Thread safe. Owns a thread that keeps the lease alive, and begins a new session when it was lost.
class Session : public content::EpochPins {
 public:
  static constexpr int64_t kDefaultTtlMs = 30'000;

  // `server` names this process for people, e.g. "host:pid"; the record's key has a random id.
  // `store` and `clock` must outlive it.
  static Result<std::unique_ptr<Session>> start(meta::Store& store, Clock& clock,
                                                std::string server, int64_t ttl_ms = kDefaultTtlMs);
  // Revokes the lease (best effort), which removes the record.
  ~Session() override;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The session that lives now, for writers that begin now.
  content::SessionMark mark() const;

  // False when two thirds of the lease's time have passed since the last successful renewal was
  // sent: act as if it were lost.
  bool alive() const;

  // --- content::EpochPins: the epochs of living writers, in the session's record ---
  Result<Pin> begin(std::string_view project) override;
  void began(uint64_t pin, uint64_t epoch) override;
  void end(uint64_t pin) override;
  Status publish() override;
  Result<std::optional<uint64_t>> lowest_session(std::string_view project) override;
  Result<std::optional<uint64_t>> lowest_upload(std::string_view project) override;

 private:
  Session(meta::Store& store, Clock& clock, std::string server, int64_t ttl_ms);
  // What the record says of a project, and its living writers.
  struct Project {
    uint64_t epoch = 0;  // as the record says, or is about to say
    std::map<uint64_t, uint64_t> pins;
  };

  Status begin_session() EXCLUDES(record_mutex_);
  Status write_record() REQUIRES(record_mutex_);
  SessionRecord record() const REQUIRES(mutex_);
  void renew_until_stopped();

  meta::Store& store_;
  Clock& clock_;
  const std::string key_;
  const std::string server_;
  const int64_t ttl_ms_;
  Mutex record_mutex_;  // one change of the record at a time; held during it; before mutex_
  bool record_stale_ GUARDED_BY(record_mutex_) = false;  // a change of it failed
  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  int64_t lease_ GUARDED_BY(mutex_) = 0;
  int64_t create_revision_ GUARDED_BY(mutex_) = 0;
  int64_t renewed_ms_ GUARDED_BY(mutex_) = 0;  // monotonic, when the renewal was sent
  uint64_t last_pin_ GUARDED_BY(mutex_) = 0;
  std::map<std::string, Project, std::less<>> projects_ GUARDED_BY(mutex_);
  // A project whose first writer waits for the record to name it.
  std::optional<std::pair<std::string, uint64_t>> beginning_ GUARDED_BY(mutex_);
  int64_t started_ms_ = 0;
  std::thread thread_;
};

}  // namespace qanat::version
