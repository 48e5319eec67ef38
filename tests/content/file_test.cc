#include <gtest/gtest.h>

#include <random>

#include "content/memory_blobs.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"

namespace qanat::content {
namespace {

std::string random_bytes(uint64_t seed, size_t length) {
  std::mt19937_64 random(seed);
  std::string bytes(length, '\0');
  for (size_t i = 0; i < length; i += 8) {
    const uint64_t word = random();
    memcpy(bytes.data() + i, &word, std::min<size_t>(8, length - i));
  }
  return bytes;
}

constexpr size_t kAll = 1u << 30;

TEST(FileRef, BytesAndText) {
  MemoryBlobs blobs;
  const FileRef empty = must(write_file(blobs, ""));
  const FileRef small = must(write_file(blobs, "hello"));
  const FileRef large = must(write_file(blobs, random_bytes(1, 3u << 20)));
  EXPECT_EQ(empty, FileRef{});
  EXPECT_EQ(small.kind, BlobKind::kChunk);
  EXPECT_EQ(small.hash, sha256("hello"));
  EXPECT_EQ(large.kind, BlobKind::kNode);
  for (const FileRef& file : {empty, small, large}) {
    EXPECT_EQ(must(FileRef::decode(file.encode())), file);
    EXPECT_EQ(must(FileRef::from_text(file.to_text())), file);
    EXPECT_FALSE(FileRef::decode(file.encode() + "x").ok());
    EXPECT_FALSE(FileRef::decode(file.encode().substr(1)).ok());
  }
  EXPECT_NE(empty.content_id(), small.content_id());
  // A chunk and a node of one hash are two contents.
  FileRef other = large;
  other.kind = BlobKind::kChunk;
  EXPECT_NE(other.content_id(), large.content_id());
}

TEST(File, RoundTripOfManySizes) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{65535}, size_t{65536}, size_t{65537},
                      size_t{1} << 20, (size_t{1} << 20) + 1, size_t{7000000}}) {
    MemoryBlobs blobs;
    for (bool constant : {false, true}) {
      const std::string bytes = constant ? std::string(size, 'x') : random_bytes(size, size);
      const FileRef file = must(write_file(blobs, bytes));
      EXPECT_EQ(file.size, size);
      EXPECT_TRUE(must(FileReader(blobs, file).read_all(kAll)) == bytes) << size;
      // In pieces of any size.
      FileWriter writer(blobs);
      std::mt19937_64 random(size);
      for (size_t at = 0; at < size;) {
        const size_t piece = 1 + random() % 300000;
        must(writer.append(std::string_view(bytes).substr(at, piece)));
        at += piece;
      }
      EXPECT_EQ(must(writer.finish()), file);
      // The writer is free for the next file.
      EXPECT_EQ(must(writer.finish()), FileRef{});
    }
  }
}

TEST(File, AppendsGiveTheSameFile) {
  MemoryBlobs blobs;
  std::mt19937_64 random(11);
  for (int round = 0; round < 4; ++round) {
    std::string all;
    FileRef file;
    for (int i = 0; i < 12; ++i) {
      const size_t length = random() % 4 == 0 ? random() % 3000000 : random() % 50000;
      const std::string piece =
          random() % 3 == 0 ? std::string(length, 'z') : random_bytes(random(), length);
      all += piece;
      file = must(concat_files(blobs, file, must(write_file(blobs, piece))));
      ASSERT_EQ(file.size, all.size());
    }
    EXPECT_EQ(file, must(write_file(blobs, all)));
    EXPECT_TRUE(must(FileReader(blobs, file).read_all(kAll)) == all);
  }
}

