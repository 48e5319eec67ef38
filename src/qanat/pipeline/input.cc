#include "qanat/pipeline/input.h"

#include <algorithm>
#include <map>

#include "qanat/base/string.h"
#include "qanat/content/external_sort.h"
#include "qanat/content/tree_order.h"

namespace qanat::pipeline {
namespace {

constexpr uint64_t kMaxInputsInRow = 4096;

// ---- Shape

Status too_many_terms() {
  return invalid_argument(
      str_cat("input: the unions make more than ", kMaxTerms, " combinations of inputs"),
      "Split the pipeline, or union the data in one repo.");
}

using ArmList = std::vector<size_t>;

// The terms of an input tree; arms are numbered from `next_arm` in spec order.
Result<std::vector<ArmList>> expand(const api::Input& input, size_t& next_arm) {
  if (input.kind == api::Input::Kind::kPfs) return std::vector<ArmList>{{next_arm++}};
  const bool cross = input.kind == api::Input::Kind::kCross;
  std::vector<ArmList> terms;
  if (cross) terms.emplace_back();
  for (const api::Input& arm : input.arms) {
    QANAT_ASSIGN_OR_RETURN(std::vector<ArmList> inner, expand(arm, next_arm));
    if (!cross) {
      terms.insert(terms.end(), inner.begin(), inner.end());
    } else {
      std::vector<ArmList> products;
      if (terms.size() * inner.size() > kMaxTerms) return too_many_terms();
      for (const ArmList& left : terms) {
        for (const ArmList& right : inner) {
          products.push_back(left);
          products.back().insert(products.back().end(), right.begin(), right.end());
        }
      }
      terms = std::move(products);
    }
    if (terms.size() > kMaxTerms) return too_many_terms();
  }
  return terms;
}

// ---- Matches of one arm, in two versions of its content

struct Match {
  std::string path;
  std::optional<content::TreeEntry> before;
  std::optional<content::TreeEntry> after;

  bool changed() const { return before != after; }
};
using MatchVisitor = std::function<Result<bool>(const Match&)>;

// An empty root is no match: directories exist through their files.
bool exists(const content::TreeEntry& entry) { return entry.files() > 0; }

// The matches of a glob in one tree, a page at a time, so that two trees can be walked side by
// side.
class MatchStream {
 public:
  MatchStream(content::BlobReader& reader, const content::TreeRoot& root, const Glob& glob)
      : tree_(reader, root), glob_(glob), ended_(root.empty()) {}

  Status load() {
    if (at_ < page_.size() || ended_) return ok_status();
    const std::string after = page_.empty() ? std::string() : std::move(page_.back().first);
    page_.clear();
    at_ = 0;
    Result<bool> walked = tree_.glob(
        glob_,
        [&](std::string_view path, const content::TreeEntry& entry) -> Result<bool> {
          if (exists(entry)) page_.emplace_back(path, entry);
          return page_.size() < kPage;
        },
        after);
    if (!walked.ok()) return walked.status();
    // The root matches alone or not at all, and cannot be resumed after.
    if (*walked || glob_.matches_root()) ended_ = true;
    return ok_status();
  }
  bool valid() const { return at_ < page_.size(); }
  const std::string& path() const { return page_[at_].first; }
  const content::TreeEntry& entry() const { return page_[at_].second; }
  // load() afterwards.
  void next() { ++at_; }

 private:
  static constexpr size_t kPage = 256;

  content::Tree tree_;
  const Glob& glob_;
  std::vector<std::pair<std::string, content::TreeEntry>> page_;
  size_t at_ = 0;
  bool ended_;
};

class ArmMatches {
 public:
  ArmMatches(content::BlobReader& reader, const Glob& glob, const content::TreeRoot& before,
             const content::TreeRoot& after, size_t& hold_budget)
      : reader_(reader), glob_(glob), before_(before), after_(after), hold_budget_(hold_budget) {}

  bool changed() const { return before_ != after_; }

  // Matches of either version (`all`), or those that differ. In path order. With `again`, this arm
  // will be visited again, and its matches are kept if they are few.
  Result<bool> visit(bool all, bool again, const MatchVisitor& visit) {
    Held& held = held_[all ? 1 : 0];
    if (again && held.state == Held::kUnknown) QANAT_RETURN_IF_ERROR(hold(all, held));
    if (held.state != Held::kYes) return walk(all, visit);
    for (const Match& match : held.matches) {
      QANAT_ASSIGN_OR_RETURN(const bool more, visit(match));
      if (!more) return false;
    }
    return true;
  }

