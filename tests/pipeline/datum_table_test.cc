#include "qanat/pipeline/datum_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pipeline/pipeline_world.h"
#include "qanat/base/random.h"
#include "qanat/content/map_editor.h"

namespace qanat::pipeline {
namespace {

DatumRow full_row() {
  DatumRow row;
  row.inputs = {{"orders", "2017-03.csv", {}}, {"zips", "", {}}};
  row.inputs[0].entry.file = {12, chunk::BlobKind::kChunk, sha256("orders")};
  row.inputs[1].entry.is_directory = true;
  row.inputs[1].entry.directory.hash = sha256("zips");
  row.inputs[1].entry.directory.totals = {3, 99};
  row.result_key = sha256("key");
  row.state = DatumState::kFailed;
  row.reason = DatumReason::kInputChanged;
  row.changed_inputs = 2;
  row.decided_in = job_name(7);
  row.origin = job_name(6);
  row.origin_pipeline = "other";
  row.output.hash = sha256("out");
  row.output.totals = {1, 5};
  row.log = {7, chunk::BlobKind::kNode, sha256("log")};
  row.timings = {1700000000000, 1, 2, 3};
  row.exit_code = -1;
  row.attempts = 3;
  row.message = "exit code 1";
  return row;
}

TEST(DatumRow, EncodesAndDecodes) {
  for (const DatumRow& row : {full_row(), DatumRow{}}) {
    auto decoded = decode_row(encode_row(row));
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(*decoded, row);
  }
  EXPECT_EQ(full_row().input_files(), 4u);
  EXPECT_EQ(full_row().input_bytes(), 111u);
}

TEST(DatumRow, DamageIsFound) {
  const std::string bytes = encode_row(full_row());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_EQ(decode_row(bytes.substr(0, length)).code(), Code::kDataLoss) << length;
  }
  EXPECT_EQ(decode_row(bytes + "x").code(), Code::kDataLoss);
  for (const size_t at : {0, 1, 2}) {  // version, state, reason
    std::string damaged = bytes;
    damaged[at] = 77;
    EXPECT_EQ(decode_row(damaged).code(), Code::kDataLoss) << at;
  }
  SeededRandom random(3);
  for (int i = 0; i < 2000; ++i) {  // never a crash, and what decodes encodes to itself
    std::string damaged = bytes;
    damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
    if (auto row = decode_row(damaged); row.ok()) {
      EXPECT_EQ(encode_row(*row), damaged);
    }
  }
}

TEST(DatumRow, LongMessagesAreCutBetweenCharacters) {
  DatumRow row;
  row.message = std::string(kMaxDatumMessage - 1, 'x') + "\u00e9";
  EXPECT_EQ(decode_row(encode_row(row))->message, std::string(kMaxDatumMessage - 1, 'x'));
}

TEST(DatumRow, OutcomeInAJob) {
  DatumRow row = full_row();
  row.state = DatumState::kSuccess;
  EXPECT_EQ(outcome_in(row, job_name(7)), DatumOutcomeInJob::kReused);
  EXPECT_EQ(outcome_in(row, job_name(8)), DatumOutcomeInJob::kSkipped);
  EXPECT_EQ(outcome_in(row, job_name(6)), DatumOutcomeInJob::kSkipped)
      << "a job of another pipeline with this id ran it";
  row.origin_pipeline.clear();
  EXPECT_EQ(outcome_in(row, job_name(6)), DatumOutcomeInJob::kRan);
  row.reason = DatumReason::kKept;
  EXPECT_EQ(outcome_in(row, job_name(7)), DatumOutcomeInJob::kSkipped);
  row.state = DatumState::kPending;
  EXPECT_EQ(outcome_in(row, job_name(6)), DatumOutcomeInJob::kPending);
}

TEST(DatumRow, References) {
  std::vector<content::BlobRef> references;
  const auto gather = [&](const content::BlobRef& ref) {
    references.push_back(ref);
    return ok_status();
  };
  must(visit_row_references(full_row(), gather));
  using content::BlobKind;
  EXPECT_THAT(references,
              ::testing::UnorderedElementsAre(content::BlobRef{BlobKind::kChunk, sha256("orders")},
                                              content::BlobRef{BlobKind::kNode, sha256("zips")},
                                              content::BlobRef{BlobKind::kNode, sha256("out")},
                                              content::BlobRef{BlobKind::kNode, sha256("log")}));
  // An inlined output's own references are found.
  MemoryBlobs blobs;
  ScratchFolder folder;
  DatumRow row;
  row.output = make_tree(blobs, {{"f", "bytes"}}, folder);
  ASSERT_FALSE(row.output.inlined.empty());
  references.clear();
  must(visit_row_references(row, gather));
  EXPECT_THAT(references,
              ::testing::ElementsAre(content::BlobRef{BlobKind::kChunk, sha256("bytes")}));
}

TEST(DatumTable, FindsAndPages) {
  MemoryBlobs blobs;
  content::MapEditor editor(content::kPlainMap, blobs, {});
  std::vector<std::string> keys;
  for (int i = 0; i < 300; ++i) {
    const std::string number = std::to_string(1000 + i);
    DatumRow row = full_row();
    row.message = number;
    keys.push_back(sort_key({{"in", number, {}}}));
    must(editor.put(keys.back(), encode_row(row)));
  }
  const DatumTable table(blobs, must(editor.finish()));
  EXPECT_EQ(table.size(), 300u);
  EXPECT_EQ(must(table.find(keys[17]))->message, "1017");
  EXPECT_FALSE(must(table.find("nothing")).has_value());
  const auto page = must(table.page(295, 10));
  ASSERT_EQ(page.size(), 5u);
  EXPECT_EQ(page[0].row.message, "1295");
  EXPECT_EQ(page[0].sort_key, keys[295]);
  EXPECT_TRUE(must(table.page(300, 10)).empty());

  std::map<std::string, std::string> by_id;
  for (const std::string& key : keys) by_id[std::string(datum_id(key).view())] = key;
  content::MapEditor id_editor(content::kPlainMap, blobs, {});
  for (const auto& [id, key] : by_id) must(id_editor.put(id, key));
  const content::MapRoot ids = must(id_editor.finish());
  const std::string id = datum_id(keys[42]).to_hex();
  blobs.reset_counts();
  EXPECT_EQ(must(table.find_by_id(id, ids))->row.message, "1042");
  EXPECT_LE(blobs.nodes_read, 10u);
  EXPECT_EQ(must(table.find_by_id(id.substr(0, 20), ids))->row.message, "1042");
  EXPECT_EQ(must(table.find_by_id(id.substr(0, 21), ids))->row.message, "1042");
  EXPECT_FALSE(must(table.find_by_id(std::string(64, '0'), ids)).has_value());
  EXPECT_EQ(table.find_by_id("abc", ids).code(), Code::kInvalidArgument);
  EXPECT_EQ(table.find_by_id("xyzxyzxyz", ids).code(), Code::kInvalidArgument);

  std::vector<std::string> seen;
  EXPECT_FALSE(must(table.visit(
      [&](std::string_view, const DatumRow& row) -> Result<bool> {
        seen.push_back(row.message);
        return seen.size() < 2;
      },
      keys[10])));
  EXPECT_THAT(seen, ::testing::ElementsAre("1011", "1012"));
}

}  // namespace
}  // namespace qanat::pipeline
