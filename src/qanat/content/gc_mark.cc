#include "qanat/content/gc_mark.h"

#include <algorithm>

#include "qanat/base/bytes.h"
#include "qanat/base/string.h"

namespace qanat::content {
namespace {

// A batch of reads holds at most this many plain bytes, about.
constexpr uint64_t kReadBytes = 8u << 20;
constexpr size_t kParts = 5;  // of the memory: marks, chunks, and three sorters
constexpr size_t kRootsDivisor = 10;

std::string big_endian(uint64_t number, int size = 8) {
  std::string bytes(static_cast<size_t>(size), '\0');
  for (int i = size - 1; i >= 0; --i, number >>= 8) {
    bytes[static_cast<size_t>(i)] = static_cast<char>(number & 0xff);
  }
  return bytes;
}

// Frontier: hash, use, holder. So the first of several that name the same node is the holder that
// came first.
std::string frontier_key(const Reference& reference, uint32_t holder) {
  std::string key(reference.ref.hash.view());
  put_u8(key, static_cast<uint8_t>(reference.use));
  return key.append(big_endian(holder, 4));
}

Result<Mark> parse_frontier_key(std::string_view key, uint32_t* holder) {
  Mark mark;
  QANAT_ASSIGN_OR_RETURN(mark.hash, Hash::from_bytes(key.substr(0, Hash::kSize)));
  mark.use = static_cast<NodeUse>(static_cast<uint8_t>(key[Hash::kSize]));
  *holder = 0;
  for (const char byte : key.substr(Hash::kSize + 1)) {
    *holder = *holder << 8 | static_cast<uint8_t>(byte);
  }
  return mark;
}

std::string holder_value(uint32_t holder) {
  std::string value;
  put_varint(value, holder);
  return value;
}

Result<uint32_t> parse_holder(std::string_view value) {
  Reader in(value);
  QANAT_ASSIGN_OR_RETURN(const uint64_t holder, in.varint());
  return static_cast<uint32_t>(holder);
}

}  // namespace

// A node of this generation, in order of place.
struct Marker::Located {
  Mark mark;
  uint32_t holder = 0;
  chunk::BlobLocation location;

