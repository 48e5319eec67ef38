#include "qanat/base/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "qanat/base/counters.h"

namespace qanat {
namespace {

class PosixFileSystemTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "qanat-base-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { EXPECT_TRUE(disk_.remove_tree(folder_).ok()); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  FileSystem& disk_ = posix_file_system();
  std::string folder_;
};

TEST_F(PosixFileSystemTest, ReadsWhatWasWritten) {
  auto file = disk_.open(path("f"), OpenMode::kCreateExclusive);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  ASSERT_TRUE((*file)->append("hello").ok());
  ASSERT_TRUE((*file)->append(" world").ok());
  ASSERT_TRUE((*file)->pwrite(0, "J").ok());
  ASSERT_TRUE((*file)->truncate(13).ok());
  ASSERT_TRUE((*file)->sync().ok());
  EXPECT_EQ(*(*file)->size(), 13U);
  char buffer[32];
  EXPECT_EQ(*(*file)->pread(6, buffer, sizeof buffer), 7U);
  EXPECT_EQ(std::string(buffer, 7), std::string("world\0\0", 7));
  EXPECT_EQ(*(*file)->pread(100, buffer, sizeof buffer), 0U);
  EXPECT_TRUE((*file)->close().ok());
  EXPECT_TRUE((*file)->close().ok());
  EXPECT_FALSE((*file)->sync().ok());
  EXPECT_EQ(*disk_.read_file(path("f")), std::string("Jello world\0\0", 13));
  EXPECT_EQ(disk_.read_file(path("f"), 12).code(), Code::kTooLarge);
}

TEST_F(PosixFileSystemTest, OpenModes) {
  EXPECT_EQ(disk_.open(path("f"), OpenMode::kReadOnly).code(), Code::kNotFound);
  EXPECT_EQ(disk_.open(path("f"), OpenMode::kReadWrite).code(), Code::kNotFound);
  EXPECT_TRUE(disk_.open(path("f"), OpenMode::kReadWriteCreate).ok());
  EXPECT_TRUE(disk_.open(path("f"), OpenMode::kReadWriteCreate).ok());
  EXPECT_EQ(disk_.open(path("f"), OpenMode::kCreateExclusive).code(), Code::kAlreadyExists);
  auto file = disk_.open(path("f"), OpenMode::kReadOnly);
  ASSERT_TRUE(file.ok());
  EXPECT_FALSE((*file)->append("x").ok());
  EXPECT_NE(disk_.open(path("g"), OpenMode::kReadOnly).status().message().find(path("g")),
            std::string::npos);
}

TEST_F(PosixFileSystemTest, EverythingIsPrivate) {
  ASSERT_TRUE(disk_.make_directories(path("a/b/c")).ok());
  ASSERT_TRUE(disk_.make_directories(path("a/b/c")).ok());
  ASSERT_TRUE(disk_.write_file_durably(path("a/f"), "x").ok());
  struct stat info{};
  ASSERT_EQ(::stat(path("a/b").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);
  ASSERT_EQ(::stat(path("a/f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(disk_.make_directories(path("a/f")).code(), Code::kAlreadyExists);
}

TEST_F(PosixFileSystemTest, ListsSorted) {
  ASSERT_TRUE(disk_.make_directories(path("b")).ok());
  ASSERT_TRUE(disk_.write_file_durably(path("c"), "").ok());
  ASSERT_TRUE(disk_.write_file_durably(path("a"), "12").ok());
  auto entries = disk_.list(folder_);
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 3U);
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[1].name, "b");
  EXPECT_TRUE((*entries)[1].is_directory);
  EXPECT_FALSE((*entries)[2].is_directory);
  EXPECT_EQ(disk_.stat(path("a"))->size, 2U);
  EXPECT_TRUE(disk_.stat(path("b"))->is_directory);
  EXPECT_EQ(disk_.list(path("none")).code(), Code::kNotFound);
}

TEST_F(PosixFileSystemTest, RenamesAndRemoves) {
  ASSERT_TRUE(disk_.write_file_durably(path("a"), "new").ok());
  ASSERT_TRUE(disk_.write_file_durably(path("b"), "old").ok());
  ASSERT_TRUE(disk_.rename(path("a"), path("b")).ok());
  EXPECT_EQ(*disk_.read_file(path("b")), "new");
  EXPECT_FALSE(disk_.exists(path("a")));
  EXPECT_EQ(disk_.remove(path("a")).code(), Code::kNotFound);
  ASSERT_TRUE(disk_.make_directories(path("d")).ok());
  ASSERT_TRUE(disk_.rename(path("b"), path("d/b")).ok());
  EXPECT_EQ(disk_.remove_directory(path("d")).code(), Code::kFailedPrecondition);
  ASSERT_TRUE(disk_.remove(path("d/b")).ok());
  EXPECT_TRUE(disk_.remove_directory(path("d")).ok());
  EXPECT_TRUE(disk_.remove_tree(path("never was")).ok());
}

TEST_F(PosixFileSystemTest, RemoveTreeDoesNotFollowLinks) {
  ASSERT_TRUE(disk_.make_directories(path("keep")).ok());
  ASSERT_TRUE(disk_.write_file_durably(path("keep/f"), "x").ok());
  ASSERT_TRUE(disk_.make_directories(path("tree/deep")).ok());
  ASSERT_EQ(::symlink(path("keep").c_str(), path("tree/deep/link").c_str()), 0);
  ASSERT_TRUE(disk_.remove_tree(path("tree")).ok());
  EXPECT_FALSE(disk_.exists(path("tree")));
  EXPECT_TRUE(disk_.exists(path("keep/f")));
}

// As user code may make one: its path is longer than any call takes. Names that the removal itself
// would use are there already.
TEST_F(PosixFileSystemTest, RemoveTreeOfAnyDepth) {
  ASSERT_TRUE(disk_.make_directories(path("keep")).ok());
  ASSERT_TRUE(disk_.write_file_durably(path("keep/f"), "x").ok());
  ASSERT_TRUE(disk_.make_directories(path("tree/.removing-0/d")).ok());
  ASSERT_TRUE(disk_.write_file_durably(path("tree/.removing-1"), "x").ok());
  int folder = ::open(path("tree").c_str(), O_RDONLY | O_DIRECTORY);
  for (int level = 0; level < 5000; ++level) {
    ASSERT_EQ(::mkdirat(folder, "d", 0700), 0);
    ASSERT_EQ(::symlinkat(path("keep").c_str(), folder, "link"), 0);
    if (level % 100 == 0) {
      ASSERT_EQ(::mkdirat(folder, "other", 0700), 0);
      ASSERT_EQ(::symlinkat(path("keep").c_str(), folder, "other/link"), 0);
    }
    const int below = ::openat(folder, "d", O_RDONLY | O_DIRECTORY);
    ASSERT_GE(below, 0);
    ::close(folder);
    folder = below;
  }
  ::close(folder);
  const Status removed = disk_.remove_tree(path("tree"));
  EXPECT_TRUE(removed.ok()) << removed.to_string();
  EXPECT_FALSE(disk_.exists(path("tree")));
  EXPECT_TRUE(disk_.exists(path("keep/f")));
}

TEST_F(PosixFileSystemTest, RemoveTreeTakesWideFoldersAndOnlyFolders) {
  ASSERT_TRUE(disk_.make_directories(path("tree")).ok());
  const int folder = ::open(path("tree").c_str(), O_RDONLY | O_DIRECTORY);
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(::mkdirat(folder, std::to_string(i).c_str(), 0700), 0);
    ASSERT_EQ(::mkfifoat(folder, (std::to_string(i) + "/pipe").c_str(), 0600), 0);
  }
  ::close(folder);
  ASSERT_EQ(::symlink(path("tree").c_str(), path("link").c_str()), 0);
  EXPECT_FALSE(disk_.remove_tree(path("link")).ok());
  EXPECT_TRUE(disk_.exists(path("tree/17/pipe")));
  EXPECT_TRUE(disk_.remove_tree(path("tree")).ok());
  EXPECT_FALSE(disk_.exists(path("tree")));
  ASSERT_TRUE(disk_.write_file_durably(path("file"), "x").ok());
  EXPECT_FALSE(disk_.remove_tree(path("file")).ok());
  EXPECT_TRUE(disk_.exists(path("file")));
}

TEST_F(PosixFileSystemTest, DurableWriteSyncsTheFileAndItsFolder) {
  ASSERT_TRUE(disk_.write_file_durably(path("f"), "1").ok());
  const uint64_t files = counter("qanat_file_syncs_total", "").value();
  const uint64_t folders = counter("qanat_directory_syncs_total", "").value();
  ASSERT_TRUE(disk_.write_file_durably(path("f"), "2").ok());
  EXPECT_EQ(counter("qanat_file_syncs_total", "").value() - files, 1U);
  EXPECT_EQ(counter("qanat_directory_syncs_total", "").value() - folders, 1U);
  EXPECT_EQ(*disk_.read_file(path("f")), "2");
  EXPECT_EQ(disk_.list(folder_)->size(), 1U);
  EXPECT_EQ(disk_.write_file_durably(path("none/f"), "2").code(), Code::kNotFound);
}

TEST_F(PosixFileSystemTest, LocksExclude) {
  auto first = disk_.lock_file(path("lock"));
  ASSERT_TRUE(first.ok());
  auto second = disk_.lock_file(path("lock"));
  EXPECT_EQ(second.code(), Code::kFailedPrecondition);
  first->reset();
  EXPECT_TRUE(disk_.lock_file(path("lock")).ok());
}

TEST_F(PosixFileSystemTest, TellsFreeSpace) {
  auto space = disk_.free_space(folder_);
  ASSERT_TRUE(space.ok());
  EXPECT_GT(space->total, 0U);
  EXPECT_LE(space->available, space->total);
}

TEST(ParentDirectory, OfAnyPath) {
  EXPECT_EQ(parent_directory("/a/b/c"), "/a/b");
  EXPECT_EQ(parent_directory("/a/b/"), "/a");
  EXPECT_EQ(parent_directory("/c"), "/");
  EXPECT_EQ(parent_directory("/"), "/");
  EXPECT_EQ(parent_directory("c"), ".");
  EXPECT_EQ(parent_directory(""), ".");
}

}  // namespace
}  // namespace qanat
