#include "qanat/worker/fetcher.h"

#include <algorithm>
#include <unordered_map>

#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

constexpr uint64_t kGroupBytes = 1 << 20;
constexpr uint64_t kGroupFiles = 2000;
constexpr size_t kGroupDatums = 256;  // bounds the request's query
// A datum that turns out larger than the lease said is dropped from memory and streamed.
constexpr uint64_t kMaxDatumInMemory = 4 << 20;
constexpr double kLeaseAheadMs = 50;
constexpr size_t kBuffer = 256 * 1024;

}  // namespace

Fetcher::Fetcher(ServerClient& client, DatumsInHand& in_hand, Clock& clock,
                 std::int64_t max_queue_size, std::function<void(const Status&)> fatal)
    : client_(client),
      in_hand_(in_hand),
      clock_(clock),
      max_groups_(std::max<int64_t>(max_queue_size, 1)),
      fatal_(std::move(fatal)) {}

Fetcher::~Fetcher() { stop(); }

void Fetcher::start() {
  thread_ = std::thread([this] { run(); });
}

void Fetcher::wake_to_end() {
  stopped_.store(true);
  MutexLock lock(mutex_);
  changed_.notify_all();
}

void Fetcher::stop() {
  wake_to_end();
  if (thread_.joinable()) thread_.join();
}

std::optional<FetchedDatum> Fetcher::next() {
  MutexLock lock(mutex_);
  while (groups_.empty() && !stopped_.load()) changed_.wait(mutex_);
  if (stopped_.load()) return std::nullopt;
  FetchedDatum datum = std::move(groups_.front().front());
  groups_.front().pop_front();
  if (groups_.front().empty()) groups_.pop_front();
  --unstarted_;
  changed_.notify_all();
  return datum;
}

bool Fetcher::idle() const {
  MutexLock lock(mutex_);
  return groups_.empty();
}

void Fetcher::note_duration(std::int64_t milliseconds) {
  MutexLock lock(mutex_);
  average_ms_ = 0.8 * average_ms_ + 0.2 * static_cast<double>(milliseconds);
}

void Fetcher::wait_until_needed() {
  MutexLock lock(mutex_);
  while (!stopped_.load() && static_cast<double>(unstarted_) * average_ms_ > kLeaseAheadMs) {
    changed_.wait(mutex_);
  }
}

void Fetcher::run() {
  std::optional<Retry> retry;
  while (!stopped_.load()) {
    wait_until_needed();
    if (stopped_.load()) return;
    Result<std::optional<api::LeaseAnswer>> lease = client_.lease({});
    if (!lease.ok()) {
      if (!retry) retry.emplace(clock_);
      if (!retry->again(lease.status())) {
        fatal_(lease.status());
        return;
      }
      continue;
    }
    retry.reset();
    if (!lease->has_value() || (*lease)->datums.empty()) continue;
    log_debug("leased", {{"job", (*lease)->job}, {"datums", (*lease)->datums.size()}});
    for (const api::LeasedDatum& datum : (*lease)->datums) in_hand_.add((*lease)->job, datum.id);
    {
      MutexLock lock(mutex_);
      unstarted_ += static_cast<int64_t>((*lease)->datums.size());
    }
    fetch(**lease);
  }
}

void Fetcher::fetch(const api::LeaseAnswer& lease) {
  size_t next = 0;
  while (next < lease.datums.size() && !stopped_.load()) {
    std::deque<FetchedDatum> group;
    uint64_t bytes = 0;
    uint64_t files = 0;
    while (next < lease.datums.size() && group.size() < kGroupDatums) {
      const api::LeasedDatum& datum = lease.datums[next];
      const bool large = datum.bytes > kGroupBytes || datum.files > kGroupFiles;
      if (!group.empty() &&
          (large || bytes + datum.bytes > kGroupBytes || files + datum.files > kGroupFiles)) {
        break;
      }
      bytes += datum.bytes;
      files += datum.files;
      group.push_back({.job = lease.job, .datum = datum, .in_memory = !large});
      ++next;
      if (large) break;
    }
    if (group.front().in_memory) {
      Retry retry(clock_);
      Status status = fetch_group(lease.job, group);
      auto wanted = [&] {
        return std::any_of(group.begin(), group.end(), [&](const FetchedDatum& datum) {
          return !in_hand_.cancelled(lease.job, datum.datum.id);
        });
      };
      while (!status.ok() && !stopped_.load() && wanted() && retry.again(status)) {
        status = fetch_group(lease.job, group);
      }
      if (status.code() == Code::kDataLoss) {
        // One of them cannot be read at the server: each by itself when its turn comes, which
        // shows whose fault it is.
        for (FetchedDatum& datum : group) {
          datum.in_memory = false;
          datum.files = {};
        }
        status = ok_status();
      }
      if (!status.ok()) {
        // The job is over or the datums are with another worker: the server's next answers will
        // tell. What was leased is let go.
        log_warning("cannot fetch inputs", {{"job", lease.job}, {"error", status}});
        for (const FetchedDatum& datum : group) in_hand_.remove(lease.job, datum.datum.id);
        MutexLock lock(mutex_);
        unstarted_ -= static_cast<int64_t>(group.size());
        continue;
      }
    }
    push(std::move(group));
  }
}

