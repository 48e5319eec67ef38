#include "qanat/chunk/pack.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "qanat/base/bytes.h"
#include "qanat/base/random.h"

namespace qanat::chunk {
namespace {

struct Written {
  std::string bytes;
  std::string footer;
  std::vector<std::pair<BlobRef, std::string>> blobs;
};

Written build(uint64_t seed, size_t count) {
  SeededRandom random(seed);
  Written written;
  Encoder encoder;
  PackWriter writer(
      [&](std::string_view piece) -> Status {
        written.bytes += piece;
        return ok_status();
      },
      &encoder);
  for (size_t i = 0; i < count; ++i) {
    std::string plain = random.below(2) != 0
                            ? random.bytes(random.below(300))
                            : std::string(random.below(3000), static_cast<char>(i));
    BlobRef ref = name_blob(i % 3 == 0 ? BlobKind::kNode : BlobKind::kChunk, plain);
    EXPECT_TRUE(writer.add(ref, plain).ok());
    written.blobs.emplace_back(ref, plain);
  }
  Result<PackFooter> footer = writer.finish(&written.footer);
  EXPECT_TRUE(footer.ok());
  EXPECT_EQ(footer->pack_length(), written.bytes.size());
  EXPECT_EQ(writer.size(), written.bytes.size());
  return written;
}

TEST(Pack, HoldsWhatWasWritten) {
  Written written = build(1, 60);
  EXPECT_TRUE(verify_pack(written.bytes).ok());
  Result<PackFooter> footer = parse_pack_trailer(
      std::string_view(written.bytes).substr(written.bytes.size() - kPackTrailerLength),
      written.bytes.size());
  ASSERT_TRUE(footer.ok());
  EXPECT_EQ(written.bytes.substr(footer->segment_offset, footer->segment_length), written.footer);
  Result<SegmentView> view = SegmentView::open(written.footer);
  ASSERT_TRUE(view.ok());
  for (const auto& [ref, plain] : written.blobs) {
    auto value = view->find(blob_key(ref));
    ASSERT_TRUE(value.has_value());
    Result<BlobLocation> location = parse_location(*value);
    ASSERT_TRUE(location.ok());
    EXPECT_FALSE(location->pack.has_value());
    Result<std::string> read = open_blob(
        ref, *location,
        std::string_view(written.bytes).substr(location->offset, location->stored_length));
    ASSERT_TRUE(read.ok()) << read.status().to_string();
    EXPECT_EQ(*read, plain);
  }
}

TEST(Pack, TheSameBlobIsWrittenOnce) {
  Encoder encoder;
  std::string bytes;
  PackWriter writer(
      [&](std::string_view piece) -> Status {
        bytes += piece;
        return ok_status();
      },
      &encoder);
  BlobRef ref = name_blob(BlobKind::kChunk, "hello");
  uint64_t offset = writer.add(ref, "hello")->offset;
  EXPECT_EQ(writer.add(ref, "hello")->offset, offset);
  EXPECT_EQ(writer.blobs(), 1u);
  // The same bytes as another kind are another blob.
  EXPECT_NE(writer.add(name_blob(BlobKind::kNode, "hello"), "hello")->offset, offset);
  ASSERT_TRUE(writer.finish().ok());
  EXPECT_TRUE(verify_pack(bytes).ok());
}

TEST(Pack, AnEmptyPackIsAPack) { EXPECT_TRUE(verify_pack(build(1, 0).bytes).ok()); }

TEST(Pack, EveryFlippedBitIsFoundOrChangesNothing) {
  Written written = build(2, 25);
  // A few bits of a zstd frame's header say nothing (a window size, say): flipping one of those
  // leaves the plain bytes as they are. Everywhere else a flip must be found.
  std::vector<bool> in_frame(written.bytes.size());
  ASSERT_TRUE(SegmentView::open(written.footer)
                  ->for_each([&](const SegmentEntry& entry) -> Status {
                    BlobLocation location = *parse_location(entry.value);
                    for (size_t i = 0; location.codec == Codec::kZstd && i < location.stored_length;
                         ++i) {
                      in_frame[location.offset + i] = true;
                    }
                    return ok_status();
                  })
                  .ok());
  size_t harmless = 0;
  for (size_t i = 0; i < written.bytes.size(); ++i) {
    std::string bad = written.bytes;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    Status status = verify_pack(bad);  // hashes every blob
    if (status.ok() && in_frame[i]) {
      ++harmless;
      continue;
    }
    ASSERT_EQ(status.code(), Code::kDataLoss) << "byte " << i;
  }
  EXPECT_LT(harmless, 20u);
}

TEST(Pack, EveryTruncationIsFound) {
  std::string bytes = build(3, 6).bytes;
  for (size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_EQ(verify_pack(std::string_view(bytes).substr(0, length)).code(), Code::kDataLoss);
  }
}

TEST(Pack, ABlobUnderAnotherNameIsRefused) {
  BlobRef ref = name_blob(BlobKind::kChunk, "right");
  BlobLocation location{std::nullopt, 8, 5, 5, Codec::kRaw};
  EXPECT_EQ(*open_blob(ref, location, "right"), "right");
  EXPECT_EQ(open_blob(ref, location, "wrong").code(), Code::kDataLoss);
  EXPECT_EQ(open_blob(ref, location, "righ").code(), Code::kDataLoss);
}

TEST(Pack, LocationsRoundTripAndAreStrict) {
  BlobLocation here{std::nullopt, 8, 100, 1000, Codec::kZstd};
  BlobLocation there{PackId{77, {1, 2, 3}}, 1u << 23, 5, 5, Codec::kRaw};
  for (const BlobLocation& location : {here, there}) {
    std::string bytes = encode_location(location);
    Result<BlobLocation> back = parse_location(bytes);
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->pack, location.pack);
    EXPECT_EQ(back->offset, location.offset);
    EXPECT_EQ(back->stored_length, location.stored_length);
    EXPECT_EQ(back->plain_length, location.plain_length);
    EXPECT_EQ(back->codec, location.codec);
    EXPECT_EQ(parse_location(bytes + "x").code(), Code::kDataLoss);
    for (size_t length = 0; length < bytes.size(); ++length) {
      EXPECT_EQ(parse_location(std::string_view(bytes).substr(0, length)).code(), Code::kDataLoss);
    }
  }
  here.stored_length = 2000;  // more than plain
  EXPECT_EQ(parse_location(encode_location(here)).code(), Code::kDataLoss);
  there.stored_length = 4;  // raw, but not as long as plain
  EXPECT_EQ(parse_location(encode_location(there)).code(), Code::kDataLoss);
}

TEST(BlobRef, KeysKeepKindsApart) {
  BlobRef chunk = name_blob(BlobKind::kChunk, "same");
  BlobRef node = name_blob(BlobKind::kNode, "same");
  EXPECT_EQ(chunk.hash, node.hash);
  EXPECT_NE(blob_key(chunk), blob_key(node));
  EXPECT_EQ(*parse_blob_key(blob_key(node)), node);
  EXPECT_EQ(parse_blob_key(blob_key(node) + "x").code(), Code::kDataLoss);
  EXPECT_EQ(parse_blob_key(std::string(33, '\3')).code(), Code::kDataLoss);
  EXPECT_TRUE(verify_blob(node, "same").ok());
  EXPECT_EQ(verify_blob(node, "sane").code(), Code::kDataLoss);
}

}  // namespace
}  // namespace qanat::chunk
