#include "qanat/cli/output.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>

#include "qanat/base/bytes.h"
#include "qanat/base/clock.h"
#include "qanat/base/string.h"

namespace qanat::cli {
namespace {

// The length of the colour sequence at the start of the text ("\x1b[1;31m"); 0 if there is none.
size_t colour_sequence(std::string_view text) {
  if (!text.starts_with("\x1b[")) return 0;
  const size_t end = text.find_first_not_of("0123456789;", 2);
  return end != std::string_view::npos && text[end] == 'm' ? end + 1 : 0;
}

// Columns that a terminal needs for this text: code points, without colour sequences.
size_t width(std::string_view text) {
  size_t columns = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (const size_t skipped = colour_sequence(text.substr(i)); skipped > 0) {
      i += skipped - 1;
    } else if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) {
      ++columns;
    }
  }
  return columns;
}

void yaml_value(const nlohmann::json& value, int indent, std::string& out);

std::string yaml_string(const std::string& text) {
  const bool plain = !text.empty() &&
                     text.find_first_not_of(
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./@") ==
                         std::string::npos &&
                     text.find_first_not_of("0123456789.-") != std::string::npos &&
                     text[0] != '-' && text != "true" && text != "false" && text != "null" &&
                     text != "yes" && text != "no" && text != "on" && text != "off";
  // A JSON string is a YAML double-quoted scalar.
  return plain ? text : nlohmann::json(text).dump();
}

void yaml_items(const nlohmann::json& value, int indent, std::string& out) {
  const std::string margin(static_cast<size_t>(indent), ' ');
  for (auto it = value.begin(); it != value.end(); ++it) {
    out += margin;
    if (value.is_object()) {
      out += yaml_string(it.key()) + ":";
    } else {
      out += "-";
    }
    if (it->is_structured() && !it->empty()) {
      if (value.is_array()) {
        // The first line of the item follows the dash.
        std::string inner;
        yaml_items(*it, indent + 2, inner);
        out += " " + inner.substr(static_cast<size_t>(indent) + 2);
      } else {
        out += "\n";
        yaml_items(*it, indent + 2, out);
      }
    } else {
      out += " ";
      yaml_value(*it, indent, out);
      out += "\n";
    }
  }
}

void yaml_value(const nlohmann::json& value, int indent, std::string& out) {
  if (value.is_structured() && !value.empty()) {
    yaml_items(value, indent, out);
  } else if (value.is_string()) {
    out += yaml_string(value.get<std::string>());
  } else {
    out += value.dump();
  }
}

}  // namespace

Result<Format> parse_format(std::string_view text) {
  if (text == "table") return Format::kTable;
  if (text == "wide") return Format::kWide;
  if (text == "json" || text == "raw") return Format::kJson;
  if (text == "yaml") return Format::kYaml;
  if (text == "name") return Format::kName;
  return invalid_argument(str_cat("unknown output form ", quoted(text)),
                          "use -o table, wide, json, yaml or name");
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (const size_t kept = colour_sequence(text.substr(i)); kept > 0) {
      out += text.substr(i, kept);
      i += kept - 1;
    } else if (byte == '\r') {
      out += "\\r";
    } else if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) {
      out += str_cat("\\x", to_hex(text.substr(i, 1)));
    } else if (byte == 0xc2 && i + 1 < text.size() &&
               static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      // U+0080 to U+009F: for some terminals the same as Esc and a letter.
      out += str_cat("\\x", to_hex(text.substr(++i, 1)));
    } else {
      out += text[i];
    }
  }
  return out;
}

