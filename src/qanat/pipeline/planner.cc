#include "qanat/pipeline/planner.h"

#include "qanat/base/string.h"
#include "qanat/content/external_sort.h"
#include "qanat/content/map_editor.h"
#include "qanat/content/prolly.h"
#include "qanat/pipeline/transform_hash.h"

namespace qanat::pipeline {
namespace {

constexpr size_t kLookupBatch = 256;

class Planner {
 public:
  Planner(content::BlobWriter& writer, const PlanRequest& request, ResultIndex& results,
          const Scratch& scratch)
      : writer_(writer),
        request_(request),
        results_(results),
        scratch_(scratch),
        base_table_(request.base ? request.base->table : content::MapRoot()),
        editor_(content::kPlainMap, writer, base_table_),
        base_cursor_(content::kPlainMap, writer, base_table_),
        ids_(*scratch.file_system, scratch.directory, scratch.memory_budget) {}

  Result<Plan> run() {
    Plan plan;
    plan.incremental = can_be_incremental();
    QANAT_RETURN_IF_ERROR(plan.incremental ? plan_changes() : plan_everything());
    QANAT_RETURN_IF_ERROR(flush());
    QANAT_ASSIGN_OR_RETURN(plan.table, editor_.finish());
    counts_.total = plan.table.totals.count;
    counts_.unchanged = counts_.total - counts_.pending - counts_.reused;
    plan.counts = counts_;
    QANAT_ASSIGN_OR_RETURN(plan.ids, finish_ids(plan.table));
    return plan;
  }

 private:
  // An edit that waits for its result to be looked up. No row: the datum is gone.
  struct Edit {
    std::string sort_key;
    std::optional<DatumRow> row;
    bool look_up = false;
  };

  bool can_be_incremental() const {
    return request_.base && request_.mode != PlanMode::kEveryJob &&
           request_.base->transform == request_.transform && !request_.base->has_recovered &&
           request_.base->shape != nullptr && request_.shape->same_datums(*request_.base->shape);
  }

  Status plan_changes() {
    return check(visit_datum_changes(
        *request_.shape, writer_, request_.base->roots, request_.roots, scratch_,
        [&](std::string_view key, const std::vector<DatumInput>* inputs) -> Result<bool> {
          QANAT_RETURN_IF_ERROR(base_cursor_.seek(key));
          const bool in_base = base_cursor_.valid() && base_cursor_.key() == key;
          if (inputs == nullptr) {
            if (in_base) QANAT_RETURN_IF_ERROR(remove(key));
          } else {
            QANAT_RETURN_IF_ERROR(decide(key, *inputs, in_base));
          }
          return true;
        }));
  }

  // Datums and base rows side by side, both in order.
  Status plan_everything() {
    QANAT_RETURN_IF_ERROR(base_cursor_.seek_first());
    QANAT_RETURN_IF_ERROR(check(enumerate_datums(
        *request_.shape, writer_, request_.roots, scratch_,
        [&](std::string_view key, const std::vector<DatumInput>& inputs) -> Result<bool> {
          while (base_cursor_.valid() && base_cursor_.key() < key) {
            QANAT_RETURN_IF_ERROR(remove(base_cursor_.key()));
            QANAT_RETURN_IF_ERROR(base_cursor_.next());
          }
          const bool in_base = base_cursor_.valid() && base_cursor_.key() == key;
          QANAT_RETURN_IF_ERROR(decide(key, inputs, in_base));
          if (in_base) QANAT_RETURN_IF_ERROR(base_cursor_.next());
          return true;
        })));
    while (base_cursor_.valid()) {
      QANAT_RETURN_IF_ERROR(remove(base_cursor_.key()));
      QANAT_RETURN_IF_ERROR(base_cursor_.next());
    }
    return ok_status();
  }

  // Ids come in no order of the sort keys.
  Status note_id(std::string_view key, bool added) {
    return ids_.add(datum_id(key).view(), added ? key : std::string_view());
  }

  Result<content::MapRoot> finish_ids(const content::MapRoot& table) {
    content::MapRoot base = request_.base ? request_.base->ids : content::MapRoot();
    QANAT_RETURN_IF_ERROR(ids_.finish());
    if (base.totals.count != base_table_.totals.count) {
      content::ExternalSorter all(*scratch_.file_system, scratch_.directory,
                                  scratch_.memory_budget);
      content::MapCursor row(content::kPlainMap, writer_, table);
      QANAT_RETURN_IF_ERROR(row.seek_first());
      while (row.valid()) {
        QANAT_RETURN_IF_ERROR(all.add(datum_id(row.key()).view(), row.key()));
        QANAT_RETURN_IF_ERROR(row.next());
      }
      QANAT_RETURN_IF_ERROR(all.finish());
      return edit_ids({}, all);
    }
    return edit_ids(base, ids_);
  }

  Result<content::MapRoot> edit_ids(const content::MapRoot& base,
                                    content::ExternalSorter& changes) {
    content::MapEditor editor(content::kPlainMap, writer_, base);
    while (changes.valid()) {
      QANAT_RETURN_IF_ERROR(changes.value().empty() ? editor.erase(changes.key())
                                                    : editor.put(changes.key(), changes.value()));
      QANAT_RETURN_IF_ERROR(changes.next());
    }
    return editor.finish();
  }

  static Status check(const Result<bool>& walked) {
    return walked.ok() ? ok_status() : walked.status();
  }

