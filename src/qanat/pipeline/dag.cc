#include "qanat/pipeline/dag.h"

#include <algorithm>
#include <set>

#include "qanat/base/string.h"

namespace qanat::pipeline {
namespace {

// Who writes what: index of the pipeline whose output a branch is.
using Writers = std::map<RepoBranch, size_t>;

std::vector<std::vector<size_t>> edges_of(const std::vector<DagPipeline>& pipelines,
                                          const Writers& writers) {
  std::vector<std::vector<size_t>> out(pipelines.size());  // reader -> writers
  for (size_t i = 0; i < pipelines.size(); ++i) {
    for (const RepoBranch& input : pipelines[i].inputs) {
      if (const auto writer = writers.find(input); writer != writers.end())
        out[i].push_back(writer->second);
    }
  }
  return out;
}

// Some cycle among `left`, each of which reads another of them. "a -> b -> a" in the direction of
// the data.
std::string name_cycle(const std::vector<DagPipeline>& pipelines,
                       const std::vector<std::vector<size_t>>& reads,
                       const std::set<size_t>& left) {
  std::vector<size_t> walk;
  size_t at = *left.begin();
  while (std::find(walk.begin(), walk.end(), at) == walk.end()) {
    walk.push_back(at);
    at = *std::find_if(reads[at].begin(), reads[at].end(),
                       [&](size_t writer) { return left.contains(writer); });
  }
  walk.erase(walk.begin(), std::find(walk.begin(), walk.end(), at));
  // From the alphabetically first member on, against the direction of reading.
  std::reverse(walk.begin(), walk.end());
  const auto first = std::min_element(walk.begin(), walk.end(), [&](size_t a, size_t b) {
    return pipelines[a].name < pipelines[b].name;
  });
  std::rotate(walk.begin(), first, walk.end());
  std::vector<std::string> names;
  for (const size_t member : walk) names.push_back(pipelines[member].name);
  names.push_back(names.front());
  return join(names, " -> ");
}

}  // namespace

Result<Dag> Dag::make(std::vector<DagPipeline> pipelines) {
  std::sort(pipelines.begin(), pipelines.end(),
            [](const DagPipeline& a, const DagPipeline& b) { return a.name < b.name; });
  Writers writers;
  for (size_t i = 0; i < pipelines.size(); ++i) {
    if (i > 0 && pipelines[i].name == pipelines[i - 1].name) {
      return invalid_argument(str_cat("pipeline ", pipelines[i].name, " is defined twice"));
    }
    writers[{pipelines[i].name, pipelines[i].output_branch}] = i;
  }
  const std::vector<std::vector<size_t>> reads = edges_of(pipelines, writers);
  // Kahn's algorithm, the alphabetically first ready pipeline at each step.
  std::vector<size_t> waiting_for(pipelines.size());
  std::vector<std::vector<size_t>> read_by(pipelines.size());
  std::set<size_t> ready;
  std::set<size_t> left;
  for (size_t i = 0; i < pipelines.size(); ++i) {
    const std::set<size_t> unique(reads[i].begin(), reads[i].end());
    for (const size_t writer : unique) read_by[writer].push_back(i);
    waiting_for[i] = unique.size();
    left.insert(i);
    if (unique.empty()) ready.insert(i);
  }
  Dag dag;
  while (!ready.empty()) {
    const size_t next = *ready.begin();
    ready.erase(ready.begin());
    left.erase(next);
    for (const size_t reader : read_by[next]) {
      if (--waiting_for[reader] == 0) ready.insert(reader);
    }
    for (const RepoBranch& input : pipelines[next].inputs) {
      std::vector<size_t>& readers = dag.readers_[input];
      if (readers.empty() || readers.back() != dag.order_.size())
        readers.push_back(dag.order_.size());
    }
    dag.order_.push_back(pipelines[next].name);
    dag.pipelines_.push_back(pipelines[next]);
  }
  if (!left.empty()) {
    return invalid_argument(
        str_cat("the pipelines form a cycle: ", name_cycle(pipelines, reads, left)),
        "A pipeline may not read, even through others, what it writes.");
  }
  return dag;
}

std::vector<std::string> Dag::downstream(std::span<const RepoBranch> changed) const {
  std::vector<bool> reached(pipelines_.size());
  const auto mark_readers = [&](const RepoBranch& branch) {
    const auto readers = readers_.find(branch);
    if (readers == readers_.end()) return;
    for (const size_t reader : readers->second) reached[reader] = true;
  };
  for (const RepoBranch& branch : changed) mark_readers(branch);
  std::vector<std::string> out;
  // In topological order, so each is marked before it is passed.
  for (size_t i = 0; i < pipelines_.size(); ++i) {
    if (!reached[i]) continue;
    out.push_back(order_[i]);
    mark_readers({pipelines_[i].name, pipelines_[i].output_branch});
  }
  return out;
}

std::vector<std::string> Dag::upstream(std::string_view pipeline) const {
  std::set<RepoBranch> wanted;
  std::vector<std::string> out;
  bool found = false;
  for (size_t i = pipelines_.size(); i-- > 0;) {
    const bool self = pipelines_[i].name == pipeline;
    found = found || self;
    if (!found || (!self && !wanted.contains({pipelines_[i].name, pipelines_[i].output_branch})))
      continue;
    wanted.insert(pipelines_[i].inputs.begin(), pipelines_[i].inputs.end());
    if (!self) out.push_back(order_[i]);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string> Dag::readers(std::string_view pipeline) const {
  std::vector<std::string> out;
  for (const DagPipeline& each : pipelines_) {
    if (each.name != pipeline) continue;
    const auto readers = readers_.find({each.name, each.output_branch});
    if (readers == readers_.end()) break;
    for (const size_t reader : readers->second) out.push_back(order_[reader]);
  }
  return out;
}

}  // namespace qanat::pipeline
