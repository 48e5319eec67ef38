// The log of one datum: what user code wrote to stdout and stderr, cut into lines with times, and
// the worker's own remarks.
//
// Bounded: of each stream the first and the last `limit / 2` bytes of text are kept, with a line in
// between that says how much is missing. Lines longer than 16 KiB are cut in two. Bytes that are
// not UTF-8 become U+FFFD. One thread at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/log_line.h"
#include "qanat/base/clock.h"

namespace qanat::worker {

class DatumLog {
 public:
  DatumLog(std::uint64_t limit, Clock& clock);

  // Attempts are counted from 1.
  void set_attempt(std::int64_t attempt) { attempt_ = attempt; }
  // stream is 1 (stdout) or 2 (stderr).
  void write(int stream, std::string_view bytes);
  // Ends an unfinished line: call when the command has ended.
  void end_attempt();
  // A line of the worker's own.
  void remark(std::string text);

  // With `live` on, lines are also kept for take_live (at most 1,000; older ones are dropped there,
  // never from the log).
  void set_live(bool live);
  std::vector<api::LogLine> take_live();

  // The last lines of stderr or stdout, for looking at what a failure said. At most a few KiB.
  const std::string& recent(int stream) const { return streams_[stream].recent; }

  // The log in order of time, a JSON object a line. Leaves this empty.
  std::string take_text();

 private:
  struct Entry {
    std::uint64_t order;  // over all streams
    api::LogLine line;
  };
  struct Stream {
    std::string name;
    std::string partial;
    std::string recent;
    std::vector<Entry> head;
    std::uint64_t head_bytes = 0;
    std::deque<Entry> tail;
    std::uint64_t tail_bytes = 0;
    std::uint64_t cut_bytes = 0;
    std::uint64_t cut_lines = 0;
  };
  void add(Stream& stream, std::string text);

  const std::uint64_t half_;
  Clock& clock_;
  std::int64_t attempt_ = 1;
  std::uint64_t next_order_ = 0;
  Stream streams_[3];  // 0: the worker's remarks
  bool live_ = false;
  std::deque<api::LogLine> live_lines_;
  size_t live_bytes_ = 0;  // of their text
};

}  // namespace qanat::worker
