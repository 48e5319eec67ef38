#include "qanat/api/file_stream.h"

#include <algorithm>
#include <cstring>

#include "qanat/base/bytes.h"
#include "qanat/base/path.h"
#include "qanat/base/string.h"

namespace qanat::api {
namespace {

constexpr std::string_view kMagic = "QNFS1\n";
constexpr size_t kBufferBytes = 64 << 10;
constexpr uint8_t kError = 7;
constexpr uint8_t kEnd = 8;
constexpr size_t kMaxErrorBytes = 64 << 10;

uint8_t number(FrameType type) { return static_cast<uint8_t>(type); }

}  // namespace

// ---- Writer ----

FileStreamWriter::FileStreamWriter(Sink sink) : sink_(std::move(sink)) { buffer_ = kMagic; }

Status FileStreamWriter::flush() {
  QANAT_RETURN_IF_ERROR(failed_);
  if (buffer_.empty()) return ok_status();
  failed_ = sink_(buffer_);
  buffer_.clear();
  return failed_;
}

Status FileStreamWriter::append(std::string_view bytes) {
  QANAT_RETURN_IF_ERROR(failed_);
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    QANAT_RETURN_IF_ERROR(flush());
    if (bytes.size() >= kBufferBytes) {
      failed_ = sink_(bytes);
      return failed_;
    }
  }
  buffer_ += bytes;
  return ok_status();
}

Status FileStreamWriter::append_varint(uint64_t value) {
  std::string text;
  put_varint(text, value);
  return append(text);
}

Status FileStreamWriter::append_bytes(std::string_view bytes) {
  QANAT_RETURN_IF_ERROR(append_varint(bytes.size()));
  return append(bytes);
}

Status FileStreamWriter::begin_frame(uint8_t type) {
  QANAT_RETURN_IF_ERROR(failed_);
  if (state_ != State::kFrames) {
    return failed_ =
               internal_error(state_ == State::kFinished ? "file stream: a frame after the end"
                                                         : "file stream: a frame inside of a file");
  }
  ++frames_;
  char byte = static_cast<char>(type);
  return append({&byte, 1});
}

Status FileStreamWriter::head(std::string_view json) {
  QANAT_RETURN_IF_ERROR(begin_frame(number(FrameType::kHead)));
  return append_bytes(json);
}

Status FileStreamWriter::datum(std::string_view json) {
  QANAT_RETURN_IF_ERROR(begin_frame(number(FrameType::kDatum)));
  return append_bytes(json);
}

Status FileStreamWriter::begin_put(std::string_view path, bool append_to) {
  QANAT_RETURN_IF_ERROR(check_path(path));
  QANAT_RETURN_IF_ERROR(begin_frame(number(FrameType::kPut)));
  QANAT_RETURN_IF_ERROR(append_bytes(path));
  char flags = append_to ? 1 : 0;
  state_ = State::kPut;
  return append({&flags, 1});
}

Status FileStreamWriter::data(std::string_view bytes) {
  QANAT_RETURN_IF_ERROR(failed_);
  if (state_ != State::kPut && state_ != State::kLog) {
    return failed_ = internal_error("file stream: data outside of a file");
  }
  if (bytes.empty()) return ok_status();  // a piece of length 0 would end the file
  return append_bytes(bytes);
}

Status FileStreamWriter::end_put() {
  QANAT_RETURN_IF_ERROR(failed_);
  if (state_ != State::kPut) return failed_ = internal_error("file stream: no file to end");
  state_ = State::kFrames;
  return append_varint(0);
}

Status FileStreamWriter::put(std::string_view path, std::string_view bytes, bool append_to) {
  QANAT_RETURN_IF_ERROR(begin_put(path, append_to));
  QANAT_RETURN_IF_ERROR(data(bytes));
  return end_put();
}

Status FileStreamWriter::remove(std::string_view path) {
  QANAT_RETURN_IF_ERROR(begin_frame(number(FrameType::kDelete)));
  return append_bytes(path);
}

Status FileStreamWriter::copy(std::string_view source_json, std::string_view path) {
  if (!path.empty()) QANAT_RETURN_IF_ERROR(check_path(path));
  QANAT_RETURN_IF_ERROR(begin_frame(number(FrameType::kCopy)));
  QANAT_RETURN_IF_ERROR(append_bytes(source_json));
  return append_bytes(path);
}