 private:
  struct Held {
    enum State { kUnknown, kYes, kTooMany };
    State state = kUnknown;
    std::vector<Match> matches;
  };

  Status hold(bool all, Held& held) {
    Result<bool> walked = walk(all, [&](const Match& match) -> Result<bool> {
      if (held.matches.size() == hold_budget_) return false;
      held.matches.push_back(match);
      return true;
    });
    if (!walked.ok()) return walked.status();
    if (*walked) {
      held.state = Held::kYes;
      hold_budget_ -= held.matches.size();
    } else {
      held = {Held::kTooMany, {}};
    }
    return ok_status();
  }

  Result<bool> walk(bool all, const MatchVisitor& visit) const {
    if (!all && !changed()) return true;
    if (!all && !before_.empty() && !after_.empty()) return walk_differences(visit);
    return walk_both(visit);
  }

  Result<bool> walk_differences(const MatchVisitor& visit) const {
    return content::diff_matches(reader_, before_, after_, glob_,
                                 [&](const content::TreeDifference& difference) -> Result<bool> {
                                   Match match{std::string(difference.path), difference.before,
                                               difference.after};
                                   if (match.before && !exists(*match.before)) match.before.reset();
                                   if (match.after && !exists(*match.after)) match.after.reset();
                                   if (!match.changed()) return true;
                                   return visit(match);
                                 });
  }

  Result<bool> walk_both(const MatchVisitor& visit) const {
    if (!changed()) return walk_one(visit);
    MatchStream old_matches(reader_, before_, glob_);
    MatchStream new_matches(reader_, after_, glob_);
    while (true) {
      QANAT_RETURN_IF_ERROR(old_matches.load());
      QANAT_RETURN_IF_ERROR(new_matches.load());
      if (!old_matches.valid() && !new_matches.valid()) return true;
      int order = 0;
      if (!old_matches.valid()) {
        order = 1;
      } else if (!new_matches.valid()) {
        order = -1;
      } else {
        order = content::compare_paths(old_matches.path(), new_matches.path());
      }
      Match match;
      if (order <= 0) {
        match.path = old_matches.path();
        match.before = old_matches.entry();
        old_matches.next();
      }
      if (order >= 0) {
        match.path = new_matches.path();
        match.after = new_matches.entry();
        new_matches.next();
      }
      QANAT_ASSIGN_OR_RETURN(const bool more, visit(match));
      if (!more) return false;
    }
  }

  Result<bool> walk_one(const MatchVisitor& visit) const {
    return content::Tree(reader_, after_)
        .glob(glob_, [&](std::string_view path, const content::TreeEntry& entry) -> Result<bool> {
          if (!exists(entry)) return true;
          return visit(Match{std::string(path), entry, entry});
        });
  }

  content::BlobReader& reader_;
  const Glob& glob_;
  const content::TreeRoot& before_;
  const content::TreeRoot& after_;
  size_t& hold_budget_;
  Held held_[2];
};

// ---- Products

void append_key(const DatumInput& input, std::string& key) {
  key += input.name;
  key.push_back('\0');
  key += content::path_to_key(input.path);
  key.push_back('\0');
}

// Walks the differences of all terms.
class ChangeWalk {
 public:
  ChangeWalk(const InputShape& shape, content::BlobReader& reader, const InputRoots& before,
             const InputRoots& after, const Scratch& scratch)
      : shape_(shape), scratch_(scratch) {
    arms_.reserve(shape.arms().size());
    for (size_t i = 0; i < shape.arms().size(); ++i) {
      arms_.emplace_back(reader, shape.arms()[i].glob, before[i], after[i], hold_budget_);
    }
  }

  Result<bool> run(const DatumChangeVisitor& visit) {
    // Keys of terms that begin with different names do not interleave.
    std::map<std::string_view, std::vector<const InputShape::Term*>> groups;
    for (const InputShape::Term& term : shape_.terms()) {
      groups[shape_.arms()[term.arms.front()].name].push_back(&term);
    }
    for (const auto& [name, terms] : groups) {
      QANAT_ASSIGN_OR_RETURN(const bool more, terms.size() == 1 ? walk_term(*terms.front(), visit)
                                                                : walk_sorted(terms, visit));
      if (!more) return false;
    }
    return true;
  }

