#include "qanat/content/mark_set.h"

#include <gtest/gtest.h>

#include <set>

#include "qanat/base/random.h"

namespace qanat::content {
namespace {

Mark mark_of(RandomSource& random, int uses) {
  Mark mark;
  random.fill(reinterpret_cast<char*>(mark.hash.bytes.data()), Hash::kSize);
  // Crowded beginnings, so that fences tie.
  mark.hash.bytes[0] = 0;
  for (int i = 1; i < 7; ++i) mark.hash.bytes[static_cast<size_t>(i)] = 7;
  mark.use = static_cast<NodeUse>(random.below(static_cast<uint64_t>(uses)));
  return mark;
}

// Against a set, in memory and spilled many times.
TEST(MarkSetTest, IsASet) {
  for (const size_t budget : {size_t{1} << 20, size_t{4096}}) {
    SeededRandom random(budget);
    MarkSet marks(posix_file_system(), ::testing::TempDir(), budget);
    std::set<Mark> model;
    std::vector<Mark> pool;
    for (int i = 0; i < 2'000; ++i) pool.push_back(mark_of(random, 3));
    for (int round = 0; round < 60; ++round) {
      std::set<Mark> batch;
      for (int i = 0; i < 80; ++i) batch.insert(pool[random.below(pool.size())]);
      const std::vector<Mark> sorted(batch.begin(), batch.end());
      const auto added = marks.add(sorted);
      ASSERT_TRUE(added.ok()) << added.status().to_string();
      for (size_t i = 0; i < sorted.size(); ++i) {
        EXPECT_EQ((*added)[i], model.insert(sorted[i]).second);
      }
      EXPECT_EQ(marks.size(), model.size());
    }
    auto cursor = marks.cursor();
    for (const Mark& expected : model) {
      const auto next = cursor.next();
      ASSERT_TRUE(next.ok() && *next);
      EXPECT_EQ(**next, expected);
    }
    const auto end = cursor.next();
    ASSERT_TRUE(end.ok());
    EXPECT_FALSE(*end);
  }
}

}  // namespace
}  // namespace qanat::content
