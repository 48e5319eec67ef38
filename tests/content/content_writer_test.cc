#include "qanat/content/content_writer.h"

#include <gtest/gtest.h>

#include "content/content_disk.h"
#include "qanat/base/bytes.h"
#include "qanat/base/counters.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/content/epoch.h"
#include "qanat/content/gc_records.h"

namespace qanat::content {
namespace {

constexpr std::string_view kRoot = "/v1/test/root";

// What a caller does: flush, one transaction with a root in it, committed. Returns whether it
// succeeded.
Result<bool> commit(ContentDisk& disk, ContentWriter& writer, std::string root) {
  QANAT_RETURN_IF_ERROR(writer.flush());
  meta::Transaction transaction;
  writer.add_to(&transaction);
  EXPECT_LE(transaction.compares.size(), ContentWriter::kMaxCompares);
  EXPECT_LE(transaction.then.size(), ContentWriter::kMaxOperations);
  transaction.put(kRoot, std::move(root));
  QANAT_ASSIGN_OR_RETURN(meta::TransactionResult result, disk.meta->commit(std::move(transaction)));
  if (result.succeeded) writer.committed(result.revision);
  return result.succeeded;
}

uint64_t value(std::string_view name) { return counter(name, "").value(); }

std::string text_of(BlobReader& reader, const BlobRef& ref) {
  Result<Blob> blob = reader.read(ref);
  EXPECT_TRUE(blob.ok()) << blob.status().to_string();
  return blob.ok() ? **blob : "";
}

TEST(ContentWriter, ASmallCommitIsOneObjectAndOneTransaction) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  // The first object of a project also makes folders.
  auto first = store.new_writer();
  ASSERT_TRUE(first->add(BlobKind::kNode, "first").ok());
  ASSERT_TRUE(*commit(disk, *first, "1"));

  uint64_t objects = value("qanat_objects_created_total");
  uint64_t file_syncs = value("qanat_object_file_syncs_total");
  uint64_t folder_syncs = value("qanat_object_directory_syncs_total");
  uint64_t log_syncs = value("qanat_meta_log_syncs_total");
  uint64_t nodes = value("qanat_nodes_written_total");
  int64_t revision = disk.meta->current_revision();
  auto writer = store.new_writer();
  std::vector<BlobRef> refs;
  for (int i = 0; i < 12; ++i) {
    refs.push_back(*writer->add(i < 10 ? BlobKind::kNode : BlobKind::kChunk, str_cat("blob ", i)));
  }
  ASSERT_TRUE(*commit(disk, *writer, "2"));
  EXPECT_EQ(value("qanat_objects_created_total") - objects, 1u);
  EXPECT_EQ(value("qanat_object_file_syncs_total") - file_syncs, 1u);
  EXPECT_EQ(value("qanat_object_directory_syncs_total") - folder_syncs, 1u);
  EXPECT_EQ(value("qanat_meta_log_syncs_total") - log_syncs, 1u);
  EXPECT_EQ(value("qanat_nodes_written_total") - nodes, 10u);
  EXPECT_EQ(disk.meta->current_revision(), revision + 1);

  // And all of it can be read, by another process too.
  for (int i = 0; i < 12; ++i) EXPECT_EQ(text_of(store.blobs(), refs[i]), str_cat("blob ", i));
  auto others = disk.stores();
  auto blobs = (*others->project("default"))->blobs().read_many(refs);
  ASSERT_TRUE(blobs.ok());
  for (int i = 0; i < 12; ++i) EXPECT_EQ(*(*blobs)[i], str_cat("blob ", i));
}

TEST(ContentWriter, ReadsItsOwnWritesAtEveryStage) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  auto writer = store.new_writer();
  SeededRandom random(3);
  std::vector<std::pair<BlobRef, std::string>> blobs;
  auto check = [&] {
    std::vector<BlobRef> refs;
    for (const auto& [ref, plain] : blobs) refs.push_back(ref);
    auto read = writer->read_many(refs);
    ASSERT_TRUE(read.ok()) << read.status().to_string();
    for (size_t i = 0; i < refs.size(); ++i) ASSERT_EQ(*(*read)[i], blobs[i].second);
  };
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 30; ++i) {
      std::string plain = random.bytes(1 + random.below(i % 10 == 0 ? 300'000 : 5000));
      BlobKind kind = i % 3 == 0 ? BlobKind::kChunk : BlobKind::kNode;
      blobs.emplace_back(*writer->add(kind, plain), plain);
      EXPECT_EQ(text_of(*writer, blobs.back().first), plain);
    }
    check();
    // Others see it once it is committed.
    auto others = disk.stores();
    EXPECT_EQ((*others->project("default"))->blobs().read(blobs[0].first).code(),
              round < 2 ? Code::kDataLoss : Code::kOk);
    if (round == 0) {
      ASSERT_TRUE(writer->flush().ok());
    }
    if (round == 1) {
      ASSERT_TRUE(*commit(disk, *writer, "root"));
    }
    check();
  }
}

