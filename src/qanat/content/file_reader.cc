#include "qanat/content/file_reader.h"

#include <algorithm>

#include "qanat/base/string.h"

namespace qanat::content {

void FileReader::seek(uint64_t offset) { position_ = std::min(offset, file_.size); }

// Puts the chunk that holds position_ in hand.
Status FileReader::load() {
  if (chunk_ != nullptr && position_ >= chunk_begin_ && position_ - chunk_begin_ < chunk_->size()) {
    return ok_status();
  }
  chunk_.reset();
  if (file_.kind == BlobKind::kChunk) {
    QANAT_ASSIGN_OR_RETURN(chunk_, reader_->read(file_.blob()));
    chunk_begin_ = 0;
    if (chunk_->size() != file_.size) {
      return data_loss(str_cat(file_.blob().to_string(), " has ", chunk_->size(),
                               " bytes; its file has ", file_.size));
    }
    return ok_status();
  }
  if (path_.empty()) {
    QANAT_ASSIGN_OR_RETURN(NodePtr root, read_chunk_list_root(*reader_, file_.hash, file_.size));
    path_.push_back({std::move(root), 0, 0});
  }
  // Up while the position is outside of the node, then down to it.
  while (path_.size() > 1) {
    const Frame& above = path_[path_.size() - 2];
    const uint64_t length = above.node->entries()[above.index].totals.bytes;
    if (position_ >= above.begin && position_ - above.begin < length) break;
    path_.pop_back();
  }
  for (;;) {
    Frame& frame = path_.back();
    const std::vector<NodeEntry>& entries = frame.node->entries();
    while (position_ < frame.begin) frame.begin -= entries[--frame.index].totals.bytes;
    while (position_ - frame.begin >= entries[frame.index].totals.bytes) {
      frame.begin += entries[frame.index++].totals.bytes;
    }
    if (frame.node->is_leaf()) break;
    QANAT_ASSIGN_OR_RETURN(NodePtr child,
                           read_chunk_list_child(*reader_, *frame.node, frame.index));
    const uint64_t begin = frame.begin;
    path_.push_back({std::move(child), 0, begin});
  }
  const Frame& leaf = path_.back();
  const NodeEntry& entry = leaf.node->entries()[leaf.index];
  const BlobRef ref{BlobKind::kChunk, entry.hash()};
  QANAT_ASSIGN_OR_RETURN(Blob chunk, reader_->read(ref));
  if (chunk->size() != entry.totals.bytes) {
    return data_loss(str_cat(ref.to_string(), " has ", chunk->size(),
                             " bytes; the list of its file says ", entry.totals.bytes));
  }
  chunk_ = std::move(chunk);
  chunk_begin_ = leaf.begin;
  return ok_status();
}

Result<std::string_view> FileReader::next() {
  if (position_ >= file_.size) {
    chunk_.reset();
    return std::string_view();
  }
  QANAT_RETURN_IF_ERROR(load());
  const std::string_view bytes = std::string_view(*chunk_).substr(position_ - chunk_begin_);
  position_ += bytes.size();
  return bytes;
}

Status FileReader::read_range(uint64_t offset, uint64_t length,
                              const std::function<Status(std::string_view)>& sink) {
  seek(offset);
  while (length > 0) {
    QANAT_ASSIGN_OR_RETURN(std::string_view bytes, next());
    if (bytes.empty()) return ok_status();
    if (bytes.size() > length) {
      position_ -= bytes.size() - length;
      bytes = bytes.substr(0, length);
    }
    length -= bytes.size();
    QANAT_RETURN_IF_ERROR(sink(bytes));
  }
  return ok_status();
}

Result<std::string> FileReader::read_all(uint64_t limit) {
  if (file_.size > limit) {
    return too_large(str_cat("the file has ", format_size(file_.size), ", the limit here is ",
                             format_size(limit)));
  }
  std::string all;
  all.reserve(file_.size);
  QANAT_RETURN_IF_ERROR(read_range(0, file_.size, [&all](std::string_view bytes) {
    all += bytes;
    return ok_status();
  }));
  return all;
}

namespace {

// `begin` is where the node begins in the file.
Status visit_list(BlobReader& reader, const Node& node, uint64_t begin, uint64_t from, uint64_t to,
                  const std::function<Status(uint64_t, uint64_t, const Hash&)>& visit) {
  for (size_t i = 0; i < node.size() && begin < to; ++i) {
    const NodeEntry& entry = node.entries()[i];
    const uint64_t end = begin + entry.totals.bytes;
    if (end > from) {
      if (node.is_leaf()) {
        QANAT_RETURN_IF_ERROR(visit(begin, entry.totals.bytes, entry.hash()));
      } else {
        QANAT_ASSIGN_OR_RETURN(NodePtr child, read_chunk_list_child(reader, node, i));
        QANAT_RETURN_IF_ERROR(visit_list(reader, *child, begin, from, to, visit));
      }
    }
    begin = end;
  }
  return ok_status();
}

}  // namespace

Status visit_chunks(BlobReader& reader, const FileRef& file, uint64_t offset, uint64_t length,
                    const std::function<Status(uint64_t, uint64_t, const Hash&)>& visit) {
  if (offset >= file.size || length == 0) return ok_status();
  const uint64_t end = offset + std::min(length, file.size - offset);
  if (file.kind == BlobKind::kChunk) return visit(0, file.size, file.hash);
  QANAT_ASSIGN_OR_RETURN(NodePtr root, read_chunk_list_root(reader, file.hash, file.size));
  return visit_list(reader, *root, 0, offset, end, visit);
}

}  // namespace qanat::content
