#include "qanat/cli/uploader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#include "qanat/api/files.h"
#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/chunk/blob_ref.h"
#include "qanat/chunk/chunker.h"

namespace qanat::cli {
namespace {

constexpr size_t kBlock = 16u << 20;
constexpr size_t kFirstBlock = 8u << 20;  // while little has been sent: more goes on side by side
constexpr uint64_t kLittle = 64u << 20;
constexpr size_t kBlockChunks = 16u << 10;
constexpr size_t kCapacity = kBlock + 2 * chunk::kMaxChunk;
constexpr size_t kInline = 4u << 20;
constexpr size_t kReadPiece = 1u << 20;
constexpr uint64_t kPatience = 32u << 20;  // bytes without a hit
constexpr size_t kSampled = 8;             // then one chunk in so many is asked for
constexpr size_t kMaxFiles = 32u << 10;    // that wait for an earlier one
constexpr size_t kSpoolMemory = 8u << 20;
constexpr size_t kFrameHead = 12;  // u32 length, u64 checksum

struct File {
  std::string path;
  bool append = false;
  bool same = false;
  bool whole = false;  // all its chunks are cut
  Hash content_id;     // same
  std::optional<FileStamp> stamp;
  uint64_t size = 0;
  size_t unnamed = 0;  // chunks that are not durable yet
  std::vector<api::ChunkName> chunks;
};

struct Block {
  struct Chunk {
    std::shared_ptr<File> file;
    size_t index;  // in file->chunks
    size_t offset;
    size_t length;
    Hash hash;
    bool hashed = false;
    bool there = false;
  };
  std::unique_ptr<char[]> bytes{new char[kCapacity]};  // not zeroed
  size_t filled = 0;
  size_t cut = 0;  // up to here it is cut into chunks
  std::vector<Chunk> chunks;

  std::string_view plain(const Chunk& chunk) const {
    return {bytes.get() + chunk.offset, chunk.length};
  }
  std::string_view uncut() const { return {bytes.get() + cut, filled - cut}; }
  void clear() {
    filled = cut = 0;
    chunks.clear();
  }
};

// The edit, until it is sent.
class Spool {
 public:
  ~Spool() {
    if (file_ != nullptr) std::fclose(file_);
  }

  Status append(std::string_view bytes) {
    size_ += bytes.size();
    if (file_ == nullptr && memory_.size() + bytes.size() <= kSpoolMemory) {
      memory_ += bytes;
      return ok_status();
    }
    if (file_ == nullptr) {
      file_ = std::tmpfile();
      if (file_ == nullptr) return errno_status(errno, "a temporary file for the list of files");
      QANAT_RETURN_IF_ERROR(write(memory_));
      std::string().swap(memory_);
    }
    return write(bytes);
  }

  uint64_t size() const { return size_; }
  Status rewind() {
    position_ = 0;
    if (file_ != nullptr && std::fseek(file_, 0, SEEK_SET) != 0)
      return errno_status(errno, "a temporary file for the list of files");
    return ok_status();
  }
  Result<size_t> read(char* buffer, size_t size) {
    if (file_ == nullptr) {
      const size_t take = std::min(size, memory_.size() - position_);
      std::memcpy(buffer, memory_.data() + position_, take);
      position_ += take;
      return take;
    }
    const size_t got = std::fread(buffer, 1, size, file_);
    if (got == 0 && std::ferror(file_) != 0)
      return errno_status(errno, "a temporary file for the list of files");
    return got;
  }

 private:
  Status write(std::string_view bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) == bytes.size()) return ok_status();
    return errno_status(errno, "a temporary file for the list of files");
  }

  std::string memory_;
  size_t position_ = 0;
  FILE* file_ = nullptr;
  uint64_t size_ = 0;
};

size_t default_threads() { return std::clamp<size_t>(std::thread::hardware_concurrency(), 2, 4); }

}  // namespace

class Uploader::Impl {
 public:
  Impl(Connection& server, api::Address target, UploaderOptions options)
      : server_(server),
        target_(std::move(target)),
        options_(std::move(options)),
        upload_id_(options_.upload_id),
        ask_for_all_(options_.resumed),
        edit_([this](std::string_view bytes) { return spool_.append(bytes); }) {
    if (options_.threads == 0) options_.threads = default_threads();
  }

