#include "qanat/api/file_stream.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace qanat::api {
namespace {

FileStreamReader::Source source_of(std::string_view bytes, size_t step = SIZE_MAX) {
  return [bytes, step](char* buffer, size_t size) mutable -> Result<size_t> {
    size_t take = std::min({size, step, bytes.size()});
    if (take > 0) std::memcpy(buffer, bytes.data(), take);
    bytes.remove_prefix(take);
    return take;
  };
}

template <class Function>
std::string stream_of(Function write) {
  std::string out;
  FileStreamWriter writer([&out](std::string_view bytes) {
    out += bytes;
    return ok_status();
  });
  write(writer);
  return out;
}

std::string sample() {
  return stream_of([](FileStreamWriter& w) {
    EXPECT_TRUE(w.head(R"({"description":"x"})").ok());
    EXPECT_TRUE(w.datum(R"({"id":"1"})").ok());
    EXPECT_TRUE(w.begin_put("a/b.txt", true).ok());
    EXPECT_TRUE(w.data("one").ok());
    EXPECT_TRUE(w.data("").ok());
    EXPECT_TRUE(w.data("two").ok());
    EXPECT_TRUE(w.end_put().ok());
    EXPECT_TRUE(w.put("empty", "").ok());
    EXPECT_TRUE(w.remove("old").ok());
    EXPECT_TRUE(w.copy(R"({"ref":"master","path":"/"})", "new").ok());
    EXPECT_TRUE(w.begin_log().ok());
    EXPECT_TRUE(w.data("line\n").ok());
    EXPECT_TRUE(w.end_log().ok());
    EXPECT_TRUE(w.finish().ok());
  });
}

Status read_to_end(std::string_view bytes, FileStreamReader::Limits limits = {},
                   size_t step = SIZE_MAX) {
  FileStreamReader reader(source_of(bytes, step), limits);
  while (true) {
    auto frame = reader.next();
    if (!frame.ok()) {
      EXPECT_EQ(reader.next().code(), frame.code()) << "an error stays";
      return frame.status();
    }
    if (!frame->has_value()) return ok_status();
  }
}

TEST(FileStreamTest, RoundTrip) {
  std::string bytes = sample();
  for (size_t step : {size_t{1}, size_t{7}, bytes.size()}) {
    FileStreamReader reader(source_of(bytes, step));
    auto next = [&] {
      auto frame = reader.next();
      EXPECT_TRUE(frame.ok()) << frame.status().to_string();
      EXPECT_TRUE(frame->has_value());
      return **frame;
    };
    EXPECT_EQ(next().json, R"({"description":"x"})");
    EXPECT_EQ(next().type, FrameType::kDatum);
    Frame put = next();
    EXPECT_EQ(put.path, "a/b.txt");
    EXPECT_TRUE(put.append);
    EXPECT_EQ(*reader.read_all(100), "onetwo");
    EXPECT_EQ(*reader.read_all(100), "");
    Frame empty = next();
    EXPECT_EQ(empty.path, "empty");
    EXPECT_FALSE(empty.append);
    EXPECT_EQ(next().path, "old");
    Frame copy = next();
    EXPECT_EQ(copy.path, "new");
    EXPECT_EQ(copy.json, R"({"ref":"master","path":"/"})");
    EXPECT_EQ(next().type, FrameType::kLog);  // its data is skipped
    auto end = reader.next();
    ASSERT_TRUE(end.ok());
    EXPECT_FALSE(end->has_value());
    EXPECT_FALSE(reader.next()->has_value());
    EXPECT_EQ(reader.frames(), 7U);
    EXPECT_EQ(reader.data_bytes(), 11U);
  }
}

TEST(FileStreamTest, EveryTruncationIsFound) {
  std::string bytes = sample();
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_EQ(read_to_end(std::string_view(bytes).substr(0, length)).code(), Code::kDataLoss)
        << length;
  }
  EXPECT_TRUE(read_to_end(bytes).ok());
  EXPECT_EQ(read_to_end(bytes + "x").code(), Code::kInvalidArgument);
  EXPECT_EQ(read_to_end(bytes + "x", {}, bytes.size()).code(), Code::kInvalidArgument);
}

TEST(FileStreamTest, FlippedBytesNeverCrash) {
  std::string bytes = sample();
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string broken = bytes;
    broken[random() % broken.size()] = static_cast<char>(random());
    (void)read_to_end(broken);
  }
}

