#include "qanat/serve/log_handlers.h"

#include <deque>
#include <map>
#include <optional>

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

// Durable lines of a job, in the order of its datums, or of one of them.
Status write_durable(const JobTable& table, const std::optional<pipeline::KeyedRow>& datum,
                     const WantedLogs& wanted,
                     const std::function<Status(std::string event)>& sink) {
  auto write_datum = [&](std::string_view sort_key, const pipeline::DatumRow& row) -> Status {
    const std::string id = pipeline::datum_id(sort_key).to_hex();
    return read_log(table.reader(), row.log, [&](std::string_view line) {
      return sink(
          log_event(wanted.pipeline, row.origin.empty() ? wanted.job : row.origin, id, line));
    });
  };
  // Asked for by name, a skipped datum shows the log of the job that ran it.
  if (datum) return write_datum(datum->sort_key, datum->row);
  return table
      .visit("",
             [&](std::string_view sort_key, const pipeline::DatumRow& row) -> Result<bool> {
               // Pending with a log: it was under way when its job was killed.
               if (row.origin == wanted.job || row.state == pipeline::DatumState::kPending)
                 QANAT_RETURN_IF_ERROR(write_datum(sort_key, row));
               return true;
             })
      .status();
}

// What datums have printed that are under way: `kept` before the table was opened, so that one
// that was done in between is in the table.
Status write_live(const JobTable& table, const std::vector<pipeline::LiveLine>& kept,
                  const std::string& only, const std::function<Status(std::string event)>& sink) {
  std::map<std::string, int64_t> next;  // by datum: its next line; -1: its log is durable
  for (const pipeline::LiveLine& live : kept) {
    if (!only.empty() && live.datum != only) continue;
    const auto [datum, is_new] = next.try_emplace(live.datum, 0);
    if (is_new) {
      QANAT_ASSIGN_OR_RETURN(const auto found, table.find(live.datum));
      if (found.row.state != pipeline::DatumState::kPending || !found.row.log.empty())
        datum->second = -1;
    }
    if (datum->second < 0) continue;
    const auto line = api::parse_json<api::LogLine>(live.line, {.ignore_unknown = true});
    if (!line.ok() || line->number < datum->second) continue;
    if (line->number > datum->second)
      QANAT_RETURN_IF_ERROR(sink(log_event(live.pipeline, live.job, live.datum,
                                           api::json_text(missing_lines(*line, datum->second)))));
    datum->second = line->number + 1;
    QANAT_RETURN_IF_ERROR(sink(log_event(live.pipeline, live.job, live.datum, live.line)));
  }
  return ok_status();
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
  wanted.check = [caller = call.shared_caller(), project = wanted.project,
                  pipeline = wanted.pipeline](const pipeline::JobRecord& job) {
    return check_may_look_inside(*caller, project, pipeline, job.inputs);
  };
  if (follow) {
    if (wanted.job.empty()) {
      std::vector<pipeline::JobInput> inputs;
      for (const pipeline::InputBranch& input : controller->record().inputs)
        inputs.push_back({input.repo, input.repo, input.branch, "", 0, ""});
      QANAT_RETURN_IF_ERROR(
          check_may_look_inside(call.caller(), wanted.project, wanted.pipeline, inputs));
    }
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
      if (runs) {
        const auto stream = call.stream(options);
        return begun(*stream, feed->begin(stream));
      }
    }
  }
  const auto live =
      call.state.pipelines->services().logs->kept(wanted.project, wanted.pipeline, wanted.job);
  // Before the answer begins, so that an error is one.
  QANAT_ASSIGN_OR_RETURN(const JobTable table,
                         JobTable::open(call.state, wanted.project, wanted.pipeline, wanted.job));
  QANAT_RETURN_IF_ERROR(wanted.check(table.job()));
  std::optional<pipeline::KeyedRow> datum;
  if (!wanted.datum.empty()) {
    QANAT_ASSIGN_OR_RETURN(datum, table.find(wanted.datum));
  }
  call.response.headers().set("Content-Type", "text/event-stream");
  QANAT_RETURN_IF_ERROR(call.response.start(200, std::nullopt));
  LineWriter lines(call.response, tail);
  const auto add = [&lines](std::string event) { return lines.add(std::move(event)); };
  QANAT_RETURN_IF_ERROR(write_durable(table, datum, wanted, add));
  QANAT_RETURN_IF_ERROR(
      write_live(table, live, datum ? pipeline::datum_id(datum->sort_key).to_hex() : "", add));
  QANAT_RETURN_IF_ERROR(lines.flush());
  QANAT_RETURN_IF_ERROR(call.response.write(kLogEnd));
  return call.response.finish();
}

}  // namespace qanat::serve
