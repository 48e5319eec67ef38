// EpochPins: what a server tells the others about its living writers, so that garbage collection
// can wait for them (gc_collector.h, "Sessions").
//
// The session's record in meta says, for each project that the server writes to, an epoch that is
// not above the one in which any living writer of it began. Implemented by version/session.h.
// Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::content {

// This server's leased record in meta; see docs/architecture.md, "Epochs and sessions".
struct SessionMark {
  std::string key;  // "/v1/session/<server id>"; empty: no session (tests, tools that run alone)
  int64_t create_revision = 0;  // of that key
};

class EpochPins {
 public:
  virtual ~EpochPins() = default;

  struct Pin {
    uint64_t id = 0;
    SessionMark session;
  };
  // A writer of the project begins. An epoch that is read from meta after this returns is not below
  // what the record says, and until end() the record does not pass it. The first call for a project
  // makes that durable: one transaction. kUnavailable: the session is lost.
  virtual Result<Pin> begin(std::string_view project) = 0;
  // The epoch that the writer has read: lets the record rise up to it.
  virtual void began(uint64_t pin, uint64_t epoch) = 0;
  virtual void end(uint64_t pin) = 0;

  // Raises what the record says as far as the living writers let it. Done by itself every few
  // seconds; a collection of this server calls it to lose no time.
  virtual Status publish() = 0;

  // --- What all servers say, read from meta now ---
  // The lowest epoch of the project that the record of any session names; nothing if none does.
  virtual Result<std::optional<uint64_t>> lowest_session(std::string_view project) = 0;
  // The same of upload sessions (/v1/upload/), whose chunks are referred to by nothing yet.
  virtual Result<std::optional<uint64_t>> lowest_upload(std::string_view project) = 0;
};

}  // namespace qanat::content
