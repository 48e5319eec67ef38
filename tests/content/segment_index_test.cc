#include "qanat/content/segment_index.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "content/content_disk.h"
#include "qanat/base/bytes.h"
#include "qanat/base/hash.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/chunk/segment.h"
#include "qanat/content/segment_merge.h"

namespace qanat::content {
namespace {

using Map = std::map<std::string, std::string>;

SegmentIndexOptions small_options(ContentDisk& disk) {
  SegmentIndexOptions options;
  options.project = "default";
  options.name = "results";
  options.compact_at = 4;
  options.segment_target = 100u << 10;
  options.removal_grace_ms = 1000;
  options.now_ms = [&disk] { return disk.clock.wall_ms(); };
  return options;
}

std::unique_ptr<SegmentIndex> open_index(ContentDisk& disk, BlockCache& cache) {
  auto index = SegmentIndex::open(disk.meta.get(), disk.objects.get(), &cache, small_options(disk));
  EXPECT_TRUE(index.ok()) << index.status().to_string();
  return *std::move(index);
}

// Writes and registers a segment; an error leaves the index as it was, or (kUnavailable) not known.
Status put(ContentDisk& disk, SegmentIndex& index, SegmentIndex::Entries entries) {
  QANAT_ASSIGN_OR_RETURN(SegmentRegistration segment, index.write_segment(std::move(entries)));
  meta::Transaction transaction;
  transaction.when(index.guard(segment)).add(index.registration(segment));
  QANAT_ASSIGN_OR_RETURN(meta::TransactionResult result, disk.meta->commit(std::move(transaction)));
  EXPECT_TRUE(result.succeeded);
  index.registered(std::move(segment), result.revision);
  return ok_status();
}

Map scan_all(SegmentIndex& index, std::string_view prefix = {}, std::string_view from = {}) {
  Map map;
  auto scanner = index.scan(prefix, from);
  EXPECT_TRUE(scanner.ok()) << scanner.status().to_string();
  std::string last;
  while (true) {
    auto entry = (*scanner)->next();
    EXPECT_TRUE(entry.ok()) << entry.status().to_string();
    if (!entry.ok() || !*entry) return map;
    EXPECT_TRUE(map.empty() || last < (*entry)->key);
    last = (*entry)->key;
    map.emplace((*entry)->key, (*entry)->value);
  }
}

std::string some_key(SeededRandom& random) {
  return str_cat(static_cast<char>('a' + random.below(4)), "/", random.below(3000));
}

// A batch of changes, also made to `map`.
SegmentIndex::Entries some_changes(SeededRandom& random, Map* map, size_t large = 2500) {
  SegmentIndex::Entries entries;
  size_t count = random.below(8) == 0 ? large : 1 + random.below(60);
  for (size_t i = 0; i < count; ++i) {
    std::string key = some_key(random);
    if (random.below(4) == 0) {
      entries.emplace_back(key, std::nullopt);
      map->erase(key);
    } else {
      std::string value = random.bytes(random.below(120));
      entries.emplace_back(key, value);
      (*map)[key] = value;
    }
  }
  return entries;
}

TEST(IndexManifest, RecordsRoundTripAndAreStrict) {
  SegmentLocation location{"segments/p/i/1", 7, 100, 5, true};
  SegmentLocation other{"segments/p/i/2", 0, 200, 6, false};
  IndexManifest manifest{{{{location, "a", "b"}, {other, "c", "c"}}, {}, {{other, "", "z"}}}};
  RemovalRecord removal{1'600'000'000'000, {"x", "y/z"}};
  EXPECT_EQ(*parse_segment_location(encode_segment_location(location)), location);
  EXPECT_EQ(*parse_manifest(encode_manifest(manifest)), manifest);
  EXPECT_EQ(*parse_removal(encode_removal(removal)), removal);
  auto strict = [](const std::string& bytes, auto parse) {
    for (size_t length = 0; length < bytes.size(); ++length) {
      EXPECT_EQ(parse(std::string_view(bytes).substr(0, length)).code(), Code::kDataLoss);
    }
    EXPECT_EQ(parse(bytes + "x").code(), Code::kDataLoss);
    std::string newer = bytes;
    newer[0] = 9;
    EXPECT_EQ(parse(newer).code(), Code::kDataLoss);
  };
  strict(encode_segment_location(location),
         [](std::string_view b) { return parse_segment_location(b); });
  strict(encode_manifest(manifest), [](std::string_view b) { return parse_manifest(b); });
  strict(encode_removal(removal), [](std::string_view b) { return parse_removal(b); });
  manifest.runs[0][1].first_key = "b";  // overlaps the segment before
  EXPECT_EQ(parse_manifest(encode_manifest(manifest)).code(), Code::kDataLoss);
}

TEST(SegmentIndex, IsAMapWhateverIsCompactedAndReopened) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    SeededRandom random(seed);
    ContentDisk disk;
    ASSERT_TRUE(disk.open());
    BlockCache cache(1u << 20);
    auto index = open_index(disk, cache);
    Map map;
    for (int round = 0; round < 40; ++round) {
      ASSERT_TRUE(put(disk, *index, some_changes(random, &map)).ok());
      if (random.below(3) == 0) {
        ASSERT_TRUE(index->compact(random.below(4) == 0).ok());
      }
      if (random.below(6) == 0) index = open_index(disk, cache);
      disk.clock.advance_ms(600);
      if (random.below(3) == 0) {
        ASSERT_TRUE(index->remove_replaced(/*now=*/false).ok());
      }

      std::vector<std::string> keys;
      for (int i = 0; i < 40; ++i) keys.push_back(some_key(random));
      auto values = index->get_many(keys);
      ASSERT_TRUE(values.ok()) << values.status().to_string();
      for (size_t i = 0; i < keys.size(); ++i) {
        auto expected = map.find(keys[i]);
        ASSERT_EQ((*values)[i].has_value(), expected != map.end()) << keys[i];
        if (expected != map.end()) {
          ASSERT_EQ(*(*values)[i], expected->second);
        }
      }
      ASSERT_EQ(index->get(keys[0])->has_value(), map.contains(keys[0]));
    }
    EXPECT_EQ(scan_all(*index), map);
    std::string from = "b/2";
    EXPECT_EQ(scan_all(*index, "b/", from), Map(map.lower_bound(from), map.lower_bound("b0")));
    EXPECT_EQ(scan_all(*index, "c"), Map(map.lower_bound("c"), map.lower_bound("d")));
    EXPECT_TRUE(scan_all(*index, "nothing").empty());

