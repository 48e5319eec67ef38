#include "qanat/worker/worker_loop.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <thread>

#include "qanat/base/log.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/worker/datum_runner.h"
#include "qanat/worker/datums_in_hand.h"
#include "qanat/worker/fetcher.h"
#include "qanat/worker/server_client.h"
#include "qanat/worker/uploader.h"

namespace qanat::worker {
namespace {

constexpr int64_t kRenewRetryMs = 500;
// A follower that lags loses lines; the durable log has them all.
constexpr size_t kMaxLiveBytes = 1 << 20;

#if defined(__x86_64__)
constexpr const char* kArchitecture = "amd64";
#elif defined(__aarch64__)
constexpr const char* kArchitecture = "arm64";
#else
#error "name this architecture as container images do"
#endif

size_t bytes_of(const std::vector<api::LogLine>& lines) {
  size_t bytes = 0;
  for (const api::LogLine& line : lines) bytes += line.text.size() + sizeof line;
  return bytes;
}

class WorkerLoop {
 public:
  WorkerLoop(WorkerOptions options, UserProcesses& processes, Clock& clock)
      : options_(std::move(options)),
        processes_(processes),
        clock_(clock),
        client_(options_.socket) {}

  Status run();

 private:
  Result<api::HelloAnswer> hello();
  void run_datums(DatumRunner& runner, Fetcher& fetcher, Uploader& uploader);
  void renew(int64_t every_ms);
  // Until there are no more, or it is time for something else.
  void push_logs(int64_t until_ms);
  api::LogPush drop_oldest_lines() REQUIRES(mutex_);
  void end(const Status& reason);

  const WorkerOptions options_;
  UserProcesses& processes_;
  Clock& clock_;
  ServerClient client_;
  DatumsInHand in_hand_;
  Cancellation cancel_;
  std::atomic<bool> follow_{true};  // until the server says otherwise: no line is to be missed

