#include "qanat/content/file_writer.h"

#include <deque>
#include <optional>
#include <vector>

#include "qanat/base/string.h"
#include "qanat/content/node.h"

namespace qanat::content {

class FileWriter::Impl {
 public:
  explicit Impl(BlobWriter& writer)
      : writer_(writer),
        chunker_([this](std::string_view chunk) { return add_chunk(chunk); }),
        ahead_(writer.ahead()) {
    reset();
  }

  uint64_t size() const { return size_; }

  Status append(std::string_view bytes) {
    if (bytes.empty()) return ok_status();
    QANAT_RETURN_IF_ERROR(read_tail());
    size_ += bytes.size();
    return feed(bytes);
  }

  Status append_chunk(uint64_t size, const Hash& hash, bool ends_in_cut) {
    QANAT_RETURN_IF_ERROR(read_tail());
    size_ += size;
    return take_chunk(size, hash, !ends_in_cut);
  }

  Status append_file(const FileRef& file) {
    if (file.empty()) return ok_status();
    QANAT_RETURN_IF_ERROR(read_tail());
    size_ += file.size;
    if (file.kind == BlobKind::kChunk) return take_chunk(file.size, file.hash, true);
    QANAT_ASSIGN_OR_RETURN(NodePtr root, read_chunk_list_root(writer_, file.hash, file.size));
    return take_list(std::move(root));
  }

  Result<FileRef> finish() {
    if (tail_.has_value()) {
      QANAT_RETURN_IF_ERROR(list_chunk(tail_->size, tail_->hash));
    } else {
      finishing_ = true;
      QANAT_RETURN_IF_ERROR(chunker_.finish());
    }
    QANAT_RETURN_IF_ERROR(list_hashed(0));
    FileRef file{.size = size_};
    if (one_chunk_) {
      file.kind = BlobKind::kChunk;
      file.hash = first_;
    } else if (size_ > 0) {
      QANAT_ASSIGN_OR_RETURN(std::optional<NodeBuilder::Root> root, builder_->finish());
      file.kind = BlobKind::kNode;
      file.hash = root->hash;
      if (file.hash.is_zero()) {
        QANAT_ASSIGN_OR_RETURN(BlobRef ref, writer_.add(BlobKind::kNode, *root->bytes));
        file.hash = ref.hash;
      }
    }
    reset();
    return file;
  }

 private:
  struct Chunk {
    uint64_t size;
    Hash hash;
  };
  struct Hashing {
    uint64_t size;
    std::unique_ptr<PendingChunk> chunk;
  };
  struct Frame {
    NodePtr node;
    size_t index;
    bool last;
  };

  void reset() {
    chunker_.reset();
    hashing_.clear();
    finishing_ = false;
    builder_.emplace(writer_, nullptr);
    tail_.reset();
    size_ = fed_ = cut_ = 0;
    one_chunk_ = any_ = false;
  }

  // True if the bytes so far end at a cut, so that what follows is cut as a file of its own.
  bool at_cut() const { return fed_ == cut_; }

  Status feed(std::string_view bytes) {
    fed_ += bytes.size();
    return chunker_.update(bytes);
  }

  // From the chunker.
  Status add_chunk(std::string_view chunk) {
    cut_ += chunk.size();
    // The last one is waited for at once anyway.
    if (ahead_ > 0 && !finishing_) {
      QANAT_RETURN_IF_ERROR(list_hashed(ahead_ - 1));
      hashing_.push_back({chunk.size(), writer_.begin_add(Buffer(chunk))});
      return ok_status();
    }
    QANAT_ASSIGN_OR_RETURN(BlobRef ref, writer_.add(BlobKind::kChunk, chunk));
    return list_chunk(chunk.size(), ref.hash);
  }

  // Lists chunks that were begun, in order, until at most `left` of them are on their way.
  Status list_hashed(size_t left) {
    while (hashing_.size() > left) {
      QANAT_ASSIGN_OR_RETURN(const BlobRef ref, hashing_.front().chunk->wait());
      const uint64_t size = hashing_.front().size;
      hashing_.pop_front();
      QANAT_RETURN_IF_ERROR(append_to_list(size, ref.hash));
    }
    return ok_status();
  }

  Status list_chunk(uint64_t size, const Hash& hash) {
    QANAT_RETURN_IF_ERROR(list_hashed(0));
    return append_to_list(size, hash);
  }

