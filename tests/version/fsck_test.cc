#include <atomic>
#include <thread>

#include "content/content_disk.h"
#include "qanat/base/random.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/index_compaction.h"
#include "qanat/version/fsck_versions.h"
#include "qanat/version/keys.h"
#include "qanat/version/versions.h"
#include "version/damaged_objects.h"

namespace qanat::version {
namespace {

using Files = std::map<std::string, std::string>;
const RepoName kRepo{"default", "orders"};

// Bytes that do not compress.
std::string noise(size_t size, uint64_t seed) {
  std::string bytes;
  while (bytes.size() < size) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    bytes.push_back(static_cast<char>(seed >> 56));
  }
  return bytes;
}

struct Found {
  std::vector<content::FsckProblem> problems;
  content::FsckSummary summary;

  // All problems' touches.
  std::set<std::string> touches() const {
    std::set<std::string> all;
    for (const auto& problem : problems) {
      all.insert(problem.touches.begin(), problem.touches.end());
    }
    return all;
  }
};

class FsckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(disk_.open()) << disk_.status.message();
    ASSERT_TRUE(disk_.files->make_directories("data/tmp").ok());
    objects_ = std::make_unique<DamagedObjects>(*disk_.objects);
    contents_ = open_contents();
    versions_ = std::make_unique<Versions>(
        *disk_.meta, disk_.clock,
        [this](std::string_view project) { return reader(*contents_, project); });
    ASSERT_TRUE(versions_->start().ok());
    ASSERT_TRUE(versions_->create_repo(kRepo, "").ok());
  }

  std::unique_ptr<content::ContentStores> open_contents() {
    content::ContentOptions options;
    options.now_ms = [this] { return disk_.clock.wall_ms(); };
    options.background = false;
    options.write_threads = 0;
    return content::ContentStores::create(disk_.meta.get(), objects_.get(), std::move(options));
  }
  static Result<content::BlobReader*> reader(content::ContentStores& contents,
                                             std::string_view project) {
    QANAT_ASSIGN_OR_RETURN(auto* content, contents.project(project));
    return &content->blobs();
  }

  // One commit with these files; gives its id.
  std::string commit(const Files& files, const RepoName& repo = kRepo) {
    auto content = contents_->project(repo.project);
    EXPECT_TRUE(content.ok());
    auto writer = (*content)->new_writer();
    content::EditBuffer edits(*disk_.files, "data/tmp");
    for (const auto& [path, bytes] : files) {
      auto file = content::write_file(*writer, bytes);
      EXPECT_TRUE(file.ok() && edits.add(content::TreeEdit::put(path, *file)).ok());
    }
    auto written = versions_->apply(repo, "master", *writer, [&](const content::TreeRoot& base) {
      return edits.apply(*writer, base);
    });
    EXPECT_TRUE(written.ok()) << written.status().message();
    return written.ok() ? written->commit.id : "";
  }

  Found fsck(bool data) {
    FsckVersions source(*disk_.meta);
    content::FsckContext context;
    context.project = "default";
    context.meta = disk_.meta.get();
    context.objects = objects_.get();
    context.sources = {&source};
    context.file_system = disk_.files.get();
    context.scratch = "data/tmp";
    context.memory_budget = memory_budget_;
    Found found;
    content::FsckOptions options;
    options.data = data;
    options.on_problem = [&](const content::FsckProblem& problem) {
      found.problems.push_back(problem);
      return ok_status();
    };
    auto summary = content::fsck(context, options);
    EXPECT_TRUE(summary.ok()) << summary.status().message();
    if (summary.ok()) found.summary = *summary;
    return found;
  }

  // All files of all commits, read by a server that has cached nothing.
  Result<std::map<std::string, Files>> read_all() {
    auto contents = open_contents();
    QANAT_ASSIGN_OR_RETURN(content::BlobReader * blobs, reader(*contents, "default"));
    std::map<std::string, Files> all;
    QANAT_RETURN_IF_ERROR(visit_records(
        *disk_.meta, commits_prefix("default"), [&](const meta::KeyValue& item) -> Status {
          QANAT_ASSIGN_OR_RETURN(const auto record, decode<CommitRecord>(item.key, item.value));
          Files& files = all[std::string(last_part(item.key))];
          return content::Tree(*blobs, record.root)
              .walk("",
                    [&](std::string_view path, const content::TreeEntry& entry) -> Result<bool> {
                      content::FileReader file(*blobs, entry.file);
                      QANAT_ASSIGN_OR_RETURN(files[std::string(path)], file.read_all(1 << 26));
                      return true;
                    })
              .status();
        }));
    return all;
  }

  void expect_clean() {
    for (const bool data : {false, true}) {
      const Found found = fsck(data);
      EXPECT_TRUE(found.problems.empty())
          << found.problems[0].what << " in " << found.problems[0].where << " touches "
          << (found.problems[0].touches.empty() ? "" : found.problems[0].touches[0]);
      EXPECT_EQ(found.summary.problems, 0u);
    }
  }
  std::vector<std::string> keys(const std::string& prefix) {
    std::vector<std::string> keys;
    for (const std::string& key : disk_.object_keys()) {
      if (key.starts_with(prefix)) keys.push_back(key);
    }
    return keys;
  }
  void compact() {
    auto content = contents_->project("default");
    ASSERT_TRUE(content.ok() && (*content)->blobs().index().compact(true).ok());
    disk_.clock.advance_ms(60 * 60 * 1000);
    ASSERT_TRUE((*content)->blobs().index().remove_replaced(/*now=*/false).ok());
  }

  content::QuietLog quiet_;
  content::ContentDisk disk_;
  std::unique_ptr<DamagedObjects> objects_;
  std::unique_ptr<content::ContentStores> contents_;
  std::unique_ptr<Versions> versions_;
  size_t memory_budget_ = 4u << 20;
};

