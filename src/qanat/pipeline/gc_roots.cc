#include "qanat/pipeline/gc_roots.h"

#include <set>

#include "qanat/base/string.h"
#include "qanat/content/references.h"
#include "qanat/pipeline/datum_table.h"
#include "qanat/pipeline/journal.h"
#include "qanat/pipeline/records.h"
#include "qanat/version/gc_roots.h"
#include "qanat/version/keys.h"

namespace qanat::pipeline {
namespace {

using content::NodeUse;
using content::Reference;
using content::ReferenceVisitor;

// A datum table, whose values are rows; a journal node. Rows of a plan that are pending are read by
// the running job through its inputs, which it keeps itself.
constexpr NodeUse kTable{static_cast<uint8_t>(NodeUse::kForeign)};
constexpr NodeUse kJournal{static_cast<uint8_t>(NodeUse::kForeign) + 1};
// A map whose values refer to nothing.
constexpr NodeUse kPlain{static_cast<uint8_t>(NodeUse::kForeign) + 2};

// What a row's datum has made. Its inputs are not the row's to keep.
Status visit_row(std::string_view bytes, const ReferenceVisitor& visit) {
  QANAT_ASSIGN_OR_RETURN(const DatumRow row, decode_row(bytes));
  if (!row.log.empty()) QANAT_RETURN_IF_ERROR(visit({row.log.blob(), NodeUse::kContent}));
  return content::visit_root_references(row.output, NodeUse::kContent, visit);
}

Status visit_map(const content::MapRoot& root, NodeUse use, const ReferenceVisitor& visit) {
  if (use != kTable && use != kPlain) return content::visit_root_references(root, use, visit);
  return content::visit_root(
      root, [&](const content::BlobRef& ref) { return visit({ref, use}); },
      [&](std::string_view value) {
        return use == kTable ? visit_row(value, visit) : ok_status();
      });
}

Status visit_text(const std::string& text, NodeUse use, const ReferenceVisitor& visit) {
  QANAT_ASSIGN_OR_RETURN(const auto root, content::MapRoot::from_text(text));
  return visit_map(root, use, visit);
}

Status visit_job(const JobRecord& job, bool with_inputs, const ReferenceVisitor& visit) {
  if (with_inputs) {
    for (const JobInput& input : job.inputs)
      QANAT_RETURN_IF_ERROR(visit_text(input.root, NodeUse::kContent, visit));
  }
  QANAT_RETURN_IF_ERROR(visit_text(job.plan, kTable, visit));
  QANAT_RETURN_IF_ERROR(visit_text(job.table, kTable, visit));
  QANAT_RETURN_IF_ERROR(visit_text(job.ids, kPlain, visit));
  QANAT_RETURN_IF_ERROR(visit_text(job.owners, NodeUse::kFileMap, visit));
  QANAT_RETURN_IF_ERROR(visit_text(job.content, NodeUse::kContent, visit));
  if (job.journal.empty()) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const Hash head, Hash::from_hex(job.journal));
  return visit({{content::BlobKind::kNode, head}, kJournal});
}

}  // namespace

Status JobRoots::prepare(std::string_view, bool) { return ok_status(); }

Status JobRoots::visit_roots(
    const Request& request,
    const std::function<Status(const content::Holder&, const Reference&)>& visit) {
  if (request.rank == content::RootRank::kTrash) {
    return version::visit_trash_items(
        store_, clock_, request, "/v1/job/",
        [&](const std::string& name, const meta::KeyValue& item) -> Status {
          QANAT_ASSIGN_OR_RETURN(const auto job, decode<JobRecord>(item.key, item.value));
          const content::Holder holder{"trash", name};
          // Nobody plans from it, and what it read may have gone before.
          return visit_job(job, false,
                           [&](const Reference& reference) { return visit(holder, reference); });
        });
  }
  if (request.rank != content::RootRank::kJobs) return ok_status();
  std::set<std::string> bases;  // keys of jobs that the next plans start from
  QANAT_RETURN_IF_ERROR(version::visit_range(
      store_, pipelines_prefix(request.project), request.revision,
      [&](const meta::KeyValue& item) -> Status {
        QANAT_ASSIGN_OR_RETURN(const auto pipeline, decode<PipelineRecord>(item.key, item.value));
        if (pipeline.base_wave != 0) {
          bases.insert(job_key(request.project, version::last_part(item.key), pipeline.base_wave));
        }
        return ok_status();
      }));
  return version::visit_range(
      store_, jobs_prefix(request.project), request.revision,
      [&](const meta::KeyValue& item) -> Status {
        QANAT_ASSIGN_OR_RETURN(const auto job, decode<JobRecord>(item.key, item.value));
        const content::Holder holder{"pipeline", std::string(version::part_from_end(item.key, 1))};
        return visit_job(job, !is_final(job.state) || bases.contains(item.key),
                         [&](const Reference& reference) { return visit(holder, reference); });
      });
}

Status JobRoots::visit_references(NodeUse use, const content::Blob& node,
                                  const ReferenceVisitor& visit) {
  if (use == kTable || use == kPlain) {
    return content::visit_references(
        node, [&](const content::BlobRef& ref) { return visit({ref, use}); },
        [&](std::string_view value) {
          return use == kTable ? visit_row(value, visit) : ok_status();
        });
  }
  if (use != kJournal) return not_found("not a node of jobs");
  QANAT_ASSIGN_OR_RETURN(const JournalNode journal, parse_journal_node(*node));
  if (!journal.before.is_zero()) {
    QANAT_RETURN_IF_ERROR(visit({{content::BlobKind::kNode, journal.before}, kJournal}));
  }
  for (const JournalEntry& entry : journal.entries)
    QANAT_RETURN_IF_ERROR(visit_row(entry.row, visit));
  return ok_status();
}

Status JobRoots::visit_result(std::string_view value, const ReferenceVisitor& visit) {
  return visit_row(value, visit);
}

}  // namespace qanat::pipeline
