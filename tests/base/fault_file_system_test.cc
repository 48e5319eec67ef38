#include "support/fault_file_system.h"

#include <gtest/gtest.h>

#include <set>

#include "qanat/base/string.h"

namespace qanat::testing {
namespace {

std::unique_ptr<File> create(FileSystem& disk, const std::string& path) {
  Result<std::unique_ptr<File>> file = disk.open(path, OpenMode::kReadWriteCreate);
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  return std::move(*file);
}

// Writes and syncs the file and its name.
void put(FileSystem& disk, const std::string& path, std::string_view bytes) {
  const Status status = disk.write_file_durably(path, bytes);
  ASSERT_TRUE(status.ok()) << status.to_string();
}

std::string content(FileSystem& disk, const std::string& path) {
  Result<std::string> bytes = disk.read_file(path);
  return bytes.ok() ? *bytes : str_cat("<", code_name(bytes.code()), ">");
}

// What reading gives over many reboots.
std::set<std::string> outcomes(const FaultFileSystem& disk, const std::string& path) {
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 64; ++seed) seen.insert(content(*disk.reboot(seed), path));
  return seen;
}

TEST(FaultFileSystem, BehavesAsAFileSystem) {
  FaultFileSystem disk;
  ASSERT_TRUE(disk.make_directories("/data/a").ok());
  EXPECT_EQ(disk.open("/data/x", OpenMode::kReadOnly).code(), Code::kNotFound);
  EXPECT_EQ(disk.open("/nowhere/x", OpenMode::kReadWriteCreate).code(), Code::kNotFound);
  auto file = create(disk, "/data//x");
  ASSERT_TRUE(file->append("hello").ok());
  ASSERT_TRUE(file->pwrite(8, "!").ok());
  ASSERT_TRUE(file->truncate(10).ok());
  EXPECT_EQ(content(disk, "/data/x"), std::string("hello\0\0\0!\0", 10));
  EXPECT_EQ(disk.open("/data/x", OpenMode::kCreateExclusive).code(), Code::kAlreadyExists);
  EXPECT_EQ(disk.remove_directory("/data").code(), Code::kFailedPrecondition);

  auto entries = disk.list("/data");
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_TRUE((*entries)[0].is_directory);
  EXPECT_EQ((*entries)[1].name, "x");

  ASSERT_TRUE(disk.rename("/data/x", "/data/a/y").ok());
  EXPECT_FALSE(disk.exists("/data/x"));
  ASSERT_TRUE(disk.remove_tree("/data").ok());
  EXPECT_FALSE(disk.exists("/data"));
}

TEST(FaultFileSystem, SyncedBytesUnderASyncedNameStay) {
  FaultFileSystem disk;
  put(disk, "f", "safe");
  EXPECT_EQ(outcomes(disk, "f"), (std::set<std::string>{"safe"}));
}

TEST(FaultFileSystem, AnUnsyncedNameMayBeLost) {
  FaultFileSystem disk;
  auto file = create(disk, "f");
  ASSERT_TRUE(file->append("x").ok());
  ASSERT_TRUE(file->sync().ok());
  EXPECT_EQ(outcomes(disk, "f"), (std::set<std::string>{"<not_found>", "x"}));
}

TEST(FaultFileSystem, UnsyncedBytesAreLostTornAndReordered) {
  FaultFileSystem disk;
  put(disk, "f", std::string(1024, 'o'));
  auto file = create(disk, "f");
  ASSERT_TRUE(file->pwrite(0, std::string(1024, 'n')).ok());
  const std::string old_half(512, 'o');
  const std::string new_half(512, 'n');
  EXPECT_EQ(outcomes(disk, "f"), (std::set<std::string>{old_half + old_half, old_half + new_half,
                                                        new_half + old_half, new_half + new_half}));
}

TEST(FaultFileSystem, ARenameHappensWhollyOrNotAtAll) {
  FaultFileSystem disk;
  put(disk, "f", "old");
  put(disk, "g", "new");
  ASSERT_TRUE(disk.rename("g", "f").ok());
  for (uint64_t seed = 0; seed < 64; ++seed) {
    auto after = disk.reboot(seed);
    const bool renamed = content(*after, "f") == "new";
    EXPECT_EQ(content(*after, "f"), renamed ? "new" : "old");
    EXPECT_EQ(content(*after, "g"), renamed ? "<not_found>" : "new");
  }
  ASSERT_TRUE(disk.sync_directory(".").ok());
  EXPECT_EQ(outcomes(disk, "f"), (std::set<std::string>{"new"}));
}

TEST(FaultFileSystem, ARenameAcrossFoldersNeverLosesTheFile) {
  FaultFileSystem disk;
  ASSERT_TRUE(disk.make_directories("a").ok());
  ASSERT_TRUE(disk.make_directories("b").ok());
  put(disk, "a/f", "x");
  ASSERT_TRUE(disk.rename("a/f", "b/f").ok());
  for (uint64_t seed = 0; seed < 64; ++seed) {
    auto after = disk.reboot(seed);
    EXPECT_TRUE(after->exists("a/f") || after->exists("b/f"));
  }
  ASSERT_TRUE(disk.sync_directory("a").ok());
  EXPECT_EQ(outcomes(disk, "b/f"), (std::set<std::string>{"x"}));
}

TEST(FaultFileSystem, EverythingFailsFromTheCrashOn) {
  FaultFileSystem disk;
  disk.crash_at(3);  // create, write, then this sync
  auto file = create(disk, "f");
  ASSERT_TRUE(file->append("x").ok());
  EXPECT_FALSE(file->sync().ok());
  EXPECT_TRUE(disk.crashed());
  EXPECT_FALSE(disk.list(".").ok());
  char byte;
  EXPECT_FALSE(file->pread(0, &byte, 1).ok());
  EXPECT_EQ(disk.operations(), 3U);
  auto after = disk.reboot(1);
  EXPECT_EQ(content(*after, "f"), "x");
  EXPECT_EQ(content(*disk.reboot(0), "f"), "<not_found>");
}

TEST(FaultFileSystem, WriteFileDurablyIsAtomicAtEveryCrashPoint) {
  bool crashed = true;
  for (uint64_t n = 1; crashed; ++n) {
    FaultFileSystem disk;
    put(disk, "f", "old");
    disk.crash_at(n);
    const bool acknowledged = disk.write_file_durably("f", "new").ok();
    crashed = disk.crashed();
    EXPECT_EQ(acknowledged, !crashed);
    const std::set<std::string> seen = outcomes(disk, "f");
    for (const std::string& text : seen) {
      EXPECT_TRUE(text == "new" || (text == "old" && !acknowledged)) << n << ": " << text;
    }
  }
}

TEST(FaultFileSystem, ASyncAfterAFailedOneProvesNothing) {
  FaultFileSystem disk;
  put(disk, "f", "old");
  auto file = create(disk, "f");
  ASSERT_TRUE(file->pwrite(0, "new").ok());
  disk.fail_with([](Operation operation, const std::string&) {
    return operation == Operation::kSync ? internal_error("bad sector") : ok_status();
  });
  EXPECT_FALSE(file->sync().ok());
  disk.fail_with({});
  EXPECT_TRUE(file->sync().ok());
  EXPECT_EQ(content(*disk.reboot(0), "f"), "old");
}

TEST(FaultFileSystem, RefusesWritesOverItsCapacity) {
  FaultFileSystem disk;
  disk.set_capacity(10);
  auto file = create(disk, "f");
  EXPECT_TRUE(file->append("0123456789").ok());
  EXPECT_EQ(file->append("x").code(), Code::kResourceExhausted);
  EXPECT_TRUE(file->pwrite(0, "abc").ok());
  EXPECT_EQ(disk.free_space(".")->available, 0U);
}

TEST(FaultFileSystem, FlipsABit) {
  FaultFileSystem disk;
  put(disk, "f", "a");
  ASSERT_TRUE(disk.flip_bit("f", 1).ok());
  EXPECT_EQ(content(disk, "f"), "c");
  EXPECT_EQ(content(*disk.reboot(0), "f"), "c");
  EXPECT_FALSE(disk.flip_bit("f", 8).ok());
}

TEST(FaultFileSystem, LocksAreExclusiveAndEndWithTheMachine) {
  FaultFileSystem disk;
  auto held = disk.lock_file("lock");
  ASSERT_TRUE(held.ok());
  EXPECT_EQ(disk.lock_file("lock").code(), Code::kFailedPrecondition);
  EXPECT_TRUE(disk.reboot(1)->lock_file("lock").ok());
  held->reset();
  EXPECT_TRUE(disk.lock_file("lock").ok());
}

}  // namespace
}  // namespace qanat::testing
