#include "qanat/meta/sqlite_log.h"

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

#include "qanat/base/string.h"

// See https://sqlite.org/fileformat2.html#the_write_ahead_log.
namespace qanat::meta {
namespace {

constexpr size_t kHeader = 32;
constexpr size_t kFrameHeader = 24;
constexpr uint32_t kMagic = 0x377f0682;  // + 1: checksums are of big-endian words
constexpr uint32_t kVersion = 3'007'000;

uint32_t big_endian(std::string_view bytes, size_t at) {
  uint32_t number = 0;
  for (size_t i = 0; i < 4; ++i) number = number << 8 | static_cast<uint8_t>(bytes[at + i]);
  return number;
}

struct Checksum {
  uint32_t a = 0;
  uint32_t b = 0;
  bool operator==(const Checksum&) const = default;

  // Goes on over 8 bytes at a time.
  Checksum over(std::string_view bytes, bool big) const {
    Checksum sum = *this;
    for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
      const uint32_t first = big_endian(bytes, at);
      const uint32_t second = big_endian(bytes, at + 4);
      sum.a += (big ? first : __builtin_bswap32(first)) + sum.b;
      sum.b += (big ? second : __builtin_bswap32(second)) + sum.a;
    }
    return sum;
  }
  static Checksum at(std::string_view bytes, size_t place) {
    return {big_endian(bytes, place), big_endian(bytes, place + 4)};
  }
};

struct LogHeader {
  size_t page = 0;
  bool big = false;
  std::string salts;
  Checksum sum;
};

// What never changes from one header to the next.
bool begins_as_a_log(std::string_view bytes) {
  const uint32_t page = big_endian(bytes, 8);
  return (big_endian(bytes, 0) | 1) == (kMagic | 1) && big_endian(bytes, 4) == kVersion &&
         page >= 512 && page <= 65'536 && std::has_single_bit(page);
}

std::optional<LogHeader> parse_header(std::string_view bytes) {
  if (!begins_as_a_log(bytes)) return std::nullopt;
  LogHeader header;
  header.page = big_endian(bytes, 8);
  header.big = big_endian(bytes, 0) != kMagic;
  header.salts = bytes.substr(16, 8);
  header.sum = Checksum::at(bytes, 24);
  if (Checksum().over(bytes.substr(0, 24), header.big) != header.sum) return std::nullopt;
  return header;
}

// A header that a power cut has torn is the beginning of a new one and the end of the one before,
// and nothing is lost: the log begins anew only when all of it is in the database. So damage is a
// beginning that no header has, or a header whose one wrong bit, put right, makes it that of the
// frames that follow.
bool is_damaged_header(const std::string& bytes, std::string_view first_frame) {
  if (first_frame.empty()) return false;
  if (!begins_as_a_log(bytes)) return true;
  std::string fixed = bytes;
  for (size_t bit = 0; bit < 8 * kHeader; ++bit) {
    const auto mask = static_cast<char>(1 << bit % 8);
    fixed[bit / 8] = static_cast<char>(fixed[bit / 8] ^ mask);
    const auto header = parse_header(fixed);
    if (header && header->salts == first_frame.substr(8, 8)) return true;
    fixed[bit / 8] = static_cast<char>(fixed[bit / 8] ^ mask);
  }
  return false;
}

Status damaged(const std::string& path, std::string_view what) {
  return data_loss(
      str_cat("the metadata's log ", path, " is damaged: ", what),
      "changes that were acknowledged would be lost, and content that they name would be deleted "
      "as garbage: put back the folder from a backup; to go on without them, start once with "
      "--accept-lost-changes");
}

}  // namespace

Status check_log(FileSystem& files, const std::string& path) {
  if (!files.exists(path)) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const auto file, files.open(path, OpenMode::kReadOnly));
  QANAT_ASSIGN_OR_RETURN(const uint64_t size, file->size());
  auto read = [&](uint64_t offset, size_t length) -> Result<std::string> {
    std::string bytes(length, '\0');
    size_t done = 0;
    while (done < length) {
      QANAT_ASSIGN_OR_RETURN(const size_t got,
                             file->pread(offset + done, bytes.data() + done, length - done));
      if (got == 0) break;
      done += got;
    }
    bytes.resize(done);
    return bytes;
  };
  if (size < kHeader) return ok_status();
  QANAT_ASSIGN_OR_RETURN(const std::string head, read(0, kHeader));
  if (head.size() < kHeader) return ok_status();
  const auto header = parse_header(head);
  if (!header) {
    QANAT_ASSIGN_OR_RETURN(std::string first, read(kHeader, kFrameHeader));
    if (first.size() < kFrameHeader) first.clear();
    return is_damaged_header(head, first) ? damaged(path, "its header is wrong") : ok_status();
  }

  const size_t frame_size = kFrameHeader + header->page;
  Checksum sum = header->sum;  // of the frame before
  bool goes_on = true;         // no break so far
  bool ends_batch = false;     // the frame before, behind the break
  uint64_t broken = 0;
  for (uint64_t i = 0; kHeader + (i + 1) * frame_size <= size; ++i) {
    QANAT_ASSIGN_OR_RETURN(const std::string frame, read(kHeader + i * frame_size, frame_size));
    if (frame.size() < frame_size) break;
    const std::string_view view = frame;
    const bool of_this_log = view.substr(8, 8) == header->salts;
    const Checksum stored = Checksum::at(view, 16);
    const bool right =
        of_this_log && big_endian(view, 0) != 0 &&
        sum.over(view.substr(0, 8), header->big).over(view.substr(kFrameHeader), header->big) ==
            stored;
    if (goes_on && !right) {
      goes_on = false;
      broken = i;
    } else if (!goes_on && right && ends_batch) {
      return damaged(path, str_cat("frame ", broken + 1, " is not what was written, and frame ",
                                   i + 1, " was written after it had been made durable"));
    }
    ends_batch = !goes_on && of_this_log && big_endian(view, 4) != 0;
    sum = stored;
  }
  return ok_status();
}

}  // namespace qanat::meta
