#include "qanat/pipeline/fsck_jobs.h"

#include <set>

#include "qanat/base/string.h"
#include "qanat/pipeline/datum_table.h"
#include "qanat/pipeline/journal.h"
#include "qanat/pipeline/records.h"
#include "qanat/version/fsck_versions.h"
#include "qanat/version/keys.h"

namespace qanat::pipeline {
namespace {

using content::FsckProblem;
using content::FsckRoot;
using content::FsckUse;

constexpr FsckUse kTable{static_cast<uint8_t>(FsckUse::kForeign)};
constexpr FsckUse kJournal{static_cast<uint8_t>(FsckUse::kForeign) + 1};
constexpr size_t kIdDigits = 12;

std::string job_name(std::string_view key, const JobRecord& job) {
  return str_cat("job ", version::part_from_end(key, 1), "@", job.id);
}

// What a row's datum has made. Its inputs are not the row's to keep.
Status visit_row(std::string_view sort_key, std::string_view bytes, bool with_labels,
                 const content::FsckVisit& visit) {
  QANAT_ASSIGN_OR_RETURN(const DatumRow row, decode_row(bytes));
  const std::string datum =
      with_labels ? str_cat("datum ", datum_id(sort_key).to_hex().substr(0, kIdDigits)) : "";
  if (!row.log.empty()) {
    QANAT_RETURN_IF_ERROR(visit({row.log.blob(), FsckUse::kTree, datum + ", log", ""}));
  }
  return content::visit_fsck_tree(row.output, datum + ":/", with_labels, visit);
}

// The roots that a job's record names: `visit` gets what each is, its text, and how it is read.
// The inputs of a job that is neither running nor the base of the next plan are not its to keep.
Status visit_texts(const JobRecord& job, bool with_inputs,
                   const std::function<Status(const std::string& what, const std::string& text,
                                              FsckUse use)>& visit) {
  if (with_inputs) {
    for (const JobInput& input : job.inputs) {
      QANAT_RETURN_IF_ERROR(visit(str_cat("input ", input.name, ":/"), input.root, FsckUse::kTree));
    }
  }
  QANAT_RETURN_IF_ERROR(visit("plan, ", job.plan, kTable));
  QANAT_RETURN_IF_ERROR(visit("datums, ", job.table, kTable));
  QANAT_RETURN_IF_ERROR(visit("ids of datums, ", job.ids, FsckUse::kPlain));
  QANAT_RETURN_IF_ERROR(visit("owners of ", job.owners, FsckUse::kOwners));
  return visit("content:/", job.content, FsckUse::kTree);
}

}  // namespace

Result<uint64_t> FsckJobs::check_records(
    const std::string& project, const std::function<Status(content::FsckProblem)>& report) {
  uint64_t count = 0;
  auto exists = [&](const std::string& key, int64_t revision) -> Result<bool> {
    QANAT_ASSIGN_OR_RETURN(const auto item, store_.get(key, revision));
    return item.has_value();
  };
  QANAT_RETURN_IF_ERROR(version::check_records(
      store_, pipelines_prefix(project),
      [&](const meta::KeyValue& item, int64_t revision,
          std::vector<FsckProblem>* problems) -> Status {
        const std::string name(version::last_part(item.key));
        auto add = [&](std::string what) {
          problems->push_back({std::move(what), item.key, {"pipeline " + name}, 1});
        };
        const auto record = decode<PipelineRecord>(item.key, item.value);
        if (!record.ok()) {
          add(record.status().message());
          return ok_status();
        }
        QANAT_ASSIGN_OR_RETURN(const bool spec,
                               exists(spec_key(project, name, record->version), revision));
        if (!spec) add(str_cat("its spec, version ", record->version, ", is missing"));
        QANAT_ASSIGN_OR_RETURN(const bool repo, exists(version::repo_key(project, name), revision));
        if (!repo) add("its output repo is missing");
        if (record->base_wave != 0) {
          QANAT_ASSIGN_OR_RETURN(const bool base,
                                 exists(job_key(project, name, record->base_wave), revision));
          if (!base)
            add(str_cat("its last successful job, of wave ", record->base_wave, ", is missing"));
        }
        return ok_status();
      },
      report, &count));
  QANAT_RETURN_IF_ERROR(version::check_records(
      store_, jobs_prefix(project),
      [&](const meta::KeyValue& item, int64_t revision,
          std::vector<FsckProblem>* problems) -> Status {
        const std::string pipeline(version::part_from_end(item.key, 1));
        std::string name = str_cat("job of ", pipeline);
        auto add = [&](std::string what) {
          problems->push_back({std::move(what), item.key, {name}, 1});
        };
        const auto job = decode<JobRecord>(item.key, item.value);
        if (!job.ok()) {
          add(job.status().message());
          return ok_status();
        }
        name = job_name(item.key, *job);
        QANAT_ASSIGN_OR_RETURN(const bool owner, exists(pipeline_key(project, pipeline), revision));
        if (!owner) return ok_status();  // what is left of a pipeline that is being deleted
        QANAT_ASSIGN_OR_RETURN(const bool spec,
                               exists(spec_key(project, pipeline, job->spec_version), revision));
        if (!spec) add(str_cat("its spec, version ", job->spec_version, ", is missing"));
        if (!job->journal.empty() && !Hash::from_hex(job->journal).ok()) {
          add("its journal's name is no hash");
        }
        return visit_texts(
            *job, true, [&](const std::string& what, const std::string& text, FsckUse) -> Status {
              if (const auto root = content::MapRoot::from_text(text); !root.ok()) {
                add(str_cat("the root of its ", what,
                            " cannot be read: ", root.status().message()));
              }
              return ok_status();
            });
      },
      report, &count));
  return count;
}

Status FsckJobs::visit_roots(const std::string& project,
                             const std::function<Status(const FsckRoot&)>& visit) {
  std::set<std::string> bases;  // keys of jobs that the next plans start from
  QANAT_RETURN_IF_ERROR(version::visit_records(
      store_, pipelines_prefix(project), [&](const meta::KeyValue& item) -> Status {
        const auto pipeline = decode<PipelineRecord>(item.key, item.value);
        if (pipeline.ok() && pipeline->base_wave != 0) {
          bases.insert(job_key(project, version::last_part(item.key), pipeline->base_wave));
        }
        return ok_status();
      }));
  auto visit_job = [&](const std::string& label, const meta::KeyValue& item) -> Status {
    const auto job = decode<JobRecord>(item.key, item.value);
    if (!job.ok()) return ok_status();
    const std::string name = str_cat(label, job_name(item.key, *job), ", ");
    QANAT_RETURN_IF_ERROR(
        visit_texts(*job, !is_final(job->state) || bases.contains(item.key),
                    [&](const std::string& what, const std::string& text, FsckUse use) -> Status {
                      auto root = content::MapRoot::from_text(text);
                      return root.ok() ? visit({name + what, *std::move(root), use}) : ok_status();
                    }));
    const auto head = Hash::from_hex(job->journal);
    if (job->journal.empty() || !head.ok()) return ok_status();
    FsckRoot journal{name + "journal, ", {}, kJournal};
    journal.root.hash = *head;
    return visit(journal);
  };
  QANAT_RETURN_IF_ERROR(
      version::visit_records(store_, jobs_prefix(project),
                             [&](const meta::KeyValue& item) { return visit_job("", item); }));
  return version::visit_trash_records(store_, project, "/v1/job/", visit_job);
}

Status FsckJobs::visit_node(FsckUse use, const content::Blob& node, bool with_labels,
                            const content::FsckVisit& visit) {
  if (use == kTable) {
    return content::visit_fsck_map(use, node, with_labels, visit,
                                   [&](std::string_view key, std::string_view value) {
                                     return visit_row(key, value, with_labels, visit);
                                   });
  }
  if (use != kJournal) return not_found("not a node of jobs");
  QANAT_ASSIGN_OR_RETURN(const JournalNode journal, parse_journal_node(*node));
  if (!journal.before.is_zero()) {
    QANAT_RETURN_IF_ERROR(visit({{content::BlobKind::kNode, journal.before},
                                 kJournal,
                                 "",
                                 "(all but the newest reports)"}));
  }
  for (const JournalEntry& entry : journal.entries) {
    QANAT_RETURN_IF_ERROR(visit_row(entry.sort_key, entry.row, with_labels, visit));
  }
  return ok_status();
}

}  // namespace qanat::pipeline
