#include "qanat/content/ordered_reader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <vector>

#include "content/memory_blobs.h"
#include "qanat/content/file_writer.h"

namespace qanat::content {
namespace {

// Reads by several threads at once; counts, and can fail.
class SharedBlobs : public BlobReader {
 public:
  explicit SharedBlobs(MemoryBlobs& blobs) : blobs_(blobs.blobs()) {}

  Result<Blob> read(const BlobRef& ref) override {
    if (ref.kind == BlobKind::kChunk && ++chunks_read == fail_at) return unavailable("no answer");
    auto found = blobs_.find(ref);
    if (found == blobs_.end()) return data_loss("missing");
    return found->second;
  }

  std::atomic<int> chunks_read{0};
  int fail_at = 0;

 private:
  const std::unordered_map<BlobRef, Blob, chunk::BlobRefHasher>& blobs_;
};

class Collect : public OrderedReader::Sink {
 public:
  Status begin_file(std::string_view path) override {
    EXPECT_FALSE(open_);
    open_ = true;
    files.emplace_back(path, "");
    return ok_status();
  }
  Status data(std::string_view bytes) override {
    EXPECT_TRUE(open_);
    files.back().second += bytes;
    if (fail_after > 0 && --fail_after == 0) return unavailable("the other side went away");
    return ok_status();
  }
  Status end_file() override {
    EXPECT_TRUE(open_);
    open_ = false;
    return ok_status();
  }

  std::vector<std::pair<std::string, std::string>> files;
  int fail_after = 0;

 private:
  bool open_ = false;
};

std::string random_bytes(std::mt19937_64& random, size_t length) {
  std::string bytes(length, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class Ordered : public testing::TestWithParam<bool> {
 protected:
  Ordered() {
    std::mt19937_64 random(1);
    for (int i = 0; i < 3000; ++i) add(random_bytes(random, random() % 500));
    for (int i = 0; i < 20; ++i) add(random_bytes(random, random() % 200'000));
    add(random_bytes(random, 9'000'000));
    for (int i = 0; i < 10; ++i) add("");
    add(random_bytes(random, 1'000'000));
    if (GetParam()) pool_.emplace("readers", 3, 4);
  }

  void add(const std::string& bytes) {
    expected_.emplace_back("f" + std::to_string(expected_.size()), bytes);
    refs_.push_back(must(write_file(blobs_, bytes)));
  }

  ThreadPool* pool() { return pool_ ? &*pool_ : nullptr; }

  Status read_all(SharedBlobs& shared, Collect& sink) {
    OrderedReader reader(shared, pool(), sink);
    for (size_t i = 0; i < refs_.size(); ++i) {
      QANAT_RETURN_IF_ERROR(reader.add(expected_[i].first, refs_[i]));
    }
    return reader.finish();
  }

  MemoryBlobs blobs_;
  std::vector<std::pair<std::string, std::string>> expected_;
  std::vector<FileRef> refs_;
  std::optional<ThreadPool> pool_;
};

TEST_P(Ordered, EverythingInOrder) {
  SharedBlobs shared(blobs_);
  Collect sink;
  must(read_all(shared, sink));
  ASSERT_EQ(sink.files.size(), expected_.size());
  for (size_t i = 0; i < expected_.size(); ++i) ASSERT_TRUE(sink.files[i] == expected_[i]) << i;
}

TEST_P(Ordered, RangesTouchOnlyTheirChunks) {
  SharedBlobs shared(blobs_);
  const size_t large = 3020;
  const std::string& bytes = expected_[large].second;
  std::mt19937_64 random(2);
  for (int i = 0; i < 100; ++i) {
    const uint64_t offset = random() % (bytes.size() + 10);
    const uint64_t length = i % 3 == 0 ? random() % 3'000'000 : random() % 100;
    shared.chunks_read = 0;
    Collect sink;
    OrderedReader reader(shared, pool(), sink);
    must(reader.add_range("large", refs_[large], offset, length));
    must(reader.finish());
    ASSERT_EQ(sink.files.size(), 1u);
    ASSERT_TRUE(sink.files[0].second ==
                (offset < bytes.size() ? bytes.substr(offset, length) : std::string()));
    ASSERT_LE(shared.chunks_read, static_cast<int>(2 + length / (64u << 10)));
  }
}

// An error comes after all that was before it, and nothing after it.
TEST_P(Ordered, ErrorsComeInTheirPlace) {
  for (const int fail_at : {1, 2, 700, 2990, 3030}) {
    SharedBlobs shared(blobs_);
    shared.fail_at = fail_at;
    Collect sink;
    EXPECT_EQ(read_all(shared, sink).code(), Code::kUnavailable);
    ASSERT_LE(sink.files.size(), expected_.size());
    for (size_t i = 0; i + 1 < sink.files.size(); ++i) {
      ASSERT_TRUE(sink.files[i] == expected_[i]) << i;
    }
  }
  for (const int fail_after : {1, 500, 3010, 3025}) {
    SharedBlobs shared(blobs_);
    Collect sink;
    sink.fail_after = fail_after;
    EXPECT_EQ(read_all(shared, sink).code(), Code::kUnavailable);
  }
}

TEST_P(Ordered, GivenUpInTheMiddle) {
  SharedBlobs shared(blobs_);
  Collect sink;
  OrderedReader reader(shared, pool(), sink);
  for (size_t i = 0; i < 3021; ++i) must(reader.add(expected_[i].first, refs_[i]));
}

INSTANTIATE_TEST_SUITE_P(Threads, Ordered, testing::Bool());

}  // namespace
}  // namespace qanat::content
