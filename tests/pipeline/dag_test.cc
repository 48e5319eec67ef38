#include "qanat/pipeline/dag.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qanat::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

DagPipeline node(std::string name, std::vector<RepoBranch> inputs, std::string branch = "master") {
  return {std::move(name), std::move(branch), std::move(inputs)};
}

// orders -> clean -> join -> report; zips -> join; clean -> stats
std::vector<DagPipeline> shop() {
  return {node("report", {{"join", "master"}}),
          node("join", {{"clean", "master"}, {"zips", "master"}}),
          node("stats", {{"clean", "master"}}), node("clean", {{"orders", "master"}})};
}

TEST(Dag, OrderIsTopologicalAndStable) {
  auto dag = Dag::make(shop());
  ASSERT_TRUE(dag.ok());
  EXPECT_THAT(dag->order(), ElementsAre("clean", "join", "report", "stats"));
}

TEST(Dag, DownstreamOfBranches) {
  const Dag dag = *Dag::make(shop());
  const auto downstream = [&](std::vector<RepoBranch> changed) { return dag.downstream(changed); };
  EXPECT_THAT(downstream({{"orders", "master"}}), ElementsAre("clean", "join", "report", "stats"));
  EXPECT_THAT(downstream({{"zips", "master"}}), ElementsAre("join", "report"));
  EXPECT_THAT(downstream({{"zips", "other"}}), IsEmpty());
  EXPECT_THAT(downstream({{"clean", "master"}}), ElementsAre("join", "report", "stats"));
  EXPECT_THAT(downstream({}), IsEmpty());
}

TEST(Dag, UpstreamAndReaders) {
  const Dag dag = *Dag::make(shop());
  EXPECT_THAT(dag.upstream("report"), ElementsAre("clean", "join"));
  EXPECT_THAT(dag.upstream("clean"), IsEmpty());
  EXPECT_THAT(dag.upstream("nobody"), IsEmpty());
  EXPECT_THAT(dag.readers("clean"), ElementsAre("join", "stats"));
  EXPECT_THAT(dag.readers("report"), IsEmpty());
}

TEST(Dag, OutputBranchMatters) {
  const Dag dag = *Dag::make({node("a", {{"in", "master"}}, "results"),
                              node("b", {{"a", "master"}}), node("c", {{"a", "results"}})});
  const std::vector<RepoBranch> changed = {{"in", "master"}};
  EXPECT_THAT(dag.downstream(changed), ElementsAre("a", "c"));
}

TEST(Dag, CyclesAreNamed) {
  auto dag = Dag::make({node("x", {{"in", "m"}}), node("b", {{"a", "master"}}),
                        node("c", {{"b", "master"}}), node("a", {{"c", "master"}, {"x", "master"}}),
                        node("d", {{"c", "master"}})});
  ASSERT_FALSE(dag.ok());
  EXPECT_THAT(dag.status().message(), HasSubstr("a -> b -> c -> a"));
  auto own = Dag::make({node("a", {{"a", "master"}})});
  EXPECT_THAT(own.status().message(), HasSubstr("a -> a"));
  EXPECT_FALSE(Dag::make({node("a", {}), node("a", {})}).ok());
}

}  // namespace
}  // namespace qanat::pipeline
