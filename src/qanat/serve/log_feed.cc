#include "qanat/serve/log_feed.h"

#include "qanat/api/error.h"
#include "qanat/api/log_line.h"
#include "qanat/base/hash.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/content/file_reader.h"
#include "qanat/serve/convert.h"

namespace qanat::serve {
namespace {

constexpr size_t kBacklogBytes = 1 << 20;  // queued in the stream; then the consumer is waited for
constexpr int64_t kBacklogMs = 20;
constexpr size_t kMaxLiveBytes = 1 << 20;
constexpr size_t kMaxFinished = 100'000;
constexpr size_t kMaxHoles = 100;  // of one datum; then its live lines are left out
constexpr int kMaxStepsAtATime = 200;

std::string event_text(const std::string& pipeline, const std::string& job,
                       const std::string& datum, api::LogLine line) {
  line.pipeline = pipeline;
  line.job = job;
  line.datum = datum;
  return str_cat("event: line\ndata: ", api::json_text(line), "\n\n");
}

uint64_t short_name(const std::string& job, const std::string& datum) {
  return hash64(str_cat(job, "/", datum));
}

}  // namespace

std::string log_event(const std::string& pipeline, const std::string& job, const std::string& datum,
                      std::string_view line) {
  auto parsed = api::parse_json<api::LogLine>(line, {.ignore_unknown = true});
  return parsed.ok() ? event_text(pipeline, job, datum, *std::move(parsed)) : std::string();
}

api::LogLine missing_lines(const api::LogLine& next, int64_t first) {
  api::LogLine remark;
  remark.time = next.time;
  remark.stream = "worker";
  remark.attempt = next.attempt;
  remark.number = first;
  remark.text = str_cat("[", next.number - first,
                        " lines are not at hand; they follow when the datum is done]");
  return remark;
}

Status read_log(content::BlobReader& reader, const content::FileRef& log,
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

Result<bool> LogFeed::look() {
  prefix_ = pipeline::jobs_prefix(wanted_.project, wanted_.pipeline);
  if (!wanted_.job.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto wave,
                           state_.versions->inspect_wave(wanted_.project, wanted_.job));
    prefix_ = pipeline::job_key(wanted_.project, wanted_.pipeline, wave.number);
  }
  constexpr int64_t kJobs = 100;  // those that run are among the newest
  QANAT_ASSIGN_OR_RETURN(
      const auto found,
      state_.meta->range(meta::KeyRange::prefix(prefix_), {.limit = kJobs, .descending = true}));
  revision_ = found.revision;
  for (const meta::KeyValue& item : found.items) {
    QANAT_ASSIGN_OR_RETURN(const auto record,
                           pipeline::decode<pipeline::JobRecord>(item.key, item.value));
    if (wanted_.check && !(wanted_.job.empty() && is_final(record.state)))
      QANAT_RETURN_IF_ERROR(wanted_.check(record));
    if (!wanted_.job.empty()) {
      if (is_final(record.state)) return false;
      on_record(item.key, item.value);
    } else if (!is_final(record.state) && !record.journal.empty()) {
      // Who follows a pipeline sees what comes from now on.
      QANAT_ASSIGN_OR_RETURN(read_up_to_[record.id], Hash::from_hex(record.journal));
    }
  }
  return true;
}

Status LogFeed::begin(std::shared_ptr<net::EventStream> stream) {
  stream_ = std::move(stream);
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                         state_.contents->project(wanted_.project));
  reader_ = &content->blobs();
  QANAT_ASSIGN_OR_RETURN(
      auto watch,
      state_.meta->watch(meta::KeyRange::prefix(prefix_), revision_ + 1,
                         [weak = weak_from_this()](const meta::WatchBatch& batch) {
                           const auto feed = weak.lock();
                           if (!feed) return;
                           bool over = !batch.status.ok();  // the records are not seen any more
                           for (const meta::Event& event : batch.events) {
                             over = over || (event.deleted && !feed->wanted_.job.empty());
                             if (!event.deleted) feed->on_record(event.item.key, event.item.value);
                           }
                           if (over) feed->stream_->close();
                         }));
  auto follower = state_.pipelines->services().logs->follow(
      {wanted_.project, wanted_.pipeline, wanted_.job, ""},
      [weak = weak_from_this()](const pipeline::LiveLine& line) {
        if (const auto feed = weak.lock()) feed->on_line(line);
      });
  {
    MutexLock lock(mutex_);
    watch_ = std::move(watch);
    follower_ = std::move(follower);
    pumping_ = false;
  }
  stream_->on_closed([self = shared_from_this()]() mutable {
    auto* events = self->state_.events;
    events->submit([self = std::move(self)] { self->end(); });
  });
  pump_soon();
  return ok_status();
}

