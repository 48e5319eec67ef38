// One line of a log: what workers send (only time, stream, attempt and text), and what `logs`
// answers.
#pragma once

#include <cstdint>
#include <string>

#include "qanat/api/describe.h"
#include "qanat/api/time.h"

namespace qanat::api {

struct LogLine {
  Timestamp time;
  std::string pipeline;
  std::string job;
  std::string datum;
  std::string worker;
  std::string stream;
  int64_t attempt = 0;
  int64_t number = 0;
  std::string text;
};
template <class V>
void describe(V& v, LogLine& t) {
  v.type("LogLine", "One line that user code wrote, or the worker wrote about it.");
  v.required("time", t.time, "When the worker read it.");
  v.optional("pipeline", t.pipeline, "The pipeline.");
  v.optional("job", t.job, "The job.");
  v.optional("datum", t.datum, "The datum.");
  v.optional("worker", t.worker, "The worker.");
  v.required("stream", t.stream, "stdout, stderr, or worker for the worker's own words.");
  v.optional("attempt", t.attempt, "Counted from 1.");
  v.optional("number", t.number, "Of the datum's lines, from 0; those left out are counted.");
  v.required("text", t.text, "Without its newline; bytes that are not UTF-8 as U+FFFD.");
}

}  // namespace qanat::api
