#include "worker/fake_server.h"

#include <gtest/gtest.h>

#include <utility>

#include "qanat/api/error.h"
#include "qanat/api/file_stream.h"
#include "qanat/base/clock.h"
#include "qanat/base/string.h"

namespace qanat::testing {
namespace {

constexpr int64_t kWaitMs = 60'000;
constexpr const char* kToken = "worker-token";

// A worker that ends closes its connections, also those on which it waits for an answer: what
// cannot be sent is then no error. A test that needs the answer notices that it did not come.
void send_json(net::Response& response, const std::string& body) {
  (void)response.send(200, body, "application/json");
}

void send_error(net::Response& response, const Status& status) {
  (void)response.send(net::http_status(status.code()), api::error_json(status), "application/json");
}

std::vector<api::DatumInput> inputs_of(const FakeDatum& datum) {
  std::vector<api::DatumInput> inputs;
  for (const auto& [path, bytes] : datum.files) {
    auto [name, rest] = split_once(path, '/');
    if (inputs.empty() || inputs.back().name != name) {
      inputs.push_back({std::string(name), std::string(rest)});
    }
  }
  return inputs;
}

}  // namespace

FakeServer::FakeServer(std::string folder) : folder_(std::move(folder)) {
  hello.token = kToken;
  hello.project = "default";
  hello.pipeline = "p";
  hello.version = 1;
  hello.settings.renew_every_ms = 100;
  hello.settings.datum_tries = 1;
}

FakeServer::~FakeServer() { stop(); }

void FakeServer::start() {
  {
    MutexLock lock(mutex_);
    stopping_ = false;
  }
  auto server = net::HttpServer::create({});
  ASSERT_TRUE(server.ok()) << server.status().to_string();
  server_ = std::move(*server);
  auto listener = server_->listen_unix(
      folder_ + "/worker.sock", 0600,
      [this](net::Request& request, net::Response& response) { handle(request, response); },
      /*descriptors=*/false);
  ASSERT_TRUE(listener.ok()) << listener.status().to_string();
}

void FakeServer::stop() {
  if (server_ == nullptr) return;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  server_->stop(net::Milliseconds(0));
  server_ = nullptr;
}

void FakeServer::add(std::vector<FakeDatum> datums) {
  MutexLock lock(mutex_);
  for (FakeDatum& datum : datums) {
    waiting_.push_back(datum.id);
    datums_[datum.id] = std::move(datum);
  }
  changed_.notify_all();
}

void FakeServer::cancel(const std::string& datum) {
  MutexLock lock(mutex_);
  cancelled_.insert(datum);
}

void FakeServer::follow() {
  MutexLock lock(mutex_);
  follow_ = true;
}

void FakeServer::dismiss() {
  MutexLock lock(mutex_);
  dismissed_ = true;
  changed_.notify_all();
}

template <class Ready>
bool FakeServer::wait(Ready ready) {
  const int64_t deadline_ms = real_clock().monotonic_ms() + kWaitMs;
  MutexLock lock(mutex_);
  while (!ready()) {
    const int64_t left_ms = deadline_ms - real_clock().monotonic_ms();
    if (left_ms <= 0) return false;
    changed_.wait_for_ms(mutex_, left_ms);
  }
  return true;
}

bool FakeServer::wait_delivered(size_t count) {
  return wait([&]() NO_THREAD_SAFETY_ANALYSIS { return delivered_.size() >= count; });
}
bool FakeServer::wait_leased(const std::string& datum) {
  return wait([&]() NO_THREAD_SAFETY_ANALYSIS { return leased_.count(datum) > 0; });
}
bool FakeServer::wait_inputs(int calls) {
  return wait([&]() NO_THREAD_SAFETY_ANALYSIS { return calls_.inputs >= calls; });
}
bool FakeServer::wait_renewed(const std::string& datum) {
  return wait([&]() NO_THREAD_SAFETY_ANALYSIS { return renewed_.count(datum) > 0; });
}
bool FakeServer::wait_live(const std::string& text) {
  return wait([&]() NO_THREAD_SAFETY_ANALYSIS { return live_.find(text) != std::string::npos; });
}

std::map<std::string, Delivered> FakeServer::delivered() {
  MutexLock lock(mutex_);
  return delivered_;
}

FakeCalls FakeServer::calls() {
  MutexLock lock(mutex_);
  return calls_;
}

void FakeServer::handle(net::Request& request, net::Response& response) {
  const std::string& path = request.head().path;
  if (path == "/worker/v1/hello") {
    Result<std::string> body = request.read_all(1 << 20);
    if (!body.ok()) return;
    auto parsed = api::parse_json<api::HelloRequest>(*body);
    MutexLock lock(mutex_);
    ++calls_.hellos;
    if (!parsed.ok() || request.head().headers.get("Authorization") != "Bearer " + credential ||
        parsed->architecture.empty()) {
      send_error(response, unauthenticated("this credential is not valid"));
      return;
    }
    credential.clear();  // one use
    send_json(response, api::json_text(hello));
    return;
  }
  bool dismissed = false;
  {
    MutexLock lock(mutex_);
    dismissed = dismissed_;
  }
  if (dismissed || request.head().headers.get("Authorization") != str_cat("Bearer ", kToken)) {
    send_error(response, unauthenticated("this worker is not wanted"));
    return;
  }
  if (path == "/worker/v1/lease") return lease(request, response);
  if (path == "/worker/v1/inputs") return inputs(request, response);
  if (path == "/worker/v1/results") return results(request, response);
  Result<std::string> body = request.read_all(64 << 20);
  if (!body.ok()) return;
  MutexLock lock(mutex_);
  if (path == "/worker/v1/renew") {
    ++calls_.renewals;
    auto renewal = api::parse_json<api::RenewRequest>(*body);
    ASSERT_TRUE(renewal.ok()) << renewal.status().to_string();
    api::RenewAnswer answer;
    answer.follow = follow_;
    for (const api::HeldDatums& held : renewal->held) {
      api::HeldDatums cancelled{held.job, {}};
      for (const std::string& id : held.datums) {
        renewed_.insert(id);
        if (cancelled_.count(id) > 0) cancelled.datums.push_back(id);
      }
      if (!cancelled.datums.empty()) answer.cancelled.push_back(std::move(cancelled));
    }
    send_json(response, api::json_text(answer));
  } else if (path == "/worker/v1/logs") {
    ++calls_.logs;
    auto push = api::parse_json<api::LogPush>(*body);
    ASSERT_TRUE(push.ok()) << push.status().to_string();
    for (const api::LogLine& line : push->lines) str_append(live_, line.text, "\n");
    (void)response.send(204, "");  // the worker may be gone by now
  } else {
    send_error(response, not_found("no such route"));
  }
  changed_.notify_all();
}

void FakeServer::lease(net::Request& request, net::Response& response) {
  Result<std::string> body = request.read_all(1 << 20);
  if (!body.ok()) return;
  api::LeaseAnswer answer;
  answer.batch = "b";
  answer.job = "j";
  {
    MutexLock lock(mutex_);
    ++calls_.leases;
    const int64_t deadline_ms = real_clock().monotonic_ms() + 2000;
    while (waiting_.empty() && !stopping_ && !dismissed_ &&
           real_clock().monotonic_ms() < deadline_ms) {
      changed_.wait_for_ms(mutex_, deadline_ms - real_clock().monotonic_ms());
    }
    if (stopping_) return;  // cut off, as by a crash
    while (!waiting_.empty() && answer.datums.size() < batch) {
      const FakeDatum& datum = datums_[waiting_.front()];
      api::LeasedDatum leased;
      leased.id = datum.id;
      leased.index = static_cast<int64_t>(answer.datums.size());
      leased.env = datum.env;
      leased.env["PACH_DATUM_ID"] = datum.id;
      leased.inputs = inputs_of(datum);
      leased.files = datum.files.size();
      for (const auto& [path, bytes] : datum.files) leased.bytes += bytes.size();
      answer.datums.push_back(std::move(leased));
      leased_.insert(datum.id);
      waiting_.pop_front();
    }
    changed_.notify_all();
  }
  if (answer.datums.empty()) {
    EXPECT_TRUE(response.send(204, "").ok());
  } else {
    send_json(response, api::json_text(answer));
  }
}

void FakeServer::inputs(net::Request& request, net::Response& response) {
  auto query = request.head().query();
  ASSERT_TRUE(query.ok());
  EXPECT_EQ(query->get_or("job", ""), "j");
  std::vector<FakeDatum> datums;
  {
    MutexLock lock(mutex_);
    ++calls_.inputs;
    changed_.notify_all();
    for (const std::string& id : query->get_all("datum")) datums.push_back(datums_[id]);
  }
  if (!response.start(200, std::nullopt).ok()) return;
  api::FileStreamWriter writer([&](std::string_view bytes) { return response.write(bytes); });
  for (const FakeDatum& datum : datums) {
    if (!writer.datum(api::json_text(api::DatumInputs{datum.id})).ok()) return;
    for (const auto& [path, bytes] : datum.files) {
      if (!writer.put(path, bytes).ok()) return;
    }
  }
  if (!writer.finish().ok()) return;
  EXPECT_TRUE(response.finish().ok());
}

void FakeServer::results(net::Request& request, net::Response& response) {
  std::map<std::string, Delivered> batch;
  api::FileStreamReader reader(
      [&](char* buffer, size_t size) { return request.read(buffer, size); });
  Delivered* current = nullptr;
  while (true) {
    auto frame = reader.next();
    if (!frame.ok()) {
      send_error(response, frame.status());
      return;
    }
    if (!frame->has_value()) break;
    if ((*frame)->type == api::FrameType::kDatum) {
      auto report = api::parse_json<api::DatumReport>((*frame)->json);
      ASSERT_TRUE(report.ok()) << report.status().to_string();
      current = &batch[report->id];
      current->report = *report;
    } else if ((*frame)->type == api::FrameType::kPut) {
      auto bytes = reader.read_all(1 << 30);
      if (!bytes.ok()) return send_error(response, bytes.status());
      current->files[(*frame)->path] = *bytes;
    } else if ((*frame)->type == api::FrameType::kLog) {
      auto bytes = reader.read_all(1 << 30);
      if (!bytes.ok()) return send_error(response, bytes.status());
      current->log = *bytes;
    }
  }
  MutexLock lock(mutex_);
  ++calls_.results;
  for (auto& [id, result] : batch) {
    const int times = delivered_[id].times + 1;
    delivered_[id] = std::move(result);
    delivered_[id].times = times;
  }
  send_json(response, api::json_text(api::ResultsAnswer{}));
  changed_.notify_all();
}

}  // namespace qanat::testing
