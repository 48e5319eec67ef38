// Runs one datum: attempts in clean sandboxes, err_cmd, collecting the output.
//
// The rules: an attempt succeeds when cmd ends with 0 or an accepted code, the kernel killed none
// of its processes for memory, and what it left in /pfs/out can be held by a repo. After a failed
// one err_cmd (if any) runs in the same sandbox. At most `datum_tries` attempts; when they have run
// out the datum is RECOVERED if the last err_cmd ended with 0, else FAILED, and has no output
// either way. Whatever the attempt left running is dead before its output is looked at.
//
// One thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qanat/api/worker.h"
#include "qanat/base/clock.h"
#include "qanat/base/status.h"
#include "qanat/worker/account.h"
#include "qanat/worker/datum_log.h"
#include "qanat/worker/limit_events.h"
#include "qanat/worker/pfs_folder.h"
#include "qanat/worker/scratch_folders.h"
#include "qanat/worker/user_process.h"

namespace qanat::worker {

// A file held in memory.
struct SmallFile {
  std::string path;
  std::string bytes;
};

// A datum whose input is at hand, or will be streamed into the sandbox.
struct FetchedDatum {
  std::string job;
  api::LeasedDatum datum;
  bool in_memory = false;
  std::vector<SmallFile> files;  // `<input>/<path>`, ascending; if in_memory
  std::int64_t download_ms = 0;
};

// Up to so much output is read into memory, so that the next datum can start while it is on its
// way. More is sent from /pfs/out before the next datum starts: nothing may lie on a disk that user
// code reaches.
inline constexpr std::uint64_t kMaxOutputInMemory = 4 << 20;

struct RanDatum {
  std::string job;
  api::DatumReport report;
  // Success: the output, or, if `large`, what `DatumRunner::open_out` and walk_output give until
  // the next run.
  std::vector<SmallFile> files;
  bool large = false;
  std::string log;
  bool cancelled = false;  // nothing to report
};

class DatumRunner {
 public:
  // Writes a datum's input files; called for each attempt of a datum that is not in memory. Says
  // how much it wrote.
  using InputStream = std::function<Status(const FetchedDatum&, PfsFolder&, api::DatumReport&)>;
  // Log lines as they come, at most every 200 ms, while `follow` is true.
  using LiveLog = std::function<void(const std::string& job, const std::string& datum,
                                     std::vector<api::LogLine>)>;

  // Looks the user up once, before any code of theirs can have changed /etc/passwd. A user that the
  // image does not know fails every datum, with that as the reason.
  DatumRunner(api::WorkerTransform transform, api::WorkerSettings settings,
              UserProcesses& processes, InputStream inputs, LiveLog live_log, Clock& clock);

  // An error is the worker's own trouble (no contact with the server, no /pfs, a container that
  // user code has broken), and says nothing about the datum.
  Result<RanDatum> run(const FetchedDatum& datum, const Cancellation& cancel);

  // Of the last run, if it was `large`.
  Result<int> open_out() { return pfs_.open_out(); }
  const Account& account() const { return account_; }

 private:
  struct Attempt {
    bool success = false;
    bool final = false;  // another attempt cannot help
    std::string reason;
    std::string hint;
    int exit_code = 0;
  };

  Status materialise(const FetchedDatum& datum, RanDatum& ran);
  Attempt attempt(const CommandSpec& command, const Cancellation& cancel, DatumLog& log,
                  RanDatum& ran);
  Status collect(RanDatum& ran);
  void explain(const CommandResult& result, const LimitEvents& before, const DatumLog& log,
               Attempt& attempt) const;
  CommandSpec command_for(const FetchedDatum& datum, bool error_command) const;

  const api::WorkerTransform transform_;
  const api::WorkerSettings settings_;
  const Result<Account> found_account_;
  const Account account_;
  UserProcesses& processes_;
  const InputStream inputs_;
  const LiveLog live_log_;
  Clock& clock_;
  PfsFolder pfs_;
  const ScratchFolders scratch_;
  bool has_started_ = false;  // the command, in this container
};

}  // namespace qanat::worker
