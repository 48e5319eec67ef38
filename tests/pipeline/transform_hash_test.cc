#include "qanat/pipeline/transform_hash.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qanat::pipeline {
namespace {

using ::testing::ElementsAre;

api::PipelineSpec spec() {
  api::PipelineSpec out;
  out.name = "p";
  out.transform.image = "i";
  out.transform.cmd = {"run", "a"};
  out.transform.env = {{"A", "1"}, {"B", "2"}};
  return out;
}

std::vector<std::string> changes(const api::PipelineSpec& now, std::string_view digest = "sha256:1",
                                 std::string_view salt = "") {
  const auto before_components = transform_components(spec(), "sha256:1", "");
  const auto now_components = transform_components(now, digest, salt);
  const auto changed = changed_components(before_components, now_components);
  EXPECT_EQ(changed.empty(), transform_hash(before_components) == transform_hash(now_components));
  return changed;
}

template <class Edit>
std::vector<std::string> after(Edit edit) {
  api::PipelineSpec changed = spec();
  edit(changed);
  return changes(changed);
}

TEST(TransformHash, WhatUserCodeCannotSeeIsNotInIt) {
  EXPECT_TRUE(after([](auto& s) {
                s.description = "other";
                s.parallelism_constant = 7;
                s.resource_limits.memory = 1 << 30;
                s.datum_tries = 9;
                s.datum_timeout_ms = 5;
                s.job_timeout_ms = 5;
                s.max_queue_size = 3;
                s.datum_set_number = 4;
                s.output_branch = "other";
                s.output_merge = api::OutputMerge::kConcat;
                s.reprocess_every_job = true;
                s.transform.image = "another name of the same image";
              }).empty());
}

TEST(TransformHash, NamesWhatChanged) {
  EXPECT_THAT(after([](auto& s) { s.transform.cmd = {"run", "b"}; }), ElementsAre("transform.cmd"));
  EXPECT_THAT(after([](auto& s) { s.transform.cmd = {"runa"}; }), ElementsAre("transform.cmd"));
  EXPECT_THAT(after([](auto& s) { s.transform.stdin_lines = {"x"}; }),
              ElementsAre("transform.stdin"));
  EXPECT_THAT(after([](auto& s) { s.transform.env = {{"A", "1"}, {"C", ""}}; }),
              ElementsAre("transform.env.B", "transform.env.C"));
  EXPECT_THAT(after([](auto& s) { s.transform.user = "u"; }), ElementsAre("transform.user"));
  EXPECT_THAT(after([](auto& s) { s.transform.working_dir = "/w"; }),
              ElementsAre("transform.working_dir"));
  EXPECT_THAT(after([](auto& s) { s.transform.accept_return_code = {1}; }),
              ElementsAre("transform.accept_return_code"));
  EXPECT_THAT(after([](auto& s) { s.transform.err_cmd = {"e"}; }),
              ElementsAre("transform.err_cmd"));
  EXPECT_THAT(after([](auto& s) { s.transform.err_stdin = {"e"}; }),
              ElementsAre("transform.err_stdin"));
  EXPECT_THAT(after([](auto& s) { s.transform.network = "host"; }),
              ElementsAre("transform.network"));
  EXPECT_THAT(after([](auto& s) { s.name = "q"; }), ElementsAre("pipeline.name"));
  EXPECT_THAT(after([](auto& s) { s.project = "q"; }), ElementsAre("pipeline.project"));
  EXPECT_THAT(after([](auto& s) { s.salt = "q"; }), ElementsAre("salt"));
  EXPECT_THAT(changes(spec(), "sha256:2"), ElementsAre("transform.image"));
  EXPECT_THAT(changes(spec(), "sha256:1", "again"), ElementsAre("reprocess"));
}

TEST(TransformHash, SharedResultsWaiveTheName) {
  api::PipelineSpec a = spec();
  api::PipelineSpec b = spec();
  a.share_results = b.share_results = true;
  b.name = "q";
  EXPECT_EQ(transform_components(a, "d", ""), transform_components(b, "d", ""));
}

TEST(TransformHash, ComponentsAsText) {
  const auto components = transform_components(spec(), "d", "s");
  EXPECT_EQ(*components_from_text(components_to_text(components)), components);
  EXPECT_FALSE(components_from_text({{"a", "zz"}}).ok());
}

TEST(ResultKey, DependsOnNamesPathsAndContent) {
  const Hash code = sha256("code");
  DatumInput input{"in", "a", {}};
  input.entry.file = {3, chunk::BlobKind::kChunk, sha256("abc")};
  const Hash key = result_key(code, {input});
  EXPECT_EQ(result_key(code, {input}), key);
  DatumInput other = input;
  other.name = "on";
  EXPECT_NE(result_key(code, {other}), key);
  other = input;
  other.path = "b";
  EXPECT_NE(result_key(code, {other}), key);
  other = input;
  other.entry.file.hash = sha256("abd");
  EXPECT_NE(result_key(code, {other}), key);
  EXPECT_NE(result_key(sha256("edoc"), {input}), key);
  EXPECT_NE(result_key(code, {input, input}), key);
  // Names and paths do not run together.
  EXPECT_NE(result_key(code, {{"ab", "c", input.entry}}),
            result_key(code, {{"a", "bc", input.entry}}));
}

}  // namespace
}  // namespace qanat::pipeline
