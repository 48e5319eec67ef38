#include "qanat/pipeline/result_index.h"

namespace qanat::pipeline {

Result<std::vector<std::optional<DatumRow>>> SegmentResultIndex::find(std::span<const Hash> keys) {
  std::vector<std::string> names;
  names.reserve(keys.size());
  for (const Hash& key : keys) names.emplace_back(key.view());
  QANAT_ASSIGN_OR_RETURN(const std::vector<std::optional<std::string>> values,
                         index_.get_many(names));
  std::vector<std::optional<DatumRow>> rows(keys.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i]) continue;
    QANAT_ASSIGN_OR_RETURN(rows[i], decode_row(*values[i]));
    if (rows[i]->result_key != keys[i])
      return data_loss("a reusable result is filed under another key");
    if (rows[i]->state != DatumState::kSuccess) rows[i].reset();
  }
  return rows;
}

std::optional<std::pair<std::string, std::string>> result_entry(const DatumRow& row,
                                                                std::string_view pipeline) {
  if (row.state != DatumState::kSuccess) return std::nullopt;
  DatumRow result = row;
  result.inputs.clear();  // the key stands for them
  result.reason = DatumReason::kNewDatum;
  result.changed_inputs = 0;
  result.decided_in.clear();
  if (result.origin_pipeline.empty()) result.origin_pipeline = pipeline;
  return std::pair(std::string(row.result_key.view()), encode_row(result));
}

}  // namespace qanat::pipeline
