#include "qanat/chunk/segment.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "qanat/base/random.h"
#include "qanat/base/string.h"

namespace qanat::chunk {
namespace {

std::string build(const std::map<std::string, std::string>& entries) {
  std::string bytes;
  SegmentWriter writer([&](std::string_view piece) -> Status {
    bytes += piece;
    return ok_status();
  });
  for (const auto& [key, value] : entries) EXPECT_TRUE(writer.add(key, value).ok());
  Result<SegmentFooter> footer = writer.finish();
  EXPECT_TRUE(footer.ok());
  EXPECT_EQ(footer->length(), bytes.size());
  EXPECT_EQ(footer->entries, entries.size());
  return bytes;
}

std::map<std::string, std::string> some_entries(uint64_t seed, size_t count, size_t value_limit) {
  SeededRandom random(seed);
  std::map<std::string, std::string> entries;
  while (entries.size() < count) {
    entries[random.bytes(random.below(40))] = random.bytes(random.below(value_limit));
  }
  return entries;
}

TEST(Segment, HoldsWhatWasWritten) {
  for (size_t count : {0u, 1u, 2u, 40u, 400u, 20'000u}) {
    std::map<std::string, std::string> entries = some_entries(count, count, 60);
    std::string bytes = build(entries);
    Result<SegmentView> view = SegmentView::open(bytes);
    ASSERT_TRUE(view.ok()) << view.status().to_string();
    for (const auto& [key, value] : entries) {
      auto found = view->find(key);
      ASSERT_TRUE(found.has_value());
      ASSERT_EQ(*found, value);
    }
    SeededRandom random(99);
    for (int i = 0; i < 1000; ++i) {
      std::string key = random.bytes(12);
      EXPECT_EQ(view->find(key).has_value(), entries.contains(key));
    }
    auto expected = entries.begin();
    ASSERT_TRUE(view->for_each([&](const SegmentEntry& entry) -> Status {
                      EXPECT_EQ(entry.key, expected->first);
                      EXPECT_EQ(entry.value, expected->second);
                      ++expected;
                      return ok_status();
                    })
                    .ok());
    EXPECT_EQ(expected, entries.end());
  }
}

TEST(Segment, FilterPassesFewAbsentKeys) {
  std::map<std::string, std::string> entries;
  for (int i = 0; i < 50'000; ++i) entries[str_cat("key ", i)] = "v";
  std::string bytes = build(entries);
  Result<SegmentView> view = SegmentView::open(bytes);
  ASSERT_TRUE(view.ok());
  const SegmentFooter& footer = view->footer();
  EXPECT_GT(footer.filter_pages(), 1u);
  EXPECT_EQ(footer.filter_page, kSegmentFilterPage);
  auto passes = [&](std::string_view key) {
    uint64_t hash = segment_key_hash(key);
    uint64_t page = segment_filter_page(hash, footer.filter_pages());
    return segment_may_contain(
        std::string_view(bytes).substr(footer.filter_offset() + page * footer.filter_page,
                                       footer.filter_page),
        hash);
  };
  int passed = 0;
  for (int i = 0; i < 50'000; ++i) {
    ASSERT_TRUE(passes(str_cat("key ", i)));
    passed += passes(str_cat("absent ", i)) ? 1 : 0;
  }
  EXPECT_LT(passed, 50'000 * 2 / 100);
}

TEST(Segment, EveryFlippedBitIsFound) {
  for (size_t count : {0u, 1u, 30u, 900u}) {
    std::string bytes = build(some_entries(count + 7, count, 30));
    size_t step = bytes.size() > 5000 ? 13 : 1;
    for (size_t i = 0; i < bytes.size(); i += step) {
      std::string bad = bytes;
      bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
      ASSERT_EQ(SegmentView::open(bad).code(), Code::kDataLoss) << "byte " << i;
    }
  }
}

TEST(Segment, EveryTruncationIsFound) {
  std::string bytes = build(some_entries(5, 50, 30));
  for (size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_EQ(SegmentView::open(std::string_view(bytes).substr(0, length)).code(), Code::kDataLoss);
  }
  EXPECT_EQ(SegmentView::open(bytes + "x").code(), Code::kDataLoss);
  EXPECT_EQ(SegmentView::open(bytes.substr(1)).code(), Code::kDataLoss);
}

TEST(Segment, RefusesKeysOutOfOrderAndOverTheLimits) {
  SegmentWriter writer([](std::string_view) { return ok_status(); });
  EXPECT_TRUE(writer.add("", "empty keys are keys").ok());
  EXPECT_EQ(writer.add("", "x").code(), Code::kInvalidArgument);
  EXPECT_TRUE(writer.add("b", "x").ok());
  EXPECT_EQ(writer.add("a", "x").code(), Code::kInvalidArgument);
  EXPECT_EQ(writer.add(std::string(kMaxSegmentKey + 1, 'k'), "").code(), Code::kInvalidArgument);
  EXPECT_EQ(writer.add("c", std::string(kMaxSegmentValue + 1, 'v')).code(), Code::kInvalidArgument);
  EXPECT_TRUE(
      writer.add(std::string(kMaxSegmentKey, 'k'), std::string(kMaxSegmentValue, 'v')).ok());
}

}  // namespace
}  // namespace qanat::chunk