Status FileStreamWriter::begin_chunks(std::string_view path, bool append_to) {
  QANAT_RETURN_IF_ERROR(check_path(path));
  QANAT_RETURN_IF_ERROR(begin_frame(number(FrameType::kChunks)));
  QANAT_RETURN_IF_ERROR(append_bytes(path));
  const char flags = append_to ? 1 : 0;
  state_ = State::kChunks;
  return append({&flags, 1});
}

Status FileStreamWriter::chunk(uint64_t size, const Hash& hash) {
  QANAT_RETURN_IF_ERROR(failed_);
  if (state_ != State::kChunks || size == 0) {
    return failed_ = internal_error("file stream: a chunk outside of a list of chunks");
  }
  QANAT_RETURN_IF_ERROR(append_varint(size));
  return append(hash.view());
}

Status FileStreamWriter::end_chunks() {
  QANAT_RETURN_IF_ERROR(failed_);
  if (state_ != State::kChunks) {
    return failed_ = internal_error("file stream: no list of chunks to end");
  }
  state_ = State::kFrames;
  return append_varint(0);
}

Status FileStreamWriter::same(std::string_view path, const Hash& content_id) {
  QANAT_RETURN_IF_ERROR(check_path(path));
  QANAT_RETURN_IF_ERROR(begin_frame(number(FrameType::kSame)));
  QANAT_RETURN_IF_ERROR(append_bytes(path));
  return append(content_id.view());
}

Status FileStreamWriter::begin_log() {
  QANAT_RETURN_IF_ERROR(begin_frame(number(FrameType::kLog)));
  state_ = State::kLog;
  return ok_status();
}

Status FileStreamWriter::end_log() {
  QANAT_RETURN_IF_ERROR(failed_);
  if (state_ != State::kLog) return failed_ = internal_error("file stream: no log to end");
  state_ = State::kFrames;
  return append_varint(0);
}

Status FileStreamWriter::error(const Status& status) {
  QANAT_RETURN_IF_ERROR(begin_frame(kError));
  auto shorten = [](std::string_view text) { return text.substr(0, kMaxErrorBytes); };
  QANAT_RETURN_IF_ERROR(append_bytes(code_name(status.code())));
  QANAT_RETURN_IF_ERROR(append_bytes(shorten(status.message())));
  QANAT_RETURN_IF_ERROR(append_bytes(shorten(status.hint())));
  state_ = State::kFinished;
  return flush();
}

Status FileStreamWriter::finish() {
  uint64_t frames = frames_;
  QANAT_RETURN_IF_ERROR(begin_frame(kEnd));
  QANAT_RETURN_IF_ERROR(append_varint(frames));
  state_ = State::kFinished;
  return flush();
}

// ---- Reader ----

FileStreamReader::FileStreamReader(Source source) : FileStreamReader(std::move(source), Limits()) {}

FileStreamReader::FileStreamReader(Source source, Limits limits)
    : source_(std::move(source)), limits_(limits) {}

Status FileStreamReader::malformed(std::string_view what) {
  return invalid_argument(str_cat("file stream: ", what, " at byte ", consumed_ + position_),
                          "the sender is broken or speaks another version of the format");
}

// Makes at least one byte available.
Status FileStreamReader::fill() {
  if (position_ < buffer_.size()) return ok_status();
  consumed_ += buffer_.size();
  position_ = 0;
  buffer_.resize(kBufferBytes);
  Result<size_t> got = source_(buffer_.data(), buffer_.size());
  buffer_.resize(got.ok() ? *got : 0);
  if (!got.ok()) return got.status();
  if (*got == 0) {
    return data_loss(
        str_cat("file stream: ended after ", consumed_, " bytes without its end frame"),
        "the sender was interrupted; nothing of it may be used");
  }
  return ok_status();
}

Result<uint8_t> FileStreamReader::read_byte() {
  QANAT_RETURN_IF_ERROR(fill());
  return static_cast<uint8_t>(buffer_[position_++]);
}

Result<uint64_t> FileStreamReader::read_varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    QANAT_ASSIGN_OR_RETURN(uint8_t byte, read_byte());
    if (shift == 63 && byte > 1) break;
    value |= uint64_t{byte & 0x7fU} << shift;
    if ((byte & 0x80) == 0) return value;
  }
  return malformed("a number is too long");
}