  Mutex mutex_;
  CondVar changed_;
  bool ending_ GUARDED_BY(mutex_) = false;
  Status reason_ GUARDED_BY(mutex_);
  std::deque<api::LogPush> live_ GUARDED_BY(mutex_);
  size_t live_bytes_ GUARDED_BY(mutex_) = 0;
  int64_t last_contact_ms_ GUARDED_BY(mutex_) = 0;
  Fetcher* fetcher_ GUARDED_BY(mutex_) = nullptr;
};

Result<api::HelloAnswer> WorkerLoop::hello() {
  api::HelloRequest request;
  request.credential = options_.credential;
  request.worker = options_.id;
  request.architecture = kArchitecture;
  Retry retry(clock_);
  while (true) {
    Result<api::HelloAnswer> answer = client_.hello(request);
    // A credential that was refused stays refused.
    if (answer.ok() || !Retry::is_transient(answer.status()) || !retry.again(answer.status())) {
      return answer;
    }
  }
}

Status WorkerLoop::run() {
  QANAT_ASSIGN_OR_RETURN(api::HelloAnswer hello, this->hello());
  log_info("worker ready", {{"pipeline", hello.pipeline}, {"version", hello.version}});
  {
    MutexLock lock(mutex_);
    last_contact_ms_ = clock_.monotonic_ms();
  }
  auto fatal = [this](const Status& status) { end(status); };
  Fetcher fetcher(client_, in_hand_, clock_, hello.settings.max_queue_size, fatal);
  Uploader uploader(client_, in_hand_, clock_, fatal);
  DatumRunner runner(
      hello.transform, hello.settings, processes_,
      [&](const FetchedDatum& datum, PfsFolder& pfs, api::DatumReport& report) {
        return fetcher.stream_inputs(datum, pfs, report);
      },
      [this](const std::string& job, const std::string& datum, std::vector<api::LogLine> lines) {
        if (!follow_.load()) return;
        MutexLock lock(mutex_);
        live_bytes_ += bytes_of(lines);
        live_.push_back({job, datum, std::move(lines)});
        while (live_bytes_ > kMaxLiveBytes && live_.size() > 1) drop_oldest_lines();
        changed_.notify_all();
      },
      clock_);
  {
    MutexLock lock(mutex_);
    fetcher_ = &fetcher;
  }
  fetcher.start();
  uploader.start();
  std::thread renewer([this, every_ms = std::max<int64_t>(hello.settings.renew_every_ms, 100)] {
    renew(every_ms);
  });
  run_datums(runner, fetcher, uploader);
  renewer.join();
  {
    MutexLock lock(mutex_);
    fetcher_ = nullptr;
  }
  processes_.kill_all();
  MutexLock lock(mutex_);
  // The threads may hang in a long poll to a server that is gone; the process ends with this
  // anyway.
  return reason_;
}

void WorkerLoop::run_datums(DatumRunner& runner, Fetcher& fetcher, Uploader& uploader) {
  while (std::optional<FetchedDatum> datum = fetcher.next()) {
    {
      MutexLock lock(mutex_);
      if (ending_) return;
    }
    const std::string& id = datum->datum.id;
    if (in_hand_.cancelled(datum->job, id)) {
      in_hand_.remove(datum->job, id);
      continue;
    }
    const int64_t start_ms = clock_.monotonic_ms();
    cancel_.reset();
    in_hand_.start_running(datum->job, id, &cancel_);
    Result<RanDatum> ran = runner.run(*datum, cancel_);
    in_hand_.stop_running();
    if (!ran.ok()) {
      if (!in_hand_.cancelled(datum->job, id)) {
        log_error("a datum could not be run", {{"datum", id}, {"error", ran.status()}});
        if (ran.status().code() == Code::kInternal || ran.status().code() == Code::kDataLoss) {
          // This container is broken (its disk, most likely): another one shall try.
          end(ran.status().with_context("the worker cannot go on"));
          return;
        }
      }
      in_hand_.remove(datum->job, id);
      continue;
    }
    fetcher.note_duration(clock_.monotonic_ms() - start_ms);
    if (ran->cancelled) {
      in_hand_.remove(datum->job, id);
    } else if (ran->large) {
      if (Status status = uploader.send_large(*ran, runner); !status.ok()) {
        log_warning("result lost", {{"datum", id}, {"error", status}});
      }
    } else {
      uploader.add(*std::move(ran));
    }
    if (fetcher.idle()) uploader.hurry();
  }
}

void WorkerLoop::end(const Status& reason) {
  MutexLock lock(mutex_);
  if (ending_) return;
  ending_ = true;
  reason_ = reason;
  changed_.notify_all();
  cancel_.cancel();
  Fetcher* fetcher = fetcher_;
  lock.unlock();
  if (fetcher != nullptr) fetcher->wake_to_end();
}

void WorkerLoop::renew(int64_t every_ms) {
  int64_t next_ms = clock_.monotonic_ms() + every_ms;
  while (true) {
    bool logs = false;
    {
      MutexLock lock(mutex_);
      while (!ending_ && live_.empty() && clock_.monotonic_ms() < next_ms) {
        changed_.wait_for_ms(mutex_, next_ms - clock_.monotonic_ms());
      }
      if (ending_) return;
      logs = !live_.empty();
    }
    if (logs) push_logs(next_ms);
    if (clock_.monotonic_ms() < next_ms) continue;
    api::RenewRequest request;
    request.held = in_hand_.held();
    Result<api::RenewAnswer> answer = client_.renew(request);
    if (answer.ok()) {
      follow_.store(answer->follow);
      in_hand_.cancel(answer->cancelled);
      MutexLock lock(mutex_);
      last_contact_ms_ = clock_.monotonic_ms();
      next_ms = clock_.monotonic_ms() + every_ms;
    } else {
      next_ms = clock_.monotonic_ms() + kRenewRetryMs;
      std::int64_t silent_ms = 0;
      {
        MutexLock lock(mutex_);
        silent_ms = clock_.monotonic_ms() - last_contact_ms_;
      }
      if (silent_ms >= Retry::patience_ms(answer.status())) end(answer.status());
    }
  }
}

api::LogPush WorkerLoop::drop_oldest_lines() {
  api::LogPush oldest = std::move(live_.front());
  live_.pop_front();
  live_bytes_ -= bytes_of(oldest.lines);
  return oldest;
}

void WorkerLoop::push_logs(int64_t until_ms) {
  while (clock_.monotonic_ms() < until_ms) {
    api::LogPush push;
    {
      MutexLock lock(mutex_);
      if (live_.empty()) return;
      push = drop_oldest_lines();
    }
    if (Status status = client_.logs(push); !status.ok()) {
      log_debug("live log lines lost", {{"error", status}});
      return;
    }
  }
}

}  // namespace

Status run_worker(WorkerOptions options, UserProcesses& processes, Clock& clock) {
  WorkerLoop loop(std::move(options), processes, clock);
  return loop.run();
}

}  // namespace qanat::worker
