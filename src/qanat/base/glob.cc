#include "qanat/base/glob.h"

#include <algorithm>
#include <array>
#include <utility>

#include "qanat/base/string.h"
#include "qanat/base/utf8.h"

namespace qanat {
namespace {

enum class Op : uint8_t {
  kCharacter,  // consumes `character`
  kAnyInPart,  // consumes anything but '/'
  kAny,        // consumes anything
  kClass,      // consumes what classes[first] holds
  kSplit,      // goes on at `first` and, with less priority, at `second`
  kJump,       // goes on at `first`
  kSave,       // notes the position in slot `first`
  kMatch,
};

struct Instruction {
  Op op;
  char32_t character = 0;
  uint32_t first = 0;
  uint32_t second = 0;
};

struct CharacterClass {
  bool negated = false;
  std::vector<std::pair<char32_t, char32_t>> ranges;  // both ends belong

  bool holds(char32_t character) const {
    if (character == '/') return false;
    const bool found = std::any_of(ranges.begin(), ranges.end(), [character](const auto& range) {
      return range.first <= character && character <= range.second;
    });
    return found != negated;
  }
};

// POSIX names inside brackets, ASCII only: [[:digit:]].
struct NamedClass {
  std::string_view name;
  std::string_view ranges;  // pairs of ends
};
constexpr std::array<NamedClass, 9> kNamedClasses = {{{"alnum", "azAZ09"},
                                                      {"alpha", "azAZ"},
                                                      {"blank", "  \t\t"},
                                                      {"digit", "09"},
                                                      {"lower", "az"},
                                                      {"punct", "!/:@[`{~"},
                                                      {"space", "  \t\r"},
                                                      {"upper", "AZ"},
                                                      {"xdigit", "09afAF"}}};

constexpr std::string_view kSpecial = "*?[]{}(),\\";
constexpr int kMaxDepth = 100;

// A character of a path. What is not UTF-8 cannot be a path in a repo, but local paths are matched
// too: such bytes match wildcards and nothing else.
char32_t next_character(std::string_view text, size_t& position) {
  return decode_utf8(text, position);
}

std::string_view without_leading_slash(std::string_view text) {
  return text.starts_with('/') ? text.substr(1) : text;
}

}  // namespace

struct Glob::Program {
  std::string pattern;
  bool root = false;
  bool literal = false;
  std::string prefix;
  uint32_t groups = 0;
  std::vector<Instruction> code;
  std::vector<CharacterClass> classes;

  void find_prefix(uint32_t start);
  // `path` without its leading slash.
  bool matches(std::string_view path) const;
};

namespace {

// Recursive descent straight to code; every function leaves `position_` behind what it took.
class Compiler {
 public:
  Compiler(std::string_view pattern, Glob::Program& program)
      : pattern_(pattern), program_(program) {}

  // Returns where the path itself begins, behind the optional slash.
  Result<uint32_t> compile() {
    if (!is_utf8(pattern_)) return invalid_argument("the pattern is not UTF-8");
    if (!pattern_.starts_with('/')) {
      // The slash in front of the path may also come from inside: `{/a,/b}`.
      emit({.op = Op::kSplit, .first = 1, .second = 2});
      emit({.op = Op::kCharacter, .character = '/'});
    }
    const uint32_t start = here();
    QANAT_RETURN_IF_ERROR(sequence(Context::kTop, 0));
    if (!at_end()) return problem(position_, str_cat("'", peek(), "' without its opening"));
    emit({.op = Op::kMatch});
    return start;
  }

 private:
  enum class Context { kTop, kBrace, kGroup };

  bool at_end() const { return position_ == pattern_.size(); }
  char peek() const { return pattern_[position_]; }
  uint32_t here() const { return static_cast<uint32_t>(program_.code.size()); }
  uint32_t emit(const Instruction& instruction) {
    program_.code.push_back(instruction);
    return here() - 1;
  }
  Status problem(size_t position, std::string_view what) const {
    return invalid_argument(str_cat("the pattern ", quoted(program_.pattern), " has ", what,
                                    " at position ", position + 1),
                            "Put a '\\' before a special character to make it plain.");
  }

  // Up to the end, or to what ends the enclosing brace or group.
  Status sequence(Context context, int depth) {
    if (depth > kMaxDepth) return problem(position_, "too many levels of brackets");
    while (!at_end()) {
      const char c = peek();
      if (c == '}' || c == ')') return ok_status();
      if (c == ',' && context == Context::kBrace) return ok_status();
      QANAT_RETURN_IF_ERROR(item(depth));
    }
    return ok_status();
  }