void print_table(const std::vector<std::string>& headings,
                 std::vector<std::vector<std::string>> rows) {
  for (auto& row : rows) {
    for (std::string& cell : row) cell = replace_all(printable(cell), "\n", " ");
  }
  std::vector<size_t> widths;
  for (const std::string& heading : headings) widths.push_back(width(heading));
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  auto line = [&widths](const std::vector<std::string>& cells) {
    std::string out;
    for (size_t i = 0; i < cells.size(); ++i) {
      out += cells[i];
      if (i + 1 < cells.size()) out.append(widths[i] - width(cells[i]) + 2, ' ');
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    std::fputs((out + "\n").c_str(), stdout);
  };
  line(headings);
  for (const auto& row : rows) line(row);
}

void print_lines(const Lines& lines) {
  size_t widest = 0;
  for (const auto& [label, text] : lines) widest = std::max(widest, width(label));
  for (const auto& [label, text] : lines) {
    std::string out = label + ":" + std::string(widest - width(label) + 2, ' ');
    const std::string margin(widest + 3, ' ');
    out += replace_all(printable(text), "\n", "\n" + margin);
    std::fputs((out + "\n").c_str(), stdout);
  }
}

Status print_yaml(const std::string& json) {
  const nlohmann::json value = nlohmann::json::parse(json, nullptr, false);
  if (value.is_discarded()) return internal_error("the server's answer is not JSON");
  std::string out;
  yaml_value(value, 0, out);
  if (out.empty() || out.back() != '\n') out += "\n";
  std::fputs(out.c_str(), stdout);
  return ok_status();
}

void print_json_array(const std::vector<std::string>& items) {
  std::fputs("[", stdout);
  for (size_t i = 0; i < items.size(); ++i) {
    std::fputs(((i > 0 ? ",\n " : "\n ") + items[i]).c_str(), stdout);
  }
  std::fputs(items.empty() ? "]\n" : "\n]\n", stdout);
}

std::string show_age(int64_t wall_ms) {
  if (wall_ms == 0) return "-";
  const int64_t age = real_clock().wall_ms() - wall_ms;
  auto unit = [](int64_t n, const char* name) {
    return str_cat(n, " ", name, n == 1 ? "" : "s", " ago");
  };
  if (age < 1000) return "just now";
  if (age < 60 * 1000) return unit(age / 1000, "second");
  if (age < 3600 * 1000) return unit(age / 60000, "minute");
  if (age < 86400LL * 1000) return unit(age / 3600000, "hour");
  if (age < 7 * 86400LL * 1000) return unit(age / 86400000, "day");
  return show_time(wall_ms);
}

std::string show_time(int64_t wall_ms) {
  if (wall_ms == 0) return "-";
  const time_t seconds = wall_ms / 1000;
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

std::string show_size(int64_t bytes) {
  return format_size(static_cast<uint64_t>(std::max<int64_t>(bytes, 0)));
}

std::string show_id(std::string_view id, bool full) {
  return std::string(full ? id : id.substr(0, 12));
}

bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }
bool stdout_is_terminal() { return isatty(STDOUT_FILENO) == 1; }

std::string colour(std::string_view name, std::string_view text) {
  static const bool coloured = stdout_is_terminal() && std::getenv("NO_COLOR") == nullptr;
  if (!coloured) return std::string(text);
  const char* code = name == "red"      ? "31"
                     : name == "green"  ? "32"
                     : name == "yellow" ? "33"
                     : name == "bold"   ? "1"
                                        : "2";
  return str_cat("\x1b[", code, "m", text, "\x1b[0m");
}

std::string show_state(std::string_view state) {
  if (state == "SUCCESS" || state == "RUNNING" || state == "finished" || state == "SKIPPED") {
    return colour("green", state);
  }
  if (state == "FAILURE" || state == "FAILED" || state == "KILLED" || state == "CRASHING" ||
      state == "UNRUNNABLE" || state == "failed") {
    return colour("red", state);
  }
  return colour("yellow", state);
}

Progress::Progress(std::string what, uint64_t total, bool quiet)
    : what_(std::move(what)),
      quiet_(quiet),
      terminal_(stderr_is_terminal()),
      begin_ms_(real_clock().monotonic_ms()),
      total_(total),
      drawn_ms_(begin_ms_) {}

Progress::~Progress() { finish(); }

void Progress::add_sent(uint64_t sent, uint64_t there) {
  MutexLock lock(mutex_);
  sent_ += sent;
  there_ += there;
}

void Progress::set_total(uint64_t total) {
  MutexLock lock(mutex_);
  total_ = total;
}

void Progress::restart() {
  MutexLock lock(mutex_);
  bytes_ = items_ = sent_ = there_ = 0;
}

void Progress::add(uint64_t bytes, uint64_t items) {
  MutexLock lock(mutex_);
  bytes_ += bytes;
  items_ += items;
  const int64_t now = real_clock().monotonic_ms();
  if (now - drawn_ms_ < (terminal_ ? 200 : 10'000)) return;
  drawn_ms_ = now;
  draw(false);
}

void Progress::draw(bool last) {
  if (quiet_) return;
  const double seconds =
      std::max<double>(static_cast<double>(real_clock().monotonic_ms() - begin_ms_) / 1000, 0.001);
  const double rate = static_cast<double>(bytes_) / seconds;
  std::string line = what_ + ": ";
  if (items_ > 0) line += str_cat(items_, items_ == 1 ? " file, " : " files, ");
  line += format_size(bytes_);
  if (total_ > 0) line += str_cat(" of ", format_size(total_));
  line += str_cat(", ", format_size(static_cast<uint64_t>(rate)), "/s");
  if (there_ > 0) {
    line += str_cat(", ", format_size(sent_), " sent, ", format_size(there_), " already there");
  }
  if (!last && total_ > bytes_ && rate > 0) {
    line += str_cat(
        ", ",
        format_duration(static_cast<int64_t>(static_cast<double>(total_ - bytes_) / rate * 1000)),
        " left");
  }
  if (terminal_) {
    std::fputs(("\r\x1b[K" + line + (last ? "\n" : "")).c_str(), stderr);
  } else {
    std::fputs((line + "\n").c_str(), stderr);
  }
  std::fflush(stderr);
}

void Progress::finish() {
  MutexLock lock(mutex_);
  if (finished_) return;
  finished_ = true;
  // What was over at once needs no line.
  if (real_clock().monotonic_ms() - begin_ms_ >= 1000) draw(true);
}

void end_by_pipe() {
  std::signal(SIGPIPE, SIG_DFL);
  (void)std::raise(SIGPIPE);
  std::_Exit(128 + SIGPIPE);
}

Status flush_output() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return ok_status();
  const int error = errno;
  // What failed before, when a buffer was full, has left no error number.
  pollfd reader{STDOUT_FILENO, POLLOUT, 0};
  if (error == EPIPE || (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR) != 0))
    end_by_pipe();
  return errno_status(error == 0 ? EIO : error, "standard output");
}

void print_error(const Status& status) {
  const bool red = stderr_is_terminal() && std::getenv("NO_COLOR") == nullptr;
  std::fputs(
      (str_cat(red ? "\x1b[31merror:\x1b[0m " : "error: ", printable(status.message()), "\n"))
          .c_str(),
      stderr);
  if (!status.hint().empty()) {
    std::fputs(str_cat("  ", replace_all(printable(status.hint()), "\n", "\n  "), "\n").c_str(),
               stderr);
  }
}

void print_note(std::string_view text) { std::fputs(str_cat(text, "\n").c_str(), stderr); }

}  // namespace qanat::cli
