#include "qanat/pipeline/fold.h"

#include "qanat/base/string.h"
#include "qanat/content/external_sort.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/map_editor.h"
#include "qanat/content/owner_tree.h"
#include "qanat/content/prolly.h"
#include "qanat/content/tree_editor.h"
#include "qanat/content/tree_order.h"

namespace qanat::pipeline {
namespace {

std::string describe(std::string_view sort_key) {
  return describe_sort_key(sort_key).value_or("a datum with a damaged key");
}

Status two_writers(std::string_view path, std::string_view first, std::string_view second) {
  return failed_precondition(
      str_cat("two datums wrote /", path, ": ", describe(first), " and ", describe(second)),
      "Let each datum write paths of its own, or set output_merge to concat or overwrite in the "
      "spec.");
}

Status file_and_directory(std::string_view file, std::string_view file_writer,
                          std::string_view below, std::string_view below_writer) {
  return failed_precondition(
      str_cat("the datum ", describe(file_writer), " wrote the file /", file, ", and the datum ",
              describe(below_writer), " wrote /", below, ", for which /", file,
              " must be a directory"),
      "Let the datums write to paths that do not lie inside one another's files.");
}

// Takes what the report says; inputs, key and the decision stay the plan's.
void take_result(DatumRow result, DatumRow& row) {
  row.state = result.state;
  row.origin = std::move(result.origin);
  row.origin_pipeline = std::move(result.origin_pipeline);
  row.output =
      result.state == DatumState::kSuccess ? std::move(result.output) : content::TreeRoot();
  row.log = result.log;
  row.timings = result.timings;
  row.exit_code = result.exit_code;
  row.attempts = result.attempts;
  row.message = std::move(result.message);
}

// Computes what stands at each touched path from all its writers. Paths must come in tree order.
class PathMerger {
 public:
  PathMerger(content::BlobWriter& writer, const content::MapRoot& owners, api::OutputMerge merge)
      : writer_(writer),
        merge_(merge),
        at_(content::kPlainMap, writer, owners),
        before_(content::kPlainMap, writer, owners) {}

  struct Merged {
    std::optional<content::FileRef> file;  // none: nobody writes here
    std::optional<Status> problem;
  };

  Result<Merged> merge(const std::string& path) {
    Merged out;
    const std::string first_key = content::owner_key(path, {});
    QANAT_RETURN_IF_ERROR(at_.seek(first_key));
    std::optional<content::FileWriter> joined;  // of concat, from the second writer on
    std::string first_writer;
    while (at_.valid() && at_.key().starts_with(first_key)) {
      const std::string_view writer = at_.key().substr(first_key.size());
      QANAT_ASSIGN_OR_RETURN(const content::FileRef file, content::FileRef::decode(at_.value()));
      if (!out.file) {
        first_writer = writer;
      } else if (merge_ == api::OutputMerge::kError) {
        out.problem = two_writers(path, first_writer, writer);
        return out;
      } else if (merge_ == api::OutputMerge::kConcat) {
        if (!joined) {
          joined.emplace(writer_);
          QANAT_RETURN_IF_ERROR(joined->append_file(*out.file));
        }
        QANAT_RETURN_IF_ERROR(joined->append_file(file));
      }
      out.file = file;
      QANAT_RETURN_IF_ERROR(at_.next());
    }
    if (!out.file) return out;
    if (joined) {
      QANAT_ASSIGN_OR_RETURN(out.file, joined->finish());
    }
    QANAT_ASSIGN_OR_RETURN(out.problem, find_clash(path, first_key, first_writer));
    return out;
  }

 private:
  // A file above or below this one. Owners of paths below come right after this path's, where at_
  // stands. Owners of an ancestor come right before the first path below it; since the base had no
  // clash, that path is a touched one too, so none is missed.
  Result<std::optional<Status>> find_clash(const std::string& path, const std::string& first_key,
                                           const std::string& first_writer) {
    std::optional<Status> none;
    if (at_.valid()) {
      QANAT_ASSIGN_OR_RETURN(const content::OwnerKey next, content::parse_owner_key(at_.key()));
      if (path_is_below(next.path, path)) {
        return std::optional(file_and_directory(path, first_writer, next.path, next.sort_key));
      }
    }
    QANAT_RETURN_IF_ERROR(before_.seek_before(first_key));
    if (!before_.valid()) return none;
    QANAT_ASSIGN_OR_RETURN(const content::OwnerKey previous,
                           content::parse_owner_key(before_.key()));
    if (!path_is_below(path, previous.path)) return none;
    return std::optional(file_and_directory(previous.path, previous.sort_key, path, first_writer));
  }

