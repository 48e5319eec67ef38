#include "qanat/connect/tar_reader.h"

#include <algorithm>
#include <cstring>

#include "qanat/base/path.h"
#include "qanat/base/string.h"

namespace qanat::connect {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kBuffer = 64u << 10;
constexpr size_t kMaxName = 64u << 10;  // of a GNU long name
constexpr size_t kMaxPax = 1u << 20;    // of a pax header
constexpr size_t kLongestMagic = 6;     // of a compressed stream
constexpr uint64_t kMaxSize = uint64_t{1} << 60;

// The fields of a header (POSIX.1, pax, "ustar Interchange Format").
struct Field {
  size_t offset;
  size_t length;
};
constexpr Field kName{0, 100};
constexpr Field kSizeField{124, 12};
constexpr Field kChecksum{148, 8};
constexpr Field kLinkName{157, 100};
constexpr Field kMagic{257, 6};
constexpr Field kPrefix{345, 155};
constexpr size_t kType = 156;

std::string_view raw(std::string_view header, Field field) {
  return header.substr(field.offset, field.length);
}
// Up to the first NUL.
std::string_view text(std::string_view header, Field field) {
  const std::string_view bytes = raw(header, field);
  return bytes.substr(0, bytes.find('\0'));
}

// Octal digits after spaces, ended by a space, a NUL or the field's end; or, with the first bit
// set, a big-endian number (GNU).
std::optional<uint64_t> number(std::string_view field) {
  uint64_t value = 0;
  if (!field.empty() && (static_cast<uint8_t>(field[0]) & 0x80) != 0) {
    if (static_cast<uint8_t>(field[0]) != 0x80) return std::nullopt;  // negative, or far too large
    for (const char c : field.substr(1)) {
      if (value >> 52 != 0) return std::nullopt;
      value = value << 8 | static_cast<uint8_t>(c);
    }
    return value;
  }
  while (!field.empty() && field[0] == ' ') field.remove_prefix(1);
  size_t digits = 0;
  for (; digits < field.size() && field[digits] >= '0' && field[digits] <= '7'; ++digits) {
    if (value >> 60 != 0) return std::nullopt;
    value = value << 3 | static_cast<uint64_t>(field[digits] - '0');
  }
  for (const char c : field.substr(digits)) {
    if (c != ' ' && c != '\0') return std::nullopt;
  }
  return value;
}

// The sum of the header's bytes, the checksum counted as spaces. Old programs added signed chars.
bool checksum_holds(std::string_view header) {
  const auto wanted = number(raw(header, kChecksum));
  if (!wanted) return false;
  int64_t as_unsigned = 0;
  int64_t as_signed = 0;
  for (size_t i = 0; i < header.size(); ++i) {
    const bool space = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.length;
    const char c = space ? ' ' : header[i];
    as_unsigned += static_cast<uint8_t>(c);
    as_signed += static_cast<signed char>(c);
  }
  const auto sum = static_cast<int64_t>(*wanted);
  return sum == as_unsigned || sum == as_signed;
}

bool all_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == '\0'; });
}

uint64_t padding_of(uint64_t size) { return (kBlock - size % kBlock) % kBlock; }

// Compressed streams by how they begin: the usual mistake.
std::string_view compression_of(std::string_view block) {
  if (block.starts_with("\x1f\x8b")) return "gzip -dc";
  if (block.starts_with("\x28\xb5\x2f\xfd")) return "zstd -dc";
  if (block.starts_with("\xfd"
                        "7zXZ"))
    return "xz -dc";
  if (block.starts_with("BZh")) return "bzip2 -dc";
  return {};
}

// "./a//b/" -> "a/b". ".." is left for check_path to refuse.
std::string tidy(std::string_view path) {
  std::string out;
  for (const std::string_view part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (!out.empty()) out += '/';
    out += part;
  }
  return out;
}

}  // namespace

TarReader::TarReader(Source source) : source_(std::move(source)), buffer_(kBuffer) {}

Status TarReader::error(std::string_view what, std::string_view hint) const {
  return invalid_argument(str_cat("tar: ", what, " at byte ", position_),
                          std::string(hint.empty() ? "nothing was put" : hint));
}

Status TarReader::refuse(std::string_view path, std::string_view what,
                         std::string_view hint) const {
  return invalid_argument(str_cat("tar: ", quoted(path), " is ", what), std::string(hint));
}

