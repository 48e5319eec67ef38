// Logging: one line per event on stderr, `time level message key=value ...`. No library, since the
// static worker logs too.
//   log_info("job finished", {{"pipeline", name}, {"datums", count}});
// Thread safe; a line is written by one write(2), so lines of several threads do not mix. Never log
// tokens or file contents.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

#include "qanat/base/status.h"

namespace qanat {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

struct LogField {
  LogField(std::string_view key, std::string_view value) : key(key), value(value) {}
  LogField(std::string_view key, const char* value) : key(key), value(value) {}
  LogField(std::string_view key, const std::string& value) : key(key), value(value) {}
  LogField(std::string_view key, const Status& status) : key(key), value(status.to_string()) {}
  LogField(std::string_view key, bool value) : key(key), value(value ? "true" : "false") {}
  LogField(std::string_view key, double value);
  template <std::integral T>
  LogField(std::string_view key, T value) : key(key), value(std::to_string(value)) {}

  std::string_view key;
  std::string value;
};
using LogFields = std::initializer_list<LogField>;

// kInfo at start. "debug", "info", "warning", "error" and "off" are the names.
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);
Result<LogLevel> parse_log_level(std::string_view name);

void log(LogLevel level, std::string_view message, LogFields fields = {});
inline void log_debug(std::string_view message, LogFields fields = {}) {
  log(LogLevel::kDebug, message, fields);
}
inline void log_info(std::string_view message, LogFields fields = {}) {
  log(LogLevel::kInfo, message, fields);
}
inline void log_warning(std::string_view message, LogFields fields = {}) {
  log(LogLevel::kWarning, message, fields);
}
inline void log_error(std::string_view message, LogFields fields = {}) {
  log(LogLevel::kError, message, fields);
}

// Where lines go (each ends in a line feed); an empty function means stderr again. For tests and
// `qanat serve --log-file`.
void set_log_sink(std::function<void(std::string_view line)> sink);

}  // namespace qanat
