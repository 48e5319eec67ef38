// From a pipeline's input tree and the contents of its input branches to datums, in order, without
// holding them all.
//
// Shape. Cross distributes over union, so every input tree is a list of *terms*, each a product of
// pfs inputs ("arms"): cross(a, union(b, c)) = a*b + a*c. A join or group will be one more kind of
// component of a term.
//
// Order. A datum's *sort key* is, for each of its inputs in spec order, name, 0x00, path in tree
// order's key form, 0x00; then, if earlier terms of the tree have the same names in the same order,
// one byte that counts them (two arms of a union may give the same names and paths; they stay two
// datums). Bytewise order of sort keys is the order of datums. Datum id = SHA-256 of the sort key.
//
// What is a datum. Each file or directory that a glob matches; a directory brings all that is in
// it. Directories exist through their files, so an empty commit has no datums, whatever the glob,
// `/` included; a branch without a head is as empty.
//
// Cost. Enumeration: the globs' walks; the arms after the first are kept in memory while they have
// at most kMaxHeldMatches matches, and walked again otherwise. Changes: the diffs of the arms, and
// for each changed match of one arm the matches of all others: what has changed, that is. Unions
// whose terms begin with the same name are sorted externally. Memory is bounded by the scratch
// space's budget.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/pipeline_spec.h"
#include "qanat/base/bytes.h"
#include "qanat/base/file_system.h"
#include "qanat/base/glob.h"
#include "qanat/base/hash.h"
#include "qanat/base/status.h"
#include "qanat/content/blob_io.h"
#include "qanat/content/tree.h"

namespace qanat::pipeline {

// One input of a datum: what the input's glob matched.
struct DatumInput {
  std::string name;  // of the input: /pfs/<name>
  std::string path;  // in the repo, "" for its root
  content::TreeEntry entry;

  friend bool operator==(const DatumInput&, const DatumInput&) = default;
};

// Where work that does not fit in memory goes. `file_system` outlives its user; `directory` must
// exist.
struct Scratch {
  FileSystem* file_system = nullptr;
  std::string directory;
  size_t memory_budget = 16u << 20;  // bytes, of each sorter
};

inline constexpr size_t kMaxTerms = 256;
inline constexpr size_t kMaxHeldMatches = 65536;

// An input tree, compiled: its arms (the pfs inputs in spec order, as api::pfs_inputs gives them)
// and its terms. Immutable.
class InputShape {
 public:
  struct Arm {
    std::string name;
    std::string repo;
    std::string branch;
    Glob glob;
  };
  struct Term {
    std::vector<size_t> arms;  // indexes, in spec order
    uint8_t occurrence = 0;    // earlier terms with the same names
  };

  // kInvalidArgument for a bad glob or more than kMaxTerms terms.
  static Result<InputShape> make(const api::Input& input);

  const std::vector<Arm>& arms() const { return arms_; }
  const std::vector<Term>& terms() const { return terms_; }
  // Same names, globs and terms: datums of the two can be compared by diffing roots. Repos and
  // branches do not matter.
  bool same_datums(const InputShape& other) const;

 private:
  std::vector<Arm> arms_;
  std::vector<Term> terms_;
};

// The content of each arm's commit, in the order of InputShape::arms(); empty for a branch without
// a head.
using InputRoots = std::vector<content::TreeRoot>;

std::string sort_key(const std::vector<DatumInput>& inputs, uint8_t occurrence = 0);
Hash datum_id(std::string_view sort_key);
// The names and paths of a sort key, as people read them: "orders:/2017-03.csv, zips:/". kDataLoss
// if it is none.
Result<std::string> describe_sort_key(std::string_view sort_key);

// For records: varint count, then for each input: bytes name, bytes path, bytes entry (as in a
// directory).
void encode_inputs(const std::vector<DatumInput>& inputs, std::string& out);
Result<std::vector<DatumInput>> decode_inputs(Reader& in);

// Gets each datum in order; false stops. The views live during the call.
using DatumVisitor =
    std::function<Result<bool>(std::string_view sort_key, const std::vector<DatumInput>& inputs)>;

// Every datum of these contents, in sort-key order. False if the visitor stopped it.
Result<bool> enumerate_datums(const InputShape& shape, content::BlobReader& reader,
                              const InputRoots& roots, const Scratch& scratch,
                              const DatumVisitor& visit);

// What became of a datum from the old contents to the new: `inputs` is null where it is gone; else
// it is new or one of its inputs has changed. Datums with equal inputs are not visited.
using DatumChangeVisitor =
    std::function<Result<bool>(std::string_view sort_key, const std::vector<DatumInput>* inputs)>;

Result<bool> visit_datum_changes(const InputShape& shape, content::BlobReader& reader,
                                 const InputRoots& before, const InputRoots& after,
                                 const Scratch& scratch, const DatumChangeVisitor& visit);

}  // namespace qanat::pipeline