void Fetcher::push(std::deque<FetchedDatum> group) {
  MutexLock lock(mutex_);
  while (static_cast<int64_t>(groups_.size()) >= max_groups_ && !stopped_.load()) {
    changed_.wait(mutex_);
  }
  groups_.push_back(std::move(group));
  changed_.notify_all();
}

Status Fetcher::fetch_group(const std::string& job, std::deque<FetchedDatum>& group) {
  const int64_t start_ms = clock_.monotonic_ms();
  std::vector<std::string> ids;
  std::unordered_map<std::string, FetchedDatum*> by_id;
  for (FetchedDatum& datum : group) {
    datum.files.clear();
    datum.in_memory = true;
    ids.push_back(datum.datum.id);
    by_id[datum.datum.id] = &datum;
  }
  QANAT_RETURN_IF_ERROR(client_.inputs(job, ids, [&](api::FileStreamReader& reader) -> Status {
    FetchedDatum* datum = nullptr;
    uint64_t bytes = 0;
    while (true) {
      QANAT_ASSIGN_OR_RETURN(std::optional<api::Frame> frame, reader.next());
      if (!frame) return ok_status();
      if (frame->type == api::FrameType::kDatum) {
        QANAT_ASSIGN_OR_RETURN(
            auto head, api::parse_json<api::DatumInputs>(frame->json, {.ignore_unknown = true}));
        auto found = by_id.find(head.id);
        if (found == by_id.end()) return internal_error("the server sent a datum not asked for");
        datum = found->second;
        bytes = 0;
      } else if (frame->type == api::FrameType::kPut) {
        if (datum == nullptr) return internal_error("the server sent a file without a datum");
        if (!datum->in_memory) continue;
        Result<std::string> content = reader.read_all(kMaxDatumInMemory);
        if (content.code() == Code::kTooLarge) {
          // More than the lease said. The reader is spent, so the whole group is streamed.
          for (FetchedDatum& other : group) {
            other.in_memory = false;
            other.files = {};
          }
          return ok_status();
        }
        if (!content.ok()) return content.status();
        bytes += content->size() + frame->path.size();
        if (bytes > kMaxDatumInMemory) {
          datum->in_memory = false;
          datum->files = {};
          continue;
        }
        datum->files.push_back({std::move(frame->path), *std::move(content)});
      }
    }
  }));
  const int64_t each_ms =
      (clock_.monotonic_ms() - start_ms) / static_cast<int64_t>(std::max<size_t>(group.size(), 1));
  for (FetchedDatum& datum : group) datum.download_ms = each_ms;
  return ok_status();
}

Status Fetcher::stream_inputs(const FetchedDatum& datum, PfsFolder& pfs, api::DatumReport& report) {
  const int64_t start_ms = clock_.monotonic_ms();
  std::vector<std::string> inputs;
  for (const api::DatumInput& input : datum.datum.inputs) inputs.push_back(input.name);
  std::string buffer(kBuffer, '\0');
  auto receive = [&](api::FileStreamReader& reader) -> Status {
    while (true) {
      QANAT_ASSIGN_OR_RETURN(std::optional<api::Frame> frame, reader.next());
      if (!frame) return ok_status();
      if (frame->type != api::FrameType::kPut) continue;
      QANAT_RETURN_IF_ERROR(pfs.begin_file(frame->path));
      while (true) {
        QANAT_ASSIGN_OR_RETURN(size_t n, reader.read(buffer.data(), buffer.size()));
        if (n == 0) break;
        QANAT_RETURN_IF_ERROR(pfs.append(std::string_view(buffer.data(), n)));
        report.input_bytes += n;
      }
      QANAT_RETURN_IF_ERROR(pfs.end_file());
      ++report.input_files;
    }
  };
  Retry retry(clock_);
  while (true) {
    Status status = client_.inputs(datum.job, {datum.datum.id}, receive);
    // This disk is full, or broken: not the server's trouble.
    const bool local =
        status.code() == Code::kResourceExhausted || status.code() == Code::kInternal;
    if (status.ok() || local || stopped_.load() || in_hand_.cancelled(datum.job, datum.datum.id) ||
        !retry.again(status)) {
      report.download_ms += clock_.monotonic_ms() - start_ms;
      return status;
    }
    QANAT_RETURN_IF_ERROR(pfs.prepare(inputs));
    report.input_bytes = 0;
    report.input_files = 0;
  }
}

}  // namespace qanat::worker
