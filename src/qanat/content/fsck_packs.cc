#include "qanat/content/fsck_packs.h"

#include <algorithm>
#include <set>

#include "qanat/base/string.h"
#include "qanat/chunk/segment.h"
#include "qanat/content/blob_store.h"

namespace qanat::content {
namespace {

constexpr uint64_t kPiece = 4u << 20;
constexpr uint64_t kMaxFooter = 256u << 20;
constexpr size_t kLookup = 1024;

struct Use {
  uint64_t end = 0;  // of the last blob that the index finds in it
  uint64_t blobs = 0;
};

struct Listed {
  BlobRef ref;
  chunk::BlobLocation location;
};

class PackChecker {
 public:
  PackChecker(const FsckContext& context, FsckIndex* index, FsckDamage* damage)
      : context_(context), index_(index), damage_(damage), reader_(context, index, damage) {}

  // Everything in one pack; `use` is what the index finds in it.
  Status check(const chunk::PackId& pack, uint64_t size, const Use& use);
  uint64_t bytes() const { return bytes_; }

 private:
  // The footer's entries, in the order in which their blobs lie; what is wrong otherwise.
  Result<std::vector<Listed>> read_footer(const std::string& object_key, uint64_t size);
  Status check_blobs(const chunk::PackId& pack, const std::vector<Listed>& listed);
  Status check_index(const chunk::PackId& pack, const std::vector<Listed>& listed, const Use& use);
  // The blobs that the index finds in the pack.
  Result<std::vector<Listed>> from_index(const chunk::PackId& pack);
  Status damaged(const chunk::PackId& pack, const Listed& blob, const Status& why);