Result<std::string> FileStreamReader::read_bytes(size_t limit, std::string_view what) {
  QANAT_ASSIGN_OR_RETURN(uint64_t length, read_varint());
  if (length > limit) {
    return too_large(
        str_cat("file stream: ", what, " of ", length, " bytes; the limit is ", limit));
  }
  std::string out;
  while (out.size() < length) {
    QANAT_RETURN_IF_ERROR(fill());
    size_t take = std::min<size_t>(length - out.size(), buffer_.size() - position_);
    out.append(buffer_, position_, take);
    position_ += take;
  }
  return out;
}

Result<size_t> FileStreamReader::read_data(char* buffer, size_t size) {
  if (!in_data_ || size == 0) return size_t{0};
  if (piece_left_ == 0) {
    QANAT_ASSIGN_OR_RETURN(piece_left_, read_varint());
    if (piece_left_ == 0) {
      in_data_ = false;
      return size_t{0};
    }
    if (piece_left_ > limits_.max_data_bytes - data_bytes_) {
      return too_large(
          str_cat("file stream: more than ", limits_.max_data_bytes, " bytes of data"));
    }
    data_bytes_ += piece_left_;
  }
  QANAT_RETURN_IF_ERROR(fill());
  size_t take = std::min({size, static_cast<size_t>(std::min<uint64_t>(piece_left_, SIZE_MAX)),
                          buffer_.size() - position_});
  std::memcpy(buffer, buffer_.data() + position_, take);
  position_ += take;
  piece_left_ -= take;
  return take;
}

Result<size_t> FileStreamReader::read(char* buffer, size_t size) {
  QANAT_RETURN_IF_ERROR(failed_);
  Result<size_t> got = read_data(buffer, size);
  if (!got.ok()) failed_ = got.status();
  return got;
}

Result<Hash> FileStreamReader::read_hash() {
  Hash hash;
  for (uint8_t& byte : hash.bytes) {
    QANAT_ASSIGN_OR_RETURN(byte, read_byte());
  }
  return hash;
}

Result<std::optional<ChunkName>> FileStreamReader::read_chunk() {
  if (!in_chunks_) return std::optional<ChunkName>();
  ChunkName chunk;
  QANAT_ASSIGN_OR_RETURN(chunk.size, read_varint());
  if (chunk.size == 0) {
    in_chunks_ = false;
    return std::optional<ChunkName>();
  }
  QANAT_ASSIGN_OR_RETURN(chunk.hash, read_hash());
  return std::optional<ChunkName>(chunk);
}

Result<std::optional<ChunkName>> FileStreamReader::next_chunk() {
  QANAT_RETURN_IF_ERROR(failed_);
  auto chunk = read_chunk();
  if (!chunk.ok()) failed_ = chunk.status();
  return chunk;
}

Result<std::string> FileStreamReader::read_all(size_t limit) {
  std::string out;
  char piece[16 << 10];
  while (true) {
    QANAT_ASSIGN_OR_RETURN(size_t got, read(piece, sizeof piece));
    if (got == 0) return out;
    if (out.size() + got > limit) {
      return failed_ = too_large(str_cat("file stream: a file of more than ", limit, " bytes"));
    }
    out.append(piece, got);
  }
}

Status FileStreamReader::skip_data() {
  char piece[16 << 10];
  while (in_data_) QANAT_RETURN_IF_ERROR(read_data(piece, sizeof piece).status());
  while (in_chunks_) QANAT_RETURN_IF_ERROR(read_chunk().status());
  return ok_status();
}