void LogFeed::on_record(const std::string& key, const std::string& value) {
  const auto record = pipeline::decode<pipeline::JobRecord>(key, value);
  if (!record.ok()) return;
  if (const Status may = wanted_.check ? wanted_.check(*record) : ok_status(); !may.ok()) {
    if (stream_) {
      (void)stream_->send({"error", api::error_json(may), ""});
      stream_->close();
    }
    return;
  }
  {
    MutexLock lock(mutex_);
    Change& change = changes_[record->id];
    if (!record->journal.empty()) change.journal = record->journal;
    change.final = change.final || is_final(record->state);
  }
  pump_soon();
}

void LogFeed::on_line(const pipeline::LiveLine& line) {
  if (!line.datum.starts_with(wanted_.datum)) return;
  {
    MutexLock lock(mutex_);
    if (live_bytes_ > kMaxLiveBytes) return;  // it comes when its datum is done
    live_bytes_ += line.line.size();
    live_.push_back(line);
  }
  pump_soon();
}

void LogFeed::pump_soon() {
  {
    MutexLock lock(mutex_);
    again_ = true;
    if (pumping_) return;
    pumping_ = true;
  }
  if (state_.events->try_submit([self = shared_from_this()] { self->pump(); })) return;
  MutexLock lock(mutex_);
  pumping_ = false;  // whatever comes next tries again
}

void LogFeed::pump() {
  int steps = 0;
  while (true) {
    {
      MutexLock lock(mutex_);
      again_ = false;
    }
    bool more = false;
    while (!ended_ && !stream_->closed()) {
      more = stream_->queued_bytes() >= kBacklogBytes || ++steps > kMaxStepsAtATime;
      if (more) break;
      const auto stepped = step();
      if (!stepped.ok()) {
        log_warning("a log cannot be shown to the one who follows it",
                    {{"pipeline", wanted_.pipeline}, {"error", stepped.status()}});
        stream_->close();
        break;
      }
      if (!*stepped) break;
    }
    if (more) {
      // Others have their turn, and the consumer its time; `pumping_` stays.
      state_.pipelines->services().later->run_at(
          state_.clock->monotonic_ms() + kBacklogMs, [self = shared_from_this()] {
            if (self->state_.events->try_submit([self] { self->pump(); })) return;
            MutexLock lock(self->mutex_);
            self->pumping_ = false;
          });
      return;
    }
    MutexLock lock(mutex_);
    if (again_ && !ended_ && !stream_->closed()) continue;
    pumping_ = false;
    return;
  }
}

Result<bool> LogFeed::step() {
  if (!done_.empty()) {
    const Done done = std::move(done_.front());
    done_.pop_front();
    QANAT_RETURN_IF_ERROR(show_done(done));
    return true;
  }
  if (!nodes_.empty()) {
    const auto [job, hash] = nodes_.front();
    nodes_.pop_front();
    QANAT_ASSIGN_OR_RETURN(const content::Blob blob,
                           reader_->read({content::BlobKind::kNode, hash}));
    QANAT_ASSIGN_OR_RETURN(auto node, pipeline::parse_journal_node(*blob));
    for (auto& entry : node.entries) done_.push_back({job, std::move(entry)});
    return true;
  }
  std::string job;
  Change change;
  pipeline::LiveLine line;
  bool is_live = false;
  {
    MutexLock lock(mutex_);
    for (auto& [id, waiting] : changes_) {
      if (waiting.journal.empty()) continue;
      job = id;
      change.journal = std::exchange(waiting.journal, {});
      break;
    }
    if (job.empty() && !live_.empty()) {
      is_live = true;
      line = std::move(live_.front());
      live_.pop_front();
      live_bytes_ -= line.line.size();
    } else if (job.empty()) {
      // Everything of jobs that have ended has been shown.
      std::erase_if(changes_, [&](const auto& waiting) {
        if (!waiting.second.final) return false;
        ended_ = waiting.first == wanted_.job;
        return true;
      });
    }
  }
  if (is_live) {
    show_live(line);
    return true;
  }
  if (!job.empty()) {
    QANAT_RETURN_IF_ERROR(collect(job, change.journal));
    return true;
  }
  if (ended_) {
    (void)stream_->send_raw(std::string(kLogEnd));
    stream_->close();
  }
  return false;
}