    // All in one run, and nothing else left after the grace.
    ASSERT_TRUE(index->compact(true).ok());
    EXPECT_EQ(scan_all(*index), map);
    EXPECT_EQ(index->stats().level0, 0u);
    EXPECT_EQ(index->stats().runs, 1u);
    EXPECT_GT(index->stats().segments, 1u);
    EXPECT_EQ(index->stats().entries, map.size());
    disk.clock.advance_ms(1000);
    ASSERT_TRUE(index->remove_replaced(/*now=*/false).ok());
    EXPECT_EQ(disk.object_keys().size(), index->stats().segments);
    EXPECT_LE(cache.charge(), cache.capacity());
  }
}

// Where copies are kept, a value that is taken out uncovers the one it hid.
TEST(SegmentIndex, KeepsHiddenCopiesUntilTheyAreDropped) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  BlockCache cache(1u << 20);
  SegmentIndexOptions options = small_options(disk);
  options.name = "blobs";
  options.keep_copies = true;
  auto index = *SegmentIndex::open(disk.meta.get(), disk.objects.get(), &cache, std::move(options));
  auto copies = [&] {
    std::vector<std::string> found;
    const auto scanner = *index->scan("b");
    const auto entry = *scanner->next();
    if (!entry) return found;
    found.emplace_back(entry->value);
    found.insert(found.end(), entry->older.begin(), entry->older.end());
    EXPECT_EQ(*index->get("b"), found[0]);
    const std::vector<std::string> key = {"b"};
    EXPECT_EQ((*index->get_copies(key))[0], found);
    return found;
  };
  auto drop = [&](std::string_view gone) {
    return index->drop_entries([&](std::string_view value) { return value == gone; },
                               [](std::string_view) { return false; });
  };
  using Copies = std::vector<std::string>;
  for (const char* value : {"one", "two", "three"}) {
    ASSERT_TRUE(put(disk, *index, {{"a", "x"}, {"b", value}, {"c", value}}).ok());
  }
  EXPECT_EQ(copies(), (Copies{"three", "two", "one"}));
  ASSERT_TRUE(index->compact(true).ok());
  EXPECT_EQ(copies(), (Copies{"three", "two", "one"}));
  ASSERT_TRUE(put(disk, *index, {{"b", "four"}}).ok());
  ASSERT_TRUE(index->compact(true).ok());
  EXPECT_EQ(copies(), (Copies{"four", "three", "two", "one"}));
  ASSERT_TRUE(drop("two").ok());
  EXPECT_EQ(copies(), (Copies{"four", "three", "one"}));
  EXPECT_EQ(*index->get("c"), "three");
  ASSERT_TRUE(drop("four").ok());
  ASSERT_TRUE(drop("one").ok());
  EXPECT_EQ(copies(), (Copies{"three"}));
  ASSERT_TRUE(drop("three").ok());
  EXPECT_EQ(copies(), Copies());
  EXPECT_EQ(*index->get("c"), std::nullopt);
  EXPECT_EQ(*index->get("a"), "x");
  EXPECT_EQ(index->write_segment({{"b", std::nullopt}}).code(), Code::kInternal);
}

