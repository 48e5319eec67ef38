// LiveLogs: what running datums print, for those who follow while it happens.
//
// Lives in memory only and is bounded: the last 256 KiB of each running job, and for each follower
// what its consumer queues. The durable log of a datum comes with its result, whether anybody
// followed or not; that of one whose job was killed meanwhile is what is kept here. Thread safe;
// callbacks run on the thread that brought the lines and must not block.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "qanat/base/thread_annotations.h"

namespace qanat::pipeline {

struct LiveLine {
  std::string project;
  std::string pipeline;
  std::string job;
  std::string datum;
  std::string worker;
  std::string line;  // as in the durable log: one JSON object (api::LogLine)
};

class LiveLogs {
 public:
  static constexpr size_t kKeptBytes = 256 << 10;  // of each job

  // What a follower wants to see; empty strings match everything.
  struct Filter {
    std::string project;
    std::string pipeline;
    std::string job;
    std::string datum;
  };
  using Callback = std::function<void(const LiveLine&)>;

  // First gives what is kept and matches, then what comes. Ends when the handle is dropped; no
  // callback runs after that.
  class Follower;
  std::shared_ptr<Follower> follow(Filter filter, Callback callback);

  // What is kept of a job, in the order it came; of a datum that another worker began again only
  // that one's.
  std::vector<LiveLine> kept(const std::string& project, const std::string& pipeline,
                             const std::string& job) const;

  void add(const std::vector<LiveLine>& lines);
  // The job is over: its lines are in durable logs.
  void forget(const std::string& project, const std::string& pipeline, const std::string& job);

 private:
  struct Kept {
    std::deque<LiveLine> lines;
    size_t bytes = 0;
  };
  struct State;

  std::shared_ptr<State> state_ = make_state();
  static std::shared_ptr<State> make_state();
};

}  // namespace qanat::pipeline
