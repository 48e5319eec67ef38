#include "qanat/content/blob_store.h"

#include <gtest/gtest.h>

#include <thread>

#include "content/content_disk.h"
#include "qanat/base/counters.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/content/content_writer.h"

namespace qanat::content {
namespace {

std::vector<std::pair<BlobRef, std::string>> write_blobs(ContentDisk& disk, ContentStore& store,
                                                         int count, size_t limit) {
  SeededRandom random(9);
  std::vector<std::pair<BlobRef, std::string>> blobs;
  auto writer = store.new_writer();
  for (int i = 0; i < count; ++i) {
    std::string plain = random.bytes(1 + random.below(limit));
    BlobKind kind = i % 2 == 0 ? BlobKind::kChunk : BlobKind::kNode;
    blobs.emplace_back(*writer->add(kind, plain), plain);
  }
  EXPECT_TRUE(writer->flush().ok());
  meta::Transaction transaction;
  writer->add_to(&transaction);
  writer->committed(disk.meta->commit(std::move(transaction))->revision);
  return blobs;
}

TEST(BlobStore, ReadsManyInTheOrderAsked) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto writing = disk.stores();
  auto blobs = write_blobs(disk, **writing->project("p"), 300, 20'000);
  auto stores = disk.stores();  // with cold caches
  BlobStore& store = (*stores->project("p"))->blobs();
  SeededRandom random(1);
  for (int round = 0; round < 5; ++round) {
    std::vector<BlobRef> refs;
    std::vector<std::string> expected;
    for (int i = 0; i < 100; ++i) {
      const auto& [ref, plain] = blobs[random.below(blobs.size())];  // some twice
      refs.push_back(ref);
      expected.push_back(plain);
    }
    auto read = store.read_many(refs);
    ASSERT_TRUE(read.ok()) << read.status().to_string();
    for (size_t i = 0; i < refs.size(); ++i) ASSERT_EQ(*(*read)[i], expected[i]);
    EXPECT_EQ(*(*store.read(refs[0])), expected[0]);
  }
  EXPECT_TRUE(store.read_many({})->empty());
}

TEST(BlobStore, ReadsNeighboursAtOnce) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto writing = disk.stores();
  auto blobs = write_blobs(disk, **writing->project("p"), 500, 4000);
  auto stores = disk.stores();
  BlobStore& store = (*stores->project("p"))->blobs();
  std::vector<BlobRef> refs;
  for (const auto& [ref, plain] : blobs) refs.push_back(ref);
  uint64_t before = counter("qanat_object_reads_total", "").value();
  ASSERT_TRUE(store.read_many(refs).ok());
  EXPECT_LE(counter("qanat_object_reads_total", "").value() - before,
            3u);  // footer, one or two pieces
}

TEST(BlobStore, KindsAreNeverMixedUp) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  auto blobs = write_blobs(disk, **stores->project("p"), 2, 100);
  BlobStore& store = (*stores->project("p"))->blobs();
  BlobRef chunk = blobs[0].first;
  BlobRef as_node{BlobKind::kNode, chunk.hash};
  EXPECT_TRUE(store.read(chunk).ok());
  EXPECT_EQ(store.read(as_node).code(), Code::kDataLoss);
  std::vector<BlobRef> refs{as_node, chunk};
  const auto places = store.locate_many(refs);
  ASSERT_TRUE(places.ok());
  EXPECT_FALSE((*places)[0]);
  EXPECT_TRUE((*places)[1]);
  EXPECT_EQ(store.read_many(refs).code(), Code::kDataLoss);
}

