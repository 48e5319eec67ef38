#include "qanat/worker/uploader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/worker/output_walk.h"

namespace qanat::worker {
namespace {

constexpr uint64_t kSendBytes = 4 << 20;
constexpr int64_t kSendAfterMs = 100;
constexpr uint64_t kMaxWaitingBytes = 8 << 20;
constexpr uint64_t kResultCost = 512;  // its report
constexpr size_t kBuffer = 256 * 1024;

uint64_t cost(const RanDatum& ran) {
  uint64_t bytes = kResultCost + ran.log.size();
  for (const SmallFile& file : ran.files) bytes += file.path.size() + file.bytes.size() + 32;
  return bytes;
}

Status write_log(api::FileStreamWriter& writer, const std::string& log) {
  if (log.empty()) return ok_status();
  QANAT_RETURN_IF_ERROR(writer.begin_log());
  QANAT_RETURN_IF_ERROR(writer.data(log));
  return writer.end_log();
}

}  // namespace

Uploader::Uploader(ServerClient& client, DatumsInHand& in_hand, Clock& clock,
                   std::function<void(const Status&)> fatal)
    : client_(client), in_hand_(in_hand), clock_(clock), fatal_(std::move(fatal)) {}

Uploader::~Uploader() { stop(); }

void Uploader::start() {
  thread_ = std::thread([this] { run(); });
}

void Uploader::stop() {
  stopped_.store(true);
  {
    MutexLock lock(mutex_);
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Uploader::add(RanDatum ran) {
  const uint64_t bytes = cost(ran);
  MutexLock lock(mutex_);
  while (waiting_bytes_ + sending_bytes_ + bytes > kMaxWaitingBytes &&
         waiting_bytes_ + sending_bytes_ > 0 && !stopped_.load()) {
    changed_.wait(mutex_);
  }
  if (waiting_.empty()) oldest_ms_ = clock_.monotonic_ms();
  waiting_bytes_ += bytes;
  waiting_.push_back(std::move(ran));
  changed_.notify_all();
}

void Uploader::hurry() {
  MutexLock lock(mutex_);
  hurry_ = true;
  changed_.notify_all();
}

void Uploader::run() {
  while (true) {
    std::deque<RanDatum> results;
    {
      MutexLock lock(mutex_);
      while (!stopped_.load()) {
        if (waiting_.empty()) {
          hurry_ = false;
          changed_.wait(mutex_);
          continue;
        }
        const int64_t left_ms = oldest_ms_ + kSendAfterMs - clock_.monotonic_ms();
        if (hurry_ || left_ms <= 0 || waiting_bytes_ >= kSendBytes) break;
        changed_.wait_for_ms(mutex_, left_ms);
      }
      if (stopped_.load()) return;
      // Results of one job make a request; others wait for the next round.
      const std::string job = waiting_.front().job;
      while (!waiting_.empty() && waiting_.front().job == job && sending_bytes_ < kSendBytes) {
        const uint64_t bytes = cost(waiting_.front());
        waiting_bytes_ -= bytes;
        sending_bytes_ += bytes;
        results.push_back(std::move(waiting_.front()));
        waiting_.pop_front();
      }
      if (waiting_.empty()) hurry_ = false;
    }
    deliver(std::move(results));
    MutexLock lock(mutex_);
    sending_bytes_ = 0;
    changed_.notify_all();
  }
}

void Uploader::deliver(std::deque<RanDatum> results) {
  const std::string job = results.front().job;
  std::string body;
  api::FileStreamWriter writer([&body](std::string_view bytes) {
    body += bytes;
    return ok_status();
  });
  auto write = [&]() -> Status {
    for (const RanDatum& ran : results) {
      if (in_hand_.cancelled(ran.job, ran.report.id)) continue;
      QANAT_RETURN_IF_ERROR(writer.datum(api::json_text(ran.report)));
      for (const SmallFile& file : ran.files) {
        QANAT_RETURN_IF_ERROR(writer.put(file.path, file.bytes));
      }
      QANAT_RETURN_IF_ERROR(write_log(writer, ran.log));
    }
    return writer.finish();
  };
  Status status = write();
  if (status.ok()) {
    auto wanted = [&] {
      return std::any_of(results.begin(), results.end(), [&](const RanDatum& ran) {
        return !in_hand_.cancelled(ran.job, ran.report.id);
      });
    };
    Retry retry(clock_);
    status = client_.results(job, body).status();
    while (!status.ok() && !stopped_.load() && wanted() && retry.again(status)) {
      status = client_.results(job, body).status();
    }
  }
  if (stopped_.load()) return;
  if (!status.ok()) {
    log_warning("results were not taken", {{"job", job}, {"error", status}});
    if (status.code() == Code::kUnauthenticated || status.code() == Code::kPermissionDenied) {
      fatal_(status);
      return;
    }
  }
  for (const RanDatum& ran : results) in_hand_.remove(ran.job, ran.report.id);
}

Status Uploader::send_large(const RanDatum& ran, DatumRunner& runner) {
  Retry retry(clock_);
  std::string buffer(kBuffer, '\0');
  auto produce = [&](api::FileStreamWriter& writer) -> Status {
    QANAT_RETURN_IF_ERROR(writer.datum(api::json_text(ran.report)));
    QANAT_ASSIGN_OR_RETURN(int out, runner.open_out());
    Status walked =
        walk_output(out, runner.account(), [&](std::string_view path, int fd, uint64_t) -> Status {
          if (in_hand_.cancelled(ran.job, ran.report.id)) return cancelled("not wanted any more");
          QANAT_RETURN_IF_ERROR(writer.begin_put(path, false));
          while (true) {
            ssize_t n = ::read(fd, buffer.data(), buffer.size());
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return errno_status(errno, str_cat("read /pfs/out/", path));
            if (n == 0) break;
            QANAT_RETURN_IF_ERROR(
                writer.data(std::string_view(buffer.data(), static_cast<size_t>(n))));
          }
          return writer.end_put();
        });
    ::close(out);
    QANAT_RETURN_IF_ERROR(walked);
    return write_log(writer, ran.log);
  };
  Status status = client_.results_streamed(ran.job, produce).status();
  while (!status.ok() && !stopped_.load() && !in_hand_.cancelled(ran.job, ran.report.id) &&
         retry.again(status)) {
    status = client_.results_streamed(ran.job, produce).status();
  }
  if (stopped_.load()) return cancelled("the worker is ending");
  in_hand_.remove(ran.job, ran.report.id);
  if (!status.ok()) {
    log_warning("a result was not taken",
                {{"job", ran.job}, {"datum", ran.report.id}, {"error", status}});
    if (status.code() == Code::kUnauthenticated || status.code() == Code::kPermissionDenied) {
      fatal_(status);
    }
  }
  return status;
}

}  // namespace qanat::worker
