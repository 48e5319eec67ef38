// The pipelines of a project as a graph: pipeline P reads branches, and writes branch
// `output_branch` of repo P. Pure.
#pragma once

#include <compare>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat::pipeline {

struct RepoBranch {
  std::string repo;
  std::string branch;
  auto operator<=>(const RepoBranch&) const = default;
};

struct DagPipeline {
  std::string name;  // and of its output repo
  std::string output_branch;
  std::vector<RepoBranch> inputs;
};

// Immutable.
class Dag {
 public:
  // kInvalidArgument naming the members if there is a cycle ("a -> b -> a"), or a name is given
  // twice.
  static Result<Dag> make(std::vector<DagPipeline> pipelines);

  // All pipelines, each after those whose output it reads; by name where the graph leaves it open.
  const std::vector<std::string>& order() const { return order_; }
  // The pipelines that read one of these branches, directly or through others, in the order of
  // order().
  std::vector<std::string> downstream(std::span<const RepoBranch> changed) const;
  // The pipelines whose output `pipeline` reads, directly or through others, in the order of
  // order().
  std::vector<std::string> upstream(std::string_view pipeline) const;
  // The pipelines that read the output of `pipeline` directly, in the order of order().
  std::vector<std::string> readers(std::string_view pipeline) const;

 private:
  std::vector<DagPipeline> pipelines_;  // in order_'s order
  std::vector<std::string> order_;
  std::map<RepoBranch, std::vector<size_t>> readers_;  // branch -> indexes of pipelines_, ascending
};

}  // namespace qanat::pipeline
