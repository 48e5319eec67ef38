#include "qanat/content/uploads.h"

#include <gtest/gtest.h>

#include "content/content_disk.h"
#include "qanat/base/random.h"
#include "qanat/base/string.h"
#include "qanat/chunk/chunker.h"
#include "qanat/content/blob_store.h"
#include "qanat/content/epoch.h"
#include "qanat/content/file_writer.h"

namespace qanat::content {
namespace {

std::string random_text(size_t size, uint64_t seed) {
  SeededRandom random(seed);
  std::string text(size, '\0');
  random.fill(text.data(), text.size());
  return text;
}

std::vector<std::string> chunks_of(std::string_view bytes) {
  std::vector<std::string> chunks;
  chunk::Chunker chunker([&](std::string_view piece) {
    chunks.emplace_back(piece);
    return ok_status();
  });
  EXPECT_TRUE(chunker.update(bytes).ok());
  EXPECT_TRUE(chunker.finish().ok());
  return chunks;
}

TEST(Uploads, RecordsRoundTrip) {
  const UploadRecord record{7, 1234567890123, "me", "repo"};
  const std::string bytes = encode_upload(record);
  EXPECT_EQ(*parse_upload(bytes), record);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(parse_upload(std::string_view(bytes).substr(0, length)).ok());
  }
  EXPECT_FALSE(parse_upload(bytes + "x").ok());
}

TEST(Uploads, EndWithTheirRepoAndWhenNobodyUsesThem) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  const auto of_r = begin_upload(*disk.meta, "p", "r", "me", 5);
  const auto idle = begin_upload(*disk.meta, "p", "s", "me", 5);
  const auto used = begin_upload(*disk.meta, "p", "s", "me", 5);
  ASSERT_TRUE(of_r.ok() && idle.ok() && used.ok());
  ASSERT_TRUE(end_uploads_of(*disk.meta, "p", "r").ok());
  EXPECT_EQ(use_upload(*disk.meta, "p", of_r->id).code(), Code::kNotFound);
  // Less than what looks like a machine that slept, after which all leases begin anew.
  disk.clock.advance_ms(6'000);
  ASSERT_TRUE(use_upload(*disk.meta, "p", used->id).ok());
  EXPECT_EQ(*end_idle_uploads(*disk.meta, "q", 5'000), 0u);
  EXPECT_EQ(*end_idle_uploads(*disk.meta, "p", 5'000), 1u);
  EXPECT_EQ(use_upload(*disk.meta, "p", idle->id).code(), Code::kNotFound);
  EXPECT_TRUE(use_upload(*disk.meta, "p", used->id).ok());
}

TEST(Uploads, BeginUseEnd) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  const auto begun = begin_upload(*disk.meta, "p", "r", "me", 5);
  ASSERT_TRUE(begun.ok()) << begun.status().to_string();
  EXPECT_EQ(begun->record, (UploadRecord{0, 5, "me", "r"}));
  EXPECT_TRUE(is_upload_key(begun->key()));
  const auto used = use_upload(*disk.meta, "p", begun->id);
  ASSERT_TRUE(used.ok());
  EXPECT_EQ(used->record, begun->record);
  EXPECT_EQ(used->create_revision, begun->create_revision);
  EXPECT_EQ(use_upload(*disk.meta, "other", begun->id).code(), Code::kNotFound);
  EXPECT_EQ(use_upload(*disk.meta, "p", "../x").code(), Code::kNotFound);

  chunk::PackId pack{3, {}};
  pack.id[0] = 0xab;
  const auto noted =
      disk.meta->commit(meta::Transaction().when(used->alive()).add(used->note_pack(pack)));
  ASSERT_TRUE(noted.ok() && noted->succeeded);
  EXPECT_FALSE(is_upload_key(used->note_pack(pack).range.begin));
  EXPECT_EQ(*upload_packs(*disk.meta, *used), std::set<chunk::PackId>{pack});

  ASSERT_TRUE(end_upload(*disk.meta, *used).ok());
  EXPECT_EQ(use_upload(*disk.meta, "p", begun->id).code(), Code::kNotFound);
  EXPECT_TRUE(end_upload(*disk.meta, *used).ok());
  EXPECT_TRUE(disk.meta->range(meta::KeyRange::prefix(uploads_prefix("p")))->items.empty());
  // What counts on it does not happen any more.
  EXPECT_FALSE(
      disk.meta->commit(meta::Transaction().when(used->alive()).put("/v1/x", ""))->succeeded);
}

TEST(Uploads, SayTheEpochInWhichTheyBegan) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  ASSERT_TRUE(disk.meta->commit(meta::Transaction().put(epoch_key("p"), "000000000000002a")).ok());
  EXPECT_EQ(begin_upload(*disk.meta, "p", "r", "me", 5)->record.epoch, 42u);
}

// Expiring is the lease's end: meta's tests show that it comes when nobody renews it.
TEST(Uploads, EndWithTheirLease) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  const auto upload = begin_upload(*disk.meta, "p", "r", "me", 5);
  ASSERT_TRUE(upload.ok());
  EXPECT_EQ(disk.meta->lease_info(upload->lease)->ttl_ms, kUploadTtlMs);
  ASSERT_TRUE(disk.meta->commit(meta::Transaction().add(upload->note_pack({}))).ok());
  ASSERT_TRUE(disk.meta->revoke_lease(upload->lease).ok());
  EXPECT_EQ(use_upload(*disk.meta, "p", upload->id).code(), Code::kNotFound);
  EXPECT_TRUE(disk.meta->range(meta::KeyRange::prefix(uploads_prefix("p")))->items.empty());
}

// Collection condemns the pack that an edit names, before the edit asks or after.
TEST(Uploads, CondemnedPacksAreNotThere) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  auto writer = store.new_writer();
  const Hash hash = writer->add(BlobKind::kChunk, "chunk")->hash;
  ASSERT_TRUE(writer->flush().ok());
  meta::Transaction transaction;
  writer->add_to(&transaction);
  writer->committed(disk.meta->commit(std::move(transaction))->revision);

  auto early = store.new_writer();
  const auto known = early->find_chunks(std::span(&hash, 1));
  ASSERT_TRUE(known.ok() && (*known)[0].has_value());
  auto unconcerned = store.new_writer();
  ASSERT_TRUE(unconcerned->find_chunks(std::span(&hash, 1)).ok());
  early->rely_on(*(*known)[0]);
  const chunk::PackId pack = (*known)[0]->pack;
  const std::string object = pack_object_key("default", pack);
  ASSERT_TRUE(disk.meta
                  ->commit(meta::Transaction()
                               .put(epoch_key("default"), "0000000000000001")
                               .put(condemned_prefix("default") +
                                        object.substr(std::string_view("packs/default/").size()),
                                    ""))
                  .ok());
  for (ContentWriter* late : {early.get(), unconcerned.get()}) {
    ASSERT_TRUE(late->flush().ok());
    meta::Transaction edit;
    late->add_to(&edit);
    edit.put("/v1/root", "");
    EXPECT_FALSE(disk.meta->commit(std::move(edit))->succeeded);
  }
  EXPECT_EQ(early->recheck().code(), Code::kConflict);
  EXPECT_TRUE(unconcerned->recheck().ok());

  auto after = store.new_writer();
  EXPECT_FALSE((*after->find_chunks(std::span(&hash, 1)))[0].has_value());
  // So it is sent again, and then it is there.
  ASSERT_TRUE(after->add(BlobKind::kChunk, "chunk").ok());
  ASSERT_TRUE(after->flush().ok());
  meta::Transaction again;
  after->add_to(&again);
  const auto result = disk.meta->commit(std::move(again));
  ASSERT_TRUE(result->succeeded);
  after->committed(result->revision);
  EXPECT_TRUE((*store.new_writer()->find_chunks(std::span(&hash, 1)))[0].has_value());
}

// A file by the names of its chunks is the file by its bytes, wherever the names come in.
TEST(WritePipeline, ComposedFilesAreTheFilesOfTheirBytes) {
  ContentDisk disk;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  const std::string bytes = random_text(3'000'000, 1);
  const std::vector<std::string> chunks = chunks_of(bytes);
  ASSERT_GT(chunks.size(), 4u);
  auto writer = store.new_writer();
  const FileRef whole = *write_file(*writer, bytes);
  const FileRef shifted = *write_file(*writer, "head" + bytes);
  ASSERT_TRUE(writer->flush().ok());
  meta::Transaction transaction;
  writer->add_to(&transaction);
  writer->committed(disk.meta->commit(std::move(transaction))->revision);

  std::vector<Hash> hashes;
  for (const std::string& chunk : chunks) hashes.push_back(sha256(chunk));
  hashes.push_back(sha256("absent"));
  auto next = store.new_writer();
  const auto known = next->find_chunks(hashes);
  ASSERT_TRUE(known.ok());
  EXPECT_FALSE(known->back().has_value());
  const auto compose = [&](std::string_view head) {
    FileWriter file(*next);
    EXPECT_TRUE(file.append(head).ok());
    for (size_t i = 0; i < chunks.size(); ++i) {
      EXPECT_TRUE((*known)[i].has_value());
      EXPECT_EQ((*known)[i]->size, chunks[i].size());
      EXPECT_EQ((*known)[i]->ends_in_cut, i + 1 < chunks.size());
      EXPECT_TRUE(file.append_chunk(chunks[i].size(), hashes[i], (*known)[i]->ends_in_cut).ok());
    }
    return *file.finish();
  };
  EXPECT_EQ(compose(""), whole);
  EXPECT_EQ(compose("head"), shifted);
  // A last chunk in the middle is no chunk of the longer file.
  FileWriter twice(*next);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(twice.append_chunk(chunks.back().size(), hashes[chunks.size() - 1], false).ok());
  }
  EXPECT_EQ(*twice.finish(), *write_file(*next, chunks.back() + chunks.back()));
}

