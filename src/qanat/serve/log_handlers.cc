#include "qanat/serve/log_handlers.h"

#include <deque>

#include "qanat/base/string.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/job_table.h"
#include "qanat/serve/log_feed.h"

namespace qanat::serve {
namespace {

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

// Durable lines of a job, in the order of its datums.
Status write_durable(State& state, const WantedLogs& wanted,
                     const std::function<Status(std::string event)>& sink) {
  QANAT_ASSIGN_OR_RETURN(const JobTable table,
                         JobTable::open(state, wanted.project, wanted.pipeline, wanted.job));
  auto write_datum = [&](std::string_view sort_key, const pipeline::DatumRow& row) -> Status {
    const std::string datum = pipeline::datum_id(sort_key).to_hex();
    return read_log(table.reader(), row.log, [&](std::string_view line) {
      return sink(log_event(wanted.pipeline, row.origin, datum, line));
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

}  // namespace

Status logs(Call& call) {
  WantedLogs wanted;
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
      options.max_queued_bytes = LogFeed::kStreamBytes;
      const auto feed = std::make_shared<LogFeed>(call.state, wanted);
      QANAT_ASSIGN_OR_RETURN(const bool runs, feed->look());
      if (runs) return feed->begin(call.stream(options));
    }
  }
  call.response.headers().set("Content-Type", "text/event-stream");
  QANAT_RETURN_IF_ERROR(call.response.start(200, std::nullopt));
  LineWriter lines(call.response, tail);
  QANAT_RETURN_IF_ERROR(write_durable(
      call.state, wanted, [&lines](std::string event) { return lines.add(std::move(event)); }));
  QANAT_RETURN_IF_ERROR(lines.flush());
  QANAT_RETURN_IF_ERROR(call.response.write(kLogEnd));
  return call.response.finish();
}

}  // namespace qanat::serve