 private:
  struct Progress {
    const InputShape::Term* term;
    const DatumChangeVisitor* visit;
    std::vector<DatumInput> inputs;
    std::string key;
  };

  Result<bool> walk_term(const InputShape::Term& term, const DatumChangeVisitor& visit) {
    Progress progress{&term, &visit, {}, {}};
    return walk_level(progress, 0, true, true, false);
  }

  bool changed_from(const InputShape::Term& term, size_t level) const {
    for (size_t i = level; i < term.arms.size(); ++i) {
      if (arms_[term.arms[i]].changed()) return true;
    }
    return false;
  }

  // The arms below `level` are chosen. `was`, `is`: the choice exists before, after. `changed`: it
  // differs.
  Result<bool> walk_level(Progress& progress, size_t level, bool was, bool is, bool changed) {
    const InputShape::Term& term = *progress.term;
    if (level == term.arms.size()) return emit(progress, was, is);
    if (!changed && !changed_from(term, level)) return true;
    const bool all = changed || changed_from(term, level + 1);
    const size_t key_length = progress.key.size();
    return arms_[term.arms[level]].visit(all, level > 0, [&](const Match& match) -> Result<bool> {
      const bool then_was = was && match.before;
      const bool then_is = is && match.after;
      if (!then_was && !then_is) return true;
      DatumInput input;
      input.name = shape_.arms()[term.arms[level]].name;
      input.path = match.path;
      input.entry = match.after ? *match.after : *match.before;
      append_key(input, progress.key);
      progress.inputs.push_back(std::move(input));
      Result<bool> more =
          walk_level(progress, level + 1, then_was, then_is, changed || match.changed());
      progress.inputs.pop_back();
      progress.key.resize(key_length);
      return more;
    });
  }

  static Result<bool> emit(Progress& progress, bool was, bool is) {
    const uint8_t occurrence = progress.term->occurrence;
    if (occurrence > 0) progress.key.push_back(static_cast<char>(occurrence));
    if (is) return (*progress.visit)(progress.key, &progress.inputs);
    if (was) return (*progress.visit)(progress.key, nullptr);
    return true;
  }

  Result<bool> walk_sorted(const std::vector<const InputShape::Term*>& terms,
                           const DatumChangeVisitor& visit);

