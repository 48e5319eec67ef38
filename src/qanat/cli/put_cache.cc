#include "qanat/cli/put_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "qanat/base/bytes.h"
#include "qanat/base/file_system.h"
#include "qanat/base/id.h"
#include "qanat/base/string.h"
#include "qanat/cli/local_server.h"

namespace qanat::cli {
namespace {

constexpr std::string_view kUploadMagic = "QNUP1\n";
constexpr std::string_view kStatMagic = "QNSTAT2\n";
constexpr size_t kCommitAt = 8 + 8;  // after the magic and the time
constexpr size_t kCommitSize = 16;
constexpr size_t kFixed = 4 * 8 + Hash::kSize + 8;  // of a record, after its path
constexpr size_t kMaxRecord = 16u << 10;
constexpr int64_t kOldSeconds = 30LL * 24 * 3600;

std::string path_of(std::string_view kind, const std::string& key) {
  if (key.empty()) return "";
  return str_cat(cache_folder(), "/", kind, "/", key);
}

FILE* stream(void* file) { return static_cast<FILE*>(file); }

// How coarse the clock of a time stamp is: file systems that keep nanoseconds take them from the
// kernel's tick (10 ms at most); others keep whole seconds, or even two.
int64_t resolution_of(int64_t stamp_ns) {
  return stamp_ns % 1'000'000'000 == 0 ? 2'000'000'000 : 20'000'000;
}

bool is_settled(int64_t stamp_ns, int64_t scan_ns) {
  return stamp_ns + resolution_of(stamp_ns) < scan_ns;
}

std::string temporary_name(const std::string& path) {
  return path.empty() ? "" : str_cat(path, ".", random_id(), ".new");
}

void remove_old(const std::string& folder) {
  auto entries = posix_file_system().list(folder);
  if (!entries.ok()) return;
  const time_t now = std::time(nullptr);
  for (const DirectoryEntry& entry : *entries) {
    const std::string file = str_cat(folder, "/", entry.name);
    struct stat info{};
    if (stat(file.c_str(), &info) == 0 && now - info.st_mtime > kOldSeconds) unlink(file.c_str());
  }
}

}  // namespace

std::string put_key(const std::vector<std::string_view>& parts) {
  if (cache_folder().empty()) return "";
  std::string text;
  for (const std::string_view part : parts) put_bytes(text, part);
  return sha256(text).to_hex();
}

std::optional<std::string> find_upload(const std::string& key) {
  const std::string path = path_of("uploads", key);
  if (path.empty()) return std::nullopt;
  const auto text = posix_file_system().read_file(path, 4096);
  if (!text.ok() || !text->starts_with(kUploadMagic)) return std::nullopt;
  return text->substr(kUploadMagic.size());
}

void save_upload(const std::string& key, const std::string& id) {
  const std::string path = path_of("uploads", key);
  if (path.empty()) return;
  if (!posix_file_system().make_directories(str_cat(cache_folder(), "/uploads")).ok()) return;
  remove_old(str_cat(cache_folder(), "/uploads"));
  (void)posix_file_system().write_file_durably(path, str_cat(kUploadMagic, id));
}

void forget_upload(const std::string& key) {
  const std::string path = path_of("uploads", key);
  if (!path.empty()) unlink(path.c_str());
}

// --- Reading ---

StatCacheReader::StatCacheReader(const std::string& key) {
  const std::string path = path_of("stat", key);
  if (path.empty()) return;
  FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return;
  file_ = file;
  char head[kCommitAt + kCommitSize];
  if (std::fread(head, 1, sizeof head, file) != sizeof head ||
      std::string_view(head, kStatMagic.size()) != kStatMagic) {
    return;
  }
  scan_ns_ = static_cast<int64_t>(load_u64(head + kStatMagic.size()));
  const std::string_view commit(head + kCommitAt, kCommitSize);
  if (commit.find_first_not_of('\0') != std::string_view::npos) commit_ = to_hex(commit);
  record_ = read();
}

StatCacheReader::~StatCacheReader() {
  if (file_ != nullptr) std::fclose(stream(file_));
}

std::optional<StatCacheReader::Record> StatCacheReader::read() {
  char length_bytes[4];
  if (std::fread(length_bytes, 1, 4, stream(file_)) != 4) return std::nullopt;
  const size_t length = load_u32(length_bytes);
  if (length < kFixed || length > kMaxRecord) return std::nullopt;
  std::string bytes(length, '\0');
  if (std::fread(bytes.data(), 1, length, stream(file_)) != length) return std::nullopt;
  const std::string_view checked = std::string_view(bytes).substr(0, length - 8);
  if (hash64(checked) != load_u64(bytes.data() + length - 8)) return std::nullopt;
  Reader reader(checked);
  Record record;
  const auto path = reader.bytes();
  const auto size = reader.u64();
  const auto modified = reader.u64();
  const auto changed = reader.u64();
  const auto inode = reader.u64();
  const auto id = reader.raw(Hash::kSize);
  if (!path.ok() || !size.ok() || !modified.ok() || !changed.ok() || !inode.ok() || !id.ok())
    return std::nullopt;
  record.path = *path;
  record.stamp = {*size, static_cast<int64_t>(*modified), static_cast<int64_t>(*changed), *inode};
  record.id = *Hash::from_bytes(*id);
  return record;
}

std::optional<Hash> StatCacheReader::find(std::string_view path, const FileStamp& stamp) {
  while (record_ && walk_order(record_->path, path) < 0) record_ = read();
  if (!record_ || record_->path != path || record_->stamp != stamp || record_->id.is_zero() ||
      !is_settled(stamp.modified_ns, scan_ns_) || !is_settled(stamp.changed_ns, scan_ns_)) {
    return std::nullopt;
  }
  return record_->id;
}

// --- Writing ---

StatCacheWriter::StatCacheWriter(const std::string& key, int64_t scan_ns)
    : path_(path_of("stat", key)), temporary_(temporary_name(path_)) {
  if (path_.empty()) return;
  if (!posix_file_system().make_directories(str_cat(cache_folder(), "/stat")).ok()) return;
  file_ = std::fopen(temporary_.c_str(), "wxe");
  if (file_ == nullptr) return;
  std::string head(kStatMagic);
  put_u64(head, static_cast<uint64_t>(scan_ns));
  head.resize(kCommitAt + kCommitSize);
  std::fwrite(head.data(), 1, head.size(), stream(file_));
  offset_ = head.size();
}

StatCacheWriter::~StatCacheWriter() {
  if (file_ == nullptr) return;
  std::fclose(stream(file_));
  unlink(temporary_.c_str());
}

uint64_t StatCacheWriter::add(std::string_view path, const FileStamp& stamp, const Hash& id) {
  if (file_ == nullptr) return 0;
  std::string record;
  put_u32(record, 0);
  put_bytes(record, path);
  put_u64(record, stamp.size);
  put_u64(record, static_cast<uint64_t>(stamp.modified_ns));
  put_u64(record, static_cast<uint64_t>(stamp.changed_ns));
  put_u64(record, stamp.inode);
  record += id.view();
  put_u64(record, hash64(std::string_view(record).substr(4)));
  std::string length;
  put_u32(length, static_cast<uint32_t>(record.size() - 4));
  record.replace(0, 4, length);
  std::fwrite(record.data(), 1, record.size(), stream(file_));
  const uint64_t at = offset_;
  offset_ += record.size();
  return at;
}

void StatCacheWriter::set(uint64_t record, const Hash& id) {
  if (file_ == nullptr || record == 0) return;
  if (std::fflush(stream(file_)) != 0) return;
  const int fd = fileno(stream(file_));
  char length_bytes[4];
  // Opened for writing only by stdio's flags: read through a second descriptor.
  FILE* in = std::fopen(temporary_.c_str(), "re");
  if (in == nullptr) return;
  std::string bytes;
  if (std::fseek(in, static_cast<long>(record), SEEK_SET) == 0 &&
      std::fread(length_bytes, 1, 4, in) == 4) {
    bytes.resize(load_u32(length_bytes));
    if (std::fread(bytes.data(), 1, bytes.size(), in) != bytes.size()) bytes.clear();
  }
  std::fclose(in);
  if (bytes.size() < kFixed) return;
  bytes.resize(bytes.size() - 8);
  bytes.replace(bytes.size() - Hash::kSize, Hash::kSize, id.view());
  put_u64(bytes, hash64(bytes));
  (void)!pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(record) + 4);
}

void StatCacheWriter::set_commit(std::string_view id) {
  if (file_ == nullptr || std::fflush(stream(file_)) != 0) return;
  const auto bytes = from_hex(id);
  if (!bytes.ok() || bytes->size() != kCommitSize) return;
  (void)!pwrite(fileno(stream(file_)), bytes->data(), bytes->size(), kCommitAt);
}

void StatCacheWriter::keep() {
  if (file_ == nullptr) return;
  const bool whole = std::fflush(stream(file_)) == 0 && std::ferror(stream(file_)) == 0;
  std::fclose(stream(file_));
  file_ = nullptr;
  if (!whole || std::rename(temporary_.c_str(), path_.c_str()) != 0) unlink(temporary_.c_str());
  remove_old(str_cat(cache_folder(), "/stat"));
}

}  // namespace qanat::cli
