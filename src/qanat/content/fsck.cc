#include "qanat/content/fsck.h"

#include <chrono>
#include <thread>

#include "qanat/base/string.h"
#include "qanat/content/fsck_damage.h"
#include "qanat/content/fsck_index.h"
#include "qanat/content/fsck_packs.h"
#include "qanat/content/fsck_walk.h"
#include "qanat/content/index_compaction.h"

namespace qanat::content {
namespace {

constexpr size_t kLookup = 1024;
constexpr uint64_t kTickChunks = 65'536;
constexpr int kFirstWritePolls = 20;
constexpr int kFirstWritePollMs = 100;

// Every chunk that nodes name must be in the index: both in the order of their names, side by side.
Status check_chunks(const FsckContext& context, ExternalSorter& chunks, FsckIndex* index,
                    FsckDamage* damage, FsckReader* reader, uint64_t* count,
                    const std::function<Status()>& tick) {
  std::vector<BlobRef> missing;
  auto judge = [&]() -> Status {
    // Not within a scan of the index: it is loaded anew.
    if (missing.empty()) return ok_status();
    QANAT_RETURN_IF_ERROR(reader->judge(missing, false, {}));
    missing.clear();
    return ok_status();
  };
  auto next = [&](Hash* hash) -> Result<bool> {
    const Hash last = *hash;
    while (chunks.valid()) {
      QANAT_ASSIGN_OR_RETURN(*hash, Hash::from_bytes(chunks.key()));
      QANAT_RETURN_IF_ERROR(chunks.next());
      if (*hash == last && *count > 0) continue;
      if (++*count % kTickChunks == 0) QANAT_RETURN_IF_ERROR(tick());
      return true;
    }
    return false;
  };
  Hash wanted;
  QANAT_ASSIGN_OR_RETURN(bool any, next(&wanted));
  while (any) {
    bool stopped = false;
    QANAT_RETURN_IF_ERROR(
        index->scan(chunk::blob_key({BlobKind::kChunk, wanted}),
                    [&](const BlobRef& ref, const chunk::BlobLocation& location) -> Result<bool> {
                      if (ref.kind != BlobKind::kChunk) return false;  // they come first
                      while (any && wanted <= ref.hash && missing.size() < kLookup) {
                        if (wanted != ref.hash) {
                          missing.push_back({BlobKind::kChunk, wanted});
                        } else if (const auto pack = damage->pack_problem(location)) {
                          damage->mark(ref, *pack);
                          if (context.on_damaged) context.on_damaged(ref, *location.pack);
                        }
                        QANAT_ASSIGN_OR_RETURN(any, next(&wanted));
                      }
                      stopped = !any || missing.size() >= kLookup;
                      return !stopped;
                    }));
    // Or the index has ended, and has none of the others.
    while (any && !stopped && missing.size() < kLookup) {
      missing.push_back({BlobKind::kChunk, wanted});
      QANAT_ASSIGN_OR_RETURN(any, next(&wanted));
    }
    QANAT_RETURN_IF_ERROR(judge());
  }
  return judge();
}

// Content of which the metadata has never known anything: it is not the one that belongs to it.
Status check_unknown_packs(const FsckContext& context,
                           const std::function<Status(const FsckProblem&)>& report) {
  uint64_t packs = 0;
  uint64_t bytes = 0;
  const std::string prefix = str_cat("packs/", context.project, "/");
  const Status listed =
      context.objects->list(prefix, [&](const object::ObjectInfo& object) -> Status {
        ++packs;
        bytes += static_cast<uint64_t>(object.size);
        return ok_status();
      });
  if (listed.code() == Code::kPermissionDenied) return ok_status();
  QANAT_RETURN_IF_ERROR(listed);
  if (packs == 0) return ok_status();
  // The first write may be about to end.
  for (int i = 0; i < kFirstWritePolls; ++i) {
    QANAT_ASSIGN_OR_RETURN(const bool virgin, is_virgin_index(*context.meta, context.project));
    if (!virgin) return ok_status();
    std::this_thread::sleep_for(std::chrono::milliseconds(kFirstWritePollMs));
  }
  return report({str_cat("the object store holds ", packs, " packs (", format_size(bytes),
                         "), and the metadata has never known any: was the metadata lost? (If the "
                         "first write is under way, or has died, nothing is wrong.)"),
                 prefix,
                 {},
                 0});
}

}  // namespace

Result<FsckSummary> fsck(const FsckContext& context, const FsckOptions& options) {
  FsckSummary summary;
  auto tick = [&](std::string_view phase, uint64_t done, uint64_t total) -> Status {
    return options.on_progress ? options.on_progress({phase, done, total}) : ok_status();
  };
  auto report = [&](const FsckProblem& problem) -> Status {
    if (++summary.problems > kMaxProblems) {
      summary.truncated = true;
      return ok_status();
    }
    return options.on_problem(problem);
  };

  QANAT_RETURN_IF_ERROR(tick("records", 0, 0));
  for (FsckSource* source : context.sources) {
    QANAT_ASSIGN_OR_RETURN(const uint64_t records, source->check_records(context.project, report));
    summary.records += records;
    QANAT_RETURN_IF_ERROR(tick("records", summary.records, 0));
  }

  QANAT_RETURN_IF_ERROR(tick("index", 0, 0));
  FsckDamage damage;
  FsckIndex index(context.meta, context.objects, context.project, "blobs");
  QANAT_RETURN_IF_ERROR(index.load());
  for (const FsckIndex::Broken& broken : index.broken()) damage.index_problem(broken);
  {
    FsckIndex results(context.meta, context.objects, context.project, "results");
    QANAT_RETURN_IF_ERROR(results.load());
    for (const FsckIndex::Broken& broken : results.broken()) {
      QANAT_RETURN_IF_ERROR(report({broken.what + " (of the index of reusable results)",
                                    broken.object_key.empty() ? broken.record : broken.object_key,
                                    {},
                                    0}));
    }
    summary.segments = index.segments() + results.segments();
  }

  QANAT_ASSIGN_OR_RETURN(
      const FsckPacksResult packs,
      check_packs(context, options.data, &index, &damage,
                  [&](uint64_t done, uint64_t total) { return tick("packs", done, total); }));
  summary.packs = packs.packs;
  summary.bytes = packs.bytes;

  std::string_view phase = "trees";
  FsckWalk walk(context, &index, &damage, [&](uint64_t nodes) { return tick(phase, nodes, 0); });
  QANAT_RETURN_IF_ERROR(walk.check());
  summary.nodes = walk.nodes();
  FsckReader reader(context, &index, &damage);
  QANAT_RETURN_IF_ERROR(check_chunks(context, walk.chunks(), &index, &damage, &reader,
                                     &summary.chunks,
                                     [&] { return tick("chunks", summary.chunks, 0); }));
  if (damage.any()) {
    phase = "naming";
    QANAT_RETURN_IF_ERROR(walk.name());
  }
  for (const FsckDamage::Problem& found : damage.problems()) {
    if (found.only_if_touched && found.problem.touched == 0) continue;
    QANAT_RETURN_IF_ERROR(report(found.problem));
  }
  QANAT_ASSIGN_OR_RETURN(const bool virgin, is_virgin_index(*context.meta, context.project));
  if (virgin) QANAT_RETURN_IF_ERROR(check_unknown_packs(context, report));
  summary.truncated |= damage.truncated();
  return summary;
}

}  // namespace qanat::content