  std::string key() const {
    std::string key = big_endian(location.pack->epoch);
    key.append(reinterpret_cast<const char*>(location.pack->id.data()), location.pack->id.size());
    key.append(big_endian(location.offset));
    put_u8(key, static_cast<uint8_t>(mark.use));
    return key;
  }
  std::string value() const {
    std::string value(mark.hash.view());
    put_u8(value, static_cast<uint8_t>(mark.use));
    put_varint(value, holder);
    put_bytes(value, chunk::encode_location(location));
    return value;
  }
  static Result<Located> parse(std::string_view value) {
    Reader in(value);
    Located located;
    QANAT_ASSIGN_OR_RETURN(const std::string_view hash, in.raw(Hash::kSize));
    QANAT_ASSIGN_OR_RETURN(located.mark.hash, Hash::from_bytes(hash));
    QANAT_ASSIGN_OR_RETURN(const uint8_t use, in.u8());
    located.mark.use = static_cast<NodeUse>(use);
    QANAT_ASSIGN_OR_RETURN(const uint64_t holder, in.varint());
    located.holder = static_cast<uint32_t>(holder);
    QANAT_ASSIGN_OR_RETURN(const std::string_view location, in.bytes());
    QANAT_ASSIGN_OR_RETURN(located.location, chunk::parse_location(location));
    return located;
  }
};

Marker::Marker(Context context)
    : context_(std::move(context)),
      marks_(*context_.scratch.file_system, context_.scratch.directory,
             context_.scratch.memory_budget / kParts),
      chunks_(sorter()),
      next_(sorter()) {}

Marker::~Marker() = default;

std::unique_ptr<ExternalSorter> Marker::sorter(size_t divisor) const {
  return std::make_unique<ExternalSorter>(*context_.scratch.file_system, context_.scratch.directory,
                                          context_.scratch.memory_budget / (kParts * divisor));
}

Result<uint32_t> Marker::holder_of(const Holder& holder) {
  const auto [found, fresh] = holder_ids_.emplace(holder, static_cast<uint32_t>(holders_.size()));
  if (fresh) holders_.push_back({holder, 0, 0});
  return found->second;
}

Status Marker::add(const Reference& reference, uint32_t holder, ExternalSorter& nodes) {
  if (reference.ref.kind == BlobKind::kChunk) return add_chunk(reference.ref, holder);
  return nodes.add(frontier_key(reference, holder), "");
}

Status Marker::add_chunk(const BlobRef& ref, uint32_t holder) {
  // After the marks were read, chunks matter only to a rescue.
  if (on_new_) return on_new_(ref);
  return chunks_->add(ref.hash.view(), holder_value(holder));
}

Status Marker::begin(RootSource::Request request,
                     const std::function<Status(const VisitRoot& visit)>& more) {
  for (int rank = 0; rank < kRootRanks; ++rank) {
    request.rank = static_cast<RootRank>(rank);
    ExternalSorter& roots = *roots_.emplace_back(sorter(kRootsDivisor));
    const VisitRoot visit = [&](const Holder& holder, const Reference& reference) -> Status {
      QANAT_ASSIGN_OR_RETURN(const uint32_t id, holder_of(holder));
      return add(reference, id, roots);
    };
    for (RootSource* source : context_.sources) {
      QANAT_RETURN_IF_ERROR(source->visit_roots(request, visit));
    }
    if (rank + 1 == kRootRanks && more) QANAT_RETURN_IF_ERROR(more(visit));
  }
  return ok_status();
}

Result<bool> Marker::step() {
  if (frontier_ != nullptr) {
    QANAT_RETURN_IF_ERROR(locate_some());
    return true;
  }
  if (located_ != nullptr) {
    QANAT_RETURN_IF_ERROR(read_some());
    return true;
  }
  if (!any_next_) {
    if (roots_.empty()) return false;
    next_ = std::move(roots_.front());
    roots_.pop_front();
  }
  QANAT_RETURN_IF_ERROR(next_->finish());
  frontier_ = std::move(next_);
  next_ = sorter();
  any_next_ = false;
  located_ = sorter();
  return true;
}

// Marks a part of the frontier, and looks up where it lies.
Status Marker::locate_some() {
  std::vector<Mark> marks;
  std::vector<uint32_t> holders;
  for (; frontier_->valid() && marks.size() < context_.nodes_per_step;) {
    uint32_t holder = 0;
    QANAT_ASSIGN_OR_RETURN(const Mark mark, parse_frontier_key(frontier_->key(), &holder));
    if (marks.empty() || marks.back() != mark) {
      marks.push_back(mark);
      holders.push_back(holder);
    }
    QANAT_RETURN_IF_ERROR(frontier_->next());
  }
  QANAT_ASSIGN_OR_RETURN(const std::vector<bool> added, marks_.add(marks));
  std::vector<BlobRef> refs;
  std::vector<size_t> position;
  for (size_t i = 0; i < marks.size(); ++i) {
    if (!added[i]) continue;
    refs.push_back({BlobKind::kNode, marks[i].hash});
    position.push_back(i);
  }
  if (!refs.empty()) {
    QANAT_ASSIGN_OR_RETURN(const auto locations, context_.blobs->locate_many(refs));
    for (size_t i = 0; i < refs.size(); ++i) {
      if (!locations[i]) {
        return data_loss(str_cat(refs[i].to_string(), " is in no pack, but ",
                                 holders_[holders[position[i]]].holder.kind, " ",
                                 holders_[holders[position[i]]].holder.name, " needs it"),
                         "nothing is collected; `qanat fsck` tells what else is damaged");
      }
      if (on_new_) QANAT_RETURN_IF_ERROR(on_new_(refs[i]));
      const Located located{marks[position[i]], holders[position[i]], *locations[i]};
      QANAT_RETURN_IF_ERROR(located_->add(located.key(), located.value()));
    }
  }
  if (frontier_->valid()) return ok_status();
  frontier_.reset();
  return located_->finish();
}

// Reads a part of the generation, in order of place.
Status Marker::read_some() {
  std::vector<Located> nodes;
  std::vector<BlobStore::Located> places;
  uint64_t bytes = 0;
  while (located_->valid() && nodes.size() < context_.nodes_per_step && bytes < kReadBytes) {
    QANAT_ASSIGN_OR_RETURN(Located node, Located::parse(located_->value()));
    bytes += node.location.plain_length;
    places.push_back({{BlobKind::kNode, node.mark.hash}, node.location});
    nodes.push_back(std::move(node));
    QANAT_RETURN_IF_ERROR(located_->next());
  }
  auto blobs = context_.blobs->read_located(places);
  if (blobs.code() == Code::kNotFound) {
    // Swept from under the view: never of what is marked, but a pack may have been moved by hand.
    return data_loss(blobs.status().message(), "nothing is collected");
  }
  QANAT_RETURN_IF_ERROR(blobs.status());
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Located& node = nodes[i];
    ++nodes_read_;
    holders_[node.holder].bytes += node.location.stored_length;
    ++holders_[node.holder].blobs;
    const auto visit = [&](const Reference& reference) {
      any_next_ = any_next_ || reference.ref.kind != BlobKind::kChunk;
      return add(reference, node.holder, *next_);
    };
    if (node.mark.use < NodeUse::kForeign) {
      QANAT_RETURN_IF_ERROR(visit_node_references((*blobs)[i], node.mark.use, visit));
      continue;
    }
    Status visited = not_found("nobody reads nodes of this use");
    for (RootSource* source : context_.sources) {
      visited = source->visit_references(node.mark.use, (*blobs)[i], visit);
      if (visited.code() != Code::kNotFound) break;
    }
    if (!visited.ok()) {
      return visited.with_context(places[i].ref.to_string());
    }
  }
  if (!located_->valid()) located_.reset();
  return ok_status();
}

Status Marker::begin_reading() {
  if (!chunks_finished_) {
    chunks_finished_ = true;
    QANAT_RETURN_IF_ERROR(chunks_->finish());
  } else {
    QANAT_RETURN_IF_ERROR(chunks_->rewind());
  }
  cursor_.emplace(marks_.cursor());
  QANAT_ASSIGN_OR_RETURN(next_node_, cursor_->next());
  return ok_status();
}

Result<std::optional<Marker::Marked>> Marker::next() {
  // Index keys begin with the kind: chunks come first.
  if (chunks_->valid()) {
    Marked marked;
    marked.ref.kind = BlobKind::kChunk;
    QANAT_ASSIGN_OR_RETURN(marked.ref.hash, Hash::from_bytes(chunks_->key()));
    marked.holder = UINT32_MAX;
    while (chunks_->valid() && chunks_->key() == marked.ref.hash.view()) {
      QANAT_ASSIGN_OR_RETURN(const uint32_t holder, parse_holder(chunks_->value()));
      marked.holder = std::min(marked.holder, holder);
      QANAT_RETURN_IF_ERROR(chunks_->next());
    }
    return std::optional<Marked>(marked);
  }
  if (!next_node_) return std::optional<Marked>();
  Marked marked{{BlobKind::kNode, next_node_->hash}, 0, true};
  while (next_node_ && next_node_->hash == marked.ref.hash) {
    QANAT_ASSIGN_OR_RETURN(next_node_, cursor_->next());
  }
  return std::optional<Marked>(marked);
}

}  // namespace qanat::content