TEST(WritePipeline, ThreadsWriteWhatOneThreadWrites) {
  ContentDisk one;
  ContentDisk many;
  many.write_threads = 4;
  ASSERT_TRUE(one.open() && many.open());
  std::vector<FileRef> expected;
  for (ContentDisk* disk : {&one, &many}) {
    auto stores = disk->stores();
    ContentStore& store = **stores->project("default");
    auto writer = store.new_writer();
    std::vector<FileRef> files;
    for (int i = 0; i < 400; ++i) {
      const size_t size = i % 50 == 0 ? 2'000'000 : static_cast<size_t>(i * 7919 % 5000);
      std::string bytes = random_text(size, static_cast<uint64_t>(i));
      if (i % 3 == 0) bytes = std::string(size, static_cast<char>(i));  // compresses
      files.push_back(*write_file(*writer, bytes));
    }
    for (const int i : {0, 1, 50, 399}) {
      if (files[i].kind == BlobKind::kChunk && !files[i].empty()) {
        EXPECT_TRUE(writer->read({BlobKind::kChunk, files[i].hash}).ok());
      }
    }
    ASSERT_TRUE(writer->flush().ok());
    meta::Transaction transaction;
    writer->add_to(&transaction);
    writer->committed(disk->meta->commit(std::move(transaction))->revision);
    if (expected.empty()) expected = files;
    EXPECT_EQ(files, expected);
    for (const std::string& key : disk->object_keys()) {
      const auto size = disk->objects->size(key);
      EXPECT_TRUE(chunk::verify_pack(*disk->objects->read(key, 0, *size)).ok()) << key;
    }
    for (const FileRef& file : files) {
      if (file.kind == BlobKind::kChunk && !file.empty()) {
        EXPECT_TRUE(store.blobs().read({BlobKind::kChunk, file.hash}).ok());
      }
    }
  }
}