TEST(SegmentIndex, ForgetsTheOldestOfTooManyCopies) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  BlockCache cache(1u << 20);
  SegmentIndexOptions options = small_options(disk);
  options.name = "blobs";
  options.keep_copies = true;
  auto index = *SegmentIndex::open(disk.meta.get(), disk.objects.get(), &cache, std::move(options));
  constexpr size_t kCopies = SegmentIndexOptions::kMaxCopies + 5;
  for (size_t i = 0; i < kCopies; ++i) {
    ASSERT_TRUE(put(disk, *index, {{"b", str_cat(i)}}).ok());
    if (i % 50 == 0) {
      ASSERT_TRUE(index->compact(true).ok());
    }
  }
  ASSERT_TRUE(index->compact(true).ok());
  const std::vector<std::string> key = {"b"};
  const auto copies = index->get_copies(key);
  ASSERT_TRUE(copies.ok());
  ASSERT_EQ((*copies)[0].size(), SegmentIndexOptions::kMaxCopies);
  EXPECT_EQ((*copies)[0].front(), str_cat(kCopies - 1));
  EXPECT_EQ((*copies)[0].back(), "5");
}

TEST(SegmentIndex, StoredValuesAreStrict) {
  const SegmentLocation location{"segments/p/i/1", 0, 100, 1, false};
  using Copies = std::vector<std::string>;
  auto parse = [&](std::string_view stored) -> Result<Copies> {
    Copies values;
    QANAT_RETURN_IF_ERROR(append_index_values(stored, location, nullptr, &values).status());
    return values;
  };
  std::string stored;
  encode_index_values(Copies{"new", "old"}, &stored);
  EXPECT_EQ(*parse(stored), (Copies{"new", "old"}));
  EXPECT_EQ(*index_value(stored, location, nullptr), "new");
  for (size_t length = 0; length < stored.size(); ++length) {
    EXPECT_EQ(parse(stored.substr(0, length)).code(), Code::kDataLoss) << length;
  }
  EXPECT_EQ(parse(stored + "x").code(), Code::kDataLoss);
  encode_index_values({}, &stored);
  EXPECT_EQ(*parse(stored), Copies());
  EXPECT_EQ(parse(stored + "x").code(), Code::kDataLoss);
  EXPECT_EQ(parse("\x03x").code(), Code::kDataLoss);
}

TEST(SegmentIndex, RunsGrowGeometrically) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  BlockCache cache(1u << 20);
  auto index = open_index(disk, cache);
  for (int i = 0; i < 160; ++i) {
    SegmentIndex::Entries entries;
    for (int j = 0; j < 20; ++j) entries.emplace_back(str_cat(i, "/", j), "value");
    ASSERT_TRUE(put(disk, *index, std::move(entries)).ok());
    if (index->wants_compaction()) {
      ASSERT_TRUE(index->compact().ok());
    }
    EXPECT_LT(index->stats().level0, 4u);
    EXPECT_LE(index->stats().runs, 6u);
  }
  EXPECT_EQ(scan_all(*index).size(), 160u * 20);
}

