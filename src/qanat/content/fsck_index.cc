#include "qanat/content/fsck_index.h"

#include <algorithm>
#include <numeric>

#include "qanat/base/string.h"
#include "qanat/chunk/segment.h"
#include "qanat/content/blob_store.h"

namespace qanat::content {
namespace {

constexpr size_t kCache = 32u << 20;
constexpr uint64_t kPiece = 1u << 20;
constexpr uint64_t kMaxFilter = 64u << 20;
constexpr int64_t kPage = 1000;
constexpr int kTries = 20;

// An entry of a pack's footer, with its pack. What cannot be parsed stays as it is: whoever parses
// it finds out.
std::string with_pack(std::string_view value, std::string_view object_key) {
  Result<chunk::BlobLocation> location = chunk::parse_location(value);
  Result<chunk::PackId> pack = parse_pack_object_key(object_key);
  if (!location.ok() || !pack.ok() || location->pack) return std::string(value);
  location->pack = *pack;
  return chunk::encode_location(*location);
}

Result<chunk::BlobLocation> parse_place(std::string_view value) {
  QANAT_ASSIGN_OR_RETURN(chunk::BlobLocation location, chunk::parse_location(value));
  if (!location.pack) return data_loss("an index entry names no pack");
  return location;
}

}  // namespace

FsckIndex::FsckIndex(meta::Store* meta, object::ObjectStore* objects, const std::string& project,
                     const std::string& name)
    : meta_(meta),
      objects_(objects),
      blobs_(name == "blobs"),
      keys_(IndexKeys::of(project, name)),
      cache_(kCache),
      rebase_(with_pack) {}

Status FsckIndex::load() {
  // A segment that is gone, or is not what its record says, may have been compacted away since the
  // record was read: only what the newest records still name counts.
  for (int i = 0; i < kTries; ++i) {
    QANAT_ASSIGN_OR_RETURN(const bool stands, try_load());
    if (stands) return ok_status();
  }
  return unavailable("the index changes faster than it can be checked", "try again later");
}

Result<bool> FsckIndex::try_load() {
  std::vector<meta::KeyValue> items;
  meta::KeyRange range = meta::KeyRange::prefix(keys_.prefix);
  int64_t revision = 0;
  while (true) {
    meta::RangeOptions page;
    page.limit = kPage;
    page.revision = revision;
    QANAT_ASSIGN_OR_RETURN(meta::RangeResult result, meta_->range(range, page));
    revision = result.revision;
    std::move(result.items.begin(), result.items.end(), std::back_inserter(items));
    if (!result.more || items.empty()) break;
    range.begin = meta::key_after(items.back().key);
  }
  // As the index does: newest registrations first, then the runs.
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
    return std::tie(a.create_revision, a.key) > std::tie(b.create_revision, b.key);
  });

  std::vector<Source> sources;
  std::vector<Source> runs;
  std::vector<Broken> broken;
  decltype(checked_) checked;
  auto take = [&](const meta::KeyValue& item, const SegmentLocation& location,
                  std::string_view first_key, std::string_view last_key,
                  Source* source) -> Result<bool> {
    const auto key = std::pair(location.object_key, location.offset);
    const auto known = checked_.find(key);
    std::shared_ptr<const StoredSegment> segment;
    if (known != checked_.end() && known->second->location() == location) {
      segment = known->second;
    } else if (Status status = check(location, first_key, last_key); status.ok()) {
      segment = std::make_shared<StoredSegment>(objects_, &cache_, location);
    } else if (is_damage(status)) {
      QANAT_ASSIGN_OR_RETURN(const auto now, meta_->get(item.key));
      if (!now || now->mod_revision != item.mod_revision) return false;
      broken.push_back({item.key, location.object_key, std::string(first_key),
                        std::string(last_key),
                        str_cat(location.is_pack ? "the footer of a pack, a segment of the index, "
                                                 : "an index segment ",
                                status.code() == Code::kNotFound ? "is missing" : "is damaged: ",
                                status.code() == Code::kNotFound ? "" : status.message())});
      return true;
    } else {
      return status;
    }
    checked[key] = segment;
    source->segments.push_back(segment);
    source->last_keys.emplace_back(last_key);
    return true;
  };
  for (const meta::KeyValue& item : items) {
    if (item.key.starts_with(keys_.level0_prefix)) {
      const Result<SegmentLocation> location = parse_segment_location(item.value);
      if (!location.ok()) {
        broken.push_back({item.key, "", "", "",
                          str_cat("the record of an index segment cannot be read: ",
                                  location.status().message())});
        continue;
      }
      Source source;
      QANAT_ASSIGN_OR_RETURN(const bool stands, take(item, *location, {}, {}, &source));
      if (!stands) return false;
      source.last_keys.clear();
      if (!source.segments.empty()) sources.push_back(std::move(source));
    } else if (item.key == keys_.manifest) {
      const Result<IndexManifest> manifest = parse_manifest(item.value);
      if (!manifest.ok()) {
        broken.push_back(
            {item.key, "", "", "",
             str_cat("the index's manifest cannot be read: ", manifest.status().message())});
        continue;
      }
      for (const SegmentRun& run : manifest->runs) {
        Source& source = runs.emplace_back();
        for (const RunSegment& part : run) {
          QANAT_ASSIGN_OR_RETURN(const bool stands,
                                 take(item, part.location, part.first_key, part.last_key, &source));
          if (!stands) return false;
        }
      }
    } else if (item.key.starts_with(keys_.removed_prefix)) {
      if (const auto removal = parse_removal(item.value); !removal.ok()) {
        broken.push_back({item.key, "", "", "",
                          str_cat("a removal record cannot be read: ", removal.status().message()),
                          false});
      }
    }
  }
  std::move(runs.begin(), runs.end(), std::back_inserter(sources));
  sources_ = std::move(sources);
  broken_ = std::move(broken);
  checked_ = std::move(checked);
  return true;
}

