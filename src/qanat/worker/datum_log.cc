#include "qanat/worker/datum_log.h"

#include <algorithm>

#include "qanat/base/path.h"
#include "qanat/base/string.h"

namespace qanat::worker {
namespace {

constexpr size_t kMaxLine = 16 * 1024;
constexpr size_t kMaxRecent = 8 * 1024;
constexpr size_t kMaxLiveLines = 1000;
constexpr size_t kMaxLiveBytes = 1 << 20;
constexpr uint64_t kLineCost = 32;  // so that empty lines are bounded too

// Where a line may be cut without splitting a character: at `limit`, or up to 3 bytes before.
size_t cut_position(std::string_view text, size_t limit) {
  size_t position = limit;
  while (position > limit - 3 && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80) {
    --position;
  }
  return position;
}

// The length of the well-formed UTF-8 sequence at `from`, or 0.
size_t sequence_length(std::string_view text, size_t from) {
  const auto lead = static_cast<unsigned char>(text[from]);
  const size_t length = lead < 0x80   ? 1
                        : lead < 0xC2 ? 0
                        : lead < 0xE0 ? 2
                        : lead < 0xF0 ? 3
                        : lead < 0xF5 ? 4
                                      : 0;
  if (length == 0 || from + length > text.size() || !is_utf8(text.substr(from, length))) return 0;
  return length;
}

std::string valid_utf8(std::string text) {
  if (is_utf8(text)) return text;
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = sequence_length(text, i);
    if (length == 0) {
      out += "\xEF\xBF\xBD";
      ++i;
    } else {
      out.append(text, i, length);
      i += length;
    }
  }
  return out;
}

}  // namespace

DatumLog::DatumLog(std::uint64_t limit, Clock& clock) : half_(limit / 2), clock_(clock) {
  streams_[0].name = "worker";
  streams_[1].name = "stdout";
  streams_[2].name = "stderr";
}

void DatumLog::write(int stream_number, std::string_view bytes) {
  Stream& stream = streams_[stream_number];
  stream.recent.append(bytes.substr(bytes.size() > kMaxRecent ? bytes.size() - kMaxRecent : 0));
  if (stream.recent.size() > 2 * kMaxRecent) {
    stream.recent.erase(0, stream.recent.size() - kMaxRecent);
  }
  while (!bytes.empty()) {
    const size_t newline = bytes.find('\n');
    std::string_view piece = bytes.substr(0, newline);
    bytes.remove_prefix(newline == std::string_view::npos ? bytes.size() : newline + 1);
    stream.partial += piece;
    while (stream.partial.size() > kMaxLine) {
      const size_t cut = cut_position(stream.partial, kMaxLine);
      add(stream, stream.partial.substr(0, cut));
      stream.partial.erase(0, cut);
    }
    if (newline != std::string_view::npos) {
      add(stream, std::move(stream.partial));
      stream.partial.clear();
    }
  }
}

void DatumLog::end_attempt() {
  for (Stream& stream : streams_) {
    if (!stream.partial.empty()) add(stream, std::move(stream.partial));
    stream.partial.clear();
  }
}

void DatumLog::remark(std::string text) { add(streams_[0], std::move(text)); }

void DatumLog::add(Stream& stream, std::string text) {
  if (!text.empty() && text.back() == '\r') text.pop_back();
  api::LogLine line;
  line.time.ms = clock_.wall_ms();
  line.stream = stream.name;
  line.attempt = attempt_;
  line.number = static_cast<std::int64_t>(next_order_++);
  line.text = valid_utf8(std::move(text));
  if (live_) {
    live_bytes_ += line.text.size();
    live_lines_.push_back(line);
    while (live_lines_.size() > kMaxLiveLines || live_bytes_ > kMaxLiveBytes) {
      live_bytes_ -= live_lines_.front().text.size();
      live_lines_.pop_front();
    }
  }
  const uint64_t cost = line.text.size() + kLineCost;
  const auto order = static_cast<std::uint64_t>(line.number);
  Entry entry{order, std::move(line)};
  if (stream.cut_lines == 0 && stream.tail.empty() && stream.head_bytes + cost <= half_) {
    stream.head_bytes += cost;
    stream.head.push_back(std::move(entry));
    return;
  }
  stream.tail_bytes += cost;
  stream.tail.push_back(std::move(entry));
  while (stream.tail_bytes > half_ && !stream.tail.empty()) {
    const uint64_t size = stream.tail.front().line.text.size();
    stream.tail_bytes -= size + kLineCost;
    stream.cut_bytes += size + 1;
    ++stream.cut_lines;
    stream.tail.pop_front();
  }
}

void DatumLog::set_live(bool live) {
  live_ = live;
  if (live) return;
  live_lines_.clear();
  live_bytes_ = 0;
}

std::vector<api::LogLine> DatumLog::take_live() {
  std::vector<api::LogLine> lines(std::make_move_iterator(live_lines_.begin()),
                                  std::make_move_iterator(live_lines_.end()));
  live_lines_.clear();
  live_bytes_ = 0;
  return lines;
}

std::string DatumLog::take_text() {
  end_attempt();
  std::vector<Entry> all;
  for (Stream& stream : streams_) {
    for (Entry& entry : stream.head) all.push_back(std::move(entry));
    if (stream.cut_lines > 0) {
      Entry marker;
      // Its place is just before the tail; when even the tail is empty, at the end.
      marker.order = stream.tail.empty() ? next_order_ : stream.tail.front().order;
      marker.line.time.ms =
          stream.tail.empty() ? clock_.wall_ms() : stream.tail.front().line.time.ms;
      marker.line.number = static_cast<std::int64_t>(marker.order);
      marker.line.stream = stream.name;
      marker.line.attempt = stream.tail.empty() ? attempt_ : stream.tail.front().line.attempt;
      marker.line.text =
          str_cat("[", stream.cut_lines, " lines (", stream.cut_bytes, " bytes) of ", stream.name,
                  " left out: over the limit of ", 2 * half_, " bytes a datum]");
      all.push_back(std::move(marker));
    }
    for (Entry& entry : stream.tail) all.push_back(std::move(entry));
    const std::string name = stream.name;
    stream = Stream{};
    stream.name = name;
  }
  // Stable: a marker stays before the line whose number it borrowed.
  std::stable_sort(all.begin(), all.end(),
                   [](const Entry& a, const Entry& b) { return a.order < b.order; });
  std::string text;
  for (const Entry& entry : all) {
    text += api::json_text(entry.line);
    text += '\n';
  }
  return text;
}

}  // namespace qanat::worker