  static bool path_is_below(std::string_view path, std::string_view file) {
    return path.size() > file.size() && path[file.size()] == '/' && path.starts_with(file);
  }

  content::BlobWriter& writer_;
  const api::OutputMerge merge_;
  content::MapCursor at_;
  content::MapCursor before_;
};

}  // namespace

class Folder::Impl {
 public:
  Impl(content::BlobWriter& writer, FoldRequest request, const Scratch& scratch)
      : writer_(writer),
        request_(std::move(request)),
        results_(*scratch.file_system, scratch.directory, scratch.memory_budget),
        changes_(*scratch.file_system, scratch.directory, scratch.memory_budget) {}

  Status add_result(std::string_view sort_key, const DatumRow& row) {
    return results_.add(sort_key, encode_row(row));
  }

  Result<FoldOutcome> finish() {
    FoldOutcome outcome;
    outcome.trees = request_.base;
    QANAT_ASSIGN_OR_RETURN(outcome.trees.table, fill_table());
    QANAT_RETURN_IF_ERROR(compare_tables(outcome));
    if (!outcome.succeeded()) return outcome;
    QANAT_ASSIGN_OR_RETURN(const content::MapRoot owners, fold_owners());
    QANAT_ASSIGN_OR_RETURN(const content::TreeRoot content, fold_content(owners, outcome));
    if (outcome.succeeded()) {
      outcome.trees.owners = owners;
      outcome.trees.content = content;
    }
    return outcome;
  }

 private:
  // Step 1: results into the plan.
  Result<content::MapRoot> fill_table() {
    content::MapEditor editor(content::kPlainMap, writer_, request_.plan);
    QANAT_RETURN_IF_ERROR(results_.finish());
    std::string last;
    bool any = false;
    for (; results_.valid();) {
      if (!any || results_.key() != last) {
        last = results_.key();
        any = true;
        QANAT_RETURN_IF_ERROR(fill_row(editor, last, results_.value()));
      }
      QANAT_RETURN_IF_ERROR(results_.next());
    }
    return editor.finish();
  }

  Status fill_row(content::MapEditor& editor, const std::string& key, std::string_view encoded) {
    QANAT_ASSIGN_OR_RETURN(DatumRow result, decode_row(encoded));
    QANAT_ASSIGN_OR_RETURN(const std::optional<std::string_view> planned, editor.old_value(key));
    if (!planned)
      return internal_error(
          str_cat("a result for ", describe(key), ", which the job does not have"));
    QANAT_ASSIGN_OR_RETURN(DatumRow row, decode_row(*planned));
    if (row.state != DatumState::kPending) {
      return internal_error(
          str_cat("a result for ", describe(key), ", which the job was not to run"));
    }
    if (result.state == DatumState::kPending) {
      row.log = result.log;
    } else {
      take_result(std::move(result), row);
    }
    return editor.put(key, encode_row(row));
  }

  // Counts, and step 2: what each changed row took back or wrote, sorted by path. Counts follow
  // from the changed rows alone, since every row that this job ran differs from the base's.
  Status compare_tables(FoldOutcome& outcome) {
    Result<bool> walked = content::diff_maps(
        content::kPlainMap, writer_, request_.base.table, outcome.trees.table, {},
        [&](const content::MapDifference& difference) -> Result<bool> {
          DatumRow before;
          DatumRow after;
          if (difference.before) {
            QANAT_ASSIGN_OR_RETURN(before, decode_row(*difference.before));
          }
          if (difference.after) {
            QANAT_ASSIGN_OR_RETURN(after, decode_row(*difference.after));
            count(difference.key, after, outcome);
          }
          QANAT_RETURN_IF_ERROR(compare_outputs(difference.key, before.output, after.output));
          return true;
        });
    if (!walked.ok()) return walked.status();
    FoldCounts& counts = outcome.counts;
    counts.total = outcome.trees.table.totals.count;
    counts.skipped =
        counts.total - counts.processed - counts.failed - counts.recovered - counts.pending;
    return ok_status();
  }

