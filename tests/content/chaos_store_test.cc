// A repo's whole history over a store that lies: commits, reads, compaction and restarts. Nothing
// that was acknowledged is lost, and no wrong byte is ever returned.
#include <gtest/gtest.h>

#include <map>

#include "content/content_disk.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/tree.h"
#include "qanat/content/tree_editor.h"
#include "support/chaos_object_store.h"
#include "support/seeds.h"

namespace qanat::content {
namespace {

constexpr std::string_view kHead = "/v1/test/head";

using Files = std::map<std::string, std::string>;

struct Version {
  TreeRoot root;
  Files files;
};

class History {
 public:
  explicit History(uint64_t seed) : random_(seed) {
    EXPECT_TRUE(disk_.open());
    chaos_ = std::make_unique<testing::ChaosObjectStore>(*disk_.objects, seed);
    restart();
    versions_.emplace_back();
  }

  void step() {
    switch (random_.below(12)) {
      case 0:
        (void)stores_->maintain();
        break;
      case 1:
        restart();
        break;
      case 2:
      case 3:
        look();
        break;
      default:
        commit();
    }
  }

  // Everything that was ever acknowledged, with the store as it is.
  void check_all(size_t every) {
    for (size_t i = 0; i < versions_.size(); i += every) check(versions_[i]);
    check(versions_.back());
  }

  void calm() {
    chaos_->calm();
    restart();
  }
  void maintain() { EXPECT_TRUE(stores_->maintain().ok()); }
  uint64_t faults() const { return chaos_->faults(); }
  size_t versions() const { return versions_.size(); }
  size_t failures() const { return failures_; }

 private:
  // As after a restart of the server: nothing is remembered.
  void restart() {
    ContentOptions options;
    options.now_ms = [this] { return disk_.clock.wall_ms(); };
    options.background = false;
    stores_.reset();
    stores_ = ContentStores::create(disk_.meta.get(), chaos_.get(), std::move(options));
    // What was replaced is removed once its grace is over.
    disk_.clock.advance_ms(3'600'000);
  }

  Result<Version> changed(ContentWriter& writer) {
    Version next = versions_.back();
    std::map<std::string, TreeEdit> edits;
    for (uint64_t i = 1 + random_.below(4); i > 0; --i) {
      const std::string path = str_cat("d", random_.below(6), "/f", random_.below(40));
      if (random_.below(5) == 0) {
        edits[path] = TreeEdit::remove(path);
        next.files.erase(path);
        continue;
      }
      const uint64_t size = random_.below(20) == 0 ? 600'000 : random_.below(3000);
      std::string bytes = random_.bytes(size);
      QANAT_ASSIGN_OR_RETURN(const FileRef file, write_file(writer, bytes));
      edits[path] = TreeEdit::put(path, file);
      next.files[path] = std::move(bytes);
    }
    TreeEditor editor(writer, next.root);
    for (const auto& [path, edit] : edits) QANAT_RETURN_IF_ERROR(editor.apply(edit));
    QANAT_ASSIGN_OR_RETURN(next.root, editor.finish());
    return next;
  }

  Status try_commit() {
    QANAT_ASSIGN_OR_RETURN(ContentStore * store, stores_->project("default"));
    auto writer = store->new_writer();
    QANAT_ASSIGN_OR_RETURN(Version next, changed(*writer));
    QANAT_RETURN_IF_ERROR(writer->flush());
    meta::Transaction transaction;
    writer->add_to(&transaction);
    transaction.put(kHead, std::to_string(versions_.size()));
    QANAT_ASSIGN_OR_RETURN(const meta::TransactionResult result,
                           disk_.meta->commit(std::move(transaction)));
    if (!result.succeeded) return conflict("the epoch moved");
    writer->committed(result.revision);
    versions_.push_back(std::move(next));
    return ok_status();
  }

  void commit() {
    if (!try_commit().ok()) ++failures_;
  }

  // One file of any version: right, or an error.
  void look() {
    const Version& version = versions_[random_.below(versions_.size())];
    if (version.files.empty()) return;
    auto wanted = version.files.begin();
    std::advance(wanted, static_cast<std::ptrdiff_t>(random_.below(version.files.size())));
    const auto bytes = read(version.root, wanted->first);
    if (!bytes.ok()) return;
    EXPECT_EQ(*bytes, wanted->second) << wanted->first;
  }

  Result<std::string> read(const TreeRoot& root, const std::string& path) {
    QANAT_ASSIGN_OR_RETURN(ContentStore * store, stores_->project("default"));
    QANAT_ASSIGN_OR_RETURN(const TreeEntry entry, Tree(store->blobs(), root).stat(path));
    return FileReader(store->blobs(), entry.file).read_all(1 << 20);
  }

  void check(const Version& version) {
    ContentStore& store = **stores_->project("default");
    Files found;
    const auto walked = Tree(store.blobs(), version.root)
                            .walk("", [&](std::string_view path, const TreeEntry& entry) {
                              auto bytes = FileReader(store.blobs(), entry.file).read_all(1 << 20);
                              EXPECT_TRUE(bytes.ok()) << path << " " << bytes.status().to_string();
                              if (bytes.ok()) found[std::string(path)] = *std::move(bytes);
                              return Result<bool>(true);
                            });
    ASSERT_TRUE(walked.ok()) << walked.status().to_string();
    EXPECT_EQ(found.size(), version.files.size());
    EXPECT_TRUE(found == version.files);
  }

  QuietLog quiet_;
  SeededRandom random_;
  ContentDisk disk_;
  std::unique_ptr<testing::ChaosObjectStore> chaos_;
  std::unique_ptr<ContentStores> stores_;
  std::vector<Version> versions_;
  size_t failures_ = 0;
};

TEST(ChaosStoreTest, WhatWasAcknowledgedStaysAndNoByteIsWrong) {
  for (uint64_t seed = 0; seed < testing::seed_count(2); ++seed) {
    SCOPED_TRACE(str_cat("seed ", seed));
    History history(seed);
    for (int i = 0; i < 300; ++i) history.step();
    // It was nasty, and yet things moved on.
    EXPECT_GT(history.faults(), 40u);
    EXPECT_GT(history.failures(), 5u);
    EXPECT_GT(history.versions(), 50u);
    history.calm();
    history.check_all(7);
    history.maintain();
    history.check_all(11);
  }
}

}  // namespace
}  // namespace qanat::content
