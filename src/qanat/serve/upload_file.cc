#include "qanat/serve/upload_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <limits>
#include <optional>

#include "qanat/base/buffer.h"
#include "qanat/base/bytes.h"
#include "qanat/base/counters.h"
#include "qanat/base/string.h"
#include "qanat/chunk/chunker.h"
#include "qanat/serve/upload_access.h"

namespace qanat::serve {
namespace {

// Read at once, so that bytes are still in the processor's caches when they are searched for cuts.
constexpr size_t kPiece = 256u << 10;
constexpr uint64_t kLookAfter = 16u << 20;  // bytes, whether the client is still there
// Of a request, about: its packs are registered in one transaction, with whose they are.
constexpr uint64_t kMaxLength = 256u << 20;

// Cuts a file, from an offset on, into a writer.
class FileCutter {
 public:
  FileCutter(int file, uint64_t offset, content::ContentWriter& writer)
      : file_(file), position_(offset), writer_(writer) {}

  // Until so many bytes are in chunks, or the file ends.
  Status cut(uint64_t length, net::Request& request) {
    uint64_t look = kLookAfter;
    while (!ended_ && bytes_ < length) {
      if (bytes_ >= look) {
        if (request.client_gone()) return cancelled("the client went away");
        look = bytes_ + kLookAfter;
      }
      QANAT_RETURN_IF_ERROR(read_piece());
    }
    return name_until(0);
  }

  bool ended() const { return ended_; }
  uint64_t bytes() const { return bytes_; }
  const std::vector<std::pair<uint32_t, Hash>>& chunks() const { return chunks_; }

 private:
  struct Waiting {
    size_t position;
    std::unique_ptr<content::PendingChunk> chunk;
  };

  Status read_piece() {
    if (!chunk_) chunk_.emplace(chunk::kMaxChunk);
    ssize_t got = 0;
    do {
      got = pread(file_, chunk_->data() + filled_, std::min(kPiece, chunk_->size() - filled_),
                  static_cast<off_t>(position_));
    } while (got < 0 && errno == EINTR);
    if (got < 0) return errno_status(errno, "the file that was passed");
    if (got == 0) {
      ended_ = true;
      return filled_ > 0 ? take(filled_) : ok_status();
    }
    position_ += static_cast<uint64_t>(got);
    size_t fresh = static_cast<size_t>(got);  // bytes behind `filled_` that were not searched
    while (fresh > 0) {
      const size_t cut = finder_.find(chunk_->view().substr(filled_, fresh));
      if (cut == 0) {
        filled_ += fresh;
        break;
      }
      const size_t length = filled_ + cut;
      fresh -= cut;
      std::optional<Buffer> next;
      if (fresh > 0) {
        next.emplace(chunk::kMaxChunk);
        std::memcpy(next->data(), chunk_->data() + length, fresh);
      }
      QANAT_RETURN_IF_ERROR(take(length));
      chunk_ = std::move(next);
      filled_ = 0;
    }
    return ok_status();
  }

  // The first `length` bytes of the buffer are a chunk. Leaves no buffer.
  Status take(size_t length) {
    bytes_ += length;
    chunk_->shrink(length);
    const size_t ahead = writer_.ahead();
    if (ahead > 0 && length >= chunk::kMinChunk) {
      QANAT_RETURN_IF_ERROR(name_until(ahead - 1));
      waiting_.push_back({chunks_.size(), writer_.begin_add(*std::move(chunk_), nullptr)});
      chunks_.emplace_back(length, Hash());
    } else {
      QANAT_ASSIGN_OR_RETURN(const auto ref, writer_.add(chunk::BlobKind::kChunk, chunk_->view()));
      chunks_.emplace_back(length, ref.hash);
    }
    chunk_.reset();
    return ok_status();
  }

  Status name_until(size_t left) {
    while (waiting_.size() > left) {
      QANAT_ASSIGN_OR_RETURN(const auto ref, waiting_.front().chunk->wait());
      chunks_[waiting_.front().position].second = ref.hash;
      waiting_.pop_front();
    }
    return ok_status();
  }

  const int file_;
  uint64_t position_;  // in the file, of what is read next
  content::ContentWriter& writer_;
  std::optional<Buffer> chunk_;  // being filled
  size_t filled_ = 0;
  chunk::CutFinder finder_;
  bool ended_ = false;
  uint64_t bytes_ = 0;  // in chunks
  std::vector<std::pair<uint32_t, Hash>> chunks_;
  std::deque<Waiting> waiting_;
};

Result<uint64_t> number(const Call& call, std::string_view name, uint64_t otherwise) {
  const std::string text = call.query_or(name);
  if (text.empty()) return otherwise;
  const auto value = parse_u64(text);
  if (value.ok() && *value <= static_cast<uint64_t>(std::numeric_limits<off_t>::max())) {
    return *value;
  }
  return invalid_argument(str_cat(name, " ", quoted(text), " is no number of bytes"));
}

}  // namespace

Status upload_file(Call& call) {
  static Counter& read = counter("qanat_upload_local_bytes_total",
                                 "Bytes of files that were passed open, and that are durable");
  const int file = call.request.descriptor();
  struct stat info{};
  if (file < 0 || fstat(file, &info) != 0) {
    return invalid_argument("no open file came with the request",
                            "files are passed through the server's Unix socket only; send chunks");
  }
  const int flags = fcntl(file, F_GETFL);
  if (!S_ISREG(info.st_mode) || flags < 0 || (flags & O_PATH) != 0 ||
      (flags & O_ACCMODE) == O_WRONLY) {
    return invalid_argument("what was passed is no regular file that is open for reading");
  }
  QANAT_ASSIGN_OR_RETURN(const uint64_t offset, number(call, "offset", 0));
  QANAT_ASSIGN_OR_RETURN(const uint64_t length, number(call, "length", kMaxLength));
  QANAT_ASSIGN_OR_RETURN(const UploadAccess access, open_upload(call, call.path("upload")));
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                         call.state.contents->project(call.project()));
  const auto writer = content->new_writer(writer_options(access));
  FileCutter cutter(file, offset, *writer);
  QANAT_RETURN_IF_ERROR(cutter.cut(std::min(length, kMaxLength), call.request));
  QANAT_RETURN_IF_ERROR(register_chunks(call, access, *writer));
  read.add(cutter.bytes());
  std::string answer(1, cutter.ended() ? 1 : 0);
  answer.reserve(9 + cutter.chunks().size() * (4 + Hash::kSize));
  put_u64(answer, writer->stats().plain_bytes);
  for (const auto& [size, hash] : cutter.chunks()) {
    put_u32(answer, size);
    answer += hash.view();
  }
  return call.response.send(200, answer, "application/octet-stream");
}

}  // namespace qanat::serve
