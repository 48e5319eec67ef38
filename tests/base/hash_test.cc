#include "qanat/base/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <unordered_set>

#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/random.h"

namespace qanat {
namespace {

TEST(Hash, Sha256OfKnownTexts) {  // FIPS 180-4 examples
  EXPECT_EQ(sha256("").to_hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc").to_hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Hash, StreamingEqualsOneShot) {
  Sha256 hasher;
  hasher.update("ab");
  hasher.update("");
  hasher.update("c");
  EXPECT_EQ(hasher.finish(), sha256("abc"));
  hasher.update("abc");
  EXPECT_EQ(hasher.finish(), sha256("abc")) << "finish starts afresh";
  Sha256 moved = std::move(hasher);
  moved.update("abc");
  EXPECT_EQ(moved.finish(), sha256("abc"));
}

TEST(Hash, TextAndOrder) {
  const Hash hash = sha256("abc");
  EXPECT_EQ(*Hash::from_hex(hash.to_hex()), hash);
  EXPECT_EQ(*Hash::from_bytes(hash.view()), hash);
  EXPECT_EQ(Hash::from_hex("ab").code(), Code::kInvalidArgument);
  EXPECT_EQ(Hash::from_hex(std::string(64, 'x')).code(), Code::kInvalidArgument);
  EXPECT_EQ(Hash::from_bytes("ab").code(), Code::kDataLoss);
  EXPECT_TRUE(Hash{}.is_zero());
  EXPECT_FALSE(hash.is_zero());
  std::set<Hash> ordered;
  std::set<std::string> ordered_texts;
  std::unordered_set<Hash> table;
  for (int i = 0; i < 100; ++i) {
    const Hash item = sha256(std::to_string(i));
    ordered.insert(item);
    ordered_texts.insert(item.to_hex());
    table.insert(item);
  }
  EXPECT_EQ(table.size(), 100U);
  auto text = ordered_texts.begin();
  for (const Hash& item : ordered) EXPECT_EQ(item.to_hex(), *text++);
}

TEST(Hash, Hmac) {  // RFC 4231, case 2
  EXPECT_EQ(hmac_sha256("Jefe", "what do ya want for nothing?").to_hex(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hmac_sha256("", "").to_hex(),
            "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST(Hash, ConstantTimeCompare) {
  EXPECT_TRUE(equal_constant_time("secret", "secret"));
  EXPECT_FALSE(equal_constant_time("secret", "secreT"));
  EXPECT_FALSE(equal_constant_time("secret", "secre"));
  EXPECT_TRUE(equal_constant_time("", ""));
}

TEST(Hash, Xxh3IsPartOfFormatsAndNeverChanges) {
  EXPECT_EQ(to_hex16(hash64("")), "2d06800538d394c2");
  EXPECT_EQ(to_hex16(hash64("abc")), "78af5f94892f3950");
  Hasher64 hasher;
  hasher.update("a");
  hasher.update("bc");
  EXPECT_EQ(hasher.finish(), hash64("abc"));
  hasher.update("");
  EXPECT_EQ(hasher.finish(), hash64(""));
}

TEST(Hash, ThreadsDoNotDisturbEachOther) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      const std::string text(1000 + static_cast<size_t>(t), 'x');
      const Hash expected = sha256(text);
      for (int i = 0; i < 200; ++i) ASSERT_EQ(sha256(text), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Id, AreFreshAndRecognized) {
  const std::string id = random_id();
  EXPECT_TRUE(is_id(id));
  EXPECT_NE(id, random_id());
  EXPECT_FALSE(is_id("abc"));
  EXPECT_FALSE(is_id(std::string(32, 'A')));
  EXPECT_FALSE(is_id(std::string(33, 'a')));
  SeededRandom one(1);
  SeededRandom same(1);
  EXPECT_EQ(random_id(one), random_id(same));
}

TEST(Random, SeedFixesTheStream) {
  SeededRandom a(1);
  SeededRandom b(1);
  SeededRandom c(2);
  EXPECT_EQ(a.bytes(100), b.bytes(100));
  EXPECT_NE(a.bytes(100), c.bytes(100));
}

TEST(Random, BelowIsInRangeAndReachesAll) {
  SeededRandom random(3);
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.below(7));
  EXPECT_EQ(seen.size(), 7U);
  EXPECT_EQ(*seen.rbegin(), 6U);
  EXPECT_EQ(random.below(1), 0U);
  EXPECT_NE(system_random().u64(), system_random().u64());
}

}  // namespace
}  // namespace qanat
