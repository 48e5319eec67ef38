#include "qanat/chunk/codec.h"

#include <gtest/gtest.h>

#include <string>

#include "qanat/base/random.h"
#include "qanat/chunk/blob_ref.h"

namespace qanat::chunk {
namespace {

TEST(Codec, CompressesWhereItHelps) {
  Encoder encoder;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "line " + std::to_string(i) + "\n";
  Encoded encoded = encoder.encode(text);
  EXPECT_EQ(encoded.codec, Codec::kZstd);
  EXPECT_LE(encoded.bytes.size(), text.size() - text.size() / 16);
  EXPECT_EQ(*decode(encoded.codec, encoded.bytes, text.size()), text);
}

TEST(Codec, KeepsWhatDoesNotCompress) {
  Encoder encoder;
  std::string noise = SeededRandom(1).bytes(100'000);
  Encoded encoded = encoder.encode(noise);
  EXPECT_EQ(encoded.codec, Codec::kRaw);
  EXPECT_EQ(encoded.bytes.data(), noise.data());
  EXPECT_EQ(*decode(encoded.codec, encoded.bytes, noise.size()), noise);
  EXPECT_EQ(encoder.encode("").codec, Codec::kRaw);
  EXPECT_EQ(*decode(Codec::kRaw, "", 0), "");
}

TEST(Codec, RoundTripsEveryKindOfBytes) {
  SeededRandom random(2);
  Encoder encoder;
  for (int round = 0; round < 300; ++round) {
    // Runs of repeated and of random bytes, in changing shares.
    std::string plain;
    size_t parts = random.below(20);
    for (size_t i = 0; i < parts; ++i) {
      size_t length = random.below(3000);
      plain += random.below(2) != 0 ? random.bytes(length) : std::string(length, 'r');
    }
    Encoded encoded = encoder.encode(plain);
    Result<std::string> back = decode(encoded.codec, encoded.bytes, plain.size());
    ASSERT_TRUE(back.ok()) << back.status().to_string();
    ASSERT_EQ(*back, plain);
  }
}

TEST(Codec, RefusesWrongLengthsAndTrailingBytes) {
  Encoder encoder;
  std::string text(10'000, 'a');
  std::string stored(encoder.encode(text).bytes);
  EXPECT_EQ(decode(Codec::kZstd, stored, text.size() - 1).code(), Code::kDataLoss);
  EXPECT_EQ(decode(Codec::kZstd, stored, text.size() + 1).code(), Code::kDataLoss);
  EXPECT_EQ(decode(Codec::kZstd, stored + "x", text.size()).code(), Code::kDataLoss);
  EXPECT_EQ(decode(Codec::kZstd, stored + stored, text.size()).code(), Code::kDataLoss);
  EXPECT_EQ(decode(Codec::kZstd, stored.substr(0, stored.size() - 1), text.size()).code(),
            Code::kDataLoss);
  EXPECT_EQ(decode(Codec::kZstd, "", 0).code(), Code::kDataLoss);
  EXPECT_EQ(decode(Codec::kRaw, "abc", 4).code(), Code::kDataLoss);
  EXPECT_EQ(decode(static_cast<Codec>(9), "abc", 3).code(), Code::kDataLoss);
  EXPECT_EQ(decode(Codec::kZstd, stored, uint64_t{kMaxBlobLength} + 1).code(), Code::kDataLoss);
}

}  // namespace
}  // namespace qanat::chunk