Status FsckIndex::check(const SegmentLocation& location, std::string_view first_key,
                        std::string_view last_key) {
  auto read = [&](uint64_t offset, uint64_t length) -> Result<std::string> {
    if (offset > location.length || length > location.length - offset) {
      return data_loss("a part lies outside of it");
    }
    Result<std::string> bytes =
        objects_->read(location.object_key, static_cast<int64_t>(location.offset + offset),
                       static_cast<int64_t>(length));
    // Not even a key: the record is damaged.
    if (bytes.code() == Code::kInvalidArgument) return data_loss(bytes.status().message());
    return bytes;
  };
  if (location.length < chunk::kSegmentFooterLength) return data_loss("it is too short");
  QANAT_ASSIGN_OR_RETURN(const std::string tail, read(location.length - chunk::kSegmentFooterLength,
                                                      chunk::kSegmentFooterLength));
  QANAT_ASSIGN_OR_RETURN(const chunk::SegmentFooter footer,
                         chunk::parse_segment_footer(tail, location.length));
  if (footer.entries != location.entries) return data_loss("its record counts other entries");
  if (footer.filter_length > kMaxFilter) return data_loss("its filter is too long");
  QANAT_ASSIGN_OR_RETURN(const std::string index, read(footer.index_offset(), footer.index_length));
  QANAT_ASSIGN_OR_RETURN(const chunk::SegmentBlocks blocks,
                         chunk::SegmentBlocks::parse(footer, index));
  QANAT_ASSIGN_OR_RETURN(const std::string filter,
                         read(footer.filter_offset(), footer.filter_length));
  for (uint64_t i = 0; i < footer.filter_pages(); ++i) {
    QANAT_RETURN_IF_ERROR(chunk::check_segment_filter_page(
        std::string_view(filter).substr(i * footer.filter_page, footer.filter_page)));
  }
  std::string last;
  std::vector<std::string> values;
  uint64_t entries = 0;
  for (size_t i = 0; i < blocks.size();) {
    const uint64_t begin = blocks.block(i).offset;
    uint64_t length = blocks.block(i).length;
    size_t end = i + 1;
    for (; end < blocks.size() && length + blocks.block(end).length <= kPiece; ++end) {
      length += blocks.block(end).length;
    }
    QANAT_ASSIGN_OR_RETURN(const std::string piece, read(begin, length));
    for (; i < end; ++i) {
      const auto& place = blocks.block(i);
      QANAT_ASSIGN_OR_RETURN(std::string_view rest,
                             chunk::check_segment_block(std::string_view(piece).substr(
                                 place.offset - begin, place.length)));
      chunk::SegmentEntry entry;
      while (chunk::next_segment_entry(&rest, &entry)) {
        if (entries++ > 0 && entry.key <= last) return data_loss("its keys do not ascend");
        last = entry.key;
        if (!first_key.empty() && (entry.key < first_key || entry.key > last_key)) {
          return data_loss("it holds keys that its record does not tell of");
        }
        const uint64_t hash = chunk::segment_key_hash(entry.key);
        const uint64_t page = chunk::segment_filter_page(hash, footer.filter_pages());
        if (!chunk::segment_may_contain(
                std::string_view(filter).substr(page * footer.filter_page, footer.filter_page),
                hash)) {
          return data_loss("its filter denies a key that it holds");
        }
        values.clear();
        QANAT_RETURN_IF_ERROR(
            append_index_values(entry.value, location, rebase_, &values).status());
        if (!blobs_) continue;
        QANAT_RETURN_IF_ERROR(chunk::parse_blob_key(entry.key).status());
        for (const std::string& value : values) QANAT_RETURN_IF_ERROR(parse_place(value).status());
      }
      if (blocks.last_key(i) != last) return data_loss("its block index is wrong");
    }
  }
  return entries == footer.entries ? ok_status() : data_loss("its footer counts other entries");
}