  Status item(int depth) {
    const size_t start = position_;
    switch (peek()) {
      case '*':
        return star();
      case '?':
        ++position_;
        emit({.op = Op::kAnyInPart});
        return ok_status();
      case '[':
        return character_class();
      case '{':
        return brace(depth);
      case '(':
        return group(depth);
      case '\\':
        if (++position_ == pattern_.size()) return problem(start, "a '\\' with nothing behind it");
        [[fallthrough]];
      default:
        emit({.op = Op::kCharacter, .character = next_character(pattern_, position_)});
        return ok_status();
    }
  }

  Status star() {
    size_t count = 0;
    for (; !at_end() && peek() == '*'; ++position_) ++count;
    const uint32_t split = emit({.op = Op::kSplit});
    emit({.op = count == 1 ? Op::kAnyInPart : Op::kAny});
    emit({.op = Op::kJump, .first = split});
    program_.code[split].first = split + 1;
    program_.code[split].second = here();
    return ok_status();
  }

  Status group(int depth) {
    const size_t start = position_++;
    const uint32_t number = program_.groups++;
    emit({.op = Op::kSave, .first = 2 * number});
    QANAT_RETURN_IF_ERROR(sequence(Context::kGroup, depth + 1));
    if (at_end() || peek() != ')') return problem(start, "a '(' without its ')'");
    ++position_;
    emit({.op = Op::kSave, .first = 2 * number + 1});
    return ok_status();
  }

  Status brace(int depth) {
    const size_t start = position_;
    std::vector<uint32_t> exits;
    while (true) {
      ++position_;  // the '{' or ','
      const uint32_t split = emit({.op = Op::kSplit});
      QANAT_RETURN_IF_ERROR(sequence(Context::kBrace, depth + 1));
      if (at_end() || peek() == ')') return problem(start, "a '{' without its '}'");
      program_.code[split].first = split + 1;
      if (peek() == '}') {
        program_.code[split].op = Op::kJump;  // the last alternative
        break;
      }
      exits.push_back(emit({.op = Op::kJump}));
      program_.code[split].second = here();
    }
    ++position_;
    for (uint32_t exit : exits) program_.code[exit].first = here();
    return ok_status();
  }

  Status character_class() {
    const size_t start = position_++;
    CharacterClass result;
    if (!at_end() && (peek() == '!' || peek() == '^')) {
      result.negated = true;
      ++position_;
    }
    const size_t first = position_;
    while (true) {
      if (at_end()) return unclosed_class(start);
      if (peek() == ']' && position_ > first) break;
      if (pattern_.substr(position_).starts_with("[:")) {
        QANAT_RETURN_IF_ERROR(named_class(result));
        continue;
      }
      QANAT_ASSIGN_OR_RETURN(const char32_t low, class_character(start));
      char32_t high = low;
      const bool range =
          position_ + 1 < pattern_.size() && peek() == '-' && pattern_[position_ + 1] != ']';
      if (range) {
        ++position_;
        QANAT_ASSIGN_OR_RETURN(high, class_character(start));
      }
      if (high < low) return problem(start, "a range that runs backwards in the '['");
      result.ranges.emplace_back(low, high);
    }
    ++position_;
    program_.classes.push_back(std::move(result));
    emit({.op = Op::kClass, .first = static_cast<uint32_t>(program_.classes.size() - 1)});
    return ok_status();
  }

  Status unclosed_class(size_t start) const { return problem(start, "a '[' without its ']'"); }

  Result<char32_t> class_character(size_t start) {
    if (peek() == '\\') ++position_;
    if (at_end()) return unclosed_class(start);
    return next_character(pattern_, position_);
  }

  Status named_class(CharacterClass& result) {
    const std::string_view rest = pattern_.substr(position_ + 2);
    const size_t end = rest.find(":]");
    if (end == std::string_view::npos) return problem(position_, "a '[:' without its ':]'");
    const std::string_view name = rest.substr(0, end);
    for (const NamedClass& known : kNamedClasses) {
      if (known.name != name) continue;
      for (size_t i = 0; i < known.ranges.size(); i += 2) {
        result.ranges.emplace_back(known.ranges[i], known.ranges[i + 1]);
      }
      position_ += name.size() + 4;
      return ok_status();
    }
    return problem(position_, "an unknown class name");
  }

