#include "qanat/content/external_sort.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "qanat/base/bytes.h"
#include "qanat/base/hash.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::content {

namespace {

constexpr size_t kMinBudget = 1u << 20;
constexpr size_t kBlock = 32u << 10;  // of a run's file; one is in memory for each run merged
constexpr size_t kArenaBlock = 256u << 10;
constexpr size_t kMaxFanIn = 256;  // open files
// A block in a file: u32 length, u64 XXH3 of the payload, the payload.
constexpr size_t kBlockHeader = 12;

// The first bytes of a key as a number that orders as they do.
uint64_t prefix_of(std::string_view key) {
  char bytes[8] = {};
  std::memcpy(bytes, key.data(), std::min<size_t>(key.size(), 8));
  return __builtin_bswap64(load_u64(bytes));
}

struct Record {
  std::string_view key;
  std::string_view value;
};

// Records in memory: bytes in blocks, and a small reference for each that is what gets sorted.
class Arena {
 public:
  void add(std::string_view key, std::string_view value) {
    const size_t length = kHeader + key.size() + value.size();
    if (length > left_) {
      const size_t size = std::max(length, kArenaBlock);
      blocks_.push_back(std::make_unique_for_overwrite<char[]>(size));
      at_ = blocks_.back().get();
      left_ = size;
      block_bytes_ += size;
    }
    const Header header{static_cast<uint32_t>(key.size()), static_cast<uint32_t>(value.size()),
                        static_cast<uint32_t>(refs_.size())};
    std::memcpy(at_, &header, kHeader);
    if (!key.empty()) std::memcpy(at_ + kHeader, key.data(), key.size());
    if (!value.empty()) std::memcpy(at_ + kHeader + key.size(), value.data(), value.size());
    refs_.push_back({prefix_of(key), at_});
    at_ += length;
    left_ -= length;
  }

  // What it would use after adding a record of that length.
  size_t memory_after(size_t length) const {
    const size_t refs =
        refs_.size() < refs_.capacity() ? refs_.capacity() : std::max<size_t>(64, 2 * refs_.size());
    const size_t blocks = kHeader + length > left_ ? std::max(kHeader + length, kArenaBlock) : 0;
    return block_bytes_ + blocks + refs * sizeof(Ref);
  }

  bool empty() const { return refs_.empty(); }
  size_t size() const { return refs_.size(); }
  Record record(size_t i) const { return record_at(refs_[i].at); }

  void sort() {
    std::sort(refs_.begin(), refs_.end(), [](const Ref& a, const Ref& b) {
      if (a.prefix != b.prefix) return a.prefix < b.prefix;
      const int order = record_at(a.at).key.compare(record_at(b.at).key);
      if (order != 0) return order < 0;
      return header_at(a.at).ordinal < header_at(b.at).ordinal;
    });
  }

  void clear() { *this = Arena(); }

 private:
  struct Header {
    uint32_t key;
    uint32_t value;
    uint32_t ordinal;
  };
  static constexpr size_t kHeader = sizeof(Header);
  struct Ref {
    uint64_t prefix;
    const char* at;
  };

  static Header header_at(const char* at) {
    Header header;
    std::memcpy(&header, at, kHeader);
    return header;
  }
  static Record record_at(const char* at) {
    const Header header = header_at(at);
    return {{at + kHeader, header.key}, {at + kHeader + header.key, header.value}};
  }

  std::vector<std::unique_ptr<char[]>> blocks_;
  char* at_ = nullptr;
  size_t left_ = 0;
  size_t block_bytes_ = 0;
  std::vector<Ref> refs_;
};

// Writes a sorted run.
class RunWriter {
 public:
  explicit RunWriter(std::unique_ptr<File> file) : file_(std::move(file)) { begin_block(); }

  Status add(const Record& record) {
    put_bytes(block_, record.key);
    put_bytes(block_, record.value);
    return block_.size() >= kBlock ? end_block() : ok_status();
  }

  Status finish() {
    if (block_.size() > kBlockHeader) QANAT_RETURN_IF_ERROR(end_block());
    return file_->close();
  }

 private:
  void begin_block() { block_.assign(kBlockHeader, '\0'); }

  Status end_block() {
    const std::string_view payload = std::string_view(block_).substr(kBlockHeader);
    if (payload.size() > UINT32_MAX) return too_large("a record too long to sort");
    std::string header;
    put_u32(header, static_cast<uint32_t>(payload.size()));
    put_u64(header, hash64(payload));
    block_.replace(0, kBlockHeader, header);
    QANAT_RETURN_IF_ERROR(file_->append(block_));
    begin_block();
    return ok_status();
  }

