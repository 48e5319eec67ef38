// Uploads: sessions in which a client sends chunks ahead of the edits that name them.

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <optional>

#include "qanat/api/files.h"
#include "qanat/base/buffer.h"
#include "qanat/base/bytes.h"
#include "qanat/base/counters.h"
#include "qanat/base/string.h"
#include "qanat/chunk/chunker.h"
#include "qanat/serve/convert.h"
#include "qanat/serve/http_api.h"
#include "qanat/serve/upload_access.h"
#include "qanat/serve/upload_file.h"

namespace qanat::serve {
namespace {

constexpr size_t kMaxChunks = 64u << 10;       // of a request
constexpr uint64_t kMaxRequest = 64ull << 20;  // bytes of chunks
constexpr size_t kPiece = 128u << 10;
constexpr int kAttempts = 5;
constexpr int64_t kRenewMs = 10'000;
constexpr std::string_view kBytesType = "application/octet-stream";

Status begin_upload(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const auto body, call.body<api::BeginUploadRequest>());
  if (!call.caller().may_write(call.project(), body.repo))
    return denied(call.caller(), "writer:" + qualified(call.project(), body.repo));
  QANAT_RETURN_IF_ERROR(call.state.versions->inspect_repo({call.project(), body.repo}).status());
  QANAT_ASSIGN_OR_RETURN(const auto upload,
                         content::begin_upload(*call.state.meta, call.project(), body.repo,
                                               call.caller().name, call.state.clock->wall_ms()));
  return call.answer(api::UploadInfo{upload.id, body.repo, content::kUploadTtlMs});
}

Status upload_have(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const UploadAccess access, open_upload(call, call.path("upload")));
  QANAT_ASSIGN_OR_RETURN(const std::string body, call.request.read_all(kMaxChunks * Hash::kSize));
  if (body.size() % Hash::kSize != 0)
    return invalid_argument("the body is not a row of hashes of 32 bytes");
  std::vector<Hash> hashes;
  hashes.reserve(body.size() / Hash::kSize);
  for (size_t at = 0; at < body.size(); at += Hash::kSize) {
    QANAT_ASSIGN_OR_RETURN(const Hash hash,
                           Hash::from_bytes(std::string_view(body).substr(at, Hash::kSize)));
    hashes.push_back(hash);
  }
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                         call.state.contents->project(call.project()));
  QANAT_ASSIGN_OR_RETURN(const auto found, content->new_writer()->find_chunks(hashes));
  std::string answer(hashes.size(), '\0');
  for (size_t i = 0; i < hashes.size(); ++i) {
    if (found[i] && access.may_use(*found[i])) answer[i] = 1;
  }
  return call.response.send(200, answer, kBytesType);
}

// The chunks of a request's body, into a writer.
class ChunkReader {
 public:
  // `used` is called for each chunk.
  ChunkReader(net::Request& request, content::ContentWriter& writer, std::function<Status()> used)
      : request_(request), writer_(writer), used_(std::move(used)) {}

  Status read_all() {
    while (true) {
      std::array<char, 12> head;
      QANAT_ASSIGN_OR_RETURN(const bool there, read_exactly(head.data(), head.size()));
      if (!there) return name_until(0);
      const size_t length = load_u32(head.data());
      if (length == 0 || length > chunk::kMaxChunk) {
        return invalid_argument(str_cat("chunk ", hashes_.size(), " claims ", length,
                                        " bytes; a chunk has 1 to ", chunk::kMaxChunk));
      }
      if (hashes_.size() == kMaxChunks || bytes_ + length > kMaxRequest) {
        return too_large(str_cat("a request takes at most ", kMaxChunks, " chunks and ",
                                 format_size(kMaxRequest)),
                         "send the rest in another one");
      }
      QANAT_RETURN_IF_ERROR(read_chunk(length, load_u64(head.data() + 4)));
      QANAT_RETURN_IF_ERROR(take());
      QANAT_RETURN_IF_ERROR(used_());
    }
  }

  const std::vector<Hash>& hashes() const { return hashes_; }
  uint64_t bytes() const { return bytes_; }

 private:
  struct Waiting {
    size_t position;
    std::unique_ptr<content::PendingChunk> chunk;
  };

  static Status cut_off() {
    return invalid_argument("the body ends inside of a chunk",
                            "nothing of it counts; send it again");
  }

  // False at the very end of the body.
  Result<bool> read_exactly(char* buffer, size_t size) {
    for (size_t done = 0; done < size;) {
      QANAT_ASSIGN_OR_RETURN(const size_t got, request_.read(buffer + done, size - done));
      if (got == 0) {
        if (done == 0) return false;
        return cut_off();
      }
      done += got;
    }
    return true;
  }

  // No stored chunk has a cut before its end: whoever names chunks later counts on it.
  static Status check_cut(std::string_view plain) {
    if (chunk::is_valid_last(plain)) return ok_status();
    return invalid_argument(
        "a chunk is not cut as files are here",
        "the client cuts otherwise than this server: use versions that belong together");
  }

  // By pieces, so that what has just come is still in the processor's caches when it is summed.
  Status read_chunk(size_t length, uint64_t checksum) {
    Hasher64 sum;
    chunk_.emplace(length);
    for (size_t done = 0; done < length;) {
      const size_t piece = std::min(kPiece, length - done);
      QANAT_ASSIGN_OR_RETURN(const bool whole, read_exactly(chunk_->data() + done, piece));
      if (!whole) return cut_off();
      sum.update(chunk_->view().substr(done, piece));
      done += piece;
    }
    if (sum.finish() == checksum) return ok_status();
    return invalid_argument(str_cat("chunk ", hashes_.size(), " was damaged on the way"),
                            "send it again");
  }