  ~Impl() {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  void on_file(std::function<void(const UploadedFile&)> each) { on_file_ = std::move(each); }

  Status begin_file(std::string path, bool append) {
    file_ = std::make_shared<File>();
    file_->path = std::move(path);
    file_->append = append;
    MutexLock lock(mutex_);
    files_.push_back(file_);
    return failed_;
  }

  Result<bool> fill(const Read& read) {
    QANAT_RETURN_IF_ERROR(need_block());
    const size_t room = std::min(kReadPiece, kCapacity - block_->filled);
    QANAT_ASSIGN_OR_RETURN(const size_t got, read(block_->bytes.get() + block_->filled, room));
    block_->filled += got;
    file_->size += got;
    while (block_ != nullptr && block_->uncut().size() >= chunk::kMaxChunk) {
      cut_next();
      QANAT_RETURN_IF_ERROR(hand_on_if_full());
    }
    return got > 0;
  }

  Status end_file(std::optional<FileStamp> stamp) {
    while (block_ != nullptr && !block_->uncut().empty()) cut_next();
    {
      MutexLock lock(mutex_);
      file_->stamp = stamp;
      file_->whole = true;
      QANAT_RETURN_IF_ERROR(failed_);
    }
    file_ = nullptr;
    QANAT_RETURN_IF_ERROR(hand_on_if_full());
    QANAT_RETURN_IF_ERROR(retire());
    return bound_files();
  }

  Status same_file(const std::string& path, const Hash& content_id, const FileStamp& stamp) {
    auto file = std::make_shared<File>();
    file->path = path;
    file->same = file->whole = true;
    file->content_id = content_id;
    file->size = stamp.size;
    file->stamp = stamp;
    {
      MutexLock lock(mutex_);
      files_.push_back(std::move(file));
    }
    QANAT_RETURN_IF_ERROR(retire());
    return bound_files();
  }

  bool has_session() const { return !upload_id_.empty(); }

  Result<std::string> commit(const std::string& description) {
    if (!started_) return commit_inline(description);
    if (block_ != nullptr && !block_->chunks.empty()) QANAT_RETURN_IF_ERROR(hand_on());
    {
      MutexLock lock(mutex_);
      while (failed_.ok() && busy_ > 0) changed_.wait(mutex_);
      QANAT_RETURN_IF_ERROR(failed_);
    }
    QANAT_RETURN_IF_ERROR(retire());
    QANAT_RETURN_IF_ERROR(edit_.finish());
    return send_edit(description);
  }

 private:
  // --- The caller's thread: cutting ---

  Status need_block() {
    if (block_ != nullptr) return ok_status();
    MutexLock lock(mutex_);
    while (failed_.ok() && free_.empty() && made_ >= options_.threads + 2) changed_.wait(mutex_);
    QANAT_RETURN_IF_ERROR(failed_);
    if (!free_.empty()) {
      block_ = std::move(free_.back());
      free_.pop_back();
      return ok_status();
    }
    ++made_;
    block_ = std::make_unique<Block>();
    return ok_status();
  }

  void cut_next() {
    size_t length = chunk::find_cut(block_->uncut());
    if (length == 0) length = block_->uncut().size();  // only at the end of the file: see kMaxChunk
    MutexLock lock(mutex_);
    block_->chunks.push_back({file_, file_->chunks.size(), block_->cut, length, {}, false, false});
    file_->chunks.push_back({length, {}});
    ++file_->unnamed;
    block_->cut += length;
  }

  Status hand_on_if_full() {
    if (block_ == nullptr) return ok_status();
    const size_t limit = !started_ ? kInline : handed_on_ < kLittle ? kFirstBlock : kBlock;
    if (block_->cut < limit && block_->chunks.size() < kBlockChunks) return ok_status();
    if (!started_) {
      QANAT_RETURN_IF_ERROR(start());
      if (block_->cut < kFirstBlock && block_->chunks.size() < kBlockChunks) return ok_status();
    }
    return hand_on();
  }

  // Gives the block to the threads; what is not cut yet begins the next one.
  Status hand_on() {
    std::unique_ptr<Block> full = std::move(block_);
    handed_on_ += full->cut;
    const std::string_view rest = full->uncut();
    if (!rest.empty()) {
      QANAT_RETURN_IF_ERROR(need_block());
      std::memcpy(block_->bytes.get(), rest.data(), rest.size());
      block_->filled = rest.size();
    }
    MutexLock lock(mutex_);
    QANAT_RETURN_IF_ERROR(failed_);
    ++busy_;
    queue_.push_back(std::move(full));
    changed_.notify_all();
    return ok_status();
  }

  // Files that are the same come without bytes that would fill a block: the one that they wait for
  // is sent, however little it holds.
  Status bound_files() {
    {
      MutexLock lock(mutex_);
      if (files_.size() < kMaxFiles) return ok_status();
    }
    if (!started_) QANAT_RETURN_IF_ERROR(start());
    if (block_ != nullptr && !block_->chunks.empty()) QANAT_RETURN_IF_ERROR(hand_on());
    QANAT_RETURN_IF_ERROR(retire());
    MutexLock lock(mutex_);
    while (failed_.ok() && busy_ > 0 && files_.size() >= 2 * kMaxFiles) changed_.wait(mutex_);
    return failed_;
  }

  Status start() {
    if (upload_id_.empty()) {
      QANAT_ASSIGN_OR_RETURN(const auto upload, server_.send<api::UploadInfo>(
                                                    "begin_upload", {{"project", target_.project}},
                                                    api::BeginUploadRequest{target_.repo}));
      upload_id_ = upload.id;
      if (options_.on_begin) options_.on_begin(upload_id_);
    }
    started_ = true;
    for (size_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { work(); });
    return ok_status();
  }

  // --- The threads: a block each ---

  void work() {
    while (true) {
      std::unique_ptr<Block> block;
      {
        MutexLock lock(mutex_);
        while (queue_.empty() && !stopping_ && failed_.ok()) changed_.wait(mutex_);
        if (stopping_ || !failed_.ok()) return;
        block = std::move(queue_.front());
        queue_.pop_front();
      }
      Status status = process(*block);
      if (status.ok()) status = retire();
      MutexLock lock(mutex_);
      --busy_;
      if (!status.ok() && failed_.ok()) failed_ = std::move(status);
      block->clear();
      free_.push_back(std::move(block));
      changed_.notify_all();
      if (!failed_.ok()) return;
    }
  }

  Parameters upload_parameters() const {
    return {{"project", target_.project}, {"upload", upload_id_}};
  }

  Status process(Block& block) {
    bool sample = false;
    {
      MutexLock lock(mutex_);
      sample = !ask_for_all_ && missed_ >= kPatience;
    }
    QANAT_ASSIGN_OR_RETURN(bool hit, ask(block, sample ? kSampled : 1));
    if (sample && hit) {
      QANAT_ASSIGN_OR_RETURN(hit, ask(block, 1));
      hit = true;
    }
    uint64_t there = 0;
    uint64_t all = 0;
    for (const Block::Chunk& chunk : block.chunks) {
      all += chunk.length;
      if (chunk.there) there += chunk.length;
    }
    {
      MutexLock lock(mutex_);
      missed_ = hit ? 0 : missed_ + all;
    }
    QANAT_RETURN_IF_ERROR(send(block));
    MutexLock lock(mutex_);
    for (const Block::Chunk& chunk : block.chunks) {
      chunk.file->chunks[chunk.index].hash = chunk.hash;
      --chunk.file->unnamed;
    }
    if (options_.on_durable) options_.on_durable(all - there, there);
    return ok_status();
  }

  // Asks for one chunk in `step`, those that were not asked for yet. True if one is there.
  Result<bool> ask(Block& block, size_t step) {
    std::string body;
    std::vector<Block::Chunk*> asked;
    for (size_t i = 0; i < block.chunks.size(); i += step) {
      Block::Chunk& chunk = block.chunks[i];
      if (chunk.hashed) continue;
      chunk.hash = sha256(block.plain(chunk));
      chunk.hashed = true;
      body += chunk.hash.view();
      asked.push_back(&chunk);
    }
    if (asked.empty()) return false;
    QANAT_ASSIGN_OR_RETURN(const std::string answer,
                           server_.exchange_bytes("upload_have", upload_parameters(), body));
    if (answer.size() != asked.size()) return broken_answer();
    bool hit = false;
    for (size_t i = 0; i < asked.size(); ++i) {
      asked[i]->there = answer[i] == 1;
      hit = hit || asked[i]->there;
    }
    return hit;
  }

  Status send(Block& block) {
    std::vector<Block::Chunk*> missing;
    uint64_t length = 0;
    for (Block::Chunk& chunk : block.chunks) {
      if (chunk.there) continue;
      missing.push_back(&chunk);
      length += kFrameHead + chunk.length;
    }
    if (missing.empty()) return ok_status();
    // Pulled by the connection: a head, then the chunk's bytes, and so on.
    size_t at = 0;
    size_t offset = 0;
    std::string head;
    const auto source = [&](char* buffer, size_t size) -> Result<size_t> {
      size_t done = 0;
      while (done < size && at < missing.size()) {
        const std::string_view plain = block.plain(*missing[at]);
        if (offset == 0) {
          head.clear();
          put_u32(head, static_cast<uint32_t>(plain.size()));
          put_u64(head, hash64(plain));
        }
        const std::string_view part = offset < kFrameHead ? std::string_view(head).substr(offset)
                                                          : plain.substr(offset - kFrameHead);
        const size_t take = std::min(size - done, part.size());
        std::memcpy(buffer + done, part.data(), take);
        done += take;
        offset += take;
        if (offset == kFrameHead + plain.size()) {
          ++at;
          offset = 0;
        }
      }
      return done;
    };
    QANAT_ASSIGN_OR_RETURN(const std::string names,
                           server_.upload("upload_chunks", upload_parameters(), {}, source,
                                          "application/octet-stream", length));
    if (names.size() != missing.size() * Hash::kSize) return broken_answer();
    for (size_t i = 0; i < missing.size(); ++i) {
      QANAT_ASSIGN_OR_RETURN(const Hash hash, Hash::from_bytes(std::string_view(names).substr(
                                                  i * Hash::kSize, Hash::kSize)));
      if (missing[i]->hashed && missing[i]->hash != hash) return broken_answer();
      missing[i]->hash = hash;
    }
    return ok_status();
  }

  static Status broken_answer() {
    return internal_error("the server's answer does not fit what was sent",
                          "use a command line and a server of the same version");
  }

  // --- Any thread: files that are done become frames, in order ---

  Status retire() {
    MutexLock order(retire_mutex_);
    while (true) {
      std::shared_ptr<File> file;
      {
        MutexLock lock(mutex_);
        if (files_.empty() || !files_.front()->whole || files_.front()->unnamed > 0)
          return ok_status();
        // Before anything is sent, bytes stay in the block: see commit_inline().
        if (!started_ && !files_.front()->same) return ok_status();
        file = std::move(files_.front());
        files_.pop_front();
      }
      QANAT_RETURN_IF_ERROR(write_names(*file));
    }
  }

  Status write_names(const File& file) REQUIRES(retire_mutex_) {
    if (file.same) {
      QANAT_RETURN_IF_ERROR(edit_.same(file.path, file.content_id));
    } else {
      QANAT_RETURN_IF_ERROR(edit_.begin_chunks(file.path, file.append));
      for (const api::ChunkName& chunk : file.chunks)
        QANAT_RETURN_IF_ERROR(edit_.chunk(chunk.size, chunk.hash));
      QANAT_RETURN_IF_ERROR(edit_.end_chunks());
    }
    tell(file);
    return ok_status();
  }

  void tell(const File& file) {
    if (!on_file_) return;
    UploadedFile done{file.path, file.size, file.stamp, {}};
    if (file.same) {
      done.content_id = file.content_id;
    } else if (file.chunks.size() <= 1) {
      // docs/formats.md, "Content ids".
      std::string text("file\0", 5);
      put_u8(text, file.chunks.empty() ? 0 : 1);
      if (!file.chunks.empty()) {
        put_varint(text, file.size);
        text += file.chunks[0].hash.view();
      }
      done.content_id = sha256(text);
    }
    on_file_(done);
  }

  // --- Committing ---

  Parameters edit_query(const std::string& description) const {
    Parameters query = {{"ref", target_.ref.to_string()}};
    if (!description.empty()) query["description"] = description;
    if (started_) query["upload"] = upload_id_;
    return query;
  }

  Result<std::string> send_edit(const std::string& description) {
    QANAT_RETURN_IF_ERROR(spool_.rewind());
    return server_.upload(
        "edit_files", {{"project", target_.project}, {"repo", target_.repo}},
        edit_query(description),
        [this](char* buffer, size_t size) { return spool_.read(buffer, size); },
        api::kFileStreamType, spool_.size());
  }

  // Everything is in the one block: its bytes go with the edit.
  Result<std::string> commit_inline(const std::string& description) {
    size_t at = 0;
    MutexLock order(retire_mutex_);
    MutexLock lock(mutex_);
    for (const auto& file : files_) {
      if (file->same) {
        QANAT_RETURN_IF_ERROR(edit_.same(file->path, file->content_id));
        continue;
      }
      QANAT_RETURN_IF_ERROR(edit_.begin_put(file->path, file->append));
      for (api::ChunkName& name : file->chunks) {
        const std::string_view plain = block_->plain(block_->chunks[at++]);
        QANAT_RETURN_IF_ERROR(edit_.data(plain));
        if (file->chunks.size() == 1) name.hash = sha256(plain);
      }
      QANAT_RETURN_IF_ERROR(edit_.end_put());
      tell(*file);
    }
    QANAT_RETURN_IF_ERROR(edit_.finish());
    lock.unlock();
    auto answer = send_edit(description);
    if (answer.ok() && options_.on_durable) options_.on_durable(block_ ? block_->cut : 0, 0);
    return answer;
  }

  Connection& server_;
  const api::Address target_;
  UploaderOptions options_;
  std::function<void(const UploadedFile&)> on_file_;

  // The caller's thread. The threads read upload_id_ and started_, which are set before they start.
  std::string upload_id_;
  bool started_ = false;
  uint64_t handed_on_ = 0;  // bytes of blocks
  std::unique_ptr<Block> block_;
  std::shared_ptr<File> file_;
  std::vector<std::thread> threads_;
  const bool ask_for_all_;

  Mutex retire_mutex_;  // before mutex_
  Spool spool_;
  api::FileStreamWriter edit_;

  Mutex mutex_;
  CondVar changed_;
  Status failed_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  size_t made_ GUARDED_BY(mutex_) = 0;
  size_t busy_ GUARDED_BY(mutex_) = 0;  // blocks queued or with a thread
  uint64_t missed_ GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<Block>> free_ GUARDED_BY(mutex_);
  std::deque<std::unique_ptr<Block>> queue_ GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<File>> files_ GUARDED_BY(mutex_);  // given, not written yet
};

Uploader::Uploader(Connection& server, api::Address target, UploaderOptions options)
    : impl_(std::make_unique<Impl>(server, std::move(target), std::move(options))) {}
Uploader::~Uploader() = default;
void Uploader::on_file(std::function<void(const UploadedFile&)> each) {
  impl_->on_file(std::move(each));
}
Status Uploader::begin_file(std::string path, bool append) {
  return impl_->begin_file(std::move(path), append);
}
Result<bool> Uploader::fill(const Read& read) { return impl_->fill(read); }
Status Uploader::end_file(std::optional<FileStamp> stamp) { return impl_->end_file(stamp); }
Status Uploader::same_file(const std::string& path, const Hash& content_id,
                           const FileStamp& stamp) {
  return impl_->same_file(path, content_id, stamp);
}
Result<std::string> Uploader::commit(const std::string& description) {
  return impl_->commit(description);
}
bool Uploader::has_session() const { return impl_->has_session(); }

}  // namespace qanat::cli
