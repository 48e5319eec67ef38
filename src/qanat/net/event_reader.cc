#include "qanat/base/string.h"
#include "qanat/net/http_client.h"

namespace qanat::net {

EventReader::EventReader(Source source, size_t max_event_bytes)
    : source_(std::move(source)), max_event_bytes_(max_event_bytes) {}

EventReader::EventReader(ClientResponse& response)
    : EventReader([&response](char* buffer, size_t size) { return response.read(buffer, size); }) {}

// The next line without its end (CR, LF or CRLF); nothing at the end of the stream, where an
// unfinished line is dropped.
Result<std::optional<std::string>> EventReader::next_line() {
  size_t searched = position_;
  while (true) {
    if (skip_newline_ && position_ < buffer_.size()) {
      if (buffer_[position_] == '\n') ++position_;
      skip_newline_ = false;
      searched = std::max(searched, position_);
    }
    size_t end = buffer_.find_first_of("\r\n", searched);
    if (end != std::string::npos) {
      std::string line = buffer_.substr(position_, end - position_);
      skip_newline_ = buffer_[end] == '\r';
      position_ = end + 1;
      return std::optional<std::string>(std::move(line));
    }
    if (ended_) return std::optional<std::string>();
    if (buffer_.size() - position_ > max_event_bytes_) {
      return too_large(str_cat("an event has more than ", max_event_bytes_, " bytes"));
    }
    buffer_.erase(0, position_);
    position_ = 0;
    searched = buffer_.size();
    constexpr size_t kPiece = 16 << 10;
    size_t before = buffer_.size();
    buffer_.resize(before + kPiece);
    Result<size_t> got = source_(buffer_.data() + before, kPiece);
    buffer_.resize(before + (got.ok() ? *got : 0));
    if (!got.ok()) return got.status();
    ended_ = *got == 0;
  }
}

Result<std::optional<Event>> EventReader::next() {
  Event event;
  bool has_data = false;
  while (true) {
    QANAT_ASSIGN_OR_RETURN(std::optional<std::string> line, next_line());
    if (!line) return std::optional<Event>();
    std::string_view text = *line;
    if (first_ && text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    first_ = false;
    if (text.empty()) {
      if (has_data) {
        event.data.pop_back();  // the newline after its last line
        if (event.name.empty()) event.name = "message";
        event.id = last_id_;
        return std::optional<Event>(std::move(event));
      }
      event = {};
      continue;
    }
    auto [field, value] = split_once(text, ':');
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "data") {
      if (event.data.size() + value.size() > max_event_bytes_) {
        return too_large(str_cat("an event has more than ", max_event_bytes_, " bytes"));
      }
      str_append(event.data, value, "\n");
      has_data = true;
    } else if (field == "event") {
      event.name = value;
    } else if (field == "id" && value.find('\0') == std::string_view::npos) {
      last_id_ = value;
    }
  }
}

}  // namespace qanat::net
