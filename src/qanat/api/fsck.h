// Bodies about fsck.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qanat/api/describe.h"

namespace qanat::api {

struct FsckProblem {
  std::string what;
  std::string where;
  std::vector<std::string> touches;
  int64_t touched = 0;
};
template <class V>
void describe(V& v, FsckProblem& t) {
  v.type("FsckProblem", "Something that is missing, damaged, or contradicts something else.");
  v.required("what", t.what, "What is wrong.");
  v.optional("where", t.where, "The key of the record, or of the object in the object store.");
  v.optional("touches", t.touches,
             "Commits and files that it spoils, as repo@commit:/path, and jobs; at most 100.");
  v.optional("touched", t.touched, "How many there are.");
}

struct FsckProgress {
  std::string phase;
  int64_t done = 0;
  int64_t total = 0;
};
template <class V>
void describe(V& v, FsckProgress& t) {
  v.type("FsckProgress", "How far a check has come.");
  v.required("phase", t.phase, "records, index, packs, trees, chunks or naming, in this order.");
  v.optional("done", t.done, "Done in this phase.");
  v.optional("total", t.total, "To do in this phase; absent: not known.");
}

struct FsckSummary {
  std::string project;
  int64_t records = 0;
  int64_t segments = 0;
  int64_t packs = 0;
  int64_t nodes = 0;
  int64_t chunks = 0;
  int64_t bytes = 0;
  int64_t problems = 0;
  bool truncated = false;
};
template <class V>
void describe(V& v, FsckSummary& t) {
  v.type("FsckSummary", "What a check has looked at, and found.");
  v.required("project", t.project, "Its name.");
  v.optional("records", t.records, "Records read.");
  v.optional("segments", t.segments, "Segments of indexes read.");
  v.optional("packs", t.packs, "Packs that the index names.");
  v.optional("nodes", t.nodes, "Nodes of trees read and hashed.");
  v.optional("chunks", t.chunks, "Chunks that trees name.");
  v.optional("bytes", t.bytes, "Bytes of packs read; only with `data`.");
  v.required("problems", t.problems, "0: nothing is wrong.");
  v.optional("truncated", t.truncated, "There is more damage than was named.");
}

struct FsckEvent {
  std::string type;
  std::optional<FsckProgress> progress;
  std::optional<FsckProblem> problem;
  std::optional<FsckSummary> summary;
  std::string error;
};
template <class V>
void describe(V& v, FsckEvent& t) {
  v.type("FsckEvent", "Something that a check tells.");
  v.required(
      "type", t.type,
      "progress, problem, done (the last one), or failed (the last one; it could not go on).");
  v.optional("progress", t.progress, "For progress.");
  v.optional("problem", t.problem, "For problem.");
  v.optional("summary", t.summary, "For done.");
  v.optional("error", t.error, "For failed.");
}

}  // namespace qanat::api
