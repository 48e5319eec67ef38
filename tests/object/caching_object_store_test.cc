#include "qanat/object/caching_object_store.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "qanat/base/string.h"

namespace qanat::object {
namespace {

// Far away: counts what it is asked for.
struct Asked {
  std::atomic<int> reads{0};
  std::atomic<int64_t> bytes{0};
  std::atomic<int> sizes{0};
};

class FarStore : public ObjectStore {
 public:
  FarStore(std::map<std::string, std::string, std::less<>>* objects, Asked* asked)
      : objects_(objects), asked_(asked) {}

  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key, CreateOptions) override {
    return std::unique_ptr<ObjectWriter>(new Writer(this, std::string(key)));
  }
  Result<std::string> read(std::string_view key, int64_t offset, int64_t length) const override {
    ++asked_->reads;
    asked_->bytes += length;
    std::lock_guard lock(mutex_);
    auto found = objects_->find(key);
    if (found == objects_->end()) return not_found("no such object");
    if (offset + length > static_cast<int64_t>(found->second.size())) return data_loss("too short");
    return found->second.substr(static_cast<size_t>(offset), static_cast<size_t>(length));
  }
  Result<int64_t> size(std::string_view key) const override {
    ++asked_->sizes;
    std::lock_guard lock(mutex_);
    auto found = objects_->find(key);
    if (found == objects_->end()) return not_found("no such object");
    return static_cast<int64_t>(found->second.size());
  }
  Status remove(std::string_view key) override {
    std::lock_guard lock(mutex_);
    objects_->erase(std::string(key));
    return ok_status();
  }
  Status list(std::string_view, const Visitor&) const override { return ok_status(); }
  std::string describe() const override { return "far"; }

 private:
  class Writer : public ObjectWriter {
   public:
    Writer(FarStore* store, std::string key) : store_(store), key_(std::move(key)) {}
    Status append(std::string_view bytes) override {
      bytes_ += bytes;
      return ok_status();
    }
    Status finish() override {
      std::lock_guard lock(store_->mutex_);
      (*store_->objects_)[key_] = bytes_;
      return ok_status();
    }
    void abort() override {}
    int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }

   private:
    FarStore* store_;
    std::string key_;
    std::string bytes_;
  };

  std::map<std::string, std::string, std::less<>>* objects_;
  Asked* asked_;
  mutable std::mutex mutex_;
};

