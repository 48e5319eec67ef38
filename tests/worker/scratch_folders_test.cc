#include "qanat/worker/scratch_folders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

namespace fs = std::filesystem;

class Scratch : public ::testing::Test {
 protected:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "qanat-scratch-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    for (const char* folder : {"tmp", "var", "dev/shm"})
      fs::create_directories(root_ + "/" + folder);
    ::chmod((root_ + "/tmp").c_str(), 01777);
    fs::create_symlink("../tmp", root_ + "/var/tmp");
  }
  ~Scratch() override { fs::remove_all(root_); }
  void write(const std::string& path, const std::string& text = "x") {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  std::vector<std::string> all() {
    std::vector<std::string> paths;
    for (const auto& entry : fs::recursive_directory_iterator(root_))
      paths.push_back(entry.path().string().substr(root_.size()));
    std::sort(paths.begin(), paths.end());
    return paths;
  }
  std::string root_;
};

TEST_F(Scratch, WhatTheImageHasStaysAndNothingElse) {
  write("/tmp/shipped");
  write("/tmp/folder/shipped");
  const auto before = all();
  const ScratchFolders scratch(root_);
  write("/tmp/left");
  write("/tmp/folder/left");
  write("/tmp/folder/deep/a/b/left");
  write("/dev/shm/left");
  fs::create_symlink("/", root_ + "/tmp/link");
  for (int i = 0; i < 3000; ++i) write(str_cat("/tmp/many/", i));
  ASSERT_TRUE(scratch.clean().ok());
  EXPECT_EQ(all(), before);
  ASSERT_TRUE(scratch.clean().ok());
  EXPECT_EQ(all(), before);
}

TEST_F(Scratch, AFolderThatWasReplacedIsMadeAgain) {
  write("/secret/x");
  const auto before = all();
  const ScratchFolders scratch(root_);
  fs::remove_all(root_ + "/tmp");
  fs::create_directory_symlink(root_ + "/secret", root_ + "/tmp");
  fs::remove_all(root_ + "/dev/shm");
  ASSERT_TRUE(scratch.clean().ok());
  EXPECT_EQ(all(), before) << "what the link led to is untouched";
  struct stat info;
  ASSERT_EQ(::lstat((root_ + "/tmp").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode, static_cast<mode_t>(S_IFDIR | 01777));
}

TEST_F(Scratch, ItsModeIsPutRight) {
  const ScratchFolders scratch(root_);
  ::chmod((root_ + "/tmp").c_str(), 0700);
  ASSERT_TRUE(scratch.clean().ok());
  struct stat info;
  ASSERT_EQ(::lstat((root_ + "/tmp").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode, static_cast<mode_t>(S_IFDIR | 01777));
}

TEST_F(Scratch, AParentThatIsALinkNowEndsTheContainer) {
  const ScratchFolders scratch(root_);
  fs::rename(root_ + "/dev", root_ + "/old");
  fs::create_directory_symlink(root_ + "/old", root_ + "/dev");
  EXPECT_EQ(scratch.clean().code(), Code::kInternal);
}

TEST_F(Scratch, WithVeryManyFilesOfTheImageTheirTreesStay) {
  for (int i = 0; i < 10'001; ++i) write(str_cat("/tmp/tree/", i));
  const ScratchFolders scratch(root_);
  write("/tmp/left");
  ASSERT_TRUE(scratch.clean().ok());
  EXPECT_FALSE(fs::exists(root_ + "/tmp/left"));
  EXPECT_TRUE(fs::exists(root_ + "/tmp/tree/10000"));
}

}  // namespace
}  // namespace qanat::worker
