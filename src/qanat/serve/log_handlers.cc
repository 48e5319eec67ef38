#include "qanat/serve/log_handlers.h"

#include <deque>

#include "qanat/api/log_line.h"
#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/content/file_reader.h"
#include "qanat/pipeline/live_logs.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/job_table.h"

namespace qanat::serve {
namespace {

// An event of a line; `line` is the worker's JSON, to which the names are added.
std::string event_of(const std::string& pipeline, const std::string& job, const std::string& datum,
                     std::string_view line) {
  auto parsed = api::parse_json<api::LogLine>(line, {.ignore_unknown = true});
  if (!parsed.ok()) return "";
  parsed->pipeline = pipeline;
  parsed->job = job;
  parsed->datum = datum;
  return str_cat("event: line\ndata: ", api::json_text(*parsed), "\n\n");
}

constexpr std::string_view kEnd = "event: end\ndata: {}\n\n";

// Writes durable lines to a streamed answer, or keeps the last `tail` of them.
class LineWriter {
 public:
  LineWriter(net::Response& response, uint64_t tail) : response_(response), tail_(tail) {}

  Status add(std::string event) {
    if (event.empty()) return ok_status();
    if (tail_ == 0) return response_.write(event);
    kept_.push_back(std::move(event));
    if (kept_.size() > tail_) kept_.pop_front();
    return ok_status();
  }
  Status flush() {
    for (const std::string& event : kept_) QANAT_RETURN_IF_ERROR(response_.write(event));
    return ok_status();
  }

 private:
  net::Response& response_;
  const uint64_t tail_;
  std::deque<std::string> kept_;
};

// The lines of a datum's durable log.
Status write_log(content::BlobReader& reader, const content::FileRef& log,
                 const std::function<Status(std::string_view line)>& sink) {
  content::FileReader in(reader, log);
  std::string partial;
  QANAT_RETURN_IF_ERROR(in.read_range(0, log.size, [&](std::string_view bytes) -> Status {
    while (!bytes.empty()) {
      const size_t end = bytes.find('\n');
      if (end == std::string_view::npos) {
        partial += bytes;
        return ok_status();
      }
      partial += bytes.substr(0, end);
      QANAT_RETURN_IF_ERROR(sink(partial));
      partial.clear();
      bytes.remove_prefix(end + 1);
    }
    return ok_status();
  }));
  return partial.empty() ? ok_status() : sink(partial);
}

struct Wanted {
  std::string project;
  std::string pipeline;
  std::string job;    // "" with `follow`: all that come
  std::string datum;  // id
};

// Durable lines of a job, in the order of its datums.
Status write_durable(State& state, const Wanted& wanted,
                     const std::function<Status(std::string event)>& sink) {
  QANAT_ASSIGN_OR_RETURN(const JobTable table,
                         JobTable::open(state, wanted.project, wanted.pipeline, wanted.job));
  auto write_datum = [&](std::string_view sort_key, const pipeline::DatumRow& row) -> Status {
    const std::string datum = pipeline::datum_id(sort_key).to_hex();
    return write_log(table.reader(), row.log, [&](std::string_view line) {
      return sink(event_of(wanted.pipeline, row.origin, datum, line));
    });
  };
  if (!wanted.datum.empty()) {
    // Asked for by name, a skipped datum shows the log of the job that ran it.
    QANAT_ASSIGN_OR_RETURN(const auto found, table.find(wanted.datum));
    return write_datum(found.sort_key, found.row);
  }
  return table
      .visit("",
             [&](std::string_view sort_key, const pipeline::DatumRow& row) -> Result<bool> {
               if (row.origin == wanted.job) QANAT_RETURN_IF_ERROR(write_datum(sort_key, row));
               return true;
             })
      .status();
}

// Live lines, until the job ends. Holds no thread.
class LiveFeed : public std::enable_shared_from_this<LiveFeed> {
 public:
  LiveFeed(State& state, Wanted wanted, std::shared_ptr<net::EventStream> stream)
      : state_(state), wanted_(std::move(wanted)), stream_(std::move(stream)) {}