TEST(SegmentIndex, SeesWhatAnotherProcessRegisters) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  BlockCache cache(1u << 20);
  auto mine = open_index(disk, cache);
  auto theirs = open_index(disk, cache);
  ASSERT_TRUE(put(disk, *theirs, {{"a", "1"}}).ok());
  ASSERT_TRUE(mine->refresh().ok());
  EXPECT_EQ(**mine->get("a"), "1");
  // Without refresh too, as soon as the watch has told.
  ASSERT_TRUE(put(disk, *theirs, {{"a", "2"}}).ok());
  for (int i = 0; i < 5000 && **mine->get("a") != "2"; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(**mine->get("a"), "2");
  // What was compacted and deleted behind one's back is found at its new place.
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(put(disk, *theirs, {{str_cat("k", i), "v"}}).ok());
  ASSERT_TRUE(theirs->compact(true).ok());
  disk.clock.advance_ms(5000);
  ASSERT_TRUE(theirs->remove_replaced(/*now=*/false).ok());
  EXPECT_EQ(**mine->get("k3"), "v");
  EXPECT_EQ(scan_all(*mine).size(), 6u);
}

TEST(SegmentIndex, TwoProcessesMayCompactAtOnce) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  BlockCache cache(1u << 20);
  auto mine = open_index(disk, cache);
  auto theirs = open_index(disk, cache);
  SeededRandom random(5);
  Map map;
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(put(disk, *mine, some_changes(random, &map, 500)).ok());
    std::thread other([&] { EXPECT_TRUE(theirs->compact().ok()); });
    EXPECT_TRUE(mine->compact().ok());
    other.join();
    ASSERT_TRUE(mine->refresh().ok());
    ASSERT_TRUE(theirs->refresh().ok());
    EXPECT_EQ(scan_all(*mine), map);
    EXPECT_EQ(scan_all(*theirs), map);
  }
}

TEST(SegmentIndex, ReadersGoOnWhileItCompacts) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  BlockCache cache(256u << 10);  // much too small: blocks come and go
  auto index = open_index(disk, cache);
  // Key k has the value of the last round that was registered, or of one that is just being.
  constexpr int kKeys = 400;
  std::atomic<int> done{-1};
  auto entries_of = [](int round) {
    SegmentIndex::Entries entries;
    for (int k = 0; k < kKeys; ++k) entries.emplace_back(str_cat("key ", k), str_cat(round));
    return entries;
  };
  ASSERT_TRUE(put(disk, *index, entries_of(0)).ok());
  done = 0;
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&, t] {
      SeededRandom random(t);
      while (!stop) {
        int before = done;
        auto value = index->get(str_cat("key ", random.below(kKeys)));
        ASSERT_TRUE(value.ok()) << value.status().to_string();
        ASSERT_TRUE(value->has_value());
        ASSERT_GE(*parse_i64(**value), before);
        if (t == 0) {
          ASSERT_EQ(scan_all(*index).size(), size_t{kKeys});
        }
      }
    });
  }
  for (int round = 1; round < 40; ++round) {
    ASSERT_TRUE(put(disk, *index, entries_of(round)).ok());
    done = round;
    if (round % 3 == 0) {
      ASSERT_TRUE(index->compact(round % 9 == 0).ok());
    }
    disk.clock.advance_ms(100);  // the grace is longer than any reader takes
    ASSERT_TRUE(index->remove_replaced(/*now=*/false).ok());
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

TEST(SegmentIndex, ASegmentThatWasGivenUpIsRemoved) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  BlockCache cache(1u << 20);
  auto index = open_index(disk, cache);
  // Never sent: at once.
  auto first = *index->write_segment({{"a", "1"}});
  index->give_up(std::span(&first, 1), false);
  EXPECT_TRUE(disk.object_keys().empty());
  // Sent, with an unknown outcome: after the grace, and the transaction cannot happen any more.
  auto second = *index->write_segment({{"a", "2"}});
  meta::Transaction late;
  late.when(index->guard(second)).add(index->registration(second));
  index->give_up(std::span(&second, 1), true);
  EXPECT_EQ(disk.object_keys().size(), 1u);
  EXPECT_FALSE(disk.meta->commit(late)->succeeded);
  disk.clock.advance_ms(1000);
  ASSERT_TRUE(index->remove_replaced(/*now=*/false).ok());
  EXPECT_TRUE(disk.object_keys().empty());
  // Sent, and it did happen: the segment stays.
  auto third = *index->write_segment({{"a", "3"}});
  meta::Transaction sent;
  sent.when(index->guard(third)).add(index->registration(third));
  ASSERT_TRUE(disk.meta->commit(sent)->succeeded);
  index->give_up(std::span(&third, 1), true);
  disk.clock.advance_ms(5000);
  ASSERT_TRUE(index->remove_replaced(/*now=*/false).ok());
  ASSERT_TRUE(index->refresh().ok());
  EXPECT_EQ(**index->get("a"), "3");
}

