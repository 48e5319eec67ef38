#include "qanat/chunk/chunker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "qanat/base/hash.h"
#include "qanat/base/random.h"

namespace qanat::chunk {
namespace {

std::vector<std::string> cut_all(std::string_view data, size_t piece) {
  std::vector<std::string> chunks;
  Chunker chunker([&](std::string_view chunk) -> Status {
    chunks.emplace_back(chunk);
    return ok_status();
  });
  for (size_t at = 0; at < data.size(); at += piece) {
    EXPECT_TRUE(chunker.update(data.substr(at, piece)).ok());
  }
  EXPECT_TRUE(chunker.finish().ok());
  return chunks;
}

std::string concatenated(const std::vector<std::string>& chunks) {
  std::string all;
  for (const std::string& chunk : chunks) all += chunk;
  return all;
}

TEST(Chunker, EmptyStreamHasNoChunk) { EXPECT_TRUE(cut_all("", 1).empty()); }

TEST(Chunker, LengthsKeepTheirBoundsAndAverage) {
  std::string data = SeededRandom(1).bytes(48u << 20);
  std::vector<std::string> chunks = cut_all(data, data.size());
  EXPECT_EQ(concatenated(chunks), data);
  for (size_t i = 0; i + 1 < chunks.size(); ++i) {
    EXPECT_GE(chunks[i].size(), kMinChunk);
    EXPECT_LE(chunks[i].size(), kMaxChunk);
    EXPECT_TRUE(is_natural_cut(chunks[i]));
  }
  EXPECT_TRUE(is_valid_last(chunks.back()));
  size_t average = data.size() / chunks.size();
  EXPECT_GT(average, 230u << 10);
  EXPECT_LT(average, 282u << 10);
}

TEST(Chunker, CutsDoNotDependOnHowTheStreamIsFed) {
  SeededRandom random(2);
  std::string data = random.bytes(3u << 20);
  std::vector<std::string> whole = cut_all(data, data.size());
  for (size_t piece : {size_t{999}, kMinChunk, kMinChunk - 1, size_t{123'457}, kMaxChunk}) {
    EXPECT_EQ(cut_all(data, piece), whole) << piece;
  }
}

// As much at a time as there is, and byte by byte: the same cuts, however dense they are.
TEST(Chunker, FindsTheFirstCut) {
  const std::string data = SeededRandom(5).bytes(1u << 20);
  for (const int bits : {8, 10, 12, 13, 14, 16}) {
    const ChunkSizes sizes{256, 40'000, 100'000, bits, bits - 2};
    size_t cuts = 0;
    for (std::string_view rest = data; !rest.empty() && cuts < 200; ++cuts) {
      const size_t cut = find_cut(rest, sizes);
      if (cut == 0) break;
      // No shorter piece has one, and the cut does not depend on what follows. Short pieces are
      // looked at without the second place.
      for (const size_t shorter : {cut - 1, cut / 2, cut - std::min<size_t>(cut, 4096)}) {
        EXPECT_EQ(find_cut(rest.substr(0, shorter), sizes), 0u) << bits << " " << cut;
      }
      EXPECT_EQ(find_cut(rest.substr(0, cut), sizes), cut);
      rest.remove_prefix(cut);
    }
    EXPECT_GT(cuts, 10u) << bits;
  }
}

TEST(Chunker, GoldenCutsNeverChange) {
  // These lengths are part of the format: if this test fails, every root in the world changes.
  std::string data;
  for (uint32_t i = 0; data.size() < (2u << 20); ++i) {
    uint32_t x = i * 2654435761u;
    data.push_back(static_cast<char>(x >> 24));
    data.push_back(static_cast<char>(x >> 13));
  }
  std::string lengths;
  for (const std::string& chunk : cut_all(data, data.size()))
    lengths += std::to_string(chunk.size()) + " ";
  EXPECT_EQ(lengths, "214036 267426 245069 105546 428191 238096 270252 214197 114339 ");
}

TEST(Chunker, CutsCoincideAgainAfterAnInsertion) {
  SeededRandom random(3);
  std::string data = random.bytes(16u << 20);
  for (int round = 0; round < 4; ++round) {
    size_t at = random.below(data.size());
    std::string edited = data;
    edited.insert(at, random.bytes(1 + random.below(5000)));
    std::set<Hash> before;
    for (const std::string& chunk : cut_all(data, data.size())) before.insert(sha256(chunk));
    size_t changed = 0;
    for (const std::string& chunk : cut_all(edited, edited.size())) {
      if (!before.contains(sha256(chunk))) ++changed;
    }
    EXPECT_LE(changed, 6u) << "insertion at " << at;
  }
}

TEST(Chunker, RepeatedBytesAreCutAtTheMaximum) {
  std::vector<std::string> chunks = cut_all(std::string(3 * kMaxChunk + 5, 'x'), 1u << 16);
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_EQ(chunks[0].size(), kMaxChunk);
  EXPECT_TRUE(is_natural_cut(chunks[0]));
  EXPECT_EQ(chunks[3].size(), 5u);
}

TEST(Chunker, RefusesCutsThatAClientInvented) {
  std::string data = SeededRandom(4).bytes(4u << 20);
  std::string_view all = data;
  size_t first = find_cut(all);
  size_t second = find_cut(all.substr(first));
  EXPECT_TRUE(is_natural_cut(all.substr(0, first)));
  EXPECT_FALSE(is_natural_cut(all.substr(0, first - 1)));
  EXPECT_FALSE(is_natural_cut(all.substr(0, first + 1)));
  EXPECT_FALSE(is_natural_cut(all.substr(0, first + second)));
  EXPECT_FALSE(is_natural_cut(""));
  EXPECT_FALSE(is_natural_cut(all.substr(0, 10)));
  EXPECT_TRUE(is_valid_last(all.substr(0, 10)));
  EXPECT_TRUE(is_valid_last(all.substr(0, first)));
  EXPECT_FALSE(is_valid_last(all.substr(0, first + 1)));
  EXPECT_FALSE(is_valid_last(""));
}

TEST(Chunker, ASinkErrorIsHandedOn) {
  std::string data(2 * kMaxChunk, 'x');
  Chunker chunker([](std::string_view) { return resource_exhausted("full"); });
  EXPECT_EQ(chunker.update(data).code(), Code::kResourceExhausted);
  chunker.reset();
  EXPECT_TRUE(chunker.update("a").ok());
  EXPECT_EQ(chunker.finish().code(), Code::kResourceExhausted);
  EXPECT_TRUE(chunker.finish().ok());
}

}  // namespace
}  // namespace qanat::chunk
