// Every field a pipeline spec may contain, and what Qanat does with it: one table, read by the
// loader, by `validate` and by docs/pipeline-spec.md (a test compares the file with
// `spec_fields_markdown`).
//
// The table covers Pachyderm 1.7 to 2.11 and Qanat's own additions. A field is *honoured*,
// *reported* (accepted, has no meaning for this runner, and the user is told so) or *refused* (an
// error that names it). Nothing is silently ignored.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat::api {

// Where a pipeline's workers run; see run/.
enum class RunnerKind { kDocker, kProcess };
std::string_view runner_kind_name(RunnerKind kind);  // "docker", "process"
Result<RunnerKind> runner_kind_from_name(std::string_view name);

enum class Handling { kHonoured, kReported, kRefused };
std::string_view handling_name(Handling handling);  // "honoured", "reported", "refused"

// What a field's value must look like.
enum class FieldType {
  kString,
  kBool,
  kInteger,
  kNumber,
  kDuration,  // see quantity.h
  kSize,      // see quantity.h; a whole number is accepted too
  kStringList,
  kIntegerList,
  kStringMap,   // keys are the user's
  kObject,      // its members have rows of their own
  kObjectList,  // likewise, `path[]`
  kInput,       // an input: members are the rows under `input`
  kInputList,
  kAny,  // not looked into
};

struct SpecField {
  std::string_view path;     // snake_case, dots between levels: "input.pfs.glob"
  std::string_view aliases;  // other spellings of the last name, separated by spaces; camelCase is
                             // always accepted
  FieldType type;
  Handling docker;
  Handling process;
  std::string_view
      about;  // honoured: what it does. Reported or refused: why, and what to do instead

  Handling on(RunnerKind kind) const { return kind == RunnerKind::kDocker ? docker : process; }
};

// In the order of the documentation. Static storage.
std::span<const SpecField> spec_fields();

// The reference page docs/pipeline-spec.md, generated.
std::string spec_fields_markdown();

}  // namespace qanat::api