  const FsckContext& context_;
  FsckIndex* const index_;
  FsckDamage* const damage_;
  FsckReader reader_;
  uint64_t bytes_ = 0;
};

Result<std::vector<Listed>> PackChecker::read_footer(const std::string& object_key, uint64_t size) {
  auto read = [&](uint64_t offset, uint64_t length) {
    bytes_ += length;
    return context_.objects->read(object_key, static_cast<int64_t>(offset),
                                  static_cast<int64_t>(length));
  };
  if (size < chunk::kPackHeaderLength + chunk::kPackTrailerLength) {
    return data_loss("it is too short");
  }
  QANAT_ASSIGN_OR_RETURN(const std::string trailer,
                         read(size - chunk::kPackTrailerLength, chunk::kPackTrailerLength));
  QANAT_ASSIGN_OR_RETURN(const chunk::PackFooter footer, chunk::parse_pack_trailer(trailer, size));
  if (footer.segment_length > kMaxFooter) return data_loss("its footer is too long");
  QANAT_ASSIGN_OR_RETURN(const std::string bytes,
                         read(footer.segment_offset, footer.segment_length));
  QANAT_ASSIGN_OR_RETURN(const chunk::SegmentView view, chunk::SegmentView::open(bytes));
  std::vector<Listed> listed;
  QANAT_RETURN_IF_ERROR(view.for_each([&](const chunk::SegmentEntry& entry) -> Status {
    Listed& blob = listed.emplace_back();
    QANAT_ASSIGN_OR_RETURN(blob.ref, chunk::parse_blob_key(entry.key));
    QANAT_ASSIGN_OR_RETURN(blob.location, chunk::parse_location(entry.value));
    if (blob.location.pack) return data_loss("its footer names another pack");
    return ok_status();
  }));
  std::sort(listed.begin(), listed.end(),
            [](const Listed& a, const Listed& b) { return a.location.offset < b.location.offset; });
  uint64_t end = chunk::kPackHeaderLength;
  for (const Listed& blob : listed) {
    if (blob.location.offset != end) return data_loss("its blobs do not fill it without a gap");
    end += blob.location.stored_length;
  }
  if (end != footer.segment_offset) return data_loss("its blobs do not fill it without a gap");
  QANAT_ASSIGN_OR_RETURN(const std::string magic, read(0, chunk::kPackHeaderLength));
  if (magic != "QNTPACK1") return data_loss("it does not begin as a pack does");
  return listed;
}

Status PackChecker::damaged(const chunk::PackId& pack, const Listed& blob, const Status& why) {
  if (context_.on_damaged) context_.on_damaged(blob.ref, pack);
  const std::string object_key = pack_object_key(context_.project, pack);
  QANAT_ASSIGN_OR_RETURN(const auto now, index_->locate(std::span(&blob.ref, 1)));
  const bool elsewhere = now[0] && *now[0]->pack != pack;
  const int problem = damage_->add(
      {str_cat(blob.ref.to_string(), " is damaged: ", why.message(),
               elsewhere ? " (another pack has a copy, which is the one that is read)" : ""),
       object_key,
       {},
       0},
      false);
  if (!elsewhere) damage_->mark(blob.ref, problem);
  return ok_status();
}

Status PackChecker::check_blobs(const chunk::PackId& pack, const std::vector<Listed>& listed) {
  const std::string object_key = pack_object_key(context_.project, pack);
  for (size_t first = 0; first < listed.size();) {
    const uint64_t begin = listed[first].location.offset;
    uint64_t end = begin + listed[first].location.stored_length;
    size_t last = first + 1;
    for (; last < listed.size() && listed[last].location.offset == end &&
           end + listed[last].location.stored_length - begin <= kPiece;
         ++last) {
      end += listed[last].location.stored_length;
    }
    const Result<std::string> piece = context_.objects->read(
        object_key, static_cast<int64_t>(begin), static_cast<int64_t>(end - begin));
    if (!piece.ok() && !is_damage(piece.status())) return piece.status();
    bytes_ += end - begin;
    for (; first < last; ++first) {
      const Listed& blob = listed[first];
      const Status status =
          !piece.ok()
              ? piece.status()
              : chunk::open_blob(blob.ref, blob.location,
                                 std::string_view(*piece).substr(blob.location.offset - begin,
                                                                 blob.location.stored_length))
                    .status();
      if (!status.ok()) QANAT_RETURN_IF_ERROR(damaged(pack, blob, status));
    }
  }
  return ok_status();
}

Result<std::vector<Listed>> PackChecker::from_index(const chunk::PackId& pack) {
  QANAT_RETURN_IF_ERROR(index_->load());
  std::vector<Listed> found;
  QANAT_RETURN_IF_ERROR(index_->scan(
      "", [&](const BlobRef& ref, const chunk::BlobLocation& location) -> Result<bool> {
        if (*location.pack == pack) found.push_back({ref, location});
        return true;
      }));
  std::sort(found.begin(), found.end(),
            [](const Listed& a, const Listed& b) { return a.location.offset < b.location.offset; });
  return found;
}

// Does the index say what the footer says?
Status PackChecker::check_index(const chunk::PackId& pack, const std::vector<Listed>& listed,
                                const Use& use) {
  const std::string object_key = pack_object_key(context_.project, pack);
  std::set<BlobRef> known;
  uint64_t wrong = 0;
  for (size_t first = 0; first < listed.size(); first += kLookup) {
    std::vector<BlobRef> refs;
    for (size_t i = first; i < std::min(first + kLookup, listed.size()); ++i) {
      refs.push_back(listed[i].ref);
    }
    QANAT_ASSIGN_OR_RETURN(const auto locations, index_->locate(refs));
    for (size_t i = 0; i < refs.size(); ++i) {
      if (!locations[i] || *locations[i]->pack != pack) continue;
      chunk::BlobLocation there = *locations[i];
      there.pack.reset();
      if (chunk::encode_location(there) == chunk::encode_location(listed[first + i].location)) {
        known.insert(refs[i]);
      } else {
        ++wrong;
      }
    }
  }
  if (wrong == 0 && known.size() >= use.blobs) return ok_status();
  // Some entries of the index are not the footer's, unless they have moved meanwhile.
  QANAT_ASSIGN_OR_RETURN(const std::vector<Listed> found, from_index(pack));
  for (const Listed& blob : found) {
    if (known.contains(blob.ref)) continue;
    const int problem = damage_->add(
        {str_cat("the index and the pack's footer disagree about ", blob.ref.to_string()),
         object_key,
         {},
         0},
        false);
    if (!reader_.read_at(blob.ref, blob.location).ok()) damage_->mark(blob.ref, problem);
  }
  return ok_status();
}

Status PackChecker::check(const chunk::PackId& pack, uint64_t size, const Use& use) {
  const std::string object_key = pack_object_key(context_.project, pack);
  Result<std::vector<Listed>> listed = read_footer(object_key, size);
  if (listed.ok()) {
    QANAT_RETURN_IF_ERROR(check_blobs(pack, *listed));
    return check_index(pack, *listed, use);
  }
  if (!is_damage(listed.status())) return listed.status();
  // The blobs may be sound all the same: the index knows where they are.
  QANAT_ASSIGN_OR_RETURN(const std::vector<Listed> found, from_index(pack));
  if (found.empty()) return ok_status();  // collected meanwhile
  damage_->add({"a pack is damaged: " + listed.status().message(), object_key, {}, 0}, false);
  return check_blobs(pack, found);
}

}  // namespace

Result<FsckPacksResult> check_packs(const FsckContext& context, bool data, FsckIndex* index,
                                    FsckDamage* damage,
                                    const std::function<Status(uint64_t, uint64_t)>& tick) {
  std::map<chunk::PackId, Use> packs;
  uint64_t entries = 0;
  QANAT_RETURN_IF_ERROR(
      index->scan("", [&](const BlobRef&, const chunk::BlobLocation& location) -> Result<bool> {
        Use& use = packs[*location.pack];
        use.end = std::max(use.end, location.offset + location.stored_length);
        ++use.blobs;
        if (++entries % 65'536 == 0) QANAT_RETURN_IF_ERROR(tick(0, 0));
        return true;
      }));

  FsckPacksResult result;
  std::map<chunk::PackId, uint64_t> suspects;  // size, or 0
  PackChecker checker(context, index, damage);
  for (const auto& [pack, use] : packs) {
    QANAT_RETURN_IF_ERROR(tick(result.packs, packs.size()));
    ++result.packs;
    const std::string object_key = pack_object_key(context.project, pack);
    const Result<int64_t> size = context.objects->size(object_key);
    if (!size.ok() && !is_damage(size.status())) return size.status();
    if (!size.ok() || static_cast<uint64_t>(*size) < use.end + chunk::kPackTrailerLength) {
      suspects[pack] = size.ok() ? static_cast<uint64_t>(*size) : 0;
      continue;
    }
    if (data) QANAT_RETURN_IF_ERROR(checker.check(pack, static_cast<uint64_t>(*size), use));
  }
  result.bytes = checker.bytes();
  if (suspects.empty()) return result;

  // Collected meanwhile? Then nothing leads there any more.
  std::map<chunk::PackId, uint64_t> still;  // blobs
  QANAT_RETURN_IF_ERROR(index->load());
  QANAT_RETURN_IF_ERROR(
      index->scan("", [&](const BlobRef&, const chunk::BlobLocation& location) -> Result<bool> {
        if (suspects.contains(*location.pack)) ++still[*location.pack];
        return true;
      }));
  for (const auto& [pack, blobs] : still) {
    const uint64_t size = suspects[pack];
    damage->packs()[pack] = {
        damage->add(
            {size == 0 ? str_cat("a pack is missing that holds ", blobs, " blobs")
                       : str_cat("a pack is cut short: it has ", size, " bytes of at least ",
                                 packs[pack].end + chunk::kPackTrailerLength),
             pack_object_key(context.project, pack),
             {},
             0},
            false),
        size};
  }
  return result;
}

}  // namespace qanat::content
