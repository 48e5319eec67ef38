// The datum table of a job: a plain prolly map from sort key to DatumRow. Planning writes it with
// what is to run pending, folding fills in results; it is what list datum, inspect datum and
// explain read, and what the next job starts from.
//
// A row says two things: which job *decided* about the datum (planned it, because something had
// changed, and wrote why), and which job its result comes *from*. So in job J a row is: ran, if
// origin is J; reused by key, if it was decided in J and origin is another; skipped (nothing
// changed) if it was decided earlier. Bytes: docs/formats.md, "Datum row".
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/file_ref.h"
#include "qanat/content/prolly.h"
#include "qanat/content/tree.h"
#include "qanat/pipeline/input.h"

namespace qanat::pipeline {

enum class DatumState : uint8_t {
  kPending = 0,
  kSuccess = 1,
  kFailed = 2,
  kRecovered = 3,  // failed, and err_cmd succeeded: no output, tried again by the next job
};
std::string_view state_name(DatumState state);  // "PENDING", "SUCCESS", ...

// Why the deciding job looked at the datum.
enum class DatumReason : uint8_t {
  kNewDatum = 1,      // the job before had no such datum
  kInputChanged = 2,  // see DatumRow::changed_inputs
  kCodeChanged = 3,   // another transform hash
  kNotDone = 4,       // failed or recovered in the job before
  kReprocess = 5,     // update pipeline --reprocess
  kEveryJob = 6,      // reprocess_spec: every_job
  kKept = 7,          // update pipeline --keep-results: the result of other code, accepted as it is
};
std::string_view reason_name(DatumReason reason);  // "new", "input changed", ...

struct DatumTimings {
  int64_t started_ms = 0;  // since 1970, of the last attempt
  int64_t download_ms = 0;
  int64_t process_ms = 0;
  int64_t upload_ms = 0;

  friend bool operator==(const DatumTimings&, const DatumTimings&) = default;
};

inline constexpr size_t kMaxDatumMessage = 4096;  // bytes; longer ones are cut when encoded

struct DatumRow {
  std::vector<DatumInput> inputs;
  Hash result_key;
  DatumState state = DatumState::kPending;
  DatumReason reason = DatumReason::kNewDatum;
  uint64_t changed_inputs =
      0;                   // bit i: input i differs from the base job's row; with kInputChanged
  std::string decided_in;  // id of the job whose plan wrote this row
  std::string origin;      // id of the job that ran it; "" while pending
  std::string origin_pipeline;  // "" is this pipeline; else the one that shared its result
  content::TreeRoot output;     // of a success
  content::FileRef log;
  DatumTimings timings;
  int64_t exit_code = 0;
  uint64_t attempts = 0;
  std::string message;  // why it failed

  uint64_t input_files() const;
  uint64_t input_bytes() const;

  friend bool operator==(const DatumRow&, const DatumRow&) = default;
};

// Strict: decode_row(encode_row(r)) == r (but for a message that was cut), and damaged or hostile
// bytes are kDataLoss.
std::string encode_row(const DatumRow& row);
Result<DatumRow> decode_row(std::string_view bytes);

// Calls `visit` with each blob that the row refers to (inputs, output, log): what garbage
// collection must keep.
Status visit_row_references(const DatumRow& row,
                            const std::function<Status(const content::BlobRef&)>& visit);

// How the datum stands in the job `job`, for lists and counts.
enum class DatumOutcomeInJob { kPending, kRan, kReused, kSkipped };
DatumOutcomeInJob outcome_in(const DatumRow& row, std::string_view job);

struct KeyedRow {
  std::string sort_key;
  DatumRow row;
};

// A datum table to read. Cheap to copy; `reader` outlives it; one thread at a time.
class DatumTable {
 public:
  DatumTable(content::BlobReader& reader, content::MapRoot root)
      : reader_(&reader), root_(std::move(root)) {}

  const content::MapRoot& root() const { return root_; }
  uint64_t size() const { return root_.totals.count; }

  Result<std::optional<DatumRow>> find(std::string_view sort_key) const;
  // By datum id, through the map from ids to sort keys that the plan made (Plan::ids). 64 hex
  // digits, or a beginning of at least 8 that fits one datum only (kInvalidArgument if several).
  Result<std::optional<KeyedRow>> find_by_id(std::string_view id,
                                             const content::MapRoot& ids) const;
  // Up to `limit` rows from the `first`th on, in order.
  Result<std::vector<KeyedRow>> page(uint64_t first, size_t limit) const;
  // In order, until `visit` gives false; with `after`: rows above that key.
  Result<bool> visit(
      const std::function<Result<bool>(std::string_view sort_key, const DatumRow& row)>& visit,
      std::string_view after = {}) const;

 private:
  content::BlobReader* reader_;
  content::MapRoot root_;
};

}  // namespace qanat::pipeline
