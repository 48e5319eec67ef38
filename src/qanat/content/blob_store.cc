#include "qanat/content/blob_store.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "qanat/base/bytes.h"
#include "qanat/base/counters.h"
#include "qanat/base/string.h"

namespace qanat::content {
namespace {

// Neighbours in a pack are read in one piece if the gap between them is small, up to a bounded
// piece.
constexpr uint64_t kMaxGap = 32u << 10;
constexpr uint64_t kMaxPiece = 2u << 20;

// Chunks up to this size are cached. Larger ones are read for their bytes' sake, once; they would
// push the nodes out.
constexpr size_t kCachedChunk = 64u << 10;

constexpr size_t kMaxDamagedCopies = 100'000;

constexpr std::string_view kPackPrefix = "packs/";

Status missing(const BlobRef& ref) { return not_found(str_cat(ref.to_string(), " is in no pack")); }

// What is not there although something refers to it is lost.
template <class T>
Result<T> lost(Result<T> result) {
  if (result.code() != Code::kNotFound) return result;
  return data_loss(
      result.status().message(),
      "the content was damaged or deleted outside of Qanat; restore the data folder from a backup");
}

void count_read(BlobKind kind, size_t bytes) {
  static Counter& nodes = counter("qanat_nodes_read_total", "Tree nodes read, cached or not");
  static Counter& chunks = counter("qanat_chunks_read_total", "File chunks read, cached or not");
  static Counter& total = counter("qanat_blob_bytes_read_total", "Plain bytes of blobs read");
  (kind == BlobKind::kNode ? nodes : chunks).add();
  total.add(bytes);
}

void count_fetched(BlobKind kind) {
  static Counter& nodes =
      counter("qanat_nodes_fetched_total", "Tree nodes read from the object store");
  static Counter& chunks =
      counter("qanat_chunks_fetched_total", "File chunks read from the object store");
  (kind == BlobKind::kNode ? nodes : chunks).add();
}

Result<chunk::BlobLocation> parse_place(const BlobRef& ref, std::string_view value) {
  Result<chunk::BlobLocation> location = chunk::parse_location(value);
  if (location.ok() && !location->pack) location = data_loss("its index entry names no pack");
  if (!location.ok()) return location.status().with_context(ref.to_string());
  return location;
}

}  // namespace

std::string pack_object_key(std::string_view project, const chunk::PackId& pack) {
  std::string_view id(reinterpret_cast<const char*>(pack.id.data()), pack.id.size());
  return str_cat(kPackPrefix, project, "/", to_hex16(pack.epoch), "/", to_hex(id));
}

Result<chunk::PackId> parse_pack_object_key(std::string_view object_key) {
  std::vector<std::string_view> parts = split(object_key, '/');
  chunk::PackId pack;
  if (parts.size() == 4 && object_key.starts_with(kPackPrefix)) {
    Result<uint64_t> epoch = from_hex16(parts[2]);
    Result<std::string> id = from_hex(parts[3]);
    if (epoch.ok() && id.ok() && id->size() == pack.id.size()) {
      pack.epoch = *epoch;
      std::memcpy(pack.id.data(), id->data(), pack.id.size());
      return pack;
    }
  }
  return data_loss(str_cat("not the key of a pack: ", object_key));
}

BlobStore::BlobStore(std::string project, object::ObjectStore* objects, SegmentIndex* index,
                     BlockCache* cache)
    : project_(std::move(project)),
      objects_(objects),
      index_(index),
      cache_(cache),
      space_(BlockCache::new_space()) {}

Result<std::vector<std::vector<chunk::BlobLocation>>> BlobStore::locate_copies(
    std::span<const BlobRef> refs, SegmentIndex::OnDamage on_damage) {
  std::vector<std::string> keys;
  keys.reserve(refs.size());
  for (const BlobRef& ref : refs) keys.push_back(chunk::blob_key(ref));
  QANAT_ASSIGN_OR_RETURN(const auto values, index_->get_copies(keys, on_damage));
  std::vector<std::vector<chunk::BlobLocation>> copies(refs.size());
  for (size_t i = 0; i < refs.size(); ++i) {
    for (const std::string& value : values[i]) {
      QANAT_ASSIGN_OR_RETURN(copies[i].emplace_back(), parse_place(refs[i], value));
    }
  }
  return copies;
}

Result<std::vector<std::optional<chunk::BlobLocation>>> BlobStore::locate_many(
    std::span<const BlobRef> refs, SegmentIndex::OnDamage on_damage) {
  std::vector<std::optional<chunk::BlobLocation>> locations(refs.size());
  auto parse = [&](const std::optional<std::string>& value, size_t i) -> Status {
    if (!value) return ok_status();
    QANAT_ASSIGN_OR_RETURN(locations[i], parse_place(refs[i], *value));
    return ok_status();
  };
  if (refs.size() == 1) {
    QANAT_ASSIGN_OR_RETURN(std::optional<std::string> value,
                           index_->get(chunk::blob_key(refs[0]), on_damage));
    QANAT_RETURN_IF_ERROR(parse(value, 0));
    return locations;
  }
  std::vector<std::string> keys;
  keys.reserve(refs.size());
  for (const BlobRef& ref : refs) keys.push_back(chunk::blob_key(ref));
  QANAT_ASSIGN_OR_RETURN(std::vector<std::optional<std::string>> values,
                         index_->get_many(keys, on_damage));
  for (size_t i = 0; i < refs.size(); ++i) QANAT_RETURN_IF_ERROR(parse(values[i], i));
  return locations;
}

Result<std::vector<std::optional<chunk::BlobLocation>>> BlobStore::locate_for_reuse(
    std::span<const BlobRef> refs) {
  QANAT_ASSIGN_OR_RETURN(auto locations, locate_many(refs, SegmentIndex::OnDamage::kMiss));
  for (size_t i = 0; i < refs.size(); ++i) {
    if (locations[i] && is_damaged(refs[i], *locations[i]->pack)) locations[i].reset();
  }
  return locations;
}

void BlobStore::note_damaged(const BlobRef& ref, const chunk::PackId& pack) {
  MutexLock lock(damaged_mutex_);
  if (damaged_.size() >= kMaxDamagedCopies) damaged_.erase(damaged_.begin());
  damaged_.emplace(ref, pack);
  any_damaged_ = true;
}

bool BlobStore::is_damaged(const BlobRef& ref, const chunk::PackId& pack) const {
  if (!any_damaged_) return false;
  MutexLock lock(damaged_mutex_);
  return damaged_.contains({ref, pack});
}

void BlobStore::remember(const BlobRef& ref, const Blob& blob) {
  if (ref.kind == BlobKind::kChunk && blob->size() > kCachedChunk) return;
  cache_->put(BlockCache::blob_key(space_, ref), blob, blob->capacity());
}

Result<Blob> BlobStore::take(const BlobRef& ref, const chunk::BlobLocation& location,
                             std::string_view stored) {
  Result<std::string> plain = chunk::open_blob(ref, location, stored);
  if (!plain.ok()) {
    note_damaged(ref, *location.pack);
    return plain.status().with_context(str_cat("pack ", pack_object_key(project_, *location.pack)));
  }
  count_fetched(ref.kind);
  return std::make_shared<const std::string>(*std::move(plain));
}

Result<Blob> BlobStore::fetch(const BlobRef& ref, const chunk::BlobLocation& location) {
  Result<std::string> stored =
      objects_->read(pack_object_key(project_, *location.pack),
                     static_cast<int64_t>(location.offset), location.stored_length);
  if (!stored.ok()) {
    if (is_damage(stored.status())) note_damaged(ref, *location.pack);
    return stored.status().with_context(ref.to_string());
  }
  QANAT_ASSIGN_OR_RETURN(Blob blob, take(ref, location, *stored));
  remember(ref, blob);
  return blob;
}

Result<Blob> BlobStore::read_at(const BlobRef& ref, const chunk::BlobLocation& location) {
  return lost(fetch(ref, location));
}

Result<Blob> BlobStore::find(const BlobRef& ref) {
  QANAT_ASSIGN_OR_RETURN(std::vector<std::optional<chunk::BlobLocation>> locations,
                         locate_many(std::span(&ref, 1)));
  if (!locations[0]) return missing(ref);
  return fetch(ref, *locations[0]);
}

Result<Blob> BlobStore::find_any_copy(const BlobRef& ref) {
  QANAT_ASSIGN_OR_RETURN(const auto copies, locate_copies(std::span(&ref, 1)));
  Status first;
  for (const chunk::BlobLocation& location : copies[0]) {
    Result<Blob> found = fetch(ref, location);
    if (found.ok() || !is_damage(found.status())) return found;
    if (first.ok()) first = found.status();
  }
  return first.ok() ? missing(ref) : first;
}

Result<Blob> BlobStore::read(const BlobRef& ref) {
  Blob blob = cache_->get<std::string>(BlockCache::blob_key(space_, ref));
  if (blob == nullptr) {
    Result<Blob> found = find(ref);
    if (is_damage(found.status())) {
      // Its pack was swept, or it was registered by another server just now.
      if (found.code() == Code::kNotFound) QANAT_RETURN_IF_ERROR(index_->refresh());
      found = lost(find_any_copy(ref));
    }
    QANAT_ASSIGN_OR_RETURN(blob, std::move(found));
  }
  count_read(ref.kind, blob->size());
  return blob;
}

Result<std::vector<Blob>> BlobStore::read_many(std::span<const BlobRef> refs) {
  std::vector<Blob> blobs(refs.size());
  std::vector<BlobRef> absent;
  std::vector<size_t> position;  // of each absent one
  for (size_t i = 0; i < refs.size(); ++i) {
    blobs[i] = cache_->get<std::string>(BlockCache::blob_key(space_, refs[i]));
    if (blobs[i] != nullptr) continue;
    absent.push_back(refs[i]);
    position.push_back(i);
  }
  if (!absent.empty()) {
    Result<std::vector<Blob>> found = find_many(absent);
    if (found.code() == Code::kNotFound) {
      QANAT_RETURN_IF_ERROR(index_->refresh());
      found = find_many(absent);
    }
    if (is_damage(found.status())) {
      std::vector<Blob> each;
      for (const BlobRef& ref : absent) {
        QANAT_ASSIGN_OR_RETURN(each.emplace_back(), lost(find_any_copy(ref)));
      }
      found = std::move(each);
    }
    if (!found.ok()) return found.status();
    for (size_t i = 0; i < absent.size(); ++i) {
      // Chunks that are read many at a time are read for their bytes' sake, once.
      if (absent[i].kind == BlobKind::kNode) remember(absent[i], (*found)[i]);
      blobs[position[i]] = std::move((*found)[i]);
    }
  }
  for (size_t i = 0; i < refs.size(); ++i) count_read(refs[i].kind, blobs[i]->size());
  return blobs;
}

Result<std::vector<Blob>> BlobStore::find_many(std::span<const BlobRef> refs) {
  QANAT_ASSIGN_OR_RETURN(std::vector<std::optional<chunk::BlobLocation>> locations,
                         locate_many(refs));
  // In the order in which they lie, so that neighbours are read at once.
  std::vector<size_t> order(refs.size());
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = 0; i < refs.size(); ++i) {
    if (!locations[i]) return missing(refs[i]);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::tie(*locations[a]->pack, locations[a]->offset) <
           std::tie(*locations[b]->pack, locations[b]->offset);
  });
  std::vector<Located> located;
  located.reserve(refs.size());
  for (size_t i : order) located.push_back({refs[i], *locations[i]});
  QANAT_ASSIGN_OR_RETURN(std::vector<Blob> found, read_located(located));
  std::vector<Blob> blobs(refs.size());
  for (size_t i = 0; i < order.size(); ++i) blobs[order[i]] = std::move(found[i]);
  return blobs;
}