Result<std::optional<Frame>> FileStreamReader::read_frame() {
  if (!started_) {
    started_ = true;
    for (char expected : kMagic) {
      QANAT_ASSIGN_OR_RETURN(uint8_t byte, read_byte());
      if (static_cast<char>(byte) != expected) {
        return malformed("this is not a file stream of version 1: wrong magic");
      }
    }
  }
  QANAT_RETURN_IF_ERROR(skip_data());
  QANAT_ASSIGN_OR_RETURN(uint8_t type, read_byte());
  if (type == kEnd) {
    QANAT_ASSIGN_OR_RETURN(uint64_t count, read_varint());
    if (count != frames_) {
      return data_loss(str_cat("file stream: it holds ", frames_, " frames but says ", count));
    }
    char extra = 0;
    if (position_ < buffer_.size()) return malformed("bytes after the end");
    QANAT_ASSIGN_OR_RETURN(size_t more, source_(&extra, 1));
    if (more != 0) return malformed("bytes after the end");
    ended_ = true;
    return std::optional<Frame>();
  }
  if (frames_ >= limits_.max_frames) {
    return too_large(str_cat("file stream: more than ", limits_.max_frames, " frames"));
  }
  ++frames_;
  Frame frame;
  if (type >= number(FrameType::kChunks) && !limits_.names) {
    return malformed(str_cat("frame type ", int{type}, " is not for here"));
  }
  switch (type) {
    case 1:
    case 2: {
      QANAT_ASSIGN_OR_RETURN(frame.json, read_bytes(limits_.max_json_bytes, "a head"));
      break;
    }
    case 3: {
      QANAT_ASSIGN_OR_RETURN(frame.path, read_bytes(limits_.max_path_bytes, "a path"));
      QANAT_RETURN_IF_ERROR(check_path(frame.path));
      QANAT_ASSIGN_OR_RETURN(uint8_t flags, read_byte());
      if (flags > 1) return malformed("unknown flags");
      frame.append = flags == 1;
      in_data_ = true;
      break;
    }
    case 4: {
      QANAT_ASSIGN_OR_RETURN(frame.path, read_bytes(limits_.max_path_bytes, "a path"));
      break;
    }
    case 5: {
      QANAT_ASSIGN_OR_RETURN(frame.json, read_bytes(limits_.max_json_bytes, "a head"));
      QANAT_ASSIGN_OR_RETURN(frame.path, read_bytes(limits_.max_path_bytes, "a path"));
      if (!frame.path.empty()) QANAT_RETURN_IF_ERROR(check_path(frame.path));
      break;
    }
    case 6:
      in_data_ = true;
      break;
    case 9: {
      QANAT_ASSIGN_OR_RETURN(frame.path, read_bytes(limits_.max_path_bytes, "a path"));
      QANAT_RETURN_IF_ERROR(check_path(frame.path));
      QANAT_ASSIGN_OR_RETURN(uint8_t flags, read_byte());
      if (flags > 1) return malformed("unknown flags");
      frame.append = flags == 1;
      in_chunks_ = true;
      break;
    }
    case 10: {
      QANAT_ASSIGN_OR_RETURN(frame.path, read_bytes(limits_.max_path_bytes, "a path"));
      QANAT_RETURN_IF_ERROR(check_path(frame.path));
      QANAT_ASSIGN_OR_RETURN(frame.content_id, read_hash());
      break;
    }
    case kError: {
      QANAT_ASSIGN_OR_RETURN(std::string code, read_bytes(kMaxErrorBytes, "an error"));
      QANAT_ASSIGN_OR_RETURN(std::string message, read_bytes(kMaxErrorBytes, "an error"));
      QANAT_ASSIGN_OR_RETURN(std::string hint, read_bytes(kMaxErrorBytes, "an error"));
      Code parsed = code_from_name(code);
      return Status(parsed == Code::kOk ? Code::kInternal : parsed, message, hint);
    }
    default:
      return malformed(str_cat("unknown frame type ", int{type}));
  }
  frame.type = static_cast<FrameType>(type);
  return std::optional<Frame>(std::move(frame));
}

Result<std::optional<Frame>> FileStreamReader::next() {
  QANAT_RETURN_IF_ERROR(failed_);
  if (ended_) return std::optional<Frame>();
  Result<std::optional<Frame>> frame = read_frame();
  if (!frame.ok()) failed_ = frame.status();
  return frame;
}

// ---- Source ----

FileStreamSource::FileStreamSource(Step step)
    : step_(std::move(step)), writer_([this](std::string_view bytes) {
        pending_ += bytes;
        return ok_status();
      }) {}

Result<size_t> FileStreamSource::read(char* buffer, size_t size) {
  while (position_ == pending_.size()) {
    pending_.clear();
    position_ = 0;
    if (done_) return size_t{0};
    QANAT_ASSIGN_OR_RETURN(bool more, step_(writer_));
    if (!more) {
      done_ = true;
      QANAT_RETURN_IF_ERROR(writer_.finish());
    }
  }
  size_t take = std::min(size, pending_.size() - position_);
  std::memcpy(buffer, pending_.data() + position_, take);
  position_ += take;
  return take;
}

}  // namespace qanat::api