Result<bool> TarReader::read_exactly(char* buffer, size_t size) {
  size_t done = 0;
  while (done < size) {
    if (begin_ == end_) {
      QANAT_ASSIGN_OR_RETURN(end_, source_(buffer_.data(), buffer_.size()));
      begin_ = 0;
      if (end_ == 0) {
        if (done == 0) return false;
        return error("it is cut off");
      }
    }
    const size_t take = std::min(size - done, end_ - begin_);
    std::memcpy(buffer + done, buffer_.data() + begin_, take);
    begin_ += take;
    done += take;
    position_ += take;
  }
  return true;
}

// Looks at how the stream begins.
Status TarReader::refuse_compressed() {
  while (end_ < kLongestMagic) {
    QANAT_ASSIGN_OR_RETURN(const size_t got, source_(buffer_.data() + end_, buffer_.size() - end_));
    if (got == 0) break;
    end_ += got;
  }
  const std::string_view program = compression_of({buffer_.data(), end_});
  if (program.empty()) return ok_status();
  return error(str_cat("it is compressed (", program.substr(0, program.find(' ')), ")"),
               str_cat("unpack it first: `", program, " FILE | qanat put file --untar ... -f -`"));
}

Status TarReader::skip(uint64_t bytes) {
  char piece[4096];
  while (bytes > 0) {
    const size_t take = static_cast<size_t>(std::min<uint64_t>(bytes, sizeof piece));
    QANAT_ASSIGN_OR_RETURN(const bool there, read_exactly(piece, take));
    if (!there) return error("it is cut off");
    bytes -= take;
  }
  return ok_status();
}

Result<size_t> TarReader::read(char* buffer, size_t size) {
  if (left_ == 0 || size == 0) return size_t{0};
  const size_t take = static_cast<size_t>(std::min<uint64_t>(left_, size));
  QANAT_ASSIGN_OR_RETURN(const bool there, read_exactly(buffer, take));
  if (!there) return error("it is cut off");
  left_ -= take;
  return take;
}

Result<std::string> TarReader::read_payload(uint64_t size, size_t limit, std::string_view what) {
  if (size > limit) return error(str_cat(what, " of ", size, " bytes; the limit is ", limit));
  std::string bytes(size, '\0');
  QANAT_ASSIGN_OR_RETURN(const bool there, read_exactly(bytes.data(), bytes.size()));
  if (!there && size > 0) return error("it is cut off");
  QANAT_RETURN_IF_ERROR(skip(padding_of(size)));
  return bytes;
}

// Records "LENGTH KEY=VALUE\n", the length counting all of it.
Status TarReader::read_pax(uint64_t size, bool global, Extensions* extensions) {
  QANAT_ASSIGN_OR_RETURN(const std::string bytes, read_payload(size, kMaxPax, "a pax header"));
  std::string_view rest = bytes;
  while (!rest.empty()) {
    size_t digits = 0;
    size_t length = 0;
    while (digits < rest.size() && digits < 8 && rest[digits] >= '0' && rest[digits] <= '9') {
      length = length * 10 + static_cast<size_t>(rest[digits++] - '0');
    }
    if (digits == 0 || digits >= rest.size() || rest[digits] != ' ' || length <= digits + 1 ||
        length > rest.size() || rest[length - 1] != '\n') {
      return error("a pax header is malformed");
    }
    const std::string_view record = rest.substr(digits + 1, length - digits - 2);
    rest.remove_prefix(length);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) return error("a pax header is malformed");
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    if (key.starts_with("GNU.sparse.")) {
      return error("a sparse file", "pack it without --sparse (-S)");
    }
    if (key != "path" && key != "linkpath" && key != "size") continue;
    if (global) return error(str_cat("a pax header gives all files the same ", key));
    if (std::find(value.begin(), value.end(), '\0') != value.end())
      return error("a pax header holds a NUL");
    if (key == "size") {
      const auto parsed = parse_u64(value);
      if (!parsed.ok()) return error("a pax header has a malformed size");
      extensions->size = *parsed;
    } else {
      (key == "path" ? extensions->path : extensions->link) = std::string(value);
    }
  }
  return ok_status();
}

// After the first block of zeros.
Status TarReader::read_end() {
  char block[kBlock];
  bool second = false;
  while (true) {
    // What follows is blocks of zeros up to the record size that the writer liked, if anything.
    QANAT_ASSIGN_OR_RETURN(const bool there, read_exactly(block, kBlock));
    if (!there) break;
    if (!all_zero({block, kBlock})) {
      return error("it goes on after its end",
                   "if these are several tars in one, put them one by one");
    }
    second = true;
  }
  if (!second) return error("it is cut off");
  ended_ = true;
  return ok_status();
}