  std::string_view pattern_;
  Glob::Program& program_;
  size_t position_ = 0;
};

// The states that are alive, in order of priority.
class StateSet {
 public:
  explicit StateSet(size_t size) : index_(size, 0) { members_.reserve(size); }
  bool insert(uint32_t state) {
    if (index_[state] < members_.size() && members_[index_[state]] == state) return false;
    index_[state] = static_cast<uint32_t>(members_.size());
    members_.push_back(state);
    return true;
  }
  void clear() { members_.clear(); }
  const std::vector<uint32_t>& members() const { return members_; }

 private:
  std::vector<uint32_t>
      index_;  // meaningful only where members_ agrees, so clear() need not touch it
  std::vector<uint32_t> members_;
};

// Runs a program over text, one character at a time.
class Machine {
 public:
  // With `slots` > 0, positions of groups are kept for each state.
  Machine(const Glob::Program& program, size_t slots)
      : program_(program),
        slots_(slots),
        current_(program.code.size()),
        next_(program.code.size()),
        current_slots_(program.code.size() * slots),
        next_slots_(program.code.size() * slots),
        working_(slots, kNone) {
    follow(0, 0, current_, current_slots_);
  }

  static constexpr size_t kNone = static_cast<size_t>(-1);

  // False when no state is left.
  bool step(char32_t character, size_t position_after) {
    next_.clear();
    for (uint32_t state : current_.members()) {
      if (!consumes(program_.code[state], character)) continue;
      if (slots_ > 0) {
        const auto from = current_slots_.begin() + static_cast<ptrdiff_t>(state * slots_);
        std::copy_n(from, slots_, working_.begin());
      }
      follow(state + 1, position_after, next_, next_slots_);
    }
    std::swap(current_, next_);
    std::swap(current_slots_, next_slots_);
    return !current_.members().empty();
  }

  bool run(std::string_view text) {
    for (size_t position = 0; position < text.size();) {
      const char32_t character = next_character(text, position);
      if (!step(character, position)) return false;
    }
    return true;
  }

  // The state that has matched all of what was run.
  std::optional<uint32_t> matched() const {
    for (uint32_t state : current_.members()) {
      if (program_.code[state].op == Op::kMatch) return state;
    }
    return std::nullopt;
  }

  // Whether more text could still lead to a match: every state but the last one waits for a
  // character.
  bool wants_more() const {
    return std::any_of(current_.members().begin(), current_.members().end(), [&](uint32_t state) {
      const Op op = program_.code[state].op;
      return op == Op::kCharacter || op == Op::kAnyInPart || op == Op::kAny || op == Op::kClass;
    });
  }

  size_t slot(uint32_t state, size_t number) const {
    return current_slots_[state * slots_ + number];
  }

 private:
  bool consumes(const Instruction& instruction, char32_t character) const {
    switch (instruction.op) {
      case Op::kCharacter:
        return character == instruction.character;
      case Op::kAnyInPart:
        return character != '/';
      case Op::kAny:
        return true;
      case Op::kClass:
        return program_.classes[instruction.first].holds(character);
      default:
        return false;
    }
  }

  // Adds `start` and all that it reaches without a character. The stack holds states to visit and
  // slots to put back.
  void follow(uint32_t start, size_t position, StateSet& to, std::vector<size_t>& to_slots) {
    stack_.push_back({start, kNone, false});
    while (!stack_.empty()) {
      const Visit visit = stack_.back();
      stack_.pop_back();
      if (visit.restores) {
        working_[visit.target] = visit.value;
        continue;
      }
      if (!to.insert(visit.target)) continue;
      const Instruction& instruction = program_.code[visit.target];
      switch (instruction.op) {
        case Op::kJump:
          stack_.push_back({instruction.first, kNone, false});
          break;
        case Op::kSplit:
          stack_.push_back({instruction.second, kNone, false});
          stack_.push_back({instruction.first, kNone, false});
          break;
        case Op::kSave:
          if (slots_ > 0) {
            stack_.push_back({instruction.first, working_[instruction.first], true});
            working_[instruction.first] = position;
          }
          stack_.push_back({visit.target + 1, kNone, false});
          break;
        default:
          if (slots_ > 0) {
            const auto place = to_slots.begin() + static_cast<ptrdiff_t>(visit.target * slots_);
            std::copy_n(working_.begin(), slots_, place);
          }
      }
    }
  }

