// Bodies about taking commits out of history.
#pragma once

#include <string>
#include <vector>

#include "qanat/api/describe.h"

namespace qanat::api {

struct RemovedCommits {
  std::vector<std::string> commits;
};
template <class V>
void describe(V& v, RemovedCommits& t) {
  v.type("RemovedCommits", "The commits that were taken out, or brought back.");
  v.required("commits", t.commits, "REPO@ID of each.");
}

}  // namespace qanat::api
