#include "qanat/pipeline/live_logs.h"

#include <algorithm>

namespace qanat::pipeline {
namespace {

bool matches(const LiveLogs::Filter& filter, const LiveLine& line) {
  auto fits = [](const std::string& wanted, const std::string& found) {
    return wanted.empty() || wanted == found;
  };
  return fits(filter.project, line.project) && fits(filter.pipeline, line.pipeline) &&
         fits(filter.job, line.job) && fits(filter.datum, line.datum);
}

}  // namespace

class LiveLogs::Follower {
 public:
  Follower(std::weak_ptr<State> state, Filter filter, Callback callback)
      : state_(std::move(state)), filter_(std::move(filter)), callback_(std::move(callback)) {}
  ~Follower();

  void show(const LiveLine& line) const {
    if (matches(filter_, line)) callback_(line);
  }

 private:
  std::weak_ptr<State> state_;
  const Filter filter_;
  const Callback callback_;
};

struct LiveLogs::State {
  Mutex mutex;
  // By project, pipeline and job.
  std::map<std::array<std::string, 3>, Kept> jobs GUARDED_BY(mutex);
  std::vector<Follower*> followers GUARDED_BY(mutex);
};

LiveLogs::Follower::~Follower() {
  if (auto state = state_.lock()) {
    MutexLock lock(state->mutex);
    std::erase(state->followers, this);
  }
}

std::shared_ptr<LiveLogs::State> LiveLogs::make_state() { return std::make_shared<State>(); }

std::shared_ptr<LiveLogs::Follower> LiveLogs::follow(Filter filter, Callback callback) {
  auto follower = std::make_shared<Follower>(state_, std::move(filter), std::move(callback));
  MutexLock lock(state_->mutex);
  for (const auto& [job, kept] : state_->jobs) {
    for (const LiveLine& line : kept.lines) follower->show(line);
  }
  state_->followers.push_back(follower.get());
  return follower;
}

std::vector<LiveLine> LiveLogs::kept(const std::string& project, const std::string& pipeline,
                                     const std::string& job) const {
  std::vector<LiveLine> lines;
  {
    MutexLock lock(state_->mutex);
    const auto found = state_->jobs.find({project, pipeline, job});
    if (found == state_->jobs.end()) return lines;
    lines.assign(found->second.lines.begin(), found->second.lines.end());
  }
  std::map<std::string, std::string> workers;  // by datum; the last counts
  for (const LiveLine& line : lines) workers[line.datum] = line.worker;
  std::erase_if(lines, [&](const LiveLine& line) { return workers[line.datum] != line.worker; });
  return lines;
}

void LiveLogs::add(const std::vector<LiveLine>& lines) {
  MutexLock lock(state_->mutex);
  for (const LiveLine& line : lines) {
    Kept& kept = state_->jobs[{line.project, line.pipeline, line.job}];
    kept.lines.push_back(line);
    kept.bytes += line.line.size();
    while (kept.bytes > kKeptBytes && !kept.lines.empty()) {
      kept.bytes -= kept.lines.front().line.size();
      kept.lines.pop_front();
    }
    for (Follower* follower : state_->followers) follower->show(line);
  }
}

void LiveLogs::forget(const std::string& project, const std::string& pipeline,
                      const std::string& job) {
  MutexLock lock(state_->mutex);
  state_->jobs.erase({project, pipeline, job});
}

}  // namespace qanat::pipeline