// Notes the journal's nodes from the one read last to this one.
Status LogFeed::collect(const std::string& job, const std::string& journal) {
  QANAT_ASSIGN_OR_RETURN(const Hash head, Hash::from_hex(journal));
  Hash& read = read_up_to_[job];
  std::vector<Hash> newer;
  for (Hash hash = head; !hash.is_zero() && hash != read;) {
    newer.push_back(hash);
    QANAT_ASSIGN_OR_RETURN(const content::Blob blob,
                           reader_->read({content::BlobKind::kNode, hash}));
    QANAT_ASSIGN_OR_RETURN(const auto node, pipeline::parse_journal_node(*blob));
    hash = node.before;
  }
  read = head;
  for (auto hash = newer.rbegin(); hash != newer.rend(); ++hash) nodes_.emplace_back(job, *hash);
  return ok_status();
}

Status LogFeed::show_done(const Done& done) {
  const std::string datum = pipeline::datum_id(done.entry.sort_key).to_hex();
  if (!datum.starts_with(wanted_.datum)) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const pipeline::DatumRow row, pipeline::decode_row(done.entry.row));
  Shown shown;
  const auto found = shown_.find({done.job, datum});
  if (found != shown_.end()) {
    shown = std::move(found->second);
    shown_.erase(found);
  }
  const uint64_t name = short_name(done.job, datum);
  if (finished_.insert(name).second) finished_order_.push_back(name);
  if (finished_order_.size() > kMaxFinished) {
    finished_.erase(finished_order_.front());
    finished_order_.pop_front();
  }
  return read_log(*reader_, row.log, [&](std::string_view text) -> Status {
    auto line = api::parse_json<api::LogLine>(text, {.ignore_unknown = true});
    if (!line.ok()) return ok_status();
    bool wanted = line->number >= shown.next;
    for (const auto& [from, to] : shown.holes)
      wanted = wanted || (from <= line->number && line->number < to);
    return wanted ? stream_->send_raw(event_text(wanted_.pipeline, done.job, datum, *line))
                  : ok_status();
  });
}

void LogFeed::show_live(const pipeline::LiveLine& live) {
  if (finished_.contains(short_name(live.job, live.datum))) return;
  auto line = api::parse_json<api::LogLine>(live.line, {.ignore_unknown = true});
  if (!line.ok()) return;
  Shown& shown = shown_[{live.job, live.datum}];
  // Another worker runs it from its beginning: another log.
  if (shown.worker != live.worker) shown = Shown{live.worker, 0, {}};
  if (line->number < shown.next || shown.holes.size() >= kMaxHoles) return;
  if (line->number > shown.next) {
    shown.holes.emplace_back(shown.next, line->number);
    (void)stream_->send_raw(event_text(wanted_.pipeline, live.job, live.datum,
                                       missing_lines(*line, shown.holes.back().first)));
  }
  shown.next = line->number + 1;
  (void)stream_->send_raw(event_text(wanted_.pipeline, live.job, live.datum, *std::move(line)));
}

void LogFeed::end() {
  std::shared_ptr<pipeline::LiveLogs::Follower> follower;
  std::unique_ptr<meta::Watch> watch;
  MutexLock lock(mutex_);
  follower.swap(follower_);
  watch.swap(watch_);
  lock.unlock();
}

}  // namespace qanat::serve