  void count(std::string_view key, const DatumRow& row, FoldOutcome& outcome) const {
    FoldCounts& counts = outcome.counts;
    switch (outcome_in(row, request_.job)) {
      case DatumOutcomeInJob::kPending:
        ++counts.pending;
        return;
      case DatumOutcomeInJob::kReused:
      case DatumOutcomeInJob::kSkipped:
        return;
      case DatumOutcomeInJob::kRan:
        break;
    }
    if (row.state == DatumState::kSuccess) {
      ++counts.processed;
    } else if (row.state == DatumState::kRecovered) {
      ++counts.recovered;
    } else {
      ++counts.failed;
      if (!outcome.first_failure) outcome.first_failure = KeyedRow{std::string(key), row};
    }
  }

  Status compare_outputs(std::string_view sort_key, const content::TreeRoot& before,
                         const content::TreeRoot& after) {
    if (before == after) return ok_status();
    Result<bool> walked = content::diff_trees(
        writer_, before, after, "", [&](const content::TreeDifference& difference) -> Result<bool> {
          // A file that the datum wrote or took back; empty value: took back.
          const std::string value =
              difference.after ? difference.after->file.encode() : std::string();
          QANAT_RETURN_IF_ERROR(changes_.add(content::owner_key(difference.path, sort_key), value));
          return true;
        });
    return walked.ok() ? ok_status() : walked.status();
  }

  Result<content::MapRoot> fold_owners() {
    content::OwnerTreeEditor editor(writer_, request_.base.owners);
    QANAT_RETURN_IF_ERROR(changes_.finish());
    for (; changes_.valid();) {
      QANAT_ASSIGN_OR_RETURN(const content::OwnerKey key, content::parse_owner_key(changes_.key()));
      if (changes_.value().empty()) {
        QANAT_RETURN_IF_ERROR(editor.erase(key.path, key.sort_key));
      } else {
        QANAT_ASSIGN_OR_RETURN(const content::FileRef file,
                               content::FileRef::decode(changes_.value()));
        QANAT_RETURN_IF_ERROR(editor.put(key.path, key.sort_key, file));
      }
      QANAT_RETURN_IF_ERROR(changes_.next());
    }
    return editor.finish();
  }

  // Step 3: every path whose owners differ.
  Result<content::TreeRoot> fold_content(const content::MapRoot& owners, FoldOutcome& outcome) {
    const bool anew = request_.base_merge && *request_.base_merge != request_.merge;
    content::TreeEditor editor(writer_, anew ? content::TreeRoot() : request_.base.content);
    PathMerger merger(writer_, owners, request_.merge);
    std::optional<std::string> last;
    Result<bool> walked = content::diff_maps(
        content::kPlainMap, writer_, anew ? content::MapRoot() : request_.base.owners, owners, {},
        [&](const content::MapDifference& difference) -> Result<bool> {
          QANAT_ASSIGN_OR_RETURN(content::OwnerKey key, content::parse_owner_key(difference.key));
          if (last == key.path) return true;
          QANAT_ASSIGN_OR_RETURN(const PathMerger::Merged merged, merger.merge(key.path));
          outcome.problem = merged.problem;
          if (merged.problem) return false;
          QANAT_RETURN_IF_ERROR(editor.apply(merged.file
                                                 ? content::TreeEdit::put(key.path, *merged.file)
                                                 : content::TreeEdit::remove(key.path)));
          last = std::move(key.path);
          return true;
        });
    if (!walked.ok()) return walked.status();
    if (!*walked) return request_.base.content;
    return editor.finish();
  }

  content::BlobWriter& writer_;
  const FoldRequest request_;
  content::ExternalSorter results_;
  content::ExternalSorter changes_;
};

Folder::Folder(content::BlobWriter& writer, FoldRequest request, const Scratch& scratch)
    : impl_(std::make_unique<Impl>(writer, std::move(request), scratch)) {}
Folder::~Folder() = default;

Status Folder::add_result(std::string_view sort_key, const DatumRow& row) {
  return impl_->add_result(sort_key, row);
}
Result<FoldOutcome> Folder::finish() { return impl_->finish(); }

}  // namespace qanat::pipeline