TEST_F(FsckTest, WhatIsSoundIsSound) {
  expect_clean();
  Files many;
  for (int i = 0; i < 2000; ++i) {
    many[str_cat("logs/", i % 7, "/", i, ".txt")] = str_cat("line ", i);
  }
  commit(many);
  commit({{"big.bin", noise(3 << 20, 1)}, {"empty", ""}, {"a/b/c/d", "deep"}});
  ASSERT_TRUE(versions_->put_branch(kRepo, "stable", {.head = "master", .provenance = {}}).ok());
  ASSERT_TRUE(versions_->start_commit(kRepo, {}).ok());
  commit({{"open", "not finished"}});
  expect_clean();
  const Found found = fsck(true);
  EXPECT_GT(found.summary.nodes, 20u);
  EXPECT_GT(found.summary.chunks, 2000u);
  EXPECT_GT(found.summary.bytes, 3u << 20);

  compact();
  expect_clean();
  memory_budget_ = 1;  // sets of nodes forget all the time
  expect_clean();
}

TEST_F(FsckTest, EveryFlippedByteIsDetectedAndNeverReadAsData) {
  commit({{"a.txt", "one"}, {"dir/b.txt", noise(70, 2)}, {"dir/c.txt", noise(80, 3)}});
  compact();
  Files second{{"a.txt", "two"}, {"dir/c.txt", ""}};
  for (int i = 0; i < 6; ++i) second[str_cat("dir/", i)] = noise(8, 10 + i);
  commit(second);
  expect_clean();
  const auto truth = read_all();
  ASSERT_TRUE(truth.ok());
  ASSERT_GE(keys("packs/").size(), 2u);
  ASSERT_GE(keys("segments/").size(), 1u);
  int flips = 0;
  for (const std::string& key : disk_.object_keys()) {
    const int64_t size = *objects_->size(key);
    for (int64_t i = 0; i < size; ++i, ++flips) {
      objects_->flip(key, i);
      const bool detected = !fsck(false).problems.empty() || !fsck(true).problems.empty();
      EXPECT_TRUE(detected) << key << " byte " << i << " of " << size;
      if (const auto read = read_all(); read.ok()) {
        EXPECT_EQ(*read, *truth) << key << " byte " << i;
      } else {
        EXPECT_EQ(read.status().code(), Code::kDataLoss) << read.status().message();
      }
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(flips, 1500);
  objects_->repair();
  expect_clean();
}

TEST_F(FsckTest, DamagedNodesAndChunksNameWhatTheyTouch) {
  const std::string first = commit({{"a.bin", noise(5000, 1)}, {"b.bin", noise(6000, 2)}});
  const std::string pack = keys("packs/").at(0);
  const std::string second = commit({{"dir/c.bin", noise(7000, 3)}, {"b.bin", "other"}});
  // The first pack's blobs lie in the order in which they were written.
  objects_->flip(pack, 8 + 100);
  EXPECT_TRUE(fsck(false).problems.empty());
  const Found found = fsck(true);
  ASSERT_EQ(found.problems.size(), 1u);
  EXPECT_EQ(found.problems[0].where, pack);
  EXPECT_EQ(found.touches(), (std::set<std::string>{str_cat("orders@", first, ":/a.bin"),
                                                    str_cat("orders@", second, ":/a.bin")}));
  EXPECT_EQ(found.problems[0].touched, 2u);
  objects_->flip(pack, 8 + 5000 + 100);
  EXPECT_EQ(fsck(true).touches(), (std::set<std::string>{str_cat("orders@", first, ":/b.bin")}));
}

TEST_F(FsckTest, ADamagedPartOfALargeDirectoryIsNamed) {
  Files many;
  for (int i = 0; i < 500; ++i) many[str_cat("dir/", 1000 + i)] = str_cat("line ", i);
  const std::string id = commit(many);
  const std::string pack = keys("packs/").at(0);
  const int64_t size = *objects_->size(pack);
  std::set<std::string> ranges;
  for (int64_t i = 8; i < size; i += 499) {
    objects_->flip(pack, i);
    for (const std::string& touch : fsck(false).touches()) {
      EXPECT_TRUE(touch.starts_with(str_cat("orders@", id, ":/"))) << touch;
      if (touch.find("(entries ") != std::string::npos) ranges.insert(touch);
    }
  }
  EXPECT_GE(ranges.size(), 2u);
  for (const std::string& range : ranges) {
    EXPECT_TRUE(range.starts_with(str_cat("orders@", id, ":/dir/(entries "))) << range;
  }
}

TEST_F(FsckTest, AMissingPackIsNamedWithWhatItTouches) {
  const std::string first = commit({{"a.bin", noise(5000, 1)}});
  const std::string lost = keys("packs/").at(0);
  const std::string second = commit({{"dir/b.bin", noise(70'000, 2)}});
  for (const bool compacted : {false, true}) {
    if (compacted) {
      objects_->repair();
      compact();
    }
    objects_->lose(lost);
    for (const bool data : {false, true}) {
      const Found found = fsck(data);
      ASSERT_EQ(found.problems.size(), 1u);
      EXPECT_EQ(found.problems[0].where, lost);
      EXPECT_NE(found.problems[0].what.find("missing"), std::string::npos)
          << found.problems[0].what;
      EXPECT_EQ(found.touches(), (std::set<std::string>{str_cat("orders@", first, ":/a.bin"),
                                                        str_cat("orders@", second, ":/a.bin")}));
    }
  }
}

TEST_F(FsckTest, AMissingSegmentIsNamedWithWhatItTouches) {
  const std::string first = commit({{"a.bin", noise(5000, 1)}, {"dir/x", "x"}});
  compact();
  const std::string second = commit({{"dir/b.bin", noise(7000, 2)}});
  const std::string lost = keys("segments/").at(0);
  objects_->lose(lost);
  const Found found = fsck(false);
  ASSERT_EQ(found.problems.size(), 1u);
  EXPECT_EQ(found.problems[0].where, lost);
  EXPECT_TRUE(found.touches().contains(str_cat("orders@", second, ":/a.bin")));
  EXPECT_TRUE(found.touches().contains(str_cat("orders@", second, ":/dir/x")));
  EXPECT_FALSE(found.touches().contains(str_cat("orders@", second, ":/dir/b.bin")));
  EXPECT_TRUE(found.touches().contains(str_cat("orders@", first, ":/a.bin")));
}

TEST_F(FsckTest, WhatLiesInTheTrashIsChecked) {
  const RepoName other{"default", "other"};
  ASSERT_TRUE(versions_->create_repo(other, "").ok());
  commit({{"kept.bin", noise(5000, 1)}});
  const std::string first = keys("packs/").at(0);
  const std::string id = commit({{"dir/gone.bin", noise(6000, 2)}}, other);
  std::vector<std::string> packs = keys("packs/");
  std::erase(packs, first);
  ASSERT_EQ(packs.size(), 1u);
  const std::string pack = packs[0];
  ASSERT_TRUE(versions_->delete_repo(other, false).ok());
  const std::string touched = str_cat("trash, repo other: other@", id, ":/dir/gone.bin");
  expect_clean();
  objects_->flip(pack, 8 + 100);
  EXPECT_EQ(fsck(true).touches(), std::set<std::string>{touched});
  objects_->repair();
  objects_->lose(pack);
  EXPECT_EQ(fsck(false).touches(), std::set<std::string>{touched});
  objects_->repair();

  // Records that cannot be read, or are not there.
  const TrashInfo trash = versions_->list_trash("default")->at(0);
  const auto expect_touched = [&](const std::string& key, meta::Operation damage,
                                  const std::string& name) {
    const auto old = disk_.meta->get(key);
    ASSERT_TRUE(old.ok() && *old) << key;
    ASSERT_TRUE(disk_.meta->commit(meta::Transaction().add(std::move(damage))).ok());
    EXPECT_EQ(fsck(false).touches(), std::set<std::string>{name});
    ASSERT_TRUE(disk_.meta->commit(meta::Transaction().put(key, (*old)->value)).ok());
  };
  const std::string record = trash_key("default", trash.record.deleted_ms, trash.id);
  expect_touched(record, meta::put(record, "{"), "trash " + trash.id);
  const std::string repo = trash_item_key("default", trash.id, repo_key("default", "other"));
  expect_touched(repo, meta::erase(repo), "repo other");
  const std::string item = trash_item_key("default", trash.id, commit_key("default", "other", id));
  expect_touched(item, meta::put(item, "{"), str_cat("trash ", trash.id, ", other@", id));

  expect_clean();
  ASSERT_TRUE(versions_->undelete_repo(other).ok());
  expect_clean();
}

TEST_F(FsckTest, RecordsThatNameWhatIsNotThereAreNamed) {
  commit({{"a", "1"}});
  const std::string id = commit({{"b", "2"}});
  const auto erase = [&](const std::string& key) {
    ASSERT_TRUE(disk_.meta->commit(meta::Transaction().erase(key)).ok());
  };
  erase(commit_key("default", "orders", id));
  Found found = fsck(false);
  std::set<std::string> wheres;
  for (const auto& problem : found.problems) {
    wheres.insert(problem.where);
    EXPECT_NE(problem.what.find(id), std::string::npos) << problem.what;
  }
  EXPECT_TRUE(wheres.contains(branch_key("default", "orders", "master")));
  // And the head in its wave, the list of commits, and that of its parent's children.
  EXPECT_EQ(wheres.size(), 4u);
  EXPECT_TRUE(found.touches().contains("orders@master"));
  EXPECT_TRUE(found.touches().contains("orders@" + id));

  const std::string first(last_part(
      disk_.meta->range(meta::KeyRange::prefix(commits_prefix("default")))->items.at(0).key));
  const std::string stray = child_key("default", "orders", id, first);
  ASSERT_TRUE(disk_.meta->commit(meta::Transaction().put(stray, "")).ok());
  EXPECT_TRUE(fsck(false).touches().contains("orders@" + first)) << "a parent that it has not";

  const std::string key = branch_key("default", "orders", "master");
  ASSERT_TRUE(disk_.meta->commit(meta::Transaction().put(key, "{\"v\":1")).ok());
  found = fsck(false);
  bool unreadable = false;
  for (const auto& problem : found.problems) {
    unreadable |= problem.where == key && problem.touches[0] == "orders@master";
  }
  EXPECT_TRUE(unreadable);
}

TEST_F(FsckTest, ADamagedIndexRecordIsNamed) {
  commit({{"a.bin", noise(5000, 1)}});
  const auto keys = content::IndexKeys::of("default", "blobs");
  const auto records = disk_.meta->range(meta::KeyRange::prefix(keys.level0_prefix));
  ASSERT_TRUE(records.ok() && records->items.size() == 1);
  const meta::KeyValue& item = records->items[0];
  for (size_t i = 0; i < item.value.size(); ++i) {
    std::string value = item.value;
    value[i] ^= static_cast<char>(0xff);
    ASSERT_TRUE(disk_.meta->commit(meta::Transaction().put(item.key, value)).ok());
    EXPECT_FALSE(fsck(true).problems.empty()) << "byte " << i;
  }
}

TEST_F(FsckTest, WritersMayGoOn) {
  std::atomic<bool> stop = false;
  std::atomic<int> rounds = 0;
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      const RepoName other{"default", str_cat("other", i % 3)};
      ASSERT_TRUE(versions_->create_repo(other, "").ok());
      commit({{str_cat("f", i), noise(2000, 100 + static_cast<uint64_t>(i))}}, other);
      commit({{str_cat("f", i % 50), noise(2000, 1000 + static_cast<uint64_t>(i))}});
      if (i % 5 == 4) {
        auto content = contents_->project("default");
        ASSERT_TRUE((*content)->blobs().index().compact(true).ok());
        disk_.clock.advance_ms(60 * 60 * 1000);  // replaced segments go at once
        ASSERT_TRUE((*content)->blobs().index().remove_replaced(/*now=*/false).ok());
      }
      ASSERT_TRUE(versions_->delete_repo(other, false).ok());
      ++rounds;
    }
  });
  for (int i = 0; i < 20 || rounds < 60; ++i) {
    const Found found = fsck(i % 2 == 1);
    EXPECT_TRUE(found.problems.empty())
        << found.problems[0].what << " in " << found.problems[0].where;
    if (HasFailure()) break;
  }
  stop = true;
  writer.join();
}

}  // namespace
}  // namespace qanat::version
