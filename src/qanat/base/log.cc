#include "qanat/base/log.h"

#include <unistd.h>

#include <array>
#include <atomic>

#include "qanat/base/clock.h"
#include "qanat/base/string.h"
#include "qanat/base/thread_annotations.h"

namespace qanat {
namespace {

constexpr std::array<std::string_view, 5> kLevelNames = {"debug", "info", "warning", "error",
                                                         "off"};

std::atomic<LogLevel> current_level{LogLevel::kInfo};

struct Sink {
  Mutex mutex;
  std::function<void(std::string_view)> function GUARDED_BY(mutex);
};
// Never destroyed: threads may log while the process exits.
Sink& sink() {
  static Sink* const instance = new Sink;
  return *instance;
}

bool needs_quotes(std::string_view value) {
  if (value.empty()) return true;
  for (char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= ' ' || byte == 0x7F || c == '"' || c == '\\' || c == '=') return true;
  }
  return false;
}

void write_stderr(std::string_view line) {
  // A log that cannot be written has nobody to tell; what a short write leaves is tried again.
  while (!line.empty()) {
    const ssize_t count = ::write(STDERR_FILENO, line.data(), line.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    line.remove_prefix(static_cast<size_t>(count));
  }
}

}  // namespace

LogField::LogField(std::string_view key, double value) : key(key), value(str_cat(value)) {}

void set_log_level(LogLevel level) { current_level.store(level, std::memory_order_relaxed); }

bool log_enabled(LogLevel level) {
  return level != LogLevel::kOff && level >= current_level.load(std::memory_order_relaxed);
}

Result<LogLevel> parse_log_level(std::string_view name) {
  for (size_t i = 0; i < kLevelNames.size(); ++i) {
    if (kLevelNames[i] == name) return static_cast<LogLevel>(i);
  }
  return invalid_argument(str_cat(quoted(name), " is not a log level"),
                          "The levels are debug, info, warning, error and off.");
}

void log(LogLevel level, std::string_view message, LogFields fields) {
  if (!log_enabled(level)) return;
  std::string line = str_cat(
      format_rfc3339(real_clock().wall_ms()), " ", kLevelNames[static_cast<size_t>(level)], " ",
      message.find('\n') == std::string_view::npos ? std::string(message) : quoted(message));
  for (const LogField& field : fields) {
    str_append(line, " ", field.key, "=",
               needs_quotes(field.value) ? quoted(field.value) : field.value);
  }
  line.push_back('\n');
  MutexLock lock(sink().mutex);
  if (sink().function) {
    sink().function(line);
  } else {
    write_stderr(line);
  }
}

void set_log_sink(std::function<void(std::string_view line)> function) {
  MutexLock lock(sink().mutex);
  sink().function = std::move(function);
}

}  // namespace qanat
