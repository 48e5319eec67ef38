// Named numbers of this process: nodes read, fsyncs, requests. Exported at /metrics, and asserted
// in tests, where they show what an operation cost without any noise.
//   Counter& fsyncs = counter("qanat_fsyncs_total", "Calls of fsync and fdatasync");   // once, in
//   a static or a member fsyncs.add();
// Thread safe; updates are relaxed atomics. Counters live as long as the process.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qanat {

// Only grows.
class Counter {
 public:
  void add(uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Goes up and down.
class Gauge {
 public:
  void set(int64_t value) { value_.store(value, std::memory_order_relaxed); }
  void add(int64_t amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// The counter of that name, made at its first mention (whose help text stays). Names follow
// Prometheus (`qanat_..._total`) and may carry fixed labels:
// `qanat_http_requests_total{method="GET"}`. A look-up takes a lock: keep the reference.
Counter& counter(std::string_view name, std::string_view help);
Gauge& gauge(std::string_view name, std::string_view help);

struct Metric {
  std::string name;
  std::string help;
  bool is_gauge = false;
  int64_t value = 0;
};

// All of them, by name.
std::vector<Metric> all_metrics();
// In the text format of Prometheus (version 0.0.4).
std::string metrics_text();

}  // namespace qanat
