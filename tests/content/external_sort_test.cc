#include "qanat/content/external_sort.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>
#include <random>

#include "content/memory_blobs.h"

namespace qanat::content {
namespace {

class ExternalSort : public testing::Test {
 protected:
  ExternalSort() {
    std::string name = testing::TempDir() + "qanat-sort-XXXXXX";
    directory_ = mkdtemp(name.data());
  }
  ~ExternalSort() override { must(files_.remove_tree(directory_)); }

  size_t file_count() { return must(files_.list(directory_)).size(); }

  // Adds random records, and checks that they come out in the order of a stable sort.
  void check(uint64_t seed, size_t budget, size_t records, size_t max_key, size_t max_value) {
    std::mt19937_64 random(seed);
    std::multimap<std::string, std::string> expected;  // equal keys stay in the order they came in
    ExternalSorter sorter(files_, directory_, budget);
    for (size_t i = 0; i < records; ++i) {
      std::string key(random() % (max_key + 1), '\0');
      for (char& c : key) c = static_cast<char>(random() % 3 == 0 ? random() : 'a');
      std::string value = std::to_string(i);
      if (max_value > 0) value.resize(value.size() + random() % max_value, 'v');
      must(sorter.add(key, value));
      expected.emplace(std::move(key), std::move(value));
    }
    must(sorter.finish());
    for (int i = 0; i < 100; ++i) must(sorter.next());
    must(sorter.rewind());
    for (const auto& [key, value] : expected) {
      ASSERT_TRUE(sorter.valid());
      ASSERT_EQ(sorter.key(), key);
      ASSERT_EQ(sorter.value(), value);
      must(sorter.next());
    }
    EXPECT_FALSE(sorter.valid());
  }

  FileSystem& files_ = posix_file_system();
  std::string directory_;
};

TEST_F(ExternalSort, NothingAtAll) {
  ExternalSorter sorter(files_, directory_, 0);
  must(sorter.finish());
  EXPECT_FALSE(sorter.valid());
}

TEST_F(ExternalSort, InMemoryTouchesNoDisk) {
  ExternalSorter sorter(files_, "/nowhere/at/all", 1u << 20);
  must(sorter.add("b", "1"));
  must(sorter.add("a", "2"));
  must(sorter.finish());
  EXPECT_EQ(sorter.key(), "a");
  check(1, 1u << 20, 1000, 12, 20);
  EXPECT_EQ(file_count(), 0u);
}

TEST_F(ExternalSort, SpillsAndMerges) {
  check(2, 1u << 20, 60000, 14, 60);
  EXPECT_EQ(file_count(), 0u);
}

TEST_F(ExternalSort, FewKeysKeepTheirOrder) { check(3, 1u << 20, 60000, 1, 40); }

TEST_F(ExternalSort, RecordsLongerThanBlocks) { check(4, 1u << 20, 120, 10, 150000); }

TEST_F(ExternalSort, MoreRunsThanAreMergedAtOnce) { check(5, 1u << 20, 26000, 8, 3000); }

TEST_F(ExternalSort, RemovesItsFilesWhenGivenUp) {
  {
    ExternalSorter sorter(files_, directory_, 1u << 20);
    for (int i = 0; i < 3000; ++i) must(sorter.add("key", std::string(1000, 'v')));
    EXPECT_GT(file_count(), 0u);
  }
  EXPECT_EQ(file_count(), 0u);
}

TEST_F(ExternalSort, NoticesADamagedFile) {
  ExternalSorter sorter(files_, directory_, 1u << 20);
  for (int i = 0; i < 3000; ++i) must(sorter.add("key", std::string(1000, 'v')));
  const std::string path = directory_ + "/" + must(files_.list(directory_))[0].name;
  must(must(files_.open(path, OpenMode::kReadWrite))->pwrite(5000, "damage"));
  EXPECT_EQ(sorter.finish().code(), Code::kDataLoss);
}

TEST_F(ExternalSort, AMissingFolderIsAnError) {
  ExternalSorter sorter(files_, directory_ + "/missing", 1u << 20);
  Status status;
  for (int i = 0; i < 3000 && status.ok(); ++i) status = sorter.add("k", std::string(1000, 'v'));
  EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace qanat::content
