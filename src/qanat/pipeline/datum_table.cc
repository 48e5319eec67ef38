#include "qanat/pipeline/datum_table.h"

#include <algorithm>
#include <cassert>

#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/content/references.h"

namespace qanat::pipeline {
namespace {

constexpr uint8_t kRowVersion = 1;
constexpr size_t kShortestIdPrefix = 8;

// A job's id: its 16 bytes, or nothing.
void put_id(std::string& out, std::string_view id) {
  assert(id.empty() || is_id(id));
  put_bytes(out, from_hex(id).value_or(""));
}

Result<std::string> take_id(Reader& in) {
  QANAT_ASSIGN_OR_RETURN(const std::string_view bytes, in.bytes());
  if (!bytes.empty() && bytes.size() != kIdLength / 2)
    return data_loss("a datum row with a damaged job id");
  return to_hex(bytes);
}

void put_signed(std::string& out, int64_t value) {  // zigzag
  put_varint(out, (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
}

Result<int64_t> take_signed(Reader& in) {
  QANAT_ASSIGN_OR_RETURN(const uint64_t value, in.varint());
  return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}

// At most kMaxDatumMessage bytes, and not through the middle of a character.
std::string_view cut_message(std::string_view message) {
  if (message.size() <= kMaxDatumMessage) return message;
  size_t length = kMaxDatumMessage;
  while (length > 0 && (static_cast<uint8_t>(message[length]) & 0xC0) == 0x80) --length;
  return message.substr(0, length);
}

Status decode_result(Reader& in, DatumRow& row) {
  QANAT_ASSIGN_OR_RETURN(row.origin, take_id(in));
  QANAT_ASSIGN_OR_RETURN(row.origin_pipeline, in.bytes());
  QANAT_ASSIGN_OR_RETURN(const std::string_view output, in.bytes());
  QANAT_ASSIGN_OR_RETURN(row.output, content::TreeRoot::decode(output));
  QANAT_ASSIGN_OR_RETURN(const std::string_view log, in.bytes());
  QANAT_ASSIGN_OR_RETURN(row.log, content::FileRef::decode(log));
  QANAT_ASSIGN_OR_RETURN(row.timings.started_ms, take_signed(in));
  QANAT_ASSIGN_OR_RETURN(row.timings.download_ms, take_signed(in));
  QANAT_ASSIGN_OR_RETURN(row.timings.process_ms, take_signed(in));
  QANAT_ASSIGN_OR_RETURN(row.timings.upload_ms, take_signed(in));
  QANAT_ASSIGN_OR_RETURN(row.exit_code, take_signed(in));
  QANAT_ASSIGN_OR_RETURN(row.attempts, in.varint());
  QANAT_ASSIGN_OR_RETURN(row.message, in.bytes());
  return ok_status();
}

Status visit_root(const content::MapRoot& root,
                  const std::function<Status(const content::BlobRef&)>& visit) {
  if (root.empty()) return ok_status();
  if (root.inlined.empty()) return visit({content::BlobKind::kNode, root.hash});
  return content::visit_references(std::make_shared<const std::string>(root.inlined), visit,
                                   nullptr);
}

Status visit_file(const content::FileRef& file,
                  const std::function<Status(const content::BlobRef&)>& visit) {
  return file.empty() ? ok_status() : visit(file.blob());
}

}  // namespace

std::string_view state_name(DatumState state) {
  switch (state) {
    case DatumState::kPending:
      return "PENDING";
    case DatumState::kSuccess:
      return "SUCCESS";
    case DatumState::kFailed:
      return "FAILED";
    case DatumState::kRecovered:
      return "RECOVERED";
  }
  return "";
}

std::string_view reason_name(DatumReason reason) {
  switch (reason) {
    case DatumReason::kNewDatum:
      return "new";
    case DatumReason::kInputChanged:
      return "input changed";
    case DatumReason::kCodeChanged:
      return "code changed";
    case DatumReason::kNotDone:
      return "not done before";
    case DatumReason::kReprocess:
      return "reprocess";
    case DatumReason::kEveryJob:
      return "every_job";
    case DatumReason::kKept:
      return "kept";
  }
  return "";
}

uint64_t DatumRow::input_files() const {
  uint64_t sum = 0;
  for (const DatumInput& input : inputs) sum += input.entry.files();
  return sum;
}

uint64_t DatumRow::input_bytes() const {
  uint64_t sum = 0;
  for (const DatumInput& input : inputs) sum += input.entry.bytes();
  return sum;
}

std::string encode_row(const DatumRow& row) {
  std::string out;
  put_u8(out, kRowVersion);
  put_u8(out, static_cast<uint8_t>(row.state));
  put_u8(out, static_cast<uint8_t>(row.reason));
  put_varint(out, row.changed_inputs);
  out += row.result_key.view();
  encode_inputs(row.inputs, out);
  put_id(out, row.decided_in);
  put_id(out, row.origin);
  put_bytes(out, row.origin_pipeline);
  put_bytes(out, row.output.encode());
  put_bytes(out, row.log.encode());
  put_signed(out, row.timings.started_ms);
  put_signed(out, row.timings.download_ms);
  put_signed(out, row.timings.process_ms);
  put_signed(out, row.timings.upload_ms);
  put_signed(out, row.exit_code);
  put_varint(out, row.attempts);
  put_bytes(out, cut_message(row.message));
  return out;
}

Result<DatumRow> decode_row(std::string_view bytes) {
  Reader in(bytes);
  DatumRow row;
  QANAT_ASSIGN_OR_RETURN(const uint8_t version, in.u8());
  if (version != kRowVersion)
    return data_loss(str_cat("a datum row of the unknown version ", version));
  QANAT_ASSIGN_OR_RETURN(const uint8_t state, in.u8());
  QANAT_ASSIGN_OR_RETURN(const uint8_t reason, in.u8());
  if (state > static_cast<uint8_t>(DatumState::kRecovered))
    return data_loss("a datum row with an unknown state");
  if (reason < 1 || reason > static_cast<uint8_t>(DatumReason::kKept)) {
    return data_loss("a datum row with an unknown reason");
  }
  row.state = static_cast<DatumState>(state);
  row.reason = static_cast<DatumReason>(reason);
  QANAT_ASSIGN_OR_RETURN(row.changed_inputs, in.varint());
  QANAT_ASSIGN_OR_RETURN(const std::string_view key, in.raw(Hash::kSize));
  QANAT_ASSIGN_OR_RETURN(row.result_key, Hash::from_bytes(key));
  QANAT_ASSIGN_OR_RETURN(row.inputs, decode_inputs(in));
  QANAT_ASSIGN_OR_RETURN(row.decided_in, take_id(in));
  QANAT_RETURN_IF_ERROR(decode_result(in, row));
  QANAT_RETURN_IF_ERROR(in.expect_end());
  return row;
}

Status visit_row_references(const DatumRow& row,
                            const std::function<Status(const content::BlobRef&)>& visit) {
  for (const DatumInput& input : row.inputs) {
    QANAT_RETURN_IF_ERROR(input.entry.is_directory ? visit_root(input.entry.directory, visit)
                                                   : visit_file(input.entry.file, visit));
  }
  QANAT_RETURN_IF_ERROR(visit_root(row.output, visit));
  return visit_file(row.log, visit);
}

DatumOutcomeInJob outcome_in(const DatumRow& row, std::string_view job) {
  if (row.state == DatumState::kPending) return DatumOutcomeInJob::kPending;
  if (row.origin == job && row.origin_pipeline.empty()) return DatumOutcomeInJob::kRan;
  if (row.decided_in == job && row.reason != DatumReason::kKept) return DatumOutcomeInJob::kReused;
  return DatumOutcomeInJob::kSkipped;
}

Result<std::optional<DatumRow>> DatumTable::find(std::string_view sort_key) const {
  QANAT_ASSIGN_OR_RETURN(const std::optional<std::string> value,
                         content::map_get(content::kPlainMap, *reader_, root_, sort_key));
  if (!value) return std::optional<DatumRow>();
  QANAT_ASSIGN_OR_RETURN(DatumRow row, decode_row(*value));
  return std::optional<DatumRow>(std::move(row));
}

Result<std::optional<KeyedRow>> DatumTable::find_by_id(std::string_view id,
                                                       const content::MapRoot& ids) const {
  if (id.size() < kShortestIdPrefix || id.size() > 2 * Hash::kSize) {
    return invalid_argument(
        str_cat(qanat::quoted(id), " is not a datum id"),
        str_cat("Give its 64 hex digits, or at least the first ", kShortestIdPrefix, "."));
  }
  const std::string wanted = to_lower(id);
  const auto from = from_hex(wanted.size() % 2 == 0 ? wanted : wanted + "0");
  if (!from.ok()) return invalid_argument(str_cat(qanat::quoted(id), " is not a datum id"));
  std::optional<std::string> sort_key;
  content::MapCursor cursor(content::kPlainMap, *reader_, ids);
  QANAT_RETURN_IF_ERROR(cursor.seek(*from));
  while (cursor.valid() && to_hex(cursor.key()).starts_with(wanted)) {
    if (sort_key) {
      return invalid_argument(str_cat("several datums have ids that begin with ", id),
                              "Give more of its digits.");
    }
    sort_key = cursor.value();
    QANAT_RETURN_IF_ERROR(cursor.next());
  }
  if (!sort_key) return std::optional<KeyedRow>();
  QANAT_ASSIGN_OR_RETURN(auto row, find(*sort_key));
  if (!row) return std::optional<KeyedRow>();
  return std::optional<KeyedRow>(KeyedRow{*std::move(sort_key), *std::move(row)});
}

Result<std::vector<KeyedRow>> DatumTable::page(uint64_t first, size_t limit) const {
  std::vector<KeyedRow> rows;
  content::MapCursor cursor(content::kPlainMap, *reader_, root_);
  QANAT_RETURN_IF_ERROR(cursor.seek_rank(first));
  while (cursor.valid() && rows.size() < limit) {
    QANAT_ASSIGN_OR_RETURN(DatumRow row, decode_row(cursor.value()));
    rows.push_back({std::string(cursor.key()), std::move(row)});
    QANAT_RETURN_IF_ERROR(cursor.next());
  }
  return rows;
}

Result<bool> DatumTable::visit(
    const std::function<Result<bool>(std::string_view sort_key, const DatumRow& row)>& visit,
    std::string_view after) const {
  content::MapCursor cursor(content::kPlainMap, *reader_, root_);
  QANAT_RETURN_IF_ERROR(cursor.seek(after));
  if (!after.empty() && cursor.valid() && cursor.key() == after)
    QANAT_RETURN_IF_ERROR(cursor.next());
  while (cursor.valid()) {
    QANAT_ASSIGN_OR_RETURN(const DatumRow row, decode_row(cursor.value()));
    QANAT_ASSIGN_OR_RETURN(const bool more, visit(cursor.key(), row));
    if (!more) return false;
    QANAT_RETURN_IF_ERROR(cursor.next());
  }
  return true;
}

}  // namespace qanat::pipeline