  Status append_to_list(uint64_t size, const Hash& hash) {
    if (!any_) first_ = hash;
    one_chunk_ = !any_;
    any_ = true;
    return builder_->append_chunk(size, hash);
  }

  // A last chunk that was taken over unread: more bytes come after it, so it may not end there.
  Status read_tail() {
    if (!tail_.has_value()) return ok_status();
    const Chunk tail = *tail_;
    tail_.reset();
    return read_and_feed(tail.size, tail.hash);
  }

  Status read_and_feed(uint64_t size, const Hash& hash) {
    QANAT_ASSIGN_OR_RETURN(Blob bytes, writer_.read({BlobKind::kChunk, hash}));
    if (bytes->size() != size) {
      return data_loss(str_cat("chunk ", hash.to_hex(), " has ", bytes->size(),
                               " bytes, the list of its file says ", size));
    }
    return feed(*bytes);
  }

  Status take_chunk(uint64_t size, const Hash& hash, bool last) {
    if (!at_cut()) return read_and_feed(size, hash);
    if (last) {
      tail_ = Chunk{size, hash};
      return ok_status();
    }
    return list_chunk(size, hash);
  }

  // All chunks of a list: read while the cuts differ, then taken over, by subtrees where the lists'
  // nodes agree too. As in MapEditor, the right edge is taken apart: its nodes end for want of
  // entries.
  Status take_list(NodePtr root) {
    std::vector<Frame> path;
    path.push_back({std::move(root), 0, true});
    while (!path.empty()) {
      Frame& frame = path.back();
      if (frame.index == frame.node->size()) {
        path.pop_back();
        continue;
      }
      const NodeEntry& entry = frame.node->entries()[frame.index];
      const bool last = frame.last && frame.index + 1 == frame.node->size();
      const int level = frame.node->level();
      if (at_cut()) QANAT_RETURN_IF_ERROR(list_hashed(0));
      if (frame.node->is_leaf()) {
        QANAT_RETURN_IF_ERROR(take_chunk(entry.totals.bytes, entry.hash(), last));
        ++frame.index;
      } else if (at_cut() && !last && builder_->aligned_below(level)) {
        QANAT_RETURN_IF_ERROR(builder_->append_child(level, {}, entry.hash(), entry.totals));
        any_ = true;
        one_chunk_ = false;
        ++frame.index;
      } else {
        QANAT_ASSIGN_OR_RETURN(NodePtr child,
                               read_chunk_list_child(writer_, *frame.node, frame.index));
        ++frame.index;
        path.push_back({std::move(child), 0, last});
      }
    }
    return ok_status();
  }

  BlobWriter& writer_;
  chunk::Chunker chunker_;
  std::optional<NodeBuilder> builder_;
  std::optional<Chunk> tail_;
  const size_t ahead_;
  std::deque<Hashing> hashing_;  // cut, not listed yet
  bool finishing_ = false;
  uint64_t size_ = 0;
  uint64_t fed_ = 0;  // bytes that went through the chunker, and those of them it has cut
  uint64_t cut_ = 0;
  bool any_ = false;
  bool one_chunk_ = false;  // exactly one entry so far, first_
  Hash first_;
};

FileWriter::FileWriter(BlobWriter& writer) : impl_(std::make_unique<Impl>(writer)) {}
FileWriter::~FileWriter() = default;

Status FileWriter::append(std::string_view bytes) { return impl_->append(bytes); }
Status FileWriter::append_file(const FileRef& file) { return impl_->append_file(file); }
Status FileWriter::append_chunk(uint64_t size, const Hash& hash, bool ends_in_cut) {
  return impl_->append_chunk(size, hash, ends_in_cut);
}
uint64_t FileWriter::size() const { return impl_->size(); }
Result<FileRef> FileWriter::finish() { return impl_->finish(); }

Result<FileRef> write_file(BlobWriter& writer, std::string_view bytes) {
  FileWriter file(writer);
  QANAT_RETURN_IF_ERROR(file.append(bytes));
  return file.finish();
}

Result<FileRef> concat_files(BlobWriter& writer, const FileRef& a, const FileRef& b) {
  FileWriter file(writer);
  QANAT_RETURN_IF_ERROR(file.append_file(a));
  QANAT_RETURN_IF_ERROR(file.append_file(b));
  return file.finish();
}

}  // namespace qanat::content