TEST(SegmentIndex, DamageIsAnErrorAndNeverAWrongValue) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  SeededRandom random(8);
  Map map;
  std::string object_key;
  {
    BlockCache cache(1u << 20);
    auto index = open_index(disk, cache);
    SegmentIndex::Entries entries;
    for (int i = 0; i < 3000; ++i) {
      std::string value = random.bytes(100);
      entries.emplace_back(str_cat("key ", i), value);
      map[str_cat("key ", i)] = value;
    }
    ASSERT_TRUE(put(disk, *index, std::move(entries)).ok());
    object_key = *disk.object_keys().begin();
  }
  std::string path = "data/objects/" + object_key;
  uint64_t size = static_cast<uint64_t>(*disk.objects->size(object_key));
  ASSERT_GT(size, 256u << 10);  // read in parts
  std::vector<std::string> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  constexpr int kRounds = 30;
  int found = 0;
  for (int round = 0; round < kRounds; ++round) {
    // The end, where footer and block index are, as often as the blocks.
    uint64_t byte = round % 2 == 0 ? random.below(size) : size - 1 - random.below(5000);
    uint64_t bit = byte * 8 + random.below(8);
    ASSERT_TRUE(disk.files->flip_bit(path, bit).ok());
    BlockCache cache(1u << 20);
    auto index = open_index(disk, cache);
    // Some keys alone, each right or an error; then all, which reads all parts.
    for (int i = 0; i < 20; ++i) {
      const std::string& key = keys[random.below(keys.size())];
      auto value = index->get(key);
      if (value.ok()) {
        ASSERT_TRUE(value->has_value());
        ASSERT_EQ(**value, map[key]);
      } else {
        ASSERT_EQ(value.code(), Code::kDataLoss);
      }
    }
    found += index->get_many(keys).code() == Code::kDataLoss ? 1 : 0;
    ASSERT_TRUE(disk.files->flip_bit(path, bit).ok());
  }
  EXPECT_EQ(found, kRounds);
}

TEST(SegmentIndex, AMissingSegmentIsDataLoss) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  {
    BlockCache cache(1u << 20);
    auto index = open_index(disk, cache);
    ASSERT_TRUE(put(disk, *index, {{"a", "1"}}).ok());
  }
  ASSERT_TRUE(disk.objects->remove(*disk.object_keys().begin()).ok());
  BlockCache cache(1u << 20);
  auto index = open_index(disk, cache);
  EXPECT_EQ(index->get("a").code(), Code::kDataLoss);
}