int FsckIndex::broken_for(std::string_view key) const {
  for (size_t i = 0; i < broken_.size(); ++i) {
    const Broken& broken = broken_[i];
    if (broken.holds &&
        (broken.last_key.empty() || (broken.first_key <= key && key <= broken.last_key))) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

Status FsckIndex::try_locate(std::span<const BlobRef> refs,
                             std::vector<std::optional<chunk::BlobLocation>>* locations) {
  locations->assign(refs.size(), std::nullopt);
  std::vector<std::string> keys;
  for (const BlobRef& ref : refs) keys.push_back(chunk::blob_key(ref));
  std::vector<size_t> open(refs.size());
  std::iota(open.begin(), open.end(), 0);
  std::sort(open.begin(), open.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
  for (const Source& source : sources_) {
    if (open.empty()) break;
    size_t kept = 0;
    size_t handle_of = source.segments.size();
    StoredSegment::Handle handle;
    for (const size_t i : open) {
      size_t part = 0;
      if (!source.last_keys.empty()) {
        part = static_cast<size_t>(
            std::lower_bound(source.last_keys.begin(), source.last_keys.end(), keys[i]) -
            source.last_keys.begin());
      }
      bool settled = false;
      if (part < source.segments.size()) {
        if (handle_of != part) {
          QANAT_ASSIGN_OR_RETURN(handle, source.segments[part]->open());
          handle_of = part;
        }
        QANAT_ASSIGN_OR_RETURN(const auto found,
                               handle.find(keys[i], chunk::segment_key_hash(keys[i])));
        if (found) {
          settled = true;
          QANAT_ASSIGN_OR_RETURN(
              const auto value,
              index_value(found->value, source.segments[part]->location(), rebase_));
          if (value) {
            QANAT_ASSIGN_OR_RETURN((*locations)[i], parse_place(*value));
          }
        }
      }
      if (!settled) open[kept++] = i;
    }
    open.resize(kept);
  }
  return ok_status();
}

Result<std::vector<std::optional<chunk::BlobLocation>>> FsckIndex::locate(
    std::span<const BlobRef> refs) {
  std::vector<std::optional<chunk::BlobLocation>> locations;
  Status status;
  for (int i = 0; i < kTries; ++i) {
    status = try_locate(refs, &locations);
    if (!is_damage(status)) break;
    // A segment was compacted away, or was damaged since it was checked.
    checked_.clear();
    QANAT_RETURN_IF_ERROR(load());
  }
  QANAT_RETURN_IF_ERROR(status);
  return locations;
}

Status FsckIndex::scan(
    std::string_view from,
    const std::function<Result<bool>(const BlobRef&, const chunk::BlobLocation&)>& on_entry) {
  std::string next(from);
  for (int tries = 0;;) {
    bool stopped = false;
    Status of_caller;
    auto run = [&]() -> Status {
      std::vector<MergeSource> sources;
      for (const Source& source : sources_) sources.push_back(source.segments);
      QANAT_ASSIGN_OR_RETURN(SegmentMerge merge,
                             SegmentMerge::open(std::move(sources), next, 64u << 10, &rebase_));
      SegmentMerge::Entry entry;
      while (true) {
        QANAT_ASSIGN_OR_RETURN(const bool any, merge.next(&entry));
        if (!any) return ok_status();
        if (!entry.values.empty()) {
          QANAT_ASSIGN_OR_RETURN(const BlobRef ref, chunk::parse_blob_key(entry.key));
          QANAT_ASSIGN_OR_RETURN(const chunk::BlobLocation location, parse_place(entry.values[0]));
          Result<bool> more = on_entry(ref, location);
          if (!more.ok() || !*more) {
            stopped = true;
            of_caller = more.status();
            return ok_status();
          }
        }
        next = meta::key_after(entry.key);
      }
    };
    const Status status = run();
    if (stopped) return of_caller;
    if (!is_damage(status) || ++tries == kTries) return status;
    checked_.clear();
    QANAT_RETURN_IF_ERROR(load());
  }
}

}  // namespace qanat::content
