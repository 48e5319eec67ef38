// How the command line speaks: tables, names, JSON and YAML on standard output; progress and errors
// on standard error.
//
// A list or an inspection is shown in one of five forms (`-o`): `table` for people, `wide` with
// more columns, `json` and `yaml` as the API gives it (a list is an array), `name` one name a line
// for scripts. Colours only on a terminal, and not with NO_COLOR.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/base/status.h"
#include "qanat/base/thread_annotations.h"

namespace qanat::cli {

enum class Format { kTable, kWide, kJson, kYaml, kName };
Result<Format> parse_format(std::string_view text);

// A column: its heading, what it shows of an item, and whether `wide` alone shows it.
template <class Item>
struct Column {
  std::string heading;
  std::function<std::string(const Item&)> text;
  bool wide = false;
};

// Text that others wrote (user code's words, a commit's message, an error that quotes them), made
// harmless for a terminal: control characters are spelled out ("\x1b", "\r"), so that they cannot
// move the cursor, set a title or answer for the user; colours, tabs and line ends stay.
std::string printable(std::string_view text);

// Cells are made printable, on one line each.
void print_table(const std::vector<std::string>& headings,
                 std::vector<std::vector<std::string>> rows);
// Prints JSON text as YAML (block style).
Status print_yaml(const std::string& json);
void print_json_array(const std::vector<std::string>& items);

// Shows a list in the form asked for.
template <class Item>
Status print_list(Format format, const std::vector<Item>& items,
                  const std::vector<Column<Item>>& columns,
                  const std::function<std::string(const Item&)>& name) {
  if (format == Format::kName) {
    for (const Item& item : items) std::fputs((name(item) + "\n").c_str(), stdout);
    return ok_status();
  }
  if (format == Format::kJson || format == Format::kYaml) {
    std::vector<std::string> texts;
    for (const Item& item : items) texts.push_back(api::json_text(item));
    if (format == Format::kJson) {
      print_json_array(texts);
      return ok_status();
    }
    std::string all = "[";
    for (size_t i = 0; i < texts.size(); ++i) all += (i > 0 ? "," : "") + texts[i];
    return print_yaml(all + "]");
  }
  std::vector<std::string> headings;
  for (const auto& column : columns) {
    if (!column.wide || format == Format::kWide) headings.push_back(column.heading);
  }
  std::vector<std::vector<std::string>> rows;
  for (const Item& item : items) {
    std::vector<std::string>& row = rows.emplace_back();
    for (const auto& column : columns) {
      if (!column.wide || format == Format::kWide) row.push_back(column.text(item));
    }
  }
  print_table(headings, rows);
  return ok_status();
}

// Shows one item: `lines` (label, text) for people, else as print_list does.
using Lines = std::vector<std::pair<std::string, std::string>>;
void print_lines(const Lines& lines);
template <class Item>
Status print_item(Format format, const Item& item, const Lines& lines, const std::string& name) {
  switch (format) {
    case Format::kName:
      std::fputs((name + "\n").c_str(), stdout);
      return ok_status();
    case Format::kJson:
      std::fputs((api::json_text(item, 2) + "\n").c_str(), stdout);
      return ok_status();
    case Format::kYaml:
      return print_yaml(api::json_text(item));
    default:
      print_lines(lines);
      return ok_status();
  }
}

// "-" for 0; "just now", "4 minutes ago", "2026-01-31 08:05" (local time) for older than a week.
std::string show_age(int64_t wall_ms);
// "2026-01-31 08:05:09 UTC"; "-" for 0.
std::string show_time(int64_t wall_ms);
// "1.5 GiB", "12 B".
std::string show_size(int64_t bytes);
// The first 12 digits of an id or hash, whole with `full`.
std::string show_id(std::string_view id, bool full = false);

bool stderr_is_terminal();
bool stdout_is_terminal();
// Wraps text in a colour on a terminal: "red", "green", "yellow", "bold", "dim".
std::string colour(std::string_view name, std::string_view text);
// A state in the colour that it deserves.
std::string show_state(std::string_view state);

// Progress of something that takes long: one line that is redrawn on a terminal (amount, rate, time
// left), a plain line every ten seconds elsewhere. Thread safe.
class Progress {
 public:
  // `total` 0: not known. `quiet`: shows nothing.
  Progress(std::string what, uint64_t total, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void add(uint64_t bytes, uint64_t items = 0);
  // Of what was read: how much was sent, and how much was there already.
  void add_sent(uint64_t sent, uint64_t there);
  void set_total(uint64_t total);
  // What was shown so far is done once more.
  void restart();
  void finish();

 private:
  void draw(bool last) REQUIRES(mutex_);

  const std::string what_;
  const bool quiet_;
  const bool terminal_;
  const int64_t begin_ms_;
  Mutex mutex_;
  uint64_t total_ GUARDED_BY(mutex_);
  int64_t drawn_ms_ GUARDED_BY(mutex_);
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
  uint64_t items_ GUARDED_BY(mutex_) = 0;
  uint64_t sent_ GUARDED_BY(mutex_) = 0;
  uint64_t there_ GUARDED_BY(mutex_) = 0;
  bool finished_ GUARDED_BY(mutex_) = false;
};

// Ends the program as `cat` ends when nobody reads on: by SIGPIPE, without a word.
[[noreturn]] void end_by_pipe();
// What was printed is out; else an error says so, or the program ends by SIGPIPE.
Status flush_output();

// "error: what happened, and why", then the hint on a line of its own.
void print_error(const Status& status);
// A remark on standard error that is no error.
void print_note(std::string_view text);

}  // namespace qanat::cli