TEST(ContentWriter, WritesABlobOnce) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  auto writer = store.new_writer();
  BlobRef ref = *writer->add(BlobKind::kChunk, "again");
  EXPECT_EQ(*writer->add(BlobKind::kChunk, "again"), ref);
  EXPECT_NE(*writer->add(BlobKind::kNode, "again"), ref);
  EXPECT_EQ(writer->stats().deduplicated, 1u);
  ASSERT_TRUE(*commit(disk, *writer, "1"));
  auto second = store.new_writer();
  EXPECT_EQ(*second->add(BlobKind::kChunk, "again"), ref);
  EXPECT_EQ(second->stats().packs, 0u);
  ASSERT_TRUE(*commit(disk, *second, "2"));
  EXPECT_EQ(disk.object_keys().size(), 1u);
  // Unless it is told not to look.
  auto third = store.new_writer({.deduplicate = false});
  EXPECT_EQ(*third->add(BlobKind::kChunk, "again"), ref);
  ASSERT_TRUE(third->flush().ok());
  EXPECT_EQ(third->stats().packs, 1u);
  // Projects share nothing.
  auto other = (*stores->project("other"))->new_writer();
  ASSERT_TRUE(other->add(BlobKind::kChunk, "again").ok());
  EXPECT_EQ(other->stats().deduplicated, 0u);
  EXPECT_EQ((*stores->project("other"))->blobs().read(ref).code(), Code::kDataLoss);
}

TEST(ContentWriter, LeavesNothingBehindWhenItIsDropped) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  {
    auto writer = store.new_writer();
    ASSERT_TRUE(writer->add(BlobKind::kNode, "open pack").ok());
    ASSERT_TRUE(writer->add(BlobKind::kChunk, SeededRandom(1).bytes(3u << 20)).ok());
  }
  {
    auto writer = store.new_writer();
    ASSERT_TRUE(writer->add(BlobKind::kNode, "closed pack").ok());
    ASSERT_TRUE(writer->flush().ok());
    EXPECT_EQ(disk.object_keys().size(), 1u);
  }
  EXPECT_TRUE(disk.object_keys().empty());
  // A transaction that may have happened: only when it surely did not, and after a grace.
  BlobRef kept;
  {
    auto writer = store.new_writer();
    kept = *writer->add(BlobKind::kNode, "answer lost");
    ASSERT_TRUE(writer->flush().ok());
    meta::Transaction transaction;
    writer->add_to(&transaction);
    ASSERT_TRUE(disk.meta->commit(std::move(transaction))->succeeded);
  }
  meta::Transaction never;
  {
    auto writer = store.new_writer();
    ASSERT_TRUE(writer->add(BlobKind::kNode, "never sent").ok());
    ASSERT_TRUE(writer->flush().ok());
    writer->add_to(&never);
  }
  EXPECT_FALSE(disk.meta->commit(std::move(never))->succeeded);
  disk.clock.advance_ms(3'600'000);
  ASSERT_TRUE(stores->maintain().ok());
  EXPECT_EQ(disk.object_keys().size(), 1u);
  ASSERT_TRUE(store.blobs().index().refresh().ok());
  EXPECT_EQ(text_of(store.blobs(), kept), "answer lost");
}

TEST(ContentWriter, RegistersEarlierPacksByItself) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  auto writer = store.new_writer();
  std::vector<BlobRef> refs;
  std::string plain(1u << 20, 'x');  // compresses well: the memory for nodes closes packs
  for (uint64_t i = 0; i < 240; ++i) {
    plain.replace(0, 16, to_hex16(i));
    refs.push_back(*writer->add(BlobKind::kNode, plain));
  }
  EXPECT_GT(writer->stats().packs, ContentWriter::kMaxWaitingPacks);
  EXPECT_GT(store.blobs().index().stats().level0, 0u);
  ASSERT_TRUE(*commit(disk, *writer, "root"));
  EXPECT_EQ(store.blobs().index().stats().level0, writer->stats().packs);
  auto others = disk.stores();
  for (size_t i = 0; i < refs.size(); i += 17) {
    EXPECT_EQ(text_of((*others->project("default"))->blobs(), refs[i]).substr(0, 16), to_hex16(i));
  }
}