std::string random_bytes(uint64_t seed, size_t length) {
  std::mt19937_64 random(seed);
  std::string bytes(length, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class Caching : public testing::Test {
 protected:
  Caching() {
    std::string name = testing::TempDir() + "qanat-cache-XXXXXX";
    folder_ = mkdtemp(name.data());
    open(64 << 20);
  }
  ~Caching() override {
    cache_.reset();
    EXPECT_TRUE(posix_file_system().remove_tree(folder_).ok());
  }

  void open(uint64_t capacity) {
    cache_.reset();
    auto opened = CachingObjectStore::open(std::make_unique<FarStore>(&objects_, &asked_),
                                           posix_file_system(), folder_, capacity);
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    cache_ = *std::move(opened);
  }

  std::string read(std::string_view key, int64_t offset, int64_t length) {
    auto got = cache_->read(key, offset, length);
    EXPECT_TRUE(got.ok()) << got.status().to_string();
    return got.ok() ? *got : "";
  }

  std::vector<std::string> cache_files() {
    std::vector<std::string> found;
    const auto folders = posix_file_system().list(folder_);
    for (const auto& folder : *folders) {
      if (!folder.is_directory) continue;
      const auto files = posix_file_system().list(folder_ + "/" + folder.name);
      for (const auto& file : *files) {
        found.push_back(str_cat(folder_, "/", folder.name, "/", file.name));
      }
    }
    return found;
  }

  std::string folder_;
  std::map<std::string, std::string, std::less<>> objects_;
  Asked asked_;
  std::unique_ptr<CachingObjectStore> cache_;
};

TEST_F(Caching, RepeatsComeFromTheDisk) {
  const std::string bytes = random_bytes(1, 3'000'000);
  objects_["packs/a"] = bytes;
  std::mt19937_64 random(2);
  for (int round = 0; round < 300; ++round) {
    const auto offset = static_cast<int64_t>(random() % bytes.size());
    const auto length =
        static_cast<int64_t>(1 + random() % std::min<uint64_t>(bytes.size() - offset, 700'000));
    ASSERT_TRUE(read("packs/a", offset, length) == bytes.substr(offset, length));
  }
  EXPECT_EQ(asked_.bytes, 3'000'000);
  EXPECT_LE(asked_.reads, 12);
  EXPECT_EQ(asked_.sizes, 1);
  const int reads = asked_.reads;
  open(64 << 20);  // survives a restart
  EXPECT_TRUE(read("packs/a", 0, 3'000'000) == bytes);
  EXPECT_EQ(asked_.reads, reads);
  EXPECT_EQ(asked_.sizes, 1);
}

TEST_F(Caching, WhatIsWrittenIsThereAtOnce) {
  const std::string bytes = random_bytes(3, 1'000'000);
  auto writer = cache_->create("packs/new");
  ASSERT_TRUE(writer.ok());
  for (size_t at = 0; at < bytes.size(); at += 70'001) {
    ASSERT_TRUE((*writer)->append(std::string_view(bytes).substr(at, 70'001)).ok());
  }
  ASSERT_TRUE((*writer)->finish().ok());
  writer->reset();
  EXPECT_TRUE(read("packs/new", 5, 999'995) == bytes.substr(5));
  EXPECT_EQ(*cache_->size("packs/new"), 1'000'000);
  EXPECT_EQ(asked_.reads + asked_.sizes, 0);
  // One that is given up is not.
  writer = cache_->create("packs/given-up");
  ASSERT_TRUE((*writer)->append(bytes).ok());
  (*writer)->abort();
  writer->reset();
  EXPECT_EQ(cache_->read("packs/given-up", 0, 10).status().code(), Code::kNotFound);
}

TEST_F(Caching, IsBounded) {
  open(16 << 20);
  for (int i = 0; i < 20; ++i) objects_[str_cat("packs/", i)] = random_bytes(i, 2 << 20);
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(read(str_cat("packs/", i), 0, 2 << 20) == objects_[str_cat("packs/", i)]);
    EXPECT_TRUE(read("packs/0", 0, 10) == objects_["packs/0"].substr(0, 10));
    EXPECT_LE(cache_->cached_bytes(), 16u << 20);
  }
  uint64_t found = 0;
  for (const std::string& file : cache_files()) found += posix_file_system().stat(file)->size;
  EXPECT_LE(found, 16u << 20);
  EXPECT_GE(found, 14u << 20);
  const int reads = asked_.reads;
  EXPECT_TRUE(read("packs/0", 0, 1000) == objects_["packs/0"].substr(0, 1000));  // used all along
  EXPECT_TRUE(read("packs/19", 0, 1000) == objects_["packs/19"].substr(0, 1000));
  EXPECT_EQ(asked_.reads, reads);
  (void)read("packs/3", 0, 1000);
  EXPECT_GT(asked_.reads, reads);
}

// Every byte of a cache file flipped, and every truncation of it (some of them): never wrong data.
TEST_F(Caching, DamageIsAMiss) {
  objects_["packs/a"] = random_bytes(7, 3000);
  std::mt19937_64 random(8);
  for (int round = 0; round < 200; ++round) {
    ASSERT_TRUE(read("packs/a", 10, 2000) == objects_["packs/a"].substr(10, 2000));
    const std::vector<std::string> files = cache_files();
    ASSERT_EQ(files.size(), 1u);
    std::string file = *posix_file_system().read_file(files[0]);
    if (round % 4 == 0) {
      file.resize(random() % file.size());
    } else {
      file[random() % file.size()] ^= static_cast<char>(1 << random() % 8);
    }
    ASSERT_TRUE(posix_file_system().write_file_durably(files[0], file).ok());
    if (round % 10 == 0) open(64 << 20);
  }
}

TEST_F(Caching, ErrorsAreTheStores) {
  objects_["packs/a"] = random_bytes(7, 3000);
  EXPECT_EQ(cache_->read("packs/b", 0, 10).status().code(), Code::kNotFound);
  EXPECT_EQ(cache_->read("packs/a", 2990, 11).status().code(), Code::kDataLoss);
  EXPECT_TRUE(read("packs/a", 2990, 10) == objects_["packs/a"].substr(2990));
  EXPECT_EQ(cache_->read("packs/a", 2990, 11).status().code(), Code::kDataLoss);
  ASSERT_TRUE(cache_->remove("packs/a").ok());
  EXPECT_EQ(cache_->read("packs/a", 0, 10).status().code(), Code::kNotFound);
  EXPECT_EQ(CachingObjectStore::open(std::make_unique<FarStore>(&objects_, &asked_),
                                     posix_file_system(), folder_, 64 << 20)
                .status()
                .code(),
            Code::kFailedPrecondition);
}

TEST_F(Caching, ManyReadersFetchABlockOnce) {
  const std::string bytes = random_bytes(4, 8 << 20);
  objects_["packs/a"] = bytes;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      for (int i = 0; i < 60; ++i) {
        const auto offset = static_cast<int64_t>(random() % (bytes.size() - 600'000));
        const auto length = static_cast<int64_t>(1 + random() % 600'000);
        auto got = cache_->read("packs/a", offset, length);
        if (!got.ok() || *got != bytes.substr(offset, length)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(asked_.bytes, 8 << 20);
}

}  // namespace
}  // namespace qanat::object
