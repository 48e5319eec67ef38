// Patterns over paths, as the specs of pipelines and the file commands write them.
//
//   `*`      any run of characters but `/`
//   `**`     any run of characters, `/` too
//   `?`      one character but `/`
//   `[a-z]`  one of these; `[!a-z]` one of the others; `[[:digit:]]` a POSIX class; never `/`
//   `{a,b}`  either; may be nested, and empty
//   `(...)`  a capture group; it may hold anything of this list
//   `\`      makes the next character plain
//
// A character is one UTF-8 code point. Patterns and paths are matched as `/a/b`: a leading slash
// may be left out on both. The patterns `/` and the empty one match the root, and nothing else;
// other patterns do not match the root. A slash at a pattern's end is left out: `/data/` is the
// folder `/data`. Since `**` stands for characters, `/**/x` does not match `/x`; `/{**/,}x` does.
//
// A pattern is compiled to an automaton that is run over all its states at once (Thompson 1968;
// captures after Pike), so the time is at most pattern length times path length, whatever the
// pattern.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/base/status.h"

namespace qanat {

// Immutable; cheap to copy; safe to use from several threads at once.
class Glob {
 public:
  static constexpr size_t kMaxPatternLength = 4096;  // bytes

  // kInvalidArgument says what is wrong and at which character: an unclosed bracket, brace or
  // group, a lone `\`.
  static Result<Glob> compile(std::string_view pattern);
  // The text with a `\` before each character that a pattern would take as special.
  static std::string escape(std::string_view text);

  // The pattern as it was given.
  const std::string& pattern() const;
  // `/` or empty: the whole repo.
  bool matches_root() const;
  // No special characters: matches one path only, literal_prefix().
  bool is_literal() const;

  bool match(std::string_view path) const;
  // The text of each capture group, in the order of their `(`, or nullopt when the path does not
  // match. A group that took no part (in the other arm of a brace) is empty. Where there is a
  // choice, earlier wildcards take as much as they can.
  std::optional<std::vector<std::string>> captures(std::string_view path) const;
  size_t group_count() const;

  // What every match begins with, without a leading slash: "data/2024-" for "/data/2024-*/x". Walk
  // from its folder.
  const std::string& literal_prefix() const;
  // Whether some path strictly below `directory` could match: when false, a walk need not enter it.
  bool could_match_below(std::string_view directory) const;

  struct Program;  // the automaton; private to glob.cc

 private:
  explicit Glob(std::shared_ptr<const Program> program) : program_(std::move(program)) {}

  std::shared_ptr<const Program> program_;
};

}  // namespace qanat
