// LogFeed: the log of a job that runs, or of a pipeline's jobs as they come, for one who follows.
//
// Two sources are put together without doubles or holes. What running datums print comes live, but
// may be incomplete: only the newest lines of a job are kept, short datums send none, and whoever
// lags loses some. The durable log of each datum comes with its result, whose place in the job's
// journal this reads. Lines are numbered within their datum: a live line is shown once, in its
// order; where some are missing a remark says so, and they follow when the datum is done.
//
// Datums that were done before come first, in the order in which they were done. Holds no thread;
// a slow consumer is waited for. Memory: what the stream queues, 1 MiB of live lines, and a few
// bytes for each of the last 100,000 datums done.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "qanat/api/log_line.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/content/blob_io.h"
#include "qanat/meta/store.h"
#include "qanat/net/http_server.h"
#include "qanat/pipeline/journal.h"
#include "qanat/pipeline/live_logs.h"
#include "qanat/serve/state.h"

namespace qanat::serve {

struct WantedLogs {
  std::string project;
  std::string pipeline;
  std::string job;    // "" with `follow`: all that come
  std::string datum;  // id, or its beginning; "": all
  // Whether a job may be seen: the next one of a pipeline may have other inputs. Null: each may.
  std::function<Status(const pipeline::JobRecord& job)> check = {};
};

// An event of a line; `line` is the worker's JSON, to which the names are added.
std::string log_event(const std::string& pipeline, const std::string& job, const std::string& datum,
                      std::string_view line);
inline constexpr std::string_view kLogEnd = "event: end\ndata: {}\n\n";
// The worker's word in place of lines that are not there, before `next`, a line of the datum.
api::LogLine missing_lines(const api::LogLine& next, int64_t first);
// Calls `sink` for each line of a datum's durable log.
Status read_log(content::BlobReader& reader, const content::FileRef& log,
                const std::function<Status(std::string_view line)>& sink);

class LogFeed : public std::enable_shared_from_this<LogFeed> {
 public:
  static constexpr size_t kStreamBytes = 48 << 20;  // what the stream must be able to queue

  LogFeed(State& state, WantedLogs wanted) : state_(state), wanted_(std::move(wanted)) {}

  // Looks where the job stands. False: it has ended, and its log is in its datum table.
  Result<bool> look();
  // After look() gave true, once. Goes on until the job has ended, or the stream is closed.
  Status begin(std::shared_ptr<net::EventStream> stream);

 private:
  // What the records of a job say that was not looked at yet.
  struct Change {
    std::string journal;  // the newest head; "": no newer one
    bool final = false;
  };
  // A datum that is not done.
  struct Shown {
    std::string worker;
    int64_t next = 0;                                // number of the line after the last shown
    std::vector<std::pair<int64_t, int64_t>> holes;  // [from, to) below it that were not
  };
  struct Done {
    std::string job;
    pipeline::JournalEntry entry;
  };
  using DatumName = std::pair<std::string, std::string>;  // job, datum

  void on_record(const std::string& key, const std::string& value);
  void on_line(const pipeline::LiveLine& line);
  void pump_soon();
  void pump();
  // One step; false when there is nothing to do.
  Result<bool> step();
  Status collect(const std::string& job, const std::string& journal);
  Status show_done(const Done& done);
  void show_live(const pipeline::LiveLine& line);
  void end();

  State& state_;
  const WantedLogs wanted_;
  std::shared_ptr<net::EventStream> stream_;  // set by begin()
  std::string prefix_;                        // of the records, and when look() read them
  int64_t revision_ = 0;

  Mutex mutex_;
  std::shared_ptr<pipeline::LiveLogs::Follower> follower_ GUARDED_BY(mutex_);
  std::unique_ptr<meta::Watch> watch_ GUARDED_BY(mutex_);
  std::map<std::string, Change> changes_ GUARDED_BY(mutex_);  // by job
  std::deque<pipeline::LiveLine> live_ GUARDED_BY(mutex_);
  size_t live_bytes_ GUARDED_BY(mutex_) = 0;
  bool pumping_ GUARDED_BY(mutex_) = true;  // nobody before begin() has set all up
  bool again_ GUARDED_BY(mutex_) = false;

  // Of whoever pumps, one at a time.
  content::BlobReader* reader_ = nullptr;
  std::map<std::string, Hash> read_up_to_;          // job -> journal node
  std::deque<std::pair<std::string, Hash>> nodes_;  // to be read, oldest first
  std::deque<Done> done_;                           // of the node read last
  std::map<DatumName, Shown> shown_;
  std::set<uint64_t> finished_;  // hashes of their names
  std::deque<uint64_t> finished_order_;
  bool ended_ = false;
};

}  // namespace qanat::serve