  Status remove(std::string_view key) {
    ++counts_.removed;
    QANAT_RETURN_IF_ERROR(note_id(key, false));
    return add({std::string(key), std::nullopt, false});
  }

  // `in_base`: the cursor stands on the datum's row.
  Status decide(std::string_view key, const std::vector<DatumInput>& inputs, bool in_base) {
    std::optional<DatumRow> base;
    if (in_base) {
      QANAT_ASSIGN_OR_RETURN(base, decode_row(base_cursor_.value()));
    }
    if (!in_base) QANAT_RETURN_IF_ERROR(note_id(key, true));
    DatumRow row;
    row.result_key = result_key(request_.transform, inputs);
    row.decided_in = request_.job;
    const bool runs_anyway = request_.mode == PlanMode::kEveryJob;
    const bool same_inputs = base && base->inputs == inputs;
    if (same_inputs && base->state == DatumState::kSuccess && !runs_anyway) {
      if (base->result_key == row.result_key) return ok_status();
      if (request_.mode == PlanMode::kKeepResults)
        return keep(key, *std::move(base), row.result_key);
    }
    row.inputs = inputs;
    set_reason(base, same_inputs, row);
    return add({std::string(key), std::move(row), !runs_anyway});
  }

  Status keep(std::string_view key, DatumRow row, const Hash& result) {
    row.result_key = result;
    row.reason = DatumReason::kKept;
    row.changed_inputs = 0;
    row.decided_in = request_.job;
    return add({std::string(key), std::move(row), false});
  }

  void set_reason(const std::optional<DatumRow>& base, bool same_inputs, DatumRow& row) const {
    if (!base) {
      row.reason = DatumReason::kNewDatum;
    } else if (request_.mode == PlanMode::kEveryJob) {
      row.reason = DatumReason::kEveryJob;
    } else if (request_.mode == PlanMode::kReprocess &&
               request_.base->transform != request_.transform) {
      row.reason = DatumReason::kReprocess;
    } else if (!same_inputs) {
      row.reason = DatumReason::kInputChanged;
    } else if (base->state != DatumState::kSuccess) {
      row.reason = DatumReason::kNotDone;
    } else {
      row.reason = DatumReason::kCodeChanged;
    }
    if (!base || same_inputs) return;
    for (size_t i = 0; i < row.inputs.size() && i < 64; ++i) {
      if (i >= base->inputs.size() || base->inputs[i] != row.inputs[i])
        row.changed_inputs |= uint64_t{1} << i;
    }
  }

  Status add(Edit edit) {
    edits_.push_back(std::move(edit));
    return edits_.size() < kLookupBatch ? ok_status() : flush();
  }

  Status flush() {
    std::vector<Hash> keys;
    for (const Edit& edit : edits_) {
      if (edit.look_up) keys.push_back(edit.row->result_key);
    }
    std::vector<std::optional<DatumRow>> found;
    if (!keys.empty()) {
      QANAT_ASSIGN_OR_RETURN(found, results_.find(keys));
      if (found.size() != keys.size())
        return internal_error("the index of results gave a wrong number of answers");
    }
    size_t next = 0;
    for (Edit& edit : edits_) {
      if (!edit.row) {
        QANAT_RETURN_IF_ERROR(editor_.erase(edit.sort_key));
        continue;
      }
      if (edit.look_up) {
        if (std::optional<DatumRow>& result = found[next++]; result)
          reuse(*std::move(result), *edit.row);
      }
      if (edit.row->state == DatumState::kPending) ++counts_.pending;
      QANAT_RETURN_IF_ERROR(editor_.put(edit.sort_key, encode_row(*edit.row)));
    }
    edits_.clear();
    return ok_status();
  }

  void reuse(DatumRow result, DatumRow& row) {
    ++counts_.reused;
    result.inputs = std::move(row.inputs);
    result.result_key = row.result_key;
    result.reason = row.reason;
    result.changed_inputs = row.changed_inputs;
    result.decided_in = std::move(row.decided_in);
    if (result.origin_pipeline == request_.pipeline) result.origin_pipeline.clear();
    row = std::move(result);
  }

  content::BlobWriter& writer_;
  const PlanRequest& request_;
  ResultIndex& results_;
  const Scratch& scratch_;
  const content::MapRoot base_table_;
  content::MapEditor editor_;
  content::MapCursor base_cursor_;
  content::ExternalSorter ids_;
  std::vector<Edit> edits_;
  PlanCounts counts_;
};

}  // namespace

Result<Plan> make_plan(content::BlobWriter& writer, const PlanRequest& request,
                       ResultIndex& results, const Scratch& scratch) {
  return Planner(writer, request, results, scratch).run();
}

Result<bool> visit_pending(
    content::BlobReader& reader, const content::MapRoot& base_table,
    const content::MapRoot& plan_table, std::string_view after,
    const std::function<Result<bool>(std::string_view sort_key, const DatumRow& row)>& visit) {
  content::KeyRange range{std::string(after), {}};
  if (!after.empty()) range.from.push_back('\0');  // the first key above it
  return content::diff_maps(content::kPlainMap, reader, base_table, plan_table, range,
                            [&](const content::MapDifference& difference) -> Result<bool> {
                              if (!difference.after) return true;
                              QANAT_ASSIGN_OR_RETURN(const DatumRow row,
                                                     decode_row(*difference.after));
                              if (row.state != DatumState::kPending) return true;
                              return visit(difference.key, row);
                            });
}

}  // namespace qanat::pipeline