  struct Visit {
    uint32_t target;  // a state, or the slot to put back
    size_t value;
    bool restores;
  };

  const Glob::Program& program_;
  const size_t slots_;
  StateSet current_;
  StateSet next_;
  std::vector<size_t> current_slots_;
  std::vector<size_t> next_slots_;
  std::vector<size_t> working_;
  std::vector<Visit> stack_;
};

void append_utf8(std::string& out, char32_t character) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xC0U | character >> 6U);
    put(0x80U | (character & 0x3FU));
  } else if (character < 0x10000) {
    put(0xE0U | character >> 12U);
    put(0x80U | (character >> 6U & 0x3FU));
    put(0x80U | (character & 0x3FU));
  } else {
    put(0xF0U | character >> 18U);
    put(0x80U | (character >> 12U & 0x3FU));
    put(0x80U | (character >> 6U & 0x3FU));
    put(0x80U | (character & 0x3FU));
  }
}

// A '/' at the end, unless a backslash makes it plain: `/data/` means the folder `/data`.
std::string_view without_trailing_slashes(std::string_view pattern) {
  while (pattern.ends_with('/')) {
    const std::string_view rest = pattern.substr(0, pattern.size() - 1);
    size_t backslashes = 0;
    while (backslashes < rest.size() && rest[rest.size() - 1 - backslashes] == '\\') ++backslashes;
    if (backslashes % 2 == 1) break;
    pattern = rest;
  }
  return pattern;
}

}  // namespace

void Glob::Program::find_prefix(uint32_t start) {
  uint32_t state = start;
  for (;; ++state) {
    const Instruction& instruction = code[state];
    if (instruction.op == Op::kSave) continue;
    if (instruction.op != Op::kCharacter) break;
    append_utf8(prefix, instruction.character);
  }
  if (prefix.starts_with('/')) prefix.erase(0, 1);
  literal = code[state].op == Op::kMatch;
}

bool Glob::Program::matches(std::string_view path) const {
  if (path.empty() || root) return path.empty() && root;
  if (!path.starts_with(prefix)) return false;
  if (literal) return path.size() == prefix.size();
  Machine machine(*this, 0);
  return machine.step('/', 1) && machine.run(path) && machine.matched().has_value();
}

Result<Glob> Glob::compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternLength) {
    return invalid_argument(str_cat("the pattern has ", pattern.size(),
                                    " bytes, over the limit of ", kMaxPatternLength));
  }
  auto program = std::make_shared<Program>();
  program->pattern = pattern;
  const std::string_view body = without_trailing_slashes(pattern);
  if (body.empty()) {
    program->root = true;
    program->literal = true;
  } else {
    QANAT_ASSIGN_OR_RETURN(const uint32_t start, Compiler(body, *program).compile());
    program->find_prefix(start);
  }
  return Glob(std::move(program));
}

std::string Glob::escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (kSpecial.find(c) != std::string_view::npos) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

const std::string& Glob::pattern() const { return program_->pattern; }
bool Glob::matches_root() const { return program_->root; }
bool Glob::is_literal() const { return program_->literal; }
size_t Glob::group_count() const { return program_->groups; }
const std::string& Glob::literal_prefix() const { return program_->prefix; }

bool Glob::match(std::string_view path) const {
  return program_->matches(without_leading_slash(path));
}

std::optional<std::vector<std::string>> Glob::captures(std::string_view path) const {
  path = without_leading_slash(path);
  if (!program_->matches(path)) return std::nullopt;
  std::vector<std::string> texts(program_->groups);
  if (texts.empty()) return texts;
  const std::string text = str_cat("/", path);
  Machine machine(*program_, 2 * texts.size());
  machine.run(text);
  const uint32_t state = *machine.matched();
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t begin = machine.slot(state, 2 * i);
    const size_t end = machine.slot(state, 2 * i + 1);
    if (begin != Machine::kNone && end != Machine::kNone)
      texts[i] = text.substr(begin, end - begin);
  }
  return texts;
}

bool Glob::could_match_below(std::string_view directory) const {
  directory = without_leading_slash(directory);
  if (program_->root) return false;
  const std::string text = directory.empty() ? "" : str_cat(directory, "/");
  const size_t common = std::min(text.size(), program_->prefix.size());
  if (text.compare(0, common, program_->prefix, 0, common) != 0) return false;
  Machine machine(*program_, 0);
  return machine.step('/', 1) && machine.run(text) && machine.wants_more();
}

}  // namespace qanat