Result<std::vector<Blob>> BlobStore::read_located(std::span<const Located> blobs) {
  std::vector<Blob> result(blobs.size());
  for (size_t first = 0; first < blobs.size();) {
    const chunk::BlobLocation& begin = blobs[first].location;
    uint64_t end = begin.offset + begin.stored_length;
    size_t last = first + 1;
    for (; last < blobs.size(); ++last) {
      const chunk::BlobLocation& next = blobs[last].location;
      const uint64_t next_end = std::max(end, next.offset + next.stored_length);
      if (*next.pack != *begin.pack || next.offset > end + kMaxGap ||
          next_end - begin.offset > kMaxPiece) {
        break;
      }
      end = next_end;
    }
    Result<std::string> piece =
        objects_->read(pack_object_key(project_, *begin.pack), static_cast<int64_t>(begin.offset),
                       static_cast<int64_t>(end - begin.offset));
    if (!piece.ok()) return piece.status().with_context(blobs[first].ref.to_string());
    for (; first < last; ++first) {
      const auto& [ref, location] = blobs[first];
      QANAT_ASSIGN_OR_RETURN(result[first],
                             take(ref, location,
                                  std::string_view(*piece).substr(location.offset - begin.offset,
                                                                  location.stored_length)));
    }
  }
  return result;
}

}  // namespace qanat::content
