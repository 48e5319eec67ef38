#include "qanat/base/counters.h"

#include <map>
#include <memory>

#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"

namespace qanat {
namespace {

template <class T>
struct Named {
  std::string help;
  T value;
};

struct Registry {
  Mutex mutex;
  // Nodes of a map do not move, so references into them stay good.
  std::map<std::string, Named<Counter>, std::less<>> counters GUARDED_BY(mutex);
  std::map<std::string, Named<Gauge>, std::less<>> gauges GUARDED_BY(mutex);
};

// Never destroyed: threads may count while the process exits.
Registry& registry() {
  static Registry* const instance = new Registry;
  return *instance;
}

template <class T>
T& find_or_add(std::map<std::string, Named<T>, std::less<>>& metrics, std::string_view name,
               std::string_view help) {
  auto found = metrics.find(name);
  if (found == metrics.end()) {
    found = metrics.try_emplace(std::string(name)).first;
    found->second.help = help;
  }
  return found->second.value;
}

// `name{label="x"}` -> `name`.
std::string_view family(std::string_view name) { return name.substr(0, name.find('{')); }

}  // namespace

Counter& counter(std::string_view name, std::string_view help) {
  MutexLock lock(registry().mutex);
  return find_or_add(registry().counters, name, help);
}

Gauge& gauge(std::string_view name, std::string_view help) {
  MutexLock lock(registry().mutex);
  return find_or_add(registry().gauges, name, help);
}

std::vector<Metric> all_metrics() {
  std::map<std::string, Metric> by_name;
  MutexLock lock(registry().mutex);
  for (const auto& [name, named] : registry().counters) {
    by_name[name] = {name, named.help, false, static_cast<int64_t>(named.value.value())};
  }
  for (const auto& [name, named] : registry().gauges) {
    by_name[name] = {name, named.help, true, named.value.value()};
  }
  std::vector<Metric> metrics;
  for (auto& [name, metric] : by_name) metrics.push_back(std::move(metric));
  return metrics;
}

std::string metrics_text() {
  // The format wants a family's samples together, under one head.
  std::map<std::string, std::vector<Metric>> families;
  for (Metric& metric : all_metrics()) {
    families[std::string(family(metric.name))].push_back(std::move(metric));
  }
  std::string text;
  for (const auto& [name, samples] : families) {
    str_append(text, "# HELP ", name, " ", samples[0].help, "\n# TYPE ", name, " ",
               samples[0].is_gauge ? "gauge" : "counter", "\n");
    for (const Metric& metric : samples) {
      str_append(text, metric.name, " ", metric.value, "\n");
    }
  }
  return text;
}

}  // namespace qanat