// In an index that keeps copies, what lies in a sound segment is found whatever is damaged; and who
// can do without takes what is lost for a miss.
TEST(SegmentIndex, GoesOnBesideADamagedSegment) {
  QuietLog quiet;
  for (const bool gone : {false, true}) {
    ContentDisk disk;
    ASSERT_TRUE(disk.open());
    SegmentIndexOptions options = small_options(disk);
    options.keep_copies = true;
    std::string newest;
    {
      BlockCache cache(1u << 20);
      auto index = *SegmentIndex::open(disk.meta.get(), disk.objects.get(), &cache, options);
      ASSERT_TRUE(put(disk, *index, {{"a", "old"}, {"b", "1"}}).ok());
      const auto before = disk.object_keys();
      ASSERT_TRUE(put(disk, *index, {{"a", "new"}, {"c", "2"}}).ok());
      for (const std::string& key : disk.object_keys()) {
        if (!before.contains(key)) newest = key;
      }
    }
    if (gone) {
      ASSERT_TRUE(disk.objects->remove(newest).ok());
    } else {
      ASSERT_TRUE(disk.files->flip_bit("data/objects/" + newest, 100).ok());
    }
    BlockCache cache(1u << 20);
    auto index = *SegmentIndex::open(disk.meta.get(), disk.objects.get(), &cache, options);
    using OnDamage = SegmentIndex::OnDamage;
    EXPECT_EQ(index->get("a")->value(), "old");
    EXPECT_EQ(index->get("b")->value(), "1");
    EXPECT_EQ(index->get("c").code(), Code::kDataLoss);
    EXPECT_EQ(index->get("none").code(), Code::kDataLoss);
    EXPECT_FALSE(index->get("c", OnDamage::kMiss)->has_value());
    const std::vector<std::string> some{"b", "a"}, all{"a", "c"};
    EXPECT_EQ(*(*index->get_many(some))[0], "1");
    EXPECT_EQ(index->get_many(all).code(), Code::kDataLoss);
    EXPECT_EQ(index->get_copies(some)->at(1), std::vector<std::string>{"old"});
    EXPECT_EQ(index->get_copies(all).code(), Code::kDataLoss);
    EXPECT_TRUE(index->get_copies(all, OnDamage::kMiss)->at(1).empty());
    // What comes is found, and no wrong answer of a scan is given.
    ASSERT_TRUE(put(disk, *index, {{"c", "again"}}).ok());
    EXPECT_EQ(index->get("c")->value(), "again");
    EXPECT_FALSE(index->compact(true).ok());
    EXPECT_EQ(index->get("none").code(), Code::kDataLoss);
  }
}

// Registers segments and compacts on a disk that crashes at every point in turn.
TEST(SegmentIndex, NothingAcknowledgedIsLostInACrash) {
  QuietLog quiet;  // both stores say that the disk is gone, each time
  for (uint64_t n = 1;; ++n) {
    ContentDisk disk;
    ASSERT_TRUE(disk.open());
    Map acknowledged;
    Map maybe;  // with the batch that was under way
    BlockCache cache(1u << 20);
    {
      auto index = open_index(disk, cache);
      SeededRandom random(77);
      disk.files->crash_at(n);
      for (int i = 0; i < 6; ++i) {
        if (!put(disk, *index, some_changes(random, &maybe, 300)).ok()) break;
        acknowledged = maybe;
        if (i % 5 == 4 && !index->compact(i > 5).ok()) break;
        disk.clock.advance_ms(700);
        if (!index->remove_replaced(/*now=*/false).ok()) break;
      }
    }
    bool crashed = disk.files->crashed();
    disk.meta.reset();
    for (uint64_t seed = 0; seed < 4; ++seed) {
      ContentDisk after(disk.files->reboot(seed));
      ASSERT_TRUE(after.open()) << after.status.to_string();
      after.clock.advance_ms(1'000'000);
      BlockCache fresh(1u << 20);
      auto index = open_index(after, fresh);
      Map found = scan_all(*index);
      ASSERT_TRUE(found == acknowledged || found == maybe)
          << "crash point " << n << " seed " << seed;
      // It can go on, and what a dead compaction left behind is removed.
      ASSERT_TRUE(put(after, *index, {{"after", "crash"}}).ok());
      ASSERT_TRUE(index->compact(true).ok());
      after.clock.advance_ms(5000);
      ASSERT_TRUE(index->remove_replaced(/*now=*/false).ok());
      found["after"] = "crash";
      ASSERT_EQ(scan_all(*index), found);
    }
    if (!crashed) break;
    ASSERT_LT(n, 2000u);
  }
}

}  // namespace
}  // namespace qanat::content