TEST(ContentWriter, ManySmallWritersAreCompacted) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  std::vector<BlobRef> refs;
  for (int i = 0; i < 100; ++i) {
    auto writer = store.new_writer();
    refs.push_back(*writer->add(BlobKind::kNode, str_cat("node ", i)));
    ASSERT_TRUE(*commit(disk, *writer, str_cat(i)));
    ASSERT_TRUE(stores->maintain().ok());
  }
  EXPECT_LT(store.blobs().index().stats().level0, 32u);
  disk.clock.advance_ms(3'600'000);
  ASSERT_TRUE(stores->maintain().ok());  // packs stay, of course
  auto others = disk.stores();
  BlobStore& blobs = (*others->project("default"))->blobs();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(text_of(blobs, refs[i]), str_cat("node ", i));
}

// Condemns packs as garbage collection does.
void condemn(ContentDisk& disk, uint64_t epoch, const std::vector<std::string>& object_keys) {
  meta::Transaction transaction;
  transaction.put(epoch_key("default"), to_hex16(epoch));
  for (const std::string& key : object_keys) {
    std::string_view prefix = "packs/default/";
    ASSERT_TRUE(key.starts_with(prefix));
    transaction.put(condemned_prefix("default") + key.substr(prefix.size()), "");
  }
  ASSERT_TRUE(disk.meta->commit(std::move(transaction))->succeeded);
}

TEST(ContentWriter, NoticesThatTheEpochMoved) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  auto old = store.new_writer();
  ASSERT_TRUE(old->add(BlobKind::kChunk, "old").ok());
  ASSERT_TRUE(*commit(disk, *old, "old"));
  std::vector<std::string> packs;
  for (const std::string& key : disk.object_keys()) packs.push_back(key);

  auto relies = store.new_writer();
  ASSERT_TRUE(relies->add(BlobKind::kChunk, "old").ok());
  ASSERT_TRUE(relies->add(BlobKind::kChunk, "new 1").ok());
  // One that refers to content which it neither adds nor compares.
  auto strict = store.new_writer();
  ASSERT_TRUE(strict->rely_on_epoch().ok());
  ASSERT_TRUE(strict->add(BlobKind::kChunk, "new 3").ok());
  auto independent = store.new_writer();
  ASSERT_TRUE(independent->add(BlobKind::kChunk, "new 2").ok());
  condemn(disk, 1, packs);

  EXPECT_FALSE(*commit(disk, *strict, "must not be seen"));
  EXPECT_EQ(strict->recheck().code(), Code::kConflict);
  EXPECT_FALSE(*commit(disk, *independent, "not yet"));
  EXPECT_TRUE(independent->recheck().ok());
  EXPECT_TRUE(*commit(disk, *independent, "now"));

  // What it relied on is written from the condemned pack into one of its own, of the new epoch.
  EXPECT_FALSE(*commit(disk, *relies, "not yet"));
  EXPECT_TRUE(relies->recheck().ok());
  EXPECT_EQ(relies->stats().packs, 2u);

  // A condemned pack is a miss: its blobs are written again, into a pack of the new epoch.
  auto again = store.new_writer();
  BlobRef ref = *again->add(BlobKind::kChunk, "old");
  EXPECT_TRUE(*commit(disk, *again, "again"));
  EXPECT_EQ(again->stats().packs, 1u);
  for (const std::string& key : packs) ASSERT_TRUE(disk.objects->remove(key).ok());
  EXPECT_EQ(text_of(store.blobs(), ref), "old");
  EXPECT_TRUE(disk.object_keys().rbegin()->starts_with("packs/default/0000000000000001/"));
}

// Of packs that are condemned already, who refers to content unseen counts on those alone of which
// it is certain that nobody needs them.
TEST(ContentWriter, CountsOnNothingThatMayHaveToBeRescued) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  auto old = (*stores->project("default"))->new_writer();
  ASSERT_TRUE(old->add(BlobKind::kChunk, "old").ok());
  ASSERT_TRUE(*commit(disk, *old, "old"));
  const auto keys = disk.object_keys();
  const std::vector<std::string> packs(keys.begin(), keys.end());
  uint64_t epoch = 0;
  for (const auto phase :
       {CollectionRecord::Phase::kCondemned, CollectionRecord::Phase::kRescued}) {
    condemn(disk, ++epoch, packs);
    ASSERT_TRUE(disk.meta
                    ->commit(meta::Transaction().put(gc_collection_key("default"),
                                                     encode_collection({phase, epoch, 1})))
                    ->succeeded);
    auto strict = (*stores->project("default"))->new_writer();
    ASSERT_TRUE(strict->rely_on_epoch().ok());
    ASSERT_TRUE(strict->add(BlobKind::kChunk, str_cat("new ", epoch)).ok());
    condemn(disk, ++epoch, {});
    EXPECT_FALSE(*commit(disk, *strict, "not yet"));
    EXPECT_EQ(strict->recheck().code(),
              phase == CollectionRecord::Phase::kRescued ? Code::kOk : Code::kConflict);
  }
}