TEST(WritePipeline, AnErrorOfAnyThreadEndsTheWriterAndLeavesNoObject) {
  ContentDisk disk;
  disk.write_threads = 3;
  ASSERT_TRUE(disk.open());
  auto stores = disk.stores();
  ContentStore& store = **stores->project("default");
  for (int syncs = 0; syncs < 4; ++syncs) {
    std::atomic<int> left{syncs};
    disk.files->fail_with([&](testing::Operation operation, const std::string& path) -> Status {
      if (operation != testing::Operation::kSync || path.find("packs") == std::string::npos)
        return ok_status();
      return left-- > 0 ? ok_status() : unavailable("the disk does not answer");
    });
    {
      auto writer = store.new_writer({.deduplicate = false});
      Status status;
      for (int i = 0; i < 300 && status.ok(); ++i) {
        status =
            writer->add(BlobKind::kChunk, random_text(200'000, static_cast<uint64_t>(i))).status();
      }
      if (status.ok()) status = writer->flush();
      EXPECT_EQ(status.code(), Code::kUnavailable);
      EXPECT_FALSE(writer->flush().ok());
    }
    disk.files->fail_with(nullptr);
    EXPECT_TRUE(disk.object_keys().empty());
  }
}

// The disk loses power at every operation of an upload in turn. What a request of chunks
// acknowledged can be named afterwards, as long as the upload lives; and the edit that names it is
// whole.
TEST(Uploads, CrashPoints) {
  const QuietLog quiet;
  const std::string bytes = random_text(700'000, 5);
  const std::vector<std::string> chunks = chunks_of(bytes);
  for (uint64_t n = 1;; ++n) {
    ContentDisk disk;
    ASSERT_TRUE(disk.open());
    auto begun = begin_upload(*disk.meta, "default", "r", "me", 5);
    ASSERT_TRUE(begun.ok());
    disk.files->crash_at(n);
    size_t acknowledged = 0;
    bool done = false;
    {
      auto stores = disk.stores();
      auto project = stores->project("default");
      // A chunk a request.
      for (size_t i = 0; project.ok() && i < chunks.size(); ++i) {
        auto writer = (*project)->new_writer();
        if (!writer->add(BlobKind::kChunk, chunks[i]).ok() || !writer->flush().ok()) break;
        meta::Transaction transaction;
        transaction.when(begun->alive());
        writer->add_to(&transaction);
        for (const chunk::PackId& pack : writer->waiting_packs()) {
          transaction.add(begun->note_pack(pack));
        }
        auto result = disk.meta->commit(std::move(transaction));
        if (!result.ok() || !result->succeeded) break;
        writer->committed(result->revision);
        ++acknowledged;
        done = acknowledged == chunks.size();
      }
    }
    const bool crashed = disk.files->crashed();
    EXPECT_TRUE(crashed || done);
    disk.meta.reset();
    disk.objects.reset();
    for (const uint64_t seed : {0, 1, 2, 3}) {
      ContentDisk after(disk.files->reboot(seed));
      ASSERT_TRUE(after.open()) << after.status.to_string();
      auto upload = use_upload(*after.meta, "default", begun->id);
      ASSERT_TRUE(upload.ok()) << upload.status().to_string();
      EXPECT_GE(upload_packs(*after.meta, *upload)->size(), acknowledged);
      auto stores = after.stores();
      ContentStore& store = **stores->project("default");
      auto writer = store.new_writer();
      FileWriter file(*writer);
      for (size_t i = 0; i < chunks.size(); ++i) {
        const Hash hash = sha256(chunks[i]);
        const auto known = writer->find_chunks(std::span(&hash, 1));
        ASSERT_TRUE(known.ok());
        EXPECT_TRUE(i >= acknowledged || (*known)[0].has_value()) << n << " " << seed;
        if ((*known)[0]) {
          writer->rely_on(*(*known)[0]);
          ASSERT_TRUE(file.append_chunk(chunks[i].size(), hash, (*known)[0]->ends_in_cut).ok());
          EXPECT_EQ(**store.blobs().read({BlobKind::kChunk, hash}), chunks[i]);
        } else {
          ASSERT_TRUE(file.append(chunks[i]).ok());
        }
      }
      EXPECT_EQ(*file.finish(), *write_file(*writer, bytes));
    }
    if (!crashed) break;
  }
}

}  // namespace
}  // namespace qanat::content
