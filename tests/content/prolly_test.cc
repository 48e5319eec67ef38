#include "qanat/content/prolly.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "content/memory_blobs.h"
#include "qanat/base/bytes.h"
#include "qanat/content/map_editor.h"

namespace qanat::content {
namespace {

using Model = std::map<std::string, std::string>;
using Edits = std::map<std::string, std::optional<std::string>>;

MapRoot edit(BlobWriter& blobs, const MapRoot& root, const Edits& edits) {
  MapEditor editor(kPlainMap, blobs, root);
  for (const auto& [key, value] : edits) must(value ? editor.put(key, *value) : editor.erase(key));
  return must(editor.finish());
}

MapRoot load(BlobWriter& blobs, const Model& model) {
  MapEditor editor(kPlainMap, blobs, {});
  for (const auto& [key, value] : model) must(editor.put(key, value));
  return must(editor.finish());
}

Model dump(BlobReader& blobs, const MapRoot& root) {
  Model model;
  MapCursor cursor(kPlainMap, blobs, root);
  for (must(cursor.seek_first()); cursor.valid(); must(cursor.next())) {
    EXPECT_TRUE(model.empty() || model.rbegin()->first < cursor.key());
    model.emplace(cursor.key(), cursor.value());
  }
  return model;
}

using Differences =
    std::map<std::string, std::pair<std::optional<std::string>, std::optional<std::string>>>;

Differences diff(BlobReader& blobs, const MapRoot& a, const MapRoot& b,
                 const KeyRange& range = {}) {
  Differences found;
  std::string last;
  const bool whole = must(diff_maps(
      kPlainMap, blobs, a, b, range, [&](const MapDifference& difference) -> Result<bool> {
        EXPECT_TRUE(found.empty() || last < difference.key);
        last = difference.key;
        found.emplace(difference.key, std::pair(std::optional<std::string>(difference.before),
                                                std::optional<std::string>(difference.after)));
        return true;
      }));
  EXPECT_TRUE(whole);
  return found;
}

Differences expected_diff(const Model& a, const Model& b, const KeyRange& range = {}) {
  Differences found;
  auto in_range = [&](const std::string& key) {
    return key >= range.from && (range.to.empty() || key < range.to);
  };
  for (const auto& [key, value] : a) {
    auto other = b.find(key);
    if (in_range(key) && other == b.end()) found[key] = {value, std::nullopt};
    if (in_range(key) && other != b.end() && other->second != value) {
      found[key] = {value, other->second};
    }
  }
  for (const auto& [key, value] : b) {
    if (in_range(key) && !a.contains(key)) found[key] = {std::nullopt, value};
  }
  return found;
}

Totals totals_of(const Model& model) {
  Totals totals;
  for (const auto& [key, value] : model) totals += {1, value.size()};
  return totals;
}

std::string number_key(uint64_t n) {
  char text[32];
  snprintf(text, sizeof text, "file-%09llu", static_cast<unsigned long long>(n));
  return text;
}

TEST(Prolly, EmptyMap) {
  MemoryBlobs blobs;
  const MapRoot empty = load(blobs, {});
  EXPECT_TRUE(empty.empty());
  EXPECT_EQ(empty, MapRoot{});
  EXPECT_EQ(must(map_get(kPlainMap, blobs, empty, "a")), std::nullopt);
  MapCursor cursor(kPlainMap, blobs, empty);
  must(cursor.seek_first());
  EXPECT_FALSE(cursor.valid());
  must(cursor.seek_last());
  EXPECT_FALSE(cursor.valid());
  EXPECT_EQ(empty.root_hash(kPlainMap), sha256(std::string_view("\x01\x05\x00", 3)));

  const MapRoot one = edit(blobs, empty, {{"a", "1"}});
  EXPECT_FALSE(one.inlined.empty());
  EXPECT_EQ(one.totals, (Totals{1, 1}));
  EXPECT_EQ(edit(blobs, one, {{"a", std::nullopt}}), MapRoot{});
  EXPECT_EQ(blobs.nodes_written, 0u);
}

TEST(Prolly, RootsAsBytesAndText) {
  MemoryBlobs blobs;
  Model large;
  for (int i = 0; i < 1000; ++i) large[number_key(i)] = "x";
  for (const MapRoot& root : {MapRoot{}, load(blobs, {{"a", "1"}}), load(blobs, large)}) {
    EXPECT_EQ(must(MapRoot::decode(root.encode())), root);
    EXPECT_EQ(must(MapRoot::from_text(root.to_text())), root);
  }
  EXPECT_FALSE(MapRoot::decode("").ok());
  EXPECT_FALSE(MapRoot::decode("\x01\x01").ok());
  EXPECT_FALSE(MapRoot::decode("\x01\x01\x01short").ok());
  EXPECT_FALSE(MapRoot::decode("\x01\x01\x03x").ok());
}

// Random histories over several shapes of keys and values: after each batch of edits the map equals
// the model, and its root equals that of the model loaded at once.
class ProllyHistory : public testing::TestWithParam<int> {};

TEST_P(ProllyHistory, EqualsTheModelAndABulkLoad) {
  std::mt19937_64 random(GetParam());
  auto below = [&](uint64_t n) { return random() % n; };
  const int shape = GetParam() % 5;
  const uint64_t keys = shape == 0 ? 50 : shape == 1 ? 300 : 3000;
  auto key = [&]() -> std::string {
    const uint64_t n = below(keys);
    switch (shape) {
      case 3:  // long keys: inner nodes of few entries
        return std::string(n % 7 == 0 ? 9000 : 1500, static_cast<char>('a' + n % 3)) +
               std::to_string(n % 400);
      case 4: {  // short binary keys
        std::string bytes;
        put_u16(bytes, static_cast<uint16_t>(n));
        return bytes.substr(n % 2);
      }
      default:
        return number_key(n);
    }
  };
  auto value = [&]() -> std::string {
    const size_t length = below(40) == 0 && shape == 2 ? below(40000) : below(60);
    return std::string(length, static_cast<char>('a' + below(26)));
  };

  MemoryBlobs blobs;
  Model model;
  MapRoot root;
  for (int round = 0; round < 16; ++round) {
    Edits edits;
    const uint64_t count = round % 3 == 0 ? below(keys) : 1 + below(5);
    const uint64_t erase_of_ten = round % 5 == 4 ? 9 : 3;
    for (uint64_t i = 0; i < count; ++i) {
      edits[key()] = below(10) < erase_of_ten ? std::nullopt : std::optional(value());
    }
    if (round == 12) {  // all but a few at an edge
      for (const auto& [name, old] : model) {
        if (name > model.begin()->first) edits[name] = std::nullopt;
      }
    }
    Model changed = model;
    for (const auto& [name, new_value] : edits) {
      if (new_value) {
        changed[name] = *new_value;
      } else {
        changed.erase(name);
      }
    }
    const MapRoot edited = edit(blobs, root, edits);
    ASSERT_EQ(edited, load(blobs, changed)) << "round " << round;
    ASSERT_EQ(edited.totals, totals_of(changed));
    ASSERT_EQ(dump(blobs, edited), changed);
    ASSERT_EQ(diff(blobs, root, edited), expected_diff(model, changed));
    ASSERT_EQ(diff(blobs, edited, root), expected_diff(changed, model));
    std::string from = key();
    std::string to = key();
    if (to < from) std::swap(from, to);
    ASSERT_EQ(diff(blobs, root, edited, {from, to}), expected_diff(model, changed, {from, to}));
    for (int i = 0; i < 5; ++i) {
      const std::string wanted = key();
      auto found = changed.find(wanted);
      ASSERT_EQ(must(map_get(kPlainMap, blobs, edited, wanted)),
                found == changed.end() ? std::nullopt : std::optional(found->second));
    }
    model = std::move(changed);
    root = edited;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ProllyHistory, testing::Range(0, 10));

TEST(Prolly, CursorMovesBothWaysAndByRank) {
  MemoryBlobs blobs;
  Model model;
  for (int i = 0; i < 3000; ++i) model[number_key(i * 2)] = std::to_string(i);
  const MapRoot root = load(blobs, model);
  MapCursor cursor(kPlainMap, blobs, root);
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) {
    const uint64_t n = random() % 6002;
    must(cursor.seek(number_key(n)));
    auto found = model.lower_bound(number_key(n));
    ASSERT_EQ(cursor.valid(), found != model.end());
    if (cursor.valid()) {
      ASSERT_EQ(cursor.key(), found->first);
      ASSERT_EQ(cursor.rank(), (n + 1) / 2);
    }
    must(cursor.seek_before(number_key(n)));
    ASSERT_EQ(cursor.valid(), found != model.begin());
    if (cursor.valid()) {
      ASSERT_EQ(cursor.key(), std::prev(found)->first);
    }
    must(cursor.seek_rank(n));
    ASSERT_EQ(cursor.valid(), n < model.size());
    if (cursor.valid()) {
      ASSERT_EQ(cursor.key(), number_key(n * 2));
    }
  }
  must(cursor.seek_last());
  for (auto at = model.rbegin(); at != model.rend(); ++at) {
    ASSERT_TRUE(cursor.valid());
    ASSERT_EQ(cursor.key(), at->first);
    must(cursor.previous());
  }
  EXPECT_FALSE(cursor.valid());
}

TEST(Prolly, SeeksNearbyReadLittle) {
  MemoryBlobs blobs;
  Model model;
  for (int i = 0; i < 20000; ++i) model[number_key(i)] = "value";
  const MapRoot root = load(blobs, model);
  MapCursor cursor(kPlainMap, blobs, root);
  must(cursor.seek(number_key(10000)));
  blobs.reset_counts();
  for (int i = 10001; i < 10011; ++i) must(cursor.seek(number_key(i)));
  EXPECT_LE(blobs.nodes_read, 2u);
}

TEST(Prolly, EditsOutOfOrderAreRefused) {
  MemoryBlobs blobs;
  MapEditor editor(kPlainMap, blobs, {});
  must(editor.put("b", "1"));
  EXPECT_EQ(editor.put("b", "2").code(), Code::kInternal);
  MapEditor other(kPlainMap, blobs, {});
  must(other.put("b", "1"));
  EXPECT_EQ(other.erase("a").code(), Code::kInternal);
}

TEST(Prolly, OldValues) {
  MemoryBlobs blobs;
  Model model;
  for (int i = 0; i < 5000; ++i) model[number_key(i)] = std::to_string(i);
  const MapRoot root = load(blobs, model);
  MapEditor editor(kPlainMap, blobs, root);
  EXPECT_EQ(must(editor.old_value(number_key(700))), "700");
  must(editor.put(number_key(700), "x"));
  EXPECT_EQ(must(editor.old_value(number_key(701))), "701");
  EXPECT_EQ(must(editor.old_value(number_key(701) + "a")), std::nullopt);
  must(editor.erase(number_key(702)));
  EXPECT_EQ(must(editor.old_value("zzz")), std::nullopt);
  model[number_key(700)] = "x";
  model.erase(number_key(702));
  EXPECT_EQ(must(editor.finish()), load(blobs, model));
}

TEST(Prolly, NodesAreFourKibibytesOnAverage) {
  for (size_t value : {1, 40, 400, 2000}) {
    MemoryBlobs blobs;
    MapEditor editor(kPlainMap, blobs, {});
    for (int i = 0; i < static_cast<int>(4000000 / (value + 40)); ++i) {
      must(editor.put(number_key(i), std::string(value, 'x')));
    }
    must(editor.finish());
    size_t largest = 0;
    for (const auto& [ref, blob] : blobs.blobs()) largest = std::max(largest, blob->size());
    EXPECT_LE(largest, kMaxNodeBytes + value + 64);
    const double average =
        static_cast<double>(blobs.bytes) / static_cast<double>(blobs.nodes_written);
    EXPECT_GT(average, value < 1000 ? 3300 : 2500) << value;
    EXPECT_LT(average, 5500) << value;
  }
}

TEST(Prolly, CostFollowsTheChange) {
  MemoryBlobs blobs;
  Model model;
  for (int i = 0; i < 100000; ++i) model[number_key(i)] = std::string(40, 'v');
  const MapRoot root = load(blobs, model);
  std::mt19937_64 random(5);
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t diff_reads = 0;
  constexpr int kRounds = 60;
  for (int i = 0; i < kRounds; ++i) {
    const std::string key = number_key(random() % 100000);
    blobs.reset_counts();
    const Edits edits = i % 3 == 0   ? Edits{{key, "changed"}}
                        : i % 3 == 1 ? Edits{{key + "x", "added"}}
                                     : Edits{{key, std::nullopt}};
    const MapRoot edited = edit(blobs, root, edits);
    EXPECT_LE(blobs.nodes_read, 40u);
    EXPECT_LE(blobs.nodes_written, 15u);
    reads += blobs.nodes_read;
    writes += blobs.nodes_written;
    blobs.reset_counts();
    EXPECT_EQ(diff(blobs, root, edited).size(), 1u);
    EXPECT_LE(blobs.nodes_read, 60u);
    diff_reads += blobs.nodes_read;
  }
  EXPECT_LE(reads, 12u * kRounds);
  EXPECT_LE(writes, 6u * kRounds);
  EXPECT_LE(diff_reads, 16u * kRounds);
}

TEST(Prolly, DiffOfShiftedMapsReadsTheDifference) {
  MemoryBlobs blobs;
  Model model;
  for (int i = 0; i < 100000; ++i) model[number_key(i)] = std::string(40, 'v');
  const MapRoot root = load(blobs, model);
  Edits inserted;  // a run of new entries in the middle, much longer than a node
  for (int i = 0; i < 2000; ++i) inserted[number_key(50000) + "-" + number_key(i)] = "new";
  const MapRoot edited = edit(blobs, root, inserted);
  blobs.reset_counts();
  EXPECT_EQ(diff(blobs, root, edited).size(), 2000u);
  EXPECT_LE(blobs.nodes_read, 80u);  // about 25 nodes hold the new entries
}

TEST(Prolly, DiffStopsWhenTold) {
  MemoryBlobs blobs;
  Model model;
  for (int i = 0; i < 10000; ++i) model[number_key(i)] = "v";
  const MapRoot root = load(blobs, model);
  int seen = 0;
  blobs.reset_counts();
  EXPECT_FALSE(must(diff_maps(kPlainMap, blobs, {}, root, {},
                              [&](const MapDifference&) -> Result<bool> { return ++seen < 3; })));
  EXPECT_EQ(seen, 3);
  EXPECT_LE(blobs.nodes_read, 4u);
  auto failed = diff_maps(kPlainMap, blobs, {}, root, {},
                          [&](const MapDifference&) -> Result<bool> { return conflict("no"); });
  EXPECT_EQ(failed.status().code(), Code::kConflict);
}

TEST(Prolly, PrefixRanges) {
  EXPECT_EQ(KeyRange::with_prefix("ab").to, "ac");
  EXPECT_EQ(KeyRange::with_prefix("a\xff\xff").to, "b");
  EXPECT_EQ(KeyRange::with_prefix("\xff").to, "");
  EXPECT_EQ(KeyRange::with_prefix("").from, "");
}

TEST(Prolly, DamageIsNoticed) {
  MemoryBlobs blobs;
  Model model;
  for (int i = 0; i < 3000; ++i) model[number_key(i)] = std::to_string(i);
  const MapRoot root = load(blobs, model);
  // A node where its sibling is expected has valid bytes, but not what the parent promises.
  std::vector<BlobRef> refs;
  for (const auto& [ref, blob] : blobs.blobs()) {
    if (ref.hash != root.hash) refs.push_back(ref);
  }
  ASSERT_GT(refs.size(), 4u);
  std::swap(blobs.mutable_blobs()[refs[0]], blobs.mutable_blobs()[refs[1]]);
  MapCursor cursor(kPlainMap, blobs, root);
  Status status = cursor.seek_first();
  while (status.ok() && cursor.valid()) status = cursor.next();
  EXPECT_EQ(status.code(), Code::kDataLoss);
}

Blob blob_of(std::string bytes) { return std::make_shared<const std::string>(std::move(bytes)); }

TEST(Node, ParsingIsStrict) {
  auto accepts = [](std::string_view bytes) {
    return Node::parse_map(kPlainMap, blob_of(std::string(bytes))).ok();
  };
  using namespace std::literals;
  EXPECT_TRUE(
      accepts("\x01\x05\x02\x01"
              "a\x00\x01"
              "b\x00"sv));
  EXPECT_FALSE(accepts(""sv));
  EXPECT_FALSE(accepts("\x01\x05"sv));
  EXPECT_FALSE(accepts("\x01\x05\x00"sv));  // no entries
  EXPECT_FALSE(
      accepts("\x02\x05\x01\x01"  // version
              "a\x00"sv));
  EXPECT_FALSE(
      accepts("\x01\x01\x01\x01"  // type
              "a\x00"sv));
  EXPECT_FALSE(
      accepts("\x01\x05\x02\x01"  // order
              "b\x00\x01"
              "a\x00"sv));
  EXPECT_FALSE(
      accepts("\x01\x05\x02\x01"  // twice
              "a\x00\x01"
              "a\x00"sv));
  EXPECT_FALSE(
      accepts("\x01\x05\x01\x01"  // trailing byte
              "a\x00\x00"sv));
  EXPECT_FALSE(
      accepts("\x01\x05\x81\x00\x01"  // overlong varint
              "a\x00"sv));
  EXPECT_FALSE(
      accepts("\x01\x05\xff\xff\xff\xff\x0f\x01"  // absurd count
              "a\x00"sv));
  EXPECT_FALSE(
      accepts("\x01\x06\x00\x01"  // inner of level 0
              "a\x01\x01"sv));
}

TEST(Node, MutationsNeverCrashAndTruncationsNeverPass) {
  MemoryBlobs blobs;
  Model model;
  for (int i = 0; i < 2000; ++i) model[number_key(i)] = std::to_string(i);
  load(blobs, model);
  std::mt19937_64 random(3);
  for (const auto& [ref, blob] : blobs.blobs()) {
    for (int i = 0; i < 50; ++i) {
      const std::string cut = blob->substr(0, random() % blob->size());
      EXPECT_FALSE(Node::parse_map(kPlainMap, blob_of(cut)).ok());
      std::string changed = *blob;
      for (int j = 0; j < 3; ++j) changed[random() % changed.size()] = static_cast<char>(random());
      (void)Node::parse_map(kPlainMap, blob_of(changed));
      (void)Node::parse_chunk_list(blob_of(changed));
    }
  }
}

TEST(SlowProlly, AMillionEntries) {
  MemoryBlobs blobs;
  MapEditor editor(kPlainMap, blobs, {});
  const auto start = std::chrono::steady_clock::now();
  const std::string value(34, 'v');
  for (int i = 0; i < 1000000; ++i) must(editor.put(number_key(i), value));
  const MapRoot root = must(editor.finish());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  RecordProperty("seconds", std::to_string(took.count()));
  EXPECT_EQ(root.totals, (Totals{1000000, 34000000}));
  blobs.reset_counts();
  const MapRoot edited = edit(blobs, root, {{number_key(500000), "x"}});
  EXPECT_LE(blobs.nodes_read, 40u);
  EXPECT_LE(blobs.nodes_written, 15u);
  EXPECT_EQ(edit(blobs, edited, {{number_key(500000), value}}), root);
}

}  // namespace
}  // namespace qanat::content