TEST(FileStreamTest, Malformed) {
  EXPECT_EQ(read_to_end("PK\x03\x04zip").code(), Code::kInvalidArgument);
  std::string magic = "QNFS1\n";
  EXPECT_EQ(read_to_end(magic + "\x63").code(), Code::kInvalidArgument);  // frame type
  EXPECT_EQ(read_to_end(magic + "\x08\x05").code(), Code::kDataLoss);     // frame count
  EXPECT_EQ(read_to_end(magic + "\x03\x03../" + '\0').code(), Code::kInvalidArgument);  // path
  EXPECT_EQ(read_to_end(magic + "\x03\x01" + "a\x02").code(), Code::kInvalidArgument);  // flags
  EXPECT_EQ(read_to_end(magic + "\x01" + std::string(11, '\xff')).code(), Code::kInvalidArgument);
  EXPECT_EQ(read_to_end(magic + "\x01\xff\xff\xff\xff\x7f").code(), Code::kTooLarge);
}

TEST(FileStreamTest, Limits) {
  std::string bytes = sample();
  FileStreamReader::Limits limits;
  limits.max_frames = 3;
  EXPECT_EQ(read_to_end(bytes, limits).code(), Code::kTooLarge);
  limits = {};
  limits.max_data_bytes = 10;
  EXPECT_EQ(read_to_end(bytes, limits).code(), Code::kTooLarge);
  limits.max_data_bytes = 11;
  EXPECT_TRUE(read_to_end(bytes, limits).ok());
  limits = {};
  limits.max_json_bytes = 12;
  EXPECT_EQ(read_to_end(bytes, limits).code(), Code::kTooLarge);
  FileStreamReader reader(source_of(stream_of([](FileStreamWriter& w) {
    (void)w.put("a", std::string(1000, 'x'));
    (void)w.finish();
  })));
}

TEST(FileStreamTest, SendersErrorReachesTheReader) {
  std::string bytes = stream_of([](FileStreamWriter& w) {
    EXPECT_TRUE(w.put("a", "b").ok());
    EXPECT_TRUE(w.error(data_loss("chunk 12 is damaged", "run fsck")).ok());
    EXPECT_FALSE(w.finish().ok());
  });
  Status status = read_to_end(bytes);
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_EQ(status.message(), "chunk 12 is damaged");
  EXPECT_EQ(status.hint(), "run fsck");
}

TEST(FileStreamTest, WriterRefusesMisuse) {
  (void)stream_of([](FileStreamWriter& w) {
    EXPECT_EQ(w.begin_put("../x", false).code(), Code::kInvalidArgument);
    EXPECT_TRUE(w.put("ok", "").ok()) << "a wrong path leaves the stream usable";
    EXPECT_FALSE(w.data("x").ok());
    EXPECT_FALSE(w.put("ok", "").ok()) << "misuse ends it";
  });
}

TEST(FileStreamTest, SinkErrorsStay) {
  int calls = 0;
  FileStreamWriter writer([&calls](std::string_view) {
    ++calls;
    return cancelled("gone");
  });
  Status status;
  std::string piece(10'000, 'x');
  ASSERT_TRUE(writer.begin_put("a", false).ok());
  for (int i = 0; i < 100 && status.ok(); ++i) status = writer.data(piece);
  EXPECT_EQ(status.code(), Code::kCancelled);
  EXPECT_EQ(writer.finish().code(), Code::kCancelled);
  EXPECT_EQ(calls, 1);
}

TEST(FileStreamTest, BigFileThroughASourceInBoundedPieces) {
  constexpr uint64_t kTotal = 64 << 20;
  uint64_t left = kTotal;
  bool begun = false;
  std::string piece(50'000, 'd');
  FileStreamSource source([&](FileStreamWriter& w) -> Result<bool> {
    if (!begun) {
      begun = true;
      QANAT_RETURN_IF_ERROR(w.begin_put("big", false));
    }
    size_t take = std::min<uint64_t>(left, piece.size());
    QANAT_RETURN_IF_ERROR(w.data(std::string_view(piece).substr(0, take)));
    left -= take;
    if (left > 0) return true;
    QANAT_RETURN_IF_ERROR(w.end_put());
    return false;
  });
  FileStreamReader reader(
      [&source](char* buffer, size_t size) { return source.read(buffer, size); });
  EXPECT_EQ((**reader.next()).path, "big");
  uint64_t total = 0;
  char buffer[30'000];
  while (true) {
    auto got = reader.read(buffer, sizeof buffer);
    ASSERT_TRUE(got.ok()) << got.status().to_string();
    if (*got == 0) break;
    total += *got;
  }
  EXPECT_EQ(total, kTotal);
  EXPECT_FALSE(reader.next()->has_value());
}

}  // namespace
}  // namespace qanat::api