  const InputShape& shape_;
  const Scratch& scratch_;
  size_t hold_budget_ = kMaxHeldMatches;
  std::vector<ArmMatches> arms_;
};

Result<bool> ChangeWalk::walk_sorted(const std::vector<const InputShape::Term*>& terms,
                                     const DatumChangeVisitor& visit) {
  content::ExternalSorter sorter(*scratch_.file_system, scratch_.directory, scratch_.memory_budget);
  const DatumChangeVisitor gather = [&](std::string_view key,
                                        const std::vector<DatumInput>* inputs) -> Result<bool> {
    std::string value;
    if (inputs != nullptr) encode_inputs(*inputs, value);
    QANAT_RETURN_IF_ERROR(sorter.add(key, value));
    return true;
  };
  for (const InputShape::Term* term : terms) {
    QANAT_ASSIGN_OR_RETURN(const bool more, walk_term(*term, gather));
    if (!more) return false;
  }
  QANAT_RETURN_IF_ERROR(sorter.finish());
  while (sorter.valid()) {
    std::vector<DatumInput> inputs;
    const bool is = !sorter.value().empty();
    if (is) {
      Reader in(sorter.value());
      QANAT_ASSIGN_OR_RETURN(inputs, decode_inputs(in));
    }
    QANAT_ASSIGN_OR_RETURN(const bool more, visit(sorter.key(), is ? &inputs : nullptr));
    if (!more) return false;
    QANAT_RETURN_IF_ERROR(sorter.next());
  }
  return true;
}

}  // namespace

Result<InputShape> InputShape::make(const api::Input& input) {
  InputShape shape;
  for (const api::PfsInput* pfs : api::pfs_inputs(input)) {
    Result<Glob> glob = Glob::compile(pfs->glob);
    if (!glob.ok()) return glob.status().with_context(str_cat("input ", pfs->name, ": glob"));
    shape.arms_.push_back({pfs->name, pfs->repo, pfs->branch, *std::move(glob)});
  }
  size_t next_arm = 0;
  QANAT_ASSIGN_OR_RETURN(std::vector<ArmList> terms, expand(input, next_arm));
  std::map<std::vector<std::string>, size_t> seen;
  for (ArmList& arms : terms) {
    if (arms.empty()) return invalid_argument("input: a cross or union has no inputs");
    std::vector<std::string> names;
    for (const size_t arm : arms) names.push_back(shape.arms_[arm].name);
    // Below kMaxTerms, so it fits a byte.
    const uint8_t occurrence = static_cast<uint8_t>(seen[std::move(names)]++);
    shape.terms_.push_back({std::move(arms), occurrence});
  }
  if (shape.terms_.empty()) return invalid_argument("input: a cross or union has no inputs");
  return shape;
}

bool InputShape::same_datums(const InputShape& other) const {
  const auto same_arm = [](const Arm& a, const Arm& b) {
    return a.name == b.name && a.glob.pattern() == b.glob.pattern();
  };
  const auto same_term = [](const Term& a, const Term& b) { return a.arms == b.arms; };
  return std::equal(arms_.begin(), arms_.end(), other.arms_.begin(), other.arms_.end(), same_arm) &&
         std::equal(terms_.begin(), terms_.end(), other.terms_.begin(), other.terms_.end(),
                    same_term);
}

std::string sort_key(const std::vector<DatumInput>& inputs, uint8_t occurrence) {
  std::string key;
  for (const DatumInput& input : inputs) append_key(input, key);
  if (occurrence > 0) key.push_back(static_cast<char>(occurrence));
  return key;
}

Hash datum_id(std::string_view sort_key) { return sha256(sort_key); }

Result<std::string> describe_sort_key(std::string_view sort_key) {
  std::string out;
  while (sort_key.size() > 1) {
    const size_t name_end = sort_key.find('\0');
    const size_t path_end =
        name_end == std::string_view::npos ? name_end : sort_key.find('\0', name_end + 1);
    if (path_end == std::string_view::npos) return data_loss("a datum's sort key is damaged");
    str_append(out, out.empty() ? "" : ", ", sort_key.substr(0, name_end), ":/",
               content::key_to_path(sort_key.substr(name_end + 1, path_end - name_end - 1)));
    sort_key.remove_prefix(path_end + 1);
  }
  if (out.empty()) return data_loss("a datum's sort key is damaged");
  if (!sort_key.empty())
    str_append(out, " (", static_cast<int>(static_cast<uint8_t>(sort_key[0])) + 1, ")");
  return out;
}

void encode_inputs(const std::vector<DatumInput>& inputs, std::string& out) {
  put_varint(out, inputs.size());
  std::string entry;
  for (const DatumInput& input : inputs) {
    put_bytes(out, input.name);
    put_bytes(out, input.path);
    entry.clear();
    input.entry.encode_to(entry);
    put_bytes(out, entry);
  }
}

Result<std::vector<DatumInput>> decode_inputs(Reader& in) {
  QANAT_ASSIGN_OR_RETURN(const uint64_t count, in.varint());
  if (count > kMaxInputsInRow) return data_loss(str_cat("a datum with ", count, " inputs"));
  std::vector<DatumInput> inputs;
  for (uint64_t i = 0; i < count; ++i) {
    DatumInput& input = inputs.emplace_back();
    QANAT_ASSIGN_OR_RETURN(input.name, in.bytes());
    QANAT_ASSIGN_OR_RETURN(input.path, in.bytes());
    QANAT_ASSIGN_OR_RETURN(const std::string_view entry, in.bytes());
    QANAT_ASSIGN_OR_RETURN(input.entry, content::TreeEntry::decode(entry));
  }
  return inputs;
}

Result<bool> enumerate_datums(const InputShape& shape, content::BlobReader& reader,
                              const InputRoots& roots, const Scratch& scratch,
                              const DatumVisitor& visit) {
  const InputRoots nothing(shape.arms().size());
  return visit_datum_changes(shape, reader, nothing, roots, scratch,
                             [&](std::string_view key, const std::vector<DatumInput>* inputs) {
                               return visit(key, *inputs);
                             });
}

Result<bool> visit_datum_changes(const InputShape& shape, content::BlobReader& reader,
                                 const InputRoots& before, const InputRoots& after,
                                 const Scratch& scratch, const DatumChangeVisitor& visit) {
  if (before.size() != shape.arms().size() || after.size() != shape.arms().size()) {
    return internal_error(str_cat("an input of ", shape.arms().size(), " arms got ", before.size(),
                                  " and ", after.size(), " contents"));
  }
  return ChangeWalk(shape, reader, before, after, scratch).run(visit);
}

}  // namespace qanat::pipeline