Result<std::optional<TarEntry>> TarReader::read_entry(std::string_view header, uint64_t size,
                                                      char type, Extensions extensions) {
  // GNU's own format has other fields where ustar has the prefix.
  const bool ustar = raw(header, kMagic) == std::string_view("ustar\0", 6);
  std::string path = extensions.path ? *extensions.path : std::string(text(header, kName));
  if (!extensions.path && ustar && !text(header, kPrefix).empty()) {
    path = str_cat(text(header, kPrefix), "/", path);
  }
  std::string link = extensions.link ? *extensions.link : std::string(text(header, kLinkName));
  const bool folder = type == '5' || path.ends_with('/');
  for (const std::string* name : {&path, &link}) {
    if (name->starts_with('/') && (name == &path || type == '1')) {
      return refuse(*name, "an absolute path", "pack it without --absolute-names (-P)");
    }
  }
  path = tidy(path);
  switch (type) {
    case '0':
    case '\0':
    case '7':  // contiguous: a file
      break;
    case '1':
      break;
    case '2':
      return refuse(path, str_cat("a symbolic link to ", quoted(link)),
                    "pack it with --dereference (-h), which follows links");
    case '5':
      break;
    case 'S':
      return refuse(path, "a sparse file", "pack it without --sparse (-S)");
    case '3':
    case '4':
      return refuse(path, "a device", "leave it out (--exclude)");
    case '6':
      return refuse(path, "a named pipe", "leave it out (--exclude)");
    default:
      return refuse(path, str_cat("of type ", int{static_cast<uint8_t>(type)}),
                    "only files and hard links can be put");
  }
  left_ = size;
  padding_ = padding_of(size);
  if (folder) {
    if (size != 0 && type != '5') return error("a folder with content");
    // A folder's size field may be a quota of old systems: no content follows.
    left_ = padding_ = 0;
    if (!path.empty()) {
      Status valid = check_path(path);
      if (!valid.ok()) return valid.with_context("tar");
    }
    return std::optional<TarEntry>();
  }
  Status valid = check_path(path);
  if (!valid.ok()) return valid.with_context("tar");
  TarEntry entry{std::move(path), size, {}};
  if (type == '1') {
    if (size != 0) {
      return refuse(entry.path, "a hard link with content of its own",
                    "pack it with --hard-dereference");
    }
    entry.link = tidy(link);
    valid = check_path(entry.link);
    if (!valid.ok()) {
      return valid.with_context(str_cat("tar: ", quoted(entry.path), " is a hard link"));
    }
  }
  return std::optional<TarEntry>(std::move(entry));
}

Result<std::optional<TarEntry>> TarReader::next() {
  QANAT_RETURN_IF_ERROR(skip(left_ + padding_));
  left_ = padding_ = 0;
  if (ended_) return std::optional<TarEntry>();
  Extensions extensions;
  while (true) {
    char block[kBlock];
    const bool first = position_ == 0;
    if (first) QANAT_RETURN_IF_ERROR(refuse_compressed());
    QANAT_ASSIGN_OR_RETURN(const bool there, read_exactly(block, kBlock));
    if (!there) return error(first ? "it is empty" : "it is cut off");
    const std::string_view header(block, kBlock);
    if (all_zero(header)) {
      if (extensions.path || extensions.link || extensions.size) return error("it is cut off");
      QANAT_RETURN_IF_ERROR(read_end());
      return std::optional<TarEntry>();
    }
    if (!checksum_holds(header)) {
      return error(first ? "this is no tar" : "a header's checksum is wrong");
    }
    const auto size_field = number(raw(header, kSizeField));
    if (!size_field || *size_field > kMaxSize) return error("an impossible size");
    const char type = header[kType];
    switch (type) {
      case 'x':
      case 'X':  // as Solaris wrote it
        QANAT_RETURN_IF_ERROR(read_pax(*size_field, false, &extensions));
        continue;
      case 'g':
        QANAT_RETURN_IF_ERROR(read_pax(*size_field, true, &extensions));
        continue;
      case 'L':
      case 'K': {
        QANAT_ASSIGN_OR_RETURN(std::string name,
                               read_payload(*size_field, kMaxName, "a long name"));
        name.resize(std::strlen(name.c_str()));  // up to the first NUL
        (type == 'L' ? extensions.path : extensions.link) = std::move(name);
        continue;
      }
      case 'V':  // a label
        QANAT_RETURN_IF_ERROR(skip(*size_field + padding_of(*size_field)));
        continue;
      default:
        break;
    }
    const uint64_t size = extensions.size.value_or(*size_field);
    if (size > kMaxSize) return error("an impossible size");
    QANAT_ASSIGN_OR_RETURN(auto entry, read_entry(header, size, type, std::move(extensions)));
    if (entry) return entry;
    extensions = {};
  }
}

}  // namespace qanat::connect
