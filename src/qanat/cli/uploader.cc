#include "qanat/cli/uploader.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <new>
#include <thread>
#include <unordered_set>
#include <vector>

#include "qanat/api/files.h"
#include "qanat/base/bytes.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"
#include "qanat/chunk/blob_ref.h"
#include "qanat/chunk/chunker.h"

namespace qanat::cli {
namespace {

// Small, so that bytes are still in the processor's caches from one step to the next.
constexpr size_t kBlock = 4u << 20;
constexpr size_t kBlockChunks = 16u << 10;
constexpr size_t kCapacity = kBlock + 2 * chunk::kMaxChunk;
constexpr size_t kInline = kBlock;        // up to here all goes with the edit
constexpr uint64_t kRequest = 32u << 20;  // of blocks, then their chunks are made durable
constexpr size_t kRequestChunks = 32u << 10;
constexpr std::chrono::milliseconds kPause{200};  // then an open request is ended
constexpr std::chrono::seconds kRequestTime{2};  // on a slow way too, what was sent becomes durable
constexpr size_t kReadPiece = 256u << 10;
constexpr uint64_t kPatience = 32u << 20;  // bytes without a hit
constexpr size_t kSampled = 16;            // then one chunk in so many is asked for
constexpr size_t kMaxClaimed = 256u << 10;
constexpr size_t kMaxFiles = 32u << 10;  // that wait for an earlier one
constexpr size_t kSpoolMemory = 8u << 20;
constexpr uint64_t kPass = 256u << 20;  // of a file that the server reads, at once
constexpr size_t kFrameHead = 12;       // u32 length, u64 checksum

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

// Memory of its own, in huge pages where the system gives them: faulting a block in by pages of
// 4 KiB costs as much as reading a file into it.
class Pages {
 public:
  explicit Pages(size_t size) : size_((size + kHugePage - 1) / kHugePage * kHugePage) {
    data_ = static_cast<char*>(std::aligned_alloc(kHugePage, size_));
    if (data_ == nullptr) throw std::bad_alloc();
    (void)madvise(data_, size_, MADV_HUGEPAGE);
  }
  ~Pages() { std::free(data_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  char* data() const { return data_; }

 private:
  static constexpr size_t kHugePage = 2u << 20;
  size_t size_;
  char* data_;
};

struct Block {
  struct Chunk {
    std::shared_ptr<File> file;
    size_t index;  // in file->chunks
    size_t offset;
    size_t length;
    Hash hash;
    bool hashed = false;
    bool asked = false;
    bool there = false;
  };
  Pages bytes{kCapacity};
  size_t filled = 0;
  size_t cut = 0;  // up to here it is cut into chunks
  std::vector<Chunk> chunks;
  size_t sent = 0;    // chunks
  size_t offset = 0;  // in the next one's frame

  std::string_view plain(const Chunk& chunk) const {
    return {bytes.data() + chunk.offset, chunk.length};
  }
  std::string_view uncut() const { return {bytes.data() + cut, filled - cut}; }
  void clear() {
    filled = cut = sent = offset = 0;
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

// While one waits for its chunks to be durable, others send.
size_t default_threads() {
  return std::clamp<size_t>(3 * std::thread::hardware_concurrency(), 4, 6);
}

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
    QANAT_ASSIGN_OR_RETURN(const size_t got, read(block_->bytes.data() + block_->filled, room));
    block_->filled += got;
    file_->size += got;
    QANAT_RETURN_IF_ERROR(cut_all());
    return got > 0;
  }

  Result<Passed> pass(int file, const std::function<void(uint64_t)>& progress) {
    Passed passed;
    while (passing_ && !passed.ended) {
      if (!started_) QANAT_RETURN_IF_ERROR(start());
      {
        MutexLock lock(mutex_);
        QANAT_RETURN_IF_ERROR(failed_);
      }
      const uint64_t before = passed.bytes;
      const auto answer = server_.pass_file(
          "upload_file", upload_parameters(),
          {{"offset", std::to_string(passed.bytes)}, {"length", std::to_string(kPass)}}, file);
      // What is wrong with the way there is no matter: the rest is sent, and says it if that
      // cannot be done either.
      if (!answer.ok() && answer.code() != Code::kResourceExhausted) {
        passing_ = false;
        break;
      }
      QANAT_RETURN_IF_ERROR(answer.status());
      QANAT_RETURN_IF_ERROR(take_passed(*answer, &passed));
      progress(passed.bytes - before);
    }
    return passed;
  }

  Status end_file(std::optional<FileStamp> stamp) {
    if (block_ != nullptr && !block_->uncut().empty()) cut_off(block_->uncut().size());
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
      end_requests_ = true;
      changed_.notify_all();
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

  // The answer to a file that was passed: its chunks are durable.
  Status take_passed(std::string_view answer, Passed* passed) {
    Reader reader(answer);
    const auto ended = reader.u8();
    const auto fresh = reader.u64();
    uint64_t bytes = 0;
    MutexLock lock(mutex_);
    while (fresh.ok() && !reader.at_end()) {
      const auto length = reader.u32();
      const auto name = length.ok() ? reader.raw(Hash::kSize) : length.status();
      if (!name.ok()) return broken_answer();
      QANAT_ASSIGN_OR_RETURN(const Hash hash, Hash::from_bytes(*name));
      file_->chunks.push_back({*length, hash});
      bytes += *length;
    }
    if (!ended.ok() || !fresh.ok() || *fresh > bytes || (bytes == 0 && *ended == 0))
      return broken_answer();
    file_->size += bytes;
    passed->bytes += bytes;
    passed->ended = *ended != 0;
    lock.unlock();
    if (options_.on_durable) options_.on_durable(*fresh, bytes - *fresh);
    return ok_status();
  }

  // Cuts what has come.
  Status cut_all() {
    while (block_ != nullptr && scanned_ < block_->uncut().size()) {
      const size_t length = finder_.find(block_->uncut().substr(scanned_));
      if (length == 0) {
        scanned_ = block_->uncut().size();
        break;
      }
      cut_off(scanned_ + length);
      QANAT_RETURN_IF_ERROR(hand_on_if_full());
    }
    return ok_status();
  }

  void cut_off(size_t length) {
    finder_ = chunk::CutFinder();
    scanned_ = 0;
    MutexLock lock(mutex_);
    block_->chunks.push_back({file_, file_->chunks.size(), block_->cut, length, {}});
    file_->chunks.push_back({length, {}});
    ++file_->unnamed;
    block_->cut += length;
  }

  Status hand_on_if_full() {
    if (block_ == nullptr) return ok_status();
    if (block_->cut < kBlock && block_->chunks.size() < kBlockChunks) return ok_status();
    if (!started_) QANAT_RETURN_IF_ERROR(start());
    return hand_on();
  }

  // Gives the block to the threads; what is not cut yet begins the next one.
  Status hand_on() {
    std::unique_ptr<Block> full = std::move(block_);
    const std::string_view rest = full->uncut();
    if (!rest.empty()) {
      QANAT_RETURN_IF_ERROR(need_block());
      // NOLINTNEXTLINE(clang-analyzer-cplusplus.Move): it has made one.
      std::memcpy(block_->bytes.data(), rest.data(), rest.size());
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
    end_requests_ = true;
    changed_.notify_all();
    while (failed_.ok() && busy_ > 0 && files_.size() >= 2 * kMaxFiles) changed_.wait(mutex_);
    end_requests_ = false;
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
    for (size_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this, i] { work(i); });
    return ok_status();
  }

  // --- The threads: a request each, over many blocks ---

  void work(size_t number) {
    // The first request of each is of another length, so that they do not all send at one time and
    // all wait for the server's disk at another.
    uint64_t limit = kRequest * (number + 1) / options_.threads;
    for (;; limit = kRequest) {
      std::unique_ptr<Block> block;
      {
        MutexLock lock(mutex_);
        while (queue_.empty() && !stopping_ && failed_.ok()) changed_.wait(mutex_);
        if (stopping_ || !failed_.ok()) return;
        block = std::move(queue_.front());
        queue_.pop_front();
      }
      Status status = send(std::move(block), limit);
      if (status.ok()) continue;
      MutexLock lock(mutex_);
      if (failed_.ok()) failed_ = std::move(status);
      changed_.notify_all();
      return;
    }
  }

  Parameters upload_parameters() const {
    return {{"project", target_.project}, {"upload", upload_id_}};
  }

  // Blocks whose chunks are on their way to the server.
  struct Sending {
    std::unique_ptr<Block> block;  // the one that is being sent
    size_t blocks = 0;             // with it
    uint64_t bytes = 0;            // of those before it
    std::vector<Block::Chunk> sent;
    std::string head;
    uint64_t limit = kRequest;  // of bytes
    const std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
    Status failed;
  };

  // Sends the block's chunks that are missing, and those of the blocks that come meanwhile, and
  // waits until they are durable.
  Status send(std::unique_ptr<Block> block, uint64_t limit) {
    Sending sending;
    sending.limit = limit;
    QANAT_RETURN_IF_ERROR(begin(sending, std::move(block)));
    if (sending.block == nullptr) return settle(sending, {});  // all of it is there
    auto names = server_.upload(
        "upload_chunks", upload_parameters(), {},
        [&](char* buffer, size_t size) { return pull(sending, buffer, size); },
        "application/octet-stream");
    QANAT_RETURN_IF_ERROR(sending.failed);
    QANAT_RETURN_IF_ERROR(names.status());
    return settle(sending, *names);
  }

  // Asks what of the block is there, settles that, and moves on to the first chunk to send. Without
  // any the block is given back.
  Status begin(Sending& sending, std::unique_ptr<Block> block) {
    ++sending.blocks;
    bool sample = false;
    {
      MutexLock lock(mutex_);
      sample = !ask_for_all_ && missed_ >= kPatience;
    }
    QANAT_ASSIGN_OR_RETURN(bool hit, ask(*block, sample ? kSampled : 1));
    if (sample && hit) QANAT_RETURN_IF_ERROR(ask(*block, 1).status());
    uint64_t there = 0;
    {
      MutexLock lock(mutex_);
      missed_ = hit ? 0 : missed_ + block->cut;
      for (Block::Chunk& chunk : block->chunks) {
        if (!chunk.there && chunk.hashed && !claim(chunk.hash)) chunk.there = true;
        if (!chunk.there) continue;
        there += chunk.length;
        name(chunk);
      }
    }
    if (there > 0 && options_.on_durable) options_.on_durable(0, there);
    std::erase_if(block->chunks, [](const Block::Chunk& chunk) { return chunk.there; });
    if (!block->chunks.empty()) {
      sending.block = std::move(block);
      return ok_status();
    }
    give_back(std::move(block));
    return ok_status();
  }

  // False if the chunk is on its way already. Nothing is committed unless that goes well.
  bool claim(const Hash& hash) REQUIRES(mutex_) {
    if (claimed_.size() >= kMaxClaimed) return !claimed_.contains(hash);
    return claimed_.insert(hash).second;
  }

  void name(const Block::Chunk& chunk) REQUIRES(mutex_) {
    chunk.file->chunks[chunk.index].hash = chunk.hash;
    --chunk.file->unnamed;
  }

  void give_back(std::unique_ptr<Block> block) {
    block->clear();
    MutexLock lock(mutex_);
    free_.push_back(std::move(block));
    changed_.notify_all();
  }

  // The request's body: for each chunk a head, then its bytes.
  Result<size_t> pull(Sending& sending, char* buffer, size_t size) {
    size_t done = 0;
    while (done < size) {
      if (sending.block == nullptr) {
        if (done > 0) return done;
        QANAT_ASSIGN_OR_RETURN(const bool more, next_block(sending));
        if (!more) return size_t{0};
      }
      Block& block = *sending.block;
      const std::string_view plain = block.plain(block.chunks[block.sent]);
      if (block.offset == 0) {
        sending.head.clear();
        put_u32(sending.head, static_cast<uint32_t>(plain.size()));
        put_u64(sending.head, hash64(plain));
      }
      const std::string_view part = block.offset < kFrameHead
                                        ? std::string_view(sending.head).substr(block.offset)
                                        : plain.substr(block.offset - kFrameHead);
      const size_t take = std::min(size - done, part.size());
      std::memcpy(buffer + done, part.data(), take);
      done += take;
      block.offset += take;
      if (block.offset < kFrameHead + plain.size()) continue;
      block.offset = 0;
      if (++block.sent < block.chunks.size()) continue;
      sending.bytes += block.cut;
      sending.sent.insert(sending.sent.end(), block.chunks.begin(), block.chunks.end());
      give_back(std::move(sending.block));
    }
    return done;
  }

  // False when the request should end: it is long enough, or nothing comes.
  Result<bool> next_block(Sending& sending) {
    while (sending.bytes < sending.limit && sending.sent.size() < kRequestChunks &&
           std::chrono::steady_clock::now() < sending.began + kRequestTime) {
      std::unique_ptr<Block> block;
      {
        MutexLock lock(mutex_);
        const auto deadline = std::chrono::steady_clock::now() + kPause;
        while (queue_.empty() && !end_requests_ && !stopping_ && failed_.ok()) {
          const auto left = std::chrono::ceil<std::chrono::milliseconds>(
              deadline - std::chrono::steady_clock::now());
          if (left.count() <= 0) break;
          changed_.wait_for_ms(mutex_, left.count());
        }
        if (queue_.empty() || !failed_.ok()) return false;
        block = std::move(queue_.front());
        queue_.pop_front();
      }
      sending.failed = begin(sending, std::move(block));
      QANAT_RETURN_IF_ERROR(sending.failed);
      if (sending.block != nullptr) return true;
    }
    return false;
  }

  // What was sent is durable, by these names.
  Status settle(Sending& sending, std::string_view names) {
    std::vector<Block::Chunk>& sent = sending.sent;
    if (names.size() != sent.size() * Hash::kSize) return broken_answer();
    uint64_t bytes = 0;
    for (size_t i = 0; i < sent.size(); ++i) {
      QANAT_ASSIGN_OR_RETURN(const Hash hash,
                             Hash::from_bytes(names.substr(i * Hash::kSize, Hash::kSize)));
      if (sent[i].hashed && sent[i].hash != hash) return broken_answer();
      sent[i].hash = hash;
      bytes += sent[i].length;
    }
    {
      MutexLock lock(mutex_);
      for (const Block::Chunk& chunk : sent) name(chunk);
    }
    if (bytes > 0 && options_.on_durable) options_.on_durable(bytes, 0);
    QANAT_RETURN_IF_ERROR(retire());
    MutexLock lock(mutex_);
    busy_ -= sending.blocks;
    changed_.notify_all();
    return ok_status();
  }

  // Asks for one chunk in `step`, those that were not asked for yet. True if one is there. Short
  // chunks are hashed all the same: they are often equal, and cost little.
  Result<bool> ask(Block& block, size_t step) {
    std::string body;
    std::vector<Block::Chunk*> asked;
    for (size_t i = 0; i < block.chunks.size(); ++i) {
      Block::Chunk& chunk = block.chunks[i];
      const bool wanted = i % step == 0 && !chunk.asked;
      if (!chunk.hashed && (wanted || chunk.length < chunk::kMinChunk)) {
        chunk.hash = sha256(block.plain(chunk));
        chunk.hashed = true;
      }
      if (!wanted) continue;
      chunk.asked = true;
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
  bool passing_ = true;  // as long as it works
  std::unique_ptr<Block> block_;
  chunk::CutFinder finder_;
  size_t scanned_ = 0;  // bytes of the block's uncut ones that finder_ has seen
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
  size_t busy_ GUARDED_BY(mutex_) = 0;  // blocks handed on whose chunks are not all durable
  bool end_requests_ GUARDED_BY(mutex_) = false;  // somebody waits for that
  uint64_t missed_ GUARDED_BY(mutex_) = 0;
  std::unordered_set<Hash> claimed_ GUARDED_BY(mutex_);  // chunks sent in this session
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
Result<Uploader::Passed> Uploader::pass(int file, const std::function<void(uint64_t)>& progress) {
  return impl_->pass(file, progress);
}
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