  std::unique_ptr<File> file_;
  std::string block_;
};

// Reads a sorted run, a block at a time.
class RunReader {
 public:
  explicit RunReader(std::unique_ptr<File> file) : file_(std::move(file)) {}

  bool valid() const { return valid_; }
  const Record& record() const { return record_; }
  uint64_t prefix() const { return prefix_; }

  Status next() {
    if (at_ == block_.size()) {
      QANAT_RETURN_IF_ERROR(load());
      if (!valid_) return ok_status();
    }
    Reader in(std::string_view(block_).substr(at_));
    QANAT_ASSIGN_OR_RETURN(record_.key, in.bytes());
    QANAT_ASSIGN_OR_RETURN(record_.value, in.bytes());
    prefix_ = prefix_of(record_.key);
    at_ += in.position();
    return ok_status();
  }

 private:
  Status load() {
    char header[kBlockHeader];
    QANAT_ASSIGN_OR_RETURN(size_t got, file_->pread(offset_, header, kBlockHeader));
    valid_ = got > 0;
    if (!valid_) return file_->close();
    block_.resize(got == kBlockHeader ? load_u32(header) : 0);
    at_ = 0;
    QANAT_ASSIGN_OR_RETURN(got, file_->pread(offset_ + kBlockHeader, block_.data(), block_.size()));
    if (block_.empty() || got != block_.size() || hash64(block_) != load_u64(header + 4)) {
      return data_loss("a temporary file of a sort does not hold what was written to it");
    }
    offset_ += kBlockHeader + block_.size();
    return ok_status();
  }

  std::unique_ptr<File> file_;
  uint64_t offset_ = 0;
  std::string block_;
  size_t at_ = 0;
  bool valid_ = false;
  Record record_;
  uint64_t prefix_ = 0;
};

// Several runs as one. Of equal keys, those of earlier runs come first.
class Merge {
 public:
  Status start(std::vector<std::unique_ptr<RunReader>> runs) {
    runs_ = std::move(runs);
    for (size_t i = 0; i < runs_.size(); ++i) {
      QANAT_RETURN_IF_ERROR(runs_[i]->next());
      if (runs_[i]->valid()) heap_.push_back(i);
    }
    std::make_heap(heap_.begin(), heap_.end(), After{&runs_});
    return ok_status();
  }

  bool valid() const { return !heap_.empty(); }
  const Record& record() const { return runs_[heap_.front()]->record(); }

  Status next() {
    std::pop_heap(heap_.begin(), heap_.end(), After{&runs_});
    RunReader& run = *runs_[heap_.back()];
    QANAT_RETURN_IF_ERROR(run.next());
    if (run.valid()) {
      std::push_heap(heap_.begin(), heap_.end(), After{&runs_});
    } else {
      heap_.pop_back();
    }
    return ok_status();
  }

 private:
  struct After {
    const std::vector<std::unique_ptr<RunReader>>* runs;
    bool operator()(size_t a, size_t b) const {
      const RunReader& left = *(*runs)[a];
      const RunReader& right = *(*runs)[b];
      if (left.prefix() != right.prefix()) return left.prefix() > right.prefix();
      const int order = left.record().key.compare(right.record().key);
      return order != 0 ? order > 0 : a > b;
    }
  };

  std::vector<std::unique_ptr<RunReader>> runs_;
  std::vector<size_t> heap_;
};

}  // namespace

class ExternalSorter::Impl {
 public:
  Impl(FileSystem& file_system, std::string directory, size_t memory_budget)
      : file_system_(file_system),
        directory_(std::move(directory)),
        budget_(std::max(memory_budget, kMinBudget)) {}

  ~Impl() {
    merge_.reset();  // closes
    for (const std::string& run : runs_) remove(run);
  }

  Status add(std::string_view key, std::string_view value) {
    const size_t length = key.size() + value.size();
    if (length > UINT32_MAX / 2) return too_large("a record too long to sort");
    if (!arena_.empty() && arena_.memory_after(length) > budget_) QANAT_RETURN_IF_ERROR(spill());
    arena_.add(key, value);
    return ok_status();
  }

