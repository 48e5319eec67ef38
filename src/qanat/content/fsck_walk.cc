#include "qanat/content/fsck_walk.h"

#include <cstring>

#include "qanat/base/string.h"
#include "qanat/content/node.h"
#include "qanat/content/owner_tree.h"
#include "qanat/content/tree.h"

namespace qanat::content {
namespace {

constexpr size_t kBatch = 256;  // nodes read at once: 4 MiB at most, but for huge entries
constexpr size_t kFirstSlots = 1024;

uint64_t fingerprint(const BlobRef& ref, FsckUse use) {
  uint64_t bits = 0;
  std::memcpy(&bits, ref.hash.view().data(), sizeof(bits));
  // The same node may be read in two ways.
  bits ^= (static_cast<uint64_t>(use) << 1 | static_cast<uint64_t>(ref.kind == BlobKind::kNode)) *
          0x9e3779b97f4a7c15u;
  return bits == 0 ? 1 : bits;
}

// Where an inner entry leads, for people.
std::string range_label(const Node& node, size_t i, std::string_view key) {
  if (i == 0) return str_cat("(entries up to ", quoted(key), ")");
  return str_cat("(entries after ", quoted(node.entries()[i - 1].key), ", up to ", quoted(key),
                 ")");
}

Status visit_tree_node(const Blob& node, const std::string& prefix, bool with_labels,
                       const FsckVisit& visit) {
  if (node->size() < 2) return data_loss("it is too short");
  const auto type = static_cast<NodeType>((*node)[1]);
  const bool list = type == NodeType::kChunkListLeaf || type == NodeType::kChunkListInner;
  QANAT_ASSIGN_OR_RETURN(const NodePtr parsed, list ? Node::parse_chunk_list(node)
                                                    : Node::parse_map(kDirectoryMap, node));
  for (size_t i = 0; i < parsed->size(); ++i) {
    const NodeEntry& entry = parsed->entries()[i];
    FsckChild child;
    if (list || !parsed->is_leaf()) {
      child.ref = {list && parsed->is_leaf() ? BlobKind::kChunk : BlobKind::kNode, entry.hash()};
      if (with_labels) child.label = prefix;
      if (with_labels && !list) child.range = range_label(*parsed, i, entry.key);
      QANAT_RETURN_IF_ERROR(visit(std::move(child)));
      continue;
    }
    QANAT_ASSIGN_OR_RETURN(const TreeEntry value, TreeEntry::decode(entry.value));
    const std::string label =
        with_labels ? str_cat(prefix, entry.key, value.is_directory ? "/" : "") : "";
    if (value.is_directory) {
      // Inlining nests within 256 bytes, so this recursion ends soon.
      QANAT_RETURN_IF_ERROR(visit_fsck_tree(value.directory, label, with_labels, visit));
    } else if (!value.file.empty()) {
      QANAT_RETURN_IF_ERROR(visit({value.file.blob(), FsckUse::kTree, label, ""}));
    }
  }
  return ok_status();
}

}  // namespace

Status visit_fsck_tree(const MapRoot& root, const std::string& label, bool with_labels,
                       const FsckVisit& visit) {
  if (root.empty()) return ok_status();
  if (root.inlined.empty()) {
    return visit({{BlobKind::kNode, root.hash}, FsckUse::kTree, label, ""});
  }
  return visit_tree_node(std::make_shared<const std::string>(root.inlined), label, with_labels,
                         visit);
}

Status visit_fsck_map(
    FsckUse use, const Blob& node, bool with_labels, const FsckVisit& visit,
    const std::function<Status(std::string_view key, std::string_view value)>& on_value) {
  QANAT_ASSIGN_OR_RETURN(const NodePtr parsed, Node::parse_map(kPlainMap, node));
  for (size_t i = 0; i < parsed->size(); ++i) {
    const NodeEntry& entry = parsed->entries()[i];
    if (parsed->is_leaf()) {
      if (on_value) QANAT_RETURN_IF_ERROR(on_value(entry.key, entry.value));
      continue;
    }
    // Keys of maps are for machines: the label says only which part it is.
    QANAT_RETURN_IF_ERROR(
        visit({{BlobKind::kNode, entry.hash()},
               use,
               "",
               with_labels ? str_cat("(part ", i + 1, " of ", parsed->size(), ")") : ""}));
  }
  return ok_status();
}

// --- FsckSeen ---

FsckSeen::FsckSeen(size_t memory_budget)
    : max_slots_([&] {
        size_t slots = kFirstSlots;
        while (slots * 2 * sizeof(uint64_t) <= memory_budget) slots *= 2;
        return slots;
      }()) {
  clear();
}

void FsckSeen::clear() {
  slots_.assign(kFirstSlots, 0);
  used_ = 0;
}

bool FsckSeen::insert(uint64_t fingerprint) {
  if (used_ >= slots_.size() / 4 * 3) grow();
  const size_t mask = slots_.size() - 1;
  for (size_t i = fingerprint & mask;; i = (i + 1) & mask) {
    if (slots_[i] == fingerprint) return false;
    if (slots_[i] != 0) continue;
    slots_[i] = fingerprint;
    ++used_;
    return true;
  }
}

void FsckSeen::grow() {
  if (slots_.size() >= max_slots_) return clear();
  std::vector<uint64_t> old(slots_.size() * 2, 0);
  old.swap(slots_);
  used_ = 0;
  for (const uint64_t fingerprint : old) {
    if (fingerprint != 0) insert(fingerprint);
  }
}

// --- FsckWalk ---

FsckWalk::FsckWalk(const FsckContext& context, FsckIndex* index, FsckDamage* damage,
                   std::function<Status(uint64_t)> tick)
    : context_(context),
      damage_(damage),
      reader_(context, index, damage),
      tick_(std::move(tick)),
      seen_(context.memory_budget / 2),
      chunks_(*context.file_system, context.scratch, context.memory_budget / 2) {}

Status FsckWalk::visit(FsckUse use, const Blob& node, bool with_labels, const FsckVisit& visit) {
  switch (use) {
    case FsckUse::kTree:
      return visit_tree_node(node, "", with_labels, visit);
    case FsckUse::kPlain:
      return visit_fsck_map(use, node, with_labels, visit, {});
    case FsckUse::kOwners:
      return visit_fsck_map(
          use, node, with_labels, visit,
          [&](std::string_view key, std::string_view value) -> Status {
            QANAT_ASSIGN_OR_RETURN(const FileRef file, FileRef::decode(value));
            QANAT_ASSIGN_OR_RETURN(const OwnerKey owner, parse_owner_key(key));
            if (file.empty()) return ok_status();
            return visit({file.blob(), FsckUse::kTree, with_labels ? owner.path : "", ""});
          });
    default:
      for (FsckSource* source : context_.sources) {
        Status status = source->visit_node(use, node, with_labels, visit);
        if (status.code() != Code::kNotFound) return status;
      }
      return internal_error("nobody reads nodes of this use");
  }
}

Status FsckWalk::visit_root(const FsckRoot& root, bool with_labels, const FsckVisit& visit) {
  if (root.root.empty()) return ok_status();
  if (root.root.inlined.empty()) {
    return visit({{BlobKind::kNode, root.root.hash}, root.use, "", ""});
  }
  return this->visit(root.use, std::make_shared<const std::string>(root.root.inlined), with_labels,
                     visit);
}

void FsckWalk::mark_senseless(const BlobRef& ref, const Status& status) {
  damage_->mark(
      ref, damage_->add(
               {str_cat(ref.to_string(), " makes no sense: ", status.message()), "", {}, 0}, true));
}

Status FsckWalk::check() {
  const FsckVisit push = [this](const FsckChild& child) -> Status {
    if (child.ref.kind == BlobKind::kChunk) return chunks_.add(child.ref.hash.view(), "");
    if (seen_.insert(fingerprint(child.ref, child.use))) stack_.push_back({child.ref, child.use});
    return ok_status();
  };
  for (FsckSource* source : context_.sources) {
    QANAT_RETURN_IF_ERROR(
        source->visit_roots(context_.project, [&](const FsckRoot& root) -> Status {
          const Status status = visit_root(root, false, push);
          if (status.code() == Code::kDataLoss) {
            const int problem =
                damage_->add({"a root makes no sense: " + status.message(), "", {}, 0}, false);
            if (problem >= 0) damage_->touch(problem, root.label);
          } else {
            QANAT_RETURN_IF_ERROR(status);
          }
          return drain(kBatch);
        }));
  }
  QANAT_RETURN_IF_ERROR(drain(1));
  return chunks_.finish();
}

// Until fewer than `until` nodes wait. The last ones first: the stack stays as small as a path of
// nodes times their width.
Status FsckWalk::drain(size_t until) {
  while (stack_.size() >= until) {
    const size_t count = std::min(stack_.size(), kBatch);
    const std::vector<Item> batch(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    std::vector<BlobRef> refs;
    for (const Item& item : batch) refs.push_back(item.ref);
    QANAT_ASSIGN_OR_RETURN(const std::vector<Blob> nodes, reader_.read_many(refs));
    for (size_t i = 0; i < count; ++i) {
      if (nodes[i] == nullptr) continue;
      ++nodes_;
      const Status status =
          visit(batch[i].use, nodes[i], false, [this](const FsckChild& child) -> Status {
            if (child.ref.kind == BlobKind::kChunk) return chunks_.add(child.ref.hash.view(), "");
            if (seen_.insert(fingerprint(child.ref, child.use))) {
              stack_.push_back({child.ref, child.use});
            }
            return ok_status();
          });
      if (status.code() == Code::kDataLoss) {
        mark_senseless(batch[i].ref, status);
      } else {
        QANAT_RETURN_IF_ERROR(status);
      }
    }
    QANAT_RETURN_IF_ERROR(tick_(nodes_));
  }
  return ok_status();
}

bool FsckWalk::is_hurt(const Item& item) const {
  return damage_->of(item.ref) || hurt_.contains(fingerprint(item.ref, item.use));
}

Status FsckWalk::learn(const Item& item) {
  struct Frame {
    Item item;
    std::vector<Item> children;
    size_t next = 0;
  };
  std::vector<Frame> path;
  auto enter = [&](const Item& at) -> Status {
    if (at.ref.kind == BlobKind::kChunk || damage_->of(at.ref) ||
        !seen_.insert(fingerprint(at.ref, at.use))) {
      return ok_status();
    }
    QANAT_ASSIGN_OR_RETURN(const std::vector<Blob> node, reader_.read_many(std::span(&at.ref, 1)));
    Frame frame{at, {}, 0};
    if (node[0] != nullptr) {
      const Status status = visit(at.use, node[0], false, [&](const FsckChild& child) -> Status {
        frame.children.push_back({child.ref, child.use});
        return ok_status();
      });
      if (status.code() == Code::kDataLoss) {
        mark_senseless(at.ref, status);
      } else {
        QANAT_RETURN_IF_ERROR(status);
      }
      QANAT_RETURN_IF_ERROR(tick_(nodes_));
    }
    path.push_back(std::move(frame));
    return ok_status();
  };
  QANAT_RETURN_IF_ERROR(enter(item));
  while (!path.empty()) {
    Frame& top = path.back();
    if (top.next < top.children.size()) {
      // By value: entering may move the frames.
      const Item child = top.children[top.next++];
      QANAT_RETURN_IF_ERROR(enter(child));
      continue;
    }
    for (const Item& child : top.children) {
      if (!is_hurt(child)) continue;
      hurt_.insert(fingerprint(top.item.ref, top.item.use));
      break;
    }
    path.pop_back();
  }
  return ok_status();
}

Status FsckWalk::name() {
  seen_.clear();
  for (FsckSource* source : context_.sources) {
    QANAT_RETURN_IF_ERROR(source->visit_roots(
        context_.project, [&](const FsckRoot& root) { return name_root(root); }));
  }
  return ok_status();
}

Status FsckWalk::name_root(const FsckRoot& root) {
  struct Place {
    Item item;
    std::string label;
    std::string range;
  };
  std::vector<Place> open;
  std::vector<Place> found;  // in order
  const std::string* label = &root.label;
  const FsckVisit collect = [&](FsckChild child) -> Status {
    found.push_back({{child.ref, child.use}, *label + child.label, std::move(child.range)});
    return ok_status();
  };
  if (const Status status = visit_root(root, true, collect); !status.ok()) {
    return status.code() == Code::kDataLoss ? ok_status() : status;  // told by check()
  }
  for (const Place& place : found) QANAT_RETURN_IF_ERROR(learn(place.item));
  while (true) {
    for (; !found.empty(); found.pop_back()) {
      if (is_hurt(found.back().item)) open.push_back(std::move(found.back()));
    }
    if (open.empty()) return ok_status();
    const Place place = std::move(open.back());
    open.pop_back();
    if (const auto problem = damage_->of(place.item.ref)) {
      damage_->touch(*problem, place.range.empty() ? place.label : place.label + place.range);
      continue;
    }
    QANAT_ASSIGN_OR_RETURN(const std::vector<Blob> node,
                           reader_.read_many(std::span(&place.item.ref, 1)));
    if (node[0] == nullptr) continue;
    label = &place.label;
    const Status status = visit(place.item.use, node[0], true, collect);
    label = &root.label;
    if (!status.ok() && status.code() != Code::kDataLoss) return status;
  }
}

}  // namespace qanat::content