  Status begin() {
    auto self = shared_from_this();
    auto follower = state_.pipelines->services().logs->follow(
        {wanted_.project, wanted_.pipeline, wanted_.job, wanted_.datum},
        [weak = weak_from_this()](const pipeline::LiveLine& line) {
          const auto feed = weak.lock();
          if (feed)
            (void)feed->stream_->send_raw(event_of(line.pipeline, line.job, line.datum, line.line));
        });
    std::unique_ptr<meta::Watch> watch;
    if (!wanted_.job.empty()) {
      QANAT_ASSIGN_OR_RETURN(
          watch, state_.meta->watch(meta::KeyRange::prefix(
                                        pipeline::jobs_prefix(wanted_.project, wanted_.pipeline)),
                                    0, [weak = weak_from_this()](const meta::WatchBatch&) {
                                      if (const auto feed = weak.lock()) feed->look_soon();
                                    }));
    }
    {
      MutexLock lock(mutex_);
      follower_ = std::move(follower);
      watch_ = std::move(watch);
    }
    stream_->on_closed([self]() mutable {
      auto* events = self->state_.events;
      events->submit([self = std::move(self)] { self->end(); });
    });
    look_soon();
    return ok_status();
  }

 private:
  void look_soon() {
    if (wanted_.job.empty()) return;
    (void)state_.events->try_submit([self = shared_from_this()] {
      const auto job =
          find_job(self->state_, self->wanted_.project, self->wanted_.pipeline, self->wanted_.job);
      if (job.ok() && (!*job || !is_final((*job)->state))) return;
      (void)self->stream_->send_raw(std::string(kEnd));
      self->stream_->close();
    });
  }
  void end() {
    std::shared_ptr<pipeline::LiveLogs::Follower> follower;
    std::unique_ptr<meta::Watch> watch;
    MutexLock lock(mutex_);
    follower.swap(follower_);
    watch.swap(watch_);
    lock.unlock();
  }

  State& state_;
  const Wanted wanted_;
  const std::shared_ptr<net::EventStream> stream_;
  Mutex mutex_;
  std::shared_ptr<pipeline::LiveLogs::Follower> follower_ GUARDED_BY(mutex_);
  std::unique_ptr<meta::Watch> watch_ GUARDED_BY(mutex_);
};

}  // namespace

Status logs(Call& call) {
  Wanted wanted;
  wanted.project = call.project();
  QANAT_ASSIGN_OR_RETURN(wanted.pipeline, call.required("pipeline"));
  wanted.job = call.query_or("job");
  wanted.datum = call.query_or("datum");
  QANAT_ASSIGN_OR_RETURN(const bool follow, call.query().get_bool("follow"));
  QANAT_ASSIGN_OR_RETURN(const uint64_t tail, call.query().get_uint("tail", 0));
  const auto controller = call.state.pipelines->find(wanted.project, wanted.pipeline);
  if (!controller)
    return not_found(str_cat("there is no pipeline ", wanted.pipeline),
                     "`qanat list pipeline` shows the pipelines there are");
  if (wanted.job.empty() && !follow) {
    const std::string prefix = pipeline::jobs_prefix(wanted.project, wanted.pipeline);
    QANAT_ASSIGN_OR_RETURN(
        const auto jobs,
        call.state.meta->range(meta::KeyRange::prefix(prefix), {.limit = 1, .descending = true}));
    if (jobs.items.empty())
      return not_found(str_cat("pipeline ", wanted.pipeline, " has had no job yet"));
    QANAT_ASSIGN_OR_RETURN(const auto record, pipeline::decode<pipeline::JobRecord>(
                                                  jobs.items[0].key, jobs.items[0].value));
    wanted.job = record.id;
  }
  if (follow) {
    bool ended = false;
    if (!wanted.job.empty()) {
      QANAT_ASSIGN_OR_RETURN(
          const auto job, find_job_info(call.state, wanted.project, wanted.pipeline, wanted.job));
      ended = is_final(job.state);
    }
    if (!ended) {
      net::StreamOptions options;
      options.max_queued_bytes = 4 << 20;
      return std::make_shared<LiveFeed>(call.state, wanted, call.response.stream(options))->begin();
    }
  }
  call.response.headers().set("Content-Type", "text/event-stream");
  QANAT_RETURN_IF_ERROR(call.response.start(200, std::nullopt));
  LineWriter lines(call.response, tail);
  QANAT_RETURN_IF_ERROR(write_durable(
      call.state, wanted, [&lines](std::string event) { return lines.add(std::move(event)); }));
  QANAT_RETURN_IF_ERROR(lines.flush());
  QANAT_RETURN_IF_ERROR(call.response.write(kEnd));
  return call.response.finish();
}

}  // namespace qanat::serve