  Status finish() {
    at_ = 0;
    if (runs_.empty()) {
      arena_.sort();
      return ok_status();
    }
    if (!arena_.empty()) QANAT_RETURN_IF_ERROR(spill());
    const size_t fan_in = std::clamp<size_t>(budget_ / kBlock, 2, kMaxFanIn);
    while (runs_.size() > fan_in) QANAT_RETURN_IF_ERROR(merge_pass(fan_in));
    return rewind();
  }

  Status rewind() {
    at_ = 0;
    if (runs_.empty()) return ok_status();
    merge_.emplace();
    return open_merge(*merge_, 0, runs_.size());
  }

  bool valid() const { return merge_ ? merge_->valid() : at_ < arena_.size(); }
  Record record() const { return merge_ ? merge_->record() : arena_.record(at_); }
  Status next() {
    if (merge_) return merge_->next();
    ++at_;
    return ok_status();
  }

 private:
  Result<RunWriter> new_run(std::string* path) {
    if (name_.empty()) name_ = random_id();
    *path = str_cat(directory_, "/sort-", name_, "-", next_run_++);
    QANAT_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                           file_system_.open(*path, OpenMode::kCreateExclusive));
    return RunWriter(std::move(file));
  }

  Status spill() {
    arena_.sort();
    std::string path;
    QANAT_ASSIGN_OR_RETURN(RunWriter run, new_run(&path));
    runs_.push_back(std::move(path));
    for (size_t i = 0; i < arena_.size(); ++i) QANAT_RETURN_IF_ERROR(run.add(arena_.record(i)));
    QANAT_RETURN_IF_ERROR(run.finish());
    arena_.clear();
    return ok_status();
  }

  Status open_merge(Merge& merge, size_t begin, size_t end) {
    std::vector<std::unique_ptr<RunReader>> readers;
    for (size_t i = begin; i < end; ++i) {
      QANAT_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                             file_system_.open(runs_[i], OpenMode::kReadOnly));
      readers.push_back(std::make_unique<RunReader>(std::move(file)));
    }
    return merge.start(std::move(readers));
  }

  // Each `fan_in` neighbouring runs become one, so that the order of equal keys holds.
  Status merge_pass(size_t fan_in) {
    std::vector<std::string> merged;
    Status status;
    size_t begin = 0;
    for (; status.ok() && begin < runs_.size(); begin += fan_in) {
      const size_t end = std::min(begin + fan_in, runs_.size());
      status = merge_runs(begin, end, &merged);
      if (!status.ok()) break;
      for (size_t i = begin; i < end; ++i) remove(runs_[i]);
    }
    merged.insert(merged.end(), runs_.begin() + std::min(begin, runs_.size()), runs_.end());
    runs_ = std::move(merged);
    return status;
  }

  Status merge_runs(size_t begin, size_t end, std::vector<std::string>* merged) {
    Merge merge;
    QANAT_RETURN_IF_ERROR(open_merge(merge, begin, end));
    std::string path;
    QANAT_ASSIGN_OR_RETURN(RunWriter run, new_run(&path));
    merged->push_back(std::move(path));
    while (merge.valid()) {
      QANAT_RETURN_IF_ERROR(run.add(merge.record()));
      QANAT_RETURN_IF_ERROR(merge.next());
    }
    return run.finish();
  }

  void remove(const std::string& path) {
    // A file that stays is removed when the server starts next.
    if (Status status = file_system_.remove(path); !status.ok()) {
      log_warning("temporary file not removed", {{"path", path}, {"error", status}});
    }
  }

  FileSystem& file_system_;
  const std::string directory_;
  const size_t budget_;
  Arena arena_;
  size_t at_ = 0;
  std::string name_;
  uint64_t next_run_ = 0;
  std::vector<std::string> runs_;  // paths, in the order of adding
  std::optional<Merge> merge_;
};

ExternalSorter::ExternalSorter(FileSystem& file_system, std::string directory, size_t memory_budget)
    : impl_(std::make_unique<Impl>(file_system, std::move(directory), memory_budget)) {}
ExternalSorter::~ExternalSorter() = default;

Status ExternalSorter::add(std::string_view key, std::string_view value) {
  return impl_->add(key, value);
}
Status ExternalSorter::finish() { return impl_->finish(); }
Status ExternalSorter::rewind() { return impl_->rewind(); }
bool ExternalSorter::valid() const { return impl_->valid(); }
std::string_view ExternalSorter::key() const { return impl_->record().key; }
std::string_view ExternalSorter::value() const { return impl_->record().value; }
Status ExternalSorter::next() { return impl_->next(); }

}  // namespace qanat::content