TEST(File, ConcatenationCostsAFewChunks) {
  MemoryBlobs blobs;
  const std::string a = random_bytes(1, 20u << 20);
  const std::string b = random_bytes(2, 24u << 20);
  const FileRef file_a = must(write_file(blobs, a));
  const FileRef file_b = must(write_file(blobs, b));
  blobs.reset_counts();
  const FileRef both = must(concat_files(blobs, file_a, file_b));
  EXPECT_LE(blobs.chunks_read, 12u);
  EXPECT_LE(blobs.chunks_written, 12u);
  EXPECT_LE(blobs.nodes_read, 16u);
  EXPECT_EQ(both, must(write_file(blobs, a + b)));

  blobs.reset_counts();
  FileWriter append(blobs);
  must(append.append_file(both));
  must(append.append("the end"));
  const FileRef longer = must(append.finish());
  EXPECT_LE(blobs.chunks_read, 1u);
  EXPECT_LE(blobs.chunks_written, 2u);
  EXPECT_LE(blobs.nodes_written, 6u);
  EXPECT_EQ(longer, must(write_file(blobs, a + b + "the end")));

  // Taking a file over unchanged reads no chunk at all.
  blobs.reset_counts();
  EXPECT_EQ(must(concat_files(blobs, {}, both)), both);
  EXPECT_EQ(must(concat_files(blobs, both, {})), both);
  EXPECT_EQ(blobs.chunks_read + blobs.chunks_written, 0u);
}

TEST(File, RangesReadOnlyWhatTheyTouch) {
  MemoryBlobs blobs;
  const std::string bytes = random_bytes(5, 24u << 20);
  const FileRef file = must(write_file(blobs, bytes));
  std::mt19937_64 random(6);
  FileReader reader(blobs, file);
  for (int i = 0; i < 200; ++i) {
    const uint64_t offset = random() % (bytes.size() + 10);
    const uint64_t length = random() % 3 == 0 ? random() % 3000000 : random() % 100;
    blobs.reset_counts();
    std::string got;
    must(reader.read_range(offset, length, [&](std::string_view piece) {
      got += piece;
      return ok_status();
    }));
    ASSERT_TRUE(got == (offset < bytes.size() ? bytes.substr(offset, length) : std::string()));
    ASSERT_LE(blobs.chunks_read, 2 + length / (64u << 10));
    ASSERT_LE(blobs.nodes_read, 4u);

    uint64_t covered = offset;
    must(visit_chunks(blobs, file, offset, length,
                      [&](uint64_t begin, uint64_t size, const Hash& hash) {
                        EXPECT_LE(begin, covered);
                        EXPECT_GT(begin + size, covered);
                        EXPECT_EQ(sha256(std::string_view(bytes).substr(begin, size)), hash);
                        covered = begin + size;
                        return ok_status();
                      }));
    if (offset < bytes.size() && length > 0) {
      ASSERT_GE(covered, std::min<uint64_t>(offset + length, bytes.size()));
    }
  }
  EXPECT_EQ(FileReader(blobs, file).read_all(1000).status().code(), Code::kTooLarge);
  reader.seek(100);
  EXPECT_EQ(must(reader.next()).substr(0, 10), bytes.substr(100, 10));
  reader.seek(bytes.size() + 5);
  EXPECT_TRUE(must(reader.next()).empty());
}

TEST(File, AWrongSizeIsDataLoss) {
  MemoryBlobs blobs;
  FileRef file = must(write_file(blobs, "hello"));
  file.size = 6;
  EXPECT_EQ(FileReader(blobs, file).next().status().code(), Code::kDataLoss);
  FileRef large = must(write_file(blobs, random_bytes(1, 3u << 20)));
  large.size -= 1;
  EXPECT_EQ(FileReader(blobs, large).next().status().code(), Code::kDataLoss);
  EXPECT_EQ(concat_files(blobs, large, large).status().code(), Code::kDataLoss);
}

TEST(File, SinkErrorsAreHandedBack) {
  MemoryBlobs blobs;
  const FileRef file = must(write_file(blobs, "hello"));
  FileReader reader(blobs, file);
  EXPECT_EQ(reader.read_range(0, 5, [](std::string_view) { return cancelled("enough"); }).code(),
            Code::kCancelled);
}

}  // namespace
}  // namespace qanat::content