TEST(ContentWriter, PublishesNothingAfterItsSessionEnded) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  SessionMark session{"/v1/session/me", 0};
  session.create_revision = disk.meta->commit(meta::Transaction().put(session.key, "1"))->revision;
  auto stores = disk.stores([&] { return session; });
  ContentStore& store = **stores->project("default");
  auto writer = store.new_writer();
  ASSERT_TRUE(writer->add(BlobKind::kNode, "node").ok());
  ASSERT_TRUE(*commit(disk, *writer, "alive"));
  auto late = store.new_writer();
  ASSERT_TRUE(late->add(BlobKind::kNode, "late").ok());
  ASSERT_TRUE(disk.meta->commit(meta::Transaction().erase(session.key))->succeeded);
  EXPECT_FALSE(*commit(disk, *late, "dead"));
  EXPECT_EQ(late->recheck().code(), Code::kUnavailable);
  // Also when the key is there again, but as another session.
  session.create_revision = disk.meta->commit(meta::Transaction().put(session.key, "2"))->revision;
  EXPECT_EQ(late->recheck().code(), Code::kUnavailable);
  auto fresh = store.new_writer();
  ASSERT_TRUE(fresh->add(BlobKind::kNode, "late").ok());
  EXPECT_TRUE(*commit(disk, *fresh, "alive again"));
}

TEST(ContentWriter, AFullDiskIsSaidAndChangesNothing) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  auto writer = store.new_writer();
  ASSERT_TRUE(writer->add(BlobKind::kNode, "before").ok());
  ASSERT_TRUE(*commit(disk, *writer, "1"));
  disk.files->fail_with([](testing::Operation operation, const std::string& path) -> Status {
    bool object = path.find("objects") != std::string::npos;
    return object && operation == testing::Operation::kWrite ? resource_exhausted("no space")
                                                             : ok_status();
  });
  auto refused = store.new_writer();
  Status status = refused->add(BlobKind::kNode, "after").status();
  if (status.ok()) status = refused->flush();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  refused.reset();
  disk.files->fail_with(nullptr);
  EXPECT_EQ(disk.object_keys().size(), 1u);
}

// Commits on a disk that crashes at every point in turn: what was acknowledged can be read.
TEST(ContentWriter, NothingAcknowledgedIsLostInACrash) {
  QuietLog quiet;  // both stores say that the disk is gone, each time
  for (uint64_t n = 1;; ++n) {
    ContentDisk disk;
    ASSERT_TRUE(disk.open());
    std::vector<std::vector<BlobRef>> commits;  // by root
    size_t acknowledged = 0;
    {
      auto stores = disk.stores();
      ContentStore& store = **stores->project("default");
      disk.files->crash_at(n);
      SeededRandom random(4);
      for (int i = 0; i < 2; ++i) {
        auto writer = store.new_writer();
        std::vector<BlobRef> refs = commits.empty() ? std::vector<BlobRef>() : commits.back();
        for (int j = 0; j < 5; ++j) {
          auto ref = writer->add(BlobKind::kChunk, random.bytes(i + j == 0 ? 1'100'000 : 500));
          if (ref.ok()) refs.push_back(*ref);
        }
        commits.push_back(refs);
        auto done = commit(disk, *writer, str_cat(i));
        if (!done.ok()) break;
        ASSERT_TRUE(*done);
        acknowledged = commits.size();
      }
    }
    bool crashed = disk.files->crashed();
    disk.meta.reset();
    for (uint64_t seed = 0; seed < 3; ++seed) {
      ContentDisk after(disk.files->reboot(seed));
      ASSERT_TRUE(after.open()) << after.status.to_string();
      auto root = after.meta->get(kRoot);
      ASSERT_TRUE(root.ok());
      size_t visible = *root ? static_cast<size_t>(*parse_u64((*root)->value)) + 1 : 0;
      ASSERT_GE(visible, acknowledged) << "crash point " << n << " seed " << seed;
      auto stores = after.stores();
      ContentStore& store = **stores->project("default");
      if (visible > 0) {
        auto blobs = store.blobs().read_many(commits[visible - 1]);
        ASSERT_TRUE(blobs.ok()) << blobs.status().to_string();
      }
      auto writer = store.new_writer();
      ASSERT_TRUE(writer->add(BlobKind::kChunk, "it goes on").ok());
      ASSERT_TRUE(*commit(after, *writer, "9"));
    }
    if (!crashed) break;
    ASSERT_LT(n, 1000u);
  }
}

}  // namespace
}  // namespace qanat::content