  Status take() {
    bytes_ += chunk_->size();
    const size_t ahead = writer_.ahead();
    if (ahead > 0 && chunk_->size() >= chunk::kMinChunk) {
      QANAT_RETURN_IF_ERROR(name_until(ahead - 1));
      waiting_.push_back({hashes_.size(), writer_.begin_add(*std::move(chunk_), check_cut)});
      hashes_.emplace_back();
      return ok_status();
    }
    QANAT_RETURN_IF_ERROR(check_cut(chunk_->view()));
    QANAT_ASSIGN_OR_RETURN(const auto ref, writer_.add(chunk::BlobKind::kChunk, chunk_->view()));
    hashes_.push_back(ref.hash);
    return ok_status();
  }

  Status name_until(size_t left) {
    while (waiting_.size() > left) {
      QANAT_ASSIGN_OR_RETURN(const auto ref, waiting_.front().chunk->wait());
      hashes_[waiting_.front().position] = ref.hash;
      waiting_.pop_front();
    }
    return ok_status();
  }

  net::Request& request_;
  content::ContentWriter& writer_;
  const std::function<Status()> used_;
  std::optional<Buffer> chunk_;
  std::vector<Hash> hashes_;
  std::deque<Waiting> waiting_;
  uint64_t bytes_ = 0;
};

Status upload_chunks(Call& call) {
  static Counter& received =
      counter("qanat_upload_bytes_total", "Bytes of chunks that uploads sent and that are durable");
  static Counter& chunks =
      counter("qanat_upload_chunks_total", "Chunks that uploads sent and that are durable");
  QANAT_ASSIGN_OR_RETURN(const UploadAccess access, open_upload(call, call.path("upload")));
  QANAT_ASSIGN_OR_RETURN(content::ContentStore * content,
                         call.state.contents->project(call.project()));
  const auto writer = content->new_writer(writer_options(access));
  // On a slow line a request takes long: the upload is in use meanwhile.
  int64_t renewed_ms = call.state.clock->monotonic_ms();
  ChunkReader reader(call.request, *writer, [&]() -> Status {
    const int64_t now = call.state.clock->monotonic_ms();
    if (now - renewed_ms < kRenewMs) return ok_status();
    renewed_ms = now;
    return open_upload(call, access.upload.id).status();
  });
  QANAT_RETURN_IF_ERROR(reader.read_all());
  QANAT_RETURN_IF_ERROR(register_chunks(call, access, *writer));
  received.add(reader.bytes());
  chunks.add(reader.hashes().size());
  std::string answer;
  answer.reserve(reader.hashes().size() * Hash::kSize);
  for (const Hash& hash : reader.hashes()) answer += hash.view();
  return call.response.send(200, answer, kBytesType);
}

Status end_upload(Call& call) {
  QANAT_ASSIGN_OR_RETURN(const UploadAccess access, open_upload(call, call.path("upload")));
  QANAT_RETURN_IF_ERROR(content::end_upload(*call.state.meta, access.upload));
  return call.answer_empty();
}

}  // namespace

Result<UploadAccess> open_upload(Call& call, std::string_view id) {
  UploadAccess access;
  QANAT_ASSIGN_OR_RETURN(access.upload, content::use_upload(*call.state.meta, call.project(), id));
  const content::UploadRecord& record = access.upload.record;
  if (record.caller != call.caller().name ||
      !call.caller().may_write(call.project(), record.repo)) {
    return not_found(str_cat("there is no upload ", id), "only the token that began it may use it");
  }
  const auto& scopes = call.caller().scopes;
  access.whole_project =
      call.caller().is_admin() || scopes.contains("reader:*") || scopes.contains("writer:*");
  if (!access.whole_project) {
    QANAT_ASSIGN_OR_RETURN(access.packs, content::upload_packs(*call.state.meta, access.upload));
  }
  return access;
}

Status register_chunks(Call& call, const UploadAccess& access, content::ContentWriter& writer) {
  QANAT_RETURN_IF_ERROR(writer.flush());
  const std::vector<chunk::PackId> packs = writer.waiting_packs();
  if (packs.empty()) return ok_status();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    meta::Transaction transaction;
    transaction.when(access.upload.alive());
    writer.add_to(&transaction);
    if (!access.whole_project) {
      for (const chunk::PackId& pack : packs) transaction.add(access.upload.note_pack(pack));
    }
    QANAT_ASSIGN_OR_RETURN(const auto result, call.state.meta->commit(std::move(transaction)));
    if (result.succeeded) {
      writer.committed(result.revision);
      return ok_status();
    }
    QANAT_RETURN_IF_ERROR(open_upload(call, access.upload.id).status());
    QANAT_RETURN_IF_ERROR(writer.recheck());
  }
  return unavailable("garbage collection kept moving the epoch while chunks were written",
                     "send them again");
}

void add_upload_handlers(Handlers& handlers) {
  handlers["begin_upload"] = begin_upload;
  handlers["upload_have"] = upload_have;
  handlers["upload_chunks"] = upload_chunks;
  handlers["upload_file"] = upload_file;
  handlers["end_upload"] = end_upload;
}

}  // namespace qanat::serve