// What is damaged is not counted on: writing it again stores it again.
TEST(BlobStore, WhatIsDamagedIsWrittenAgain) {
  QuietLog quiet;
  for (const bool gone : {false, true}) {
    ContentDisk disk;
    ASSERT_TRUE(disk.open());
    std::vector<std::pair<BlobRef, std::string>> blobs;
    {
      auto writing = disk.stores();
      blobs = write_blobs(disk, **writing->project("p"), 6, 20'000);
    }
    auto stores = disk.stores();  // with cold caches
    ContentStore& content = **stores->project("p");
    BlobStore& store = content.blobs();
    const auto& [ref, plain] = blobs[2];
    const BlobRef sound = blobs[4].first;
    const auto place = *(*store.locate_many(std::span(&ref, 1)))[0];
    const std::string path = "data/objects/" + pack_object_key("p", *place.pack);
    if (gone) {
      ASSERT_TRUE(disk.files->remove(path).ok());
    } else {
      ASSERT_TRUE(disk.files->flip_bit(path, (place.offset + 1) * 8).ok());
    }
    EXPECT_TRUE((*store.locate_for_reuse(std::span(&ref, 1)))[0]);  // nobody knows yet
    EXPECT_EQ(store.read(ref).code(), Code::kDataLoss);
    EXPECT_FALSE((*store.locate_for_reuse(std::span(&ref, 1)))[0]);
    if (!gone) {
      EXPECT_TRUE(store.read(sound).ok());
      EXPECT_TRUE((*store.locate_for_reuse(std::span(&sound, 1)))[0]);
    }

    auto writer = content.new_writer();
    ASSERT_EQ(*writer->add(ref.kind, plain), ref);
    ASSERT_TRUE(writer->flush().ok());
    meta::Transaction transaction;
    writer->add_to(&transaction);
    writer->committed(disk.meta->commit(std::move(transaction))->revision);
    const auto read = store.read(ref);
    ASSERT_TRUE(read.ok()) << read.status().to_string();
    EXPECT_EQ(**read, plain);
    EXPECT_TRUE((*store.locate_for_reuse(std::span(&ref, 1)))[0]);
    // And if it is the newer copy that is damaged, the older one is read.
    auto cold = disk.stores();
    BlobStore& other = (*cold->project("p"))->blobs();
    const auto copies = *other.locate_copies(std::span(&ref, 1));
    ASSERT_EQ(copies[0].size(), gone ? 1u : 2u);
    if (gone) continue;
    ASSERT_TRUE(disk.files->flip_bit(path, (place.offset + 1) * 8).ok());  // sound again
    ASSERT_TRUE(disk.files
                    ->flip_bit("data/objects/" + pack_object_key("p", *copies[0][0].pack),
                               (copies[0][0].offset + 1) * 8)
                    .ok());
    EXPECT_EQ(**other.read(ref), plain);
    const std::vector<BlobRef> both{ref, sound};
    EXPECT_EQ(*(*(*disk.stores()->project("p"))->blobs().read_many(both))[0], plain);
  }
}

TEST(BlobStore, EveryFlippedBitIsAnErrorOrHarmless) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto writing = disk.stores();
  auto blobs = write_blobs(disk, **writing->project("p"), 8, 60);
  std::string key = *disk.object_keys().begin();
  uint64_t size = static_cast<uint64_t>(*disk.objects->size(key));
  std::string path = "data/objects/" + key;
  size_t found = 0;
  for (uint64_t byte = 0; byte < size; byte += 3) {
    ASSERT_TRUE(disk.files->flip_bit(path, byte * 8 + byte % 8).ok());
    auto stores = disk.stores();
    BlobStore& store = (*stores->project("p"))->blobs();
    bool hit = false;
    for (const auto& [ref, plain] : blobs) {
      auto blob = store.read(ref);
      if (blob.ok()) {
        ASSERT_EQ(**blob, plain);
      } else {
        ASSERT_EQ(blob.code(), Code::kDataLoss) << blob.status().to_string();
        hit = true;
      }
    }
    found += hit ? 1 : 0;
    ASSERT_TRUE(disk.files->flip_bit(path, byte * 8 + byte % 8).ok());
  }
  // All but the header and the trailer, which a reader of single blobs does not need.
  EXPECT_GE(found, (size - 8 - 24) / 3 - 2);
}

TEST(BlobStore, AMissingPackIsDataLoss) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto writing = disk.stores();
  auto blobs = write_blobs(disk, **writing->project("p"), 4, 100);
  ASSERT_TRUE(disk.objects->remove(*disk.object_keys().begin()).ok());
  auto stores = disk.stores();
  EXPECT_EQ((*stores->project("p"))->blobs().read(blobs[0].first).code(), Code::kDataLoss);
}

TEST(BlobStore, CountsWhatItReads) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto writing = disk.stores();
  auto blobs = write_blobs(disk, **writing->project("p"), 10, 100);
  auto stores = disk.stores();
  BlobStore& store = (*stores->project("p"))->blobs();
  Counter& read = counter("qanat_nodes_read_total", "");
  Counter& fetched = counter("qanat_nodes_fetched_total", "");
  uint64_t read_before = read.value();
  uint64_t fetched_before = fetched.value();
  for (int round = 0; round < 3; ++round) {
    for (const auto& [ref, plain] : blobs) ASSERT_TRUE(store.read(ref).ok());
  }
  EXPECT_EQ(read.value() - read_before, 15u);
  EXPECT_EQ(fetched.value() - fetched_before, 5u);
}

TEST(BlockCache, KeepsItsBoundAndTheRecentlyUsed) {
  BlockCache cache(1u << 20);
  uint64_t space = BlockCache::new_space();
  auto value = std::make_shared<const std::string>(1000, 'v');
  BlockCache::Key favourite = BlockCache::position_key(space, 0);
  cache.put(favourite, value, 1000);
  for (uint64_t i = 1; i < 20'000; ++i) {
    cache.put(BlockCache::position_key(space, i), value, 1000);
    ASSERT_NE(cache.get<std::string>(favourite), nullptr);
  }
  EXPECT_LE(cache.charge(), cache.capacity());
  EXPECT_EQ(cache.get<std::string>(BlockCache::position_key(space, 1)), nullptr);
  EXPECT_NE(cache.get<std::string>(BlockCache::position_key(space, 19'999)), nullptr);
  cache.erase(favourite);
  EXPECT_EQ(cache.get<std::string>(favourite), nullptr);
  cache.put(favourite, value, 1u << 20);  // more than a shard: not kept
  EXPECT_EQ(cache.get<std::string>(favourite), nullptr);
}

TEST(BlockCache, MayBeUsedByManyThreads) {
  BlockCache cache(64u << 10);
  uint64_t space = BlockCache::new_space();
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      SeededRandom random(t);
      for (int i = 0; i < 5000; ++i) {
        uint64_t position = random.below(200);
        BlockCache::Key key = BlockCache::position_key(space, position);
        if (auto found = cache.get<uint64_t>(key)) {
          ASSERT_EQ(*found, position);
        } else {
          cache.put(key, std::make_shared<const uint64_t>(position), 500);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(PackKeys, RoundTrip) {
  chunk::PackId pack{0x1234, {0xab, 0xcd}};
  std::string key = pack_object_key("default", pack);
  EXPECT_EQ(key, "packs/default/0000000000001234/abcd0000000000000000000000000000");
  EXPECT_EQ(*parse_pack_object_key(key), pack);
  for (const char* bad :
       {"", "packs/p/0/00", "segments/p/0000000000001234/abcd0000000000000000000000000000",
        "packs/p/0000000000001234/abcd"}) {
    EXPECT_FALSE(parse_pack_object_key(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace qanat::content
