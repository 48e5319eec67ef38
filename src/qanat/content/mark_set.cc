#include "qanat/content/mark_set.h"

#include <algorithm>
#include <cstring>

#include "qanat/base/bytes.h"
#include "qanat/base/id.h"
#include "qanat/base/log.h"
#include "qanat/base/string.h"

namespace qanat::content {
namespace {

constexpr size_t kRecord = 33;
constexpr size_t kBlockRecords = 64;
constexpr size_t kBlock = kBlockRecords * kRecord + 8;  // XXH3-64 of the records at the end
constexpr size_t kTableEntry = 80;                      // bytes of one, about
constexpr size_t kWriteBuffer = 256u << 10;

uint64_t fence_of(const Hash& hash) {
  return __builtin_bswap64(load_u64(reinterpret_cast<const char*>(hash.bytes.data())));
}

void put_mark(std::string& out, const Mark& mark) {
  out.append(mark.hash.view());
  put_u8(out, static_cast<uint8_t>(mark.use));
}

Mark mark_at(const char* bytes) {
  Mark mark;
  std::memcpy(mark.hash.bytes.data(), bytes, Hash::kSize);
  mark.use = static_cast<NodeUse>(static_cast<uint8_t>(bytes[Hash::kSize]));
  return mark;
}

}  // namespace

struct MarkSet::Run {
  std::string path;
  std::unique_ptr<File> file;
  uint64_t records = 0;
  std::vector<uint64_t> fences;  // of the first record of each block

  // The marks of a block.
  Status read(size_t block, std::vector<Mark>* marks) const {
    const size_t count = std::min<uint64_t>(kBlockRecords, records - block * kBlockRecords);
    const size_t length = count * kRecord + 8;
    char bytes[kBlock];
    QANAT_ASSIGN_OR_RETURN(const size_t got, file->pread(uint64_t{block} * kBlock, bytes, length));
    if (got != length || hash64({bytes, length - 8}) != load_u64(bytes + length - 8)) {
      return data_loss(str_cat("the temporary file ", path, " does not hold what was written"),
                       "look at the disk; the collection can be repeated");
    }
    marks->clear();
    for (size_t i = 0; i < count; ++i) marks->push_back(mark_at(bytes + i * kRecord));
    return ok_status();
  }

  // Sets found[i] for each of `marks` that is here.
  Status find(std::span<const Mark> marks, std::vector<bool>* found) const {
    std::vector<Mark> block;
    size_t loaded = SIZE_MAX;
    for (size_t i = 0; i < marks.size(); ++i) {
      if ((*found)[i]) continue;
      // From the last block that begins below it on, as long as blocks begin not above it.
      const uint64_t fence = fence_of(marks[i].hash);
      const auto at = std::lower_bound(fences.begin(), fences.end(), fence);
      size_t first = static_cast<size_t>(at - fences.begin());
      if (first > 0) --first;
      for (size_t b = first; b < fences.size() && (b == first || fences[b] <= fence); ++b) {
        if (b != loaded) {
          QANAT_RETURN_IF_ERROR(read(b, &block));
          loaded = b;
        }
        if (std::binary_search(block.begin(), block.end(), marks[i])) {
          (*found)[i] = true;
          break;
        }
      }
    }
    return ok_status();
  }
};

MarkSet::MarkSet(FileSystem& file_system, std::string directory, size_t memory_budget)
    : file_system_(file_system),
      directory_(std::move(directory)),
      capacity_(std::max<size_t>(memory_budget / kTableEntry, 16)) {}

MarkSet::~MarkSet() {
  for (const auto& run : runs_) {
    run->file.reset();
    if (Status removed = file_system_.remove(run->path); !removed.ok()) {
      log_warning("a temporary file is left behind", {{"path", run->path}, {"error", removed}});
    }
  }
}

Result<std::vector<bool>> MarkSet::add(std::span<const Mark> marks) {
  std::vector<bool> known(marks.size());
  for (size_t i = 0; i < marks.size(); ++i) known[i] = table_.contains(marks[i]);
  for (const auto& run : runs_) QANAT_RETURN_IF_ERROR(run->find(marks, &known));
  for (size_t i = 0; i < marks.size(); ++i) {
    if (!known[i]) {
      table_.insert(marks[i]);
      ++size_;
    }
    known[i] = !known[i];
  }
  if (table_.size() >= capacity_) QANAT_RETURN_IF_ERROR(spill());
  return known;
}

Result<bool> MarkSet::add(const Mark& mark) {
  QANAT_ASSIGN_OR_RETURN(const std::vector<bool> added, add(std::span(&mark, 1)));
  return bool(added[0]);
}

Status MarkSet::spill() {
  std::vector<Mark> sorted(table_.begin(), table_.end());
  std::sort(sorted.begin(), sorted.end());
  auto run = std::make_unique<Run>();
  run->path = str_cat(directory_, "/marks-", random_id());
  QANAT_ASSIGN_OR_RETURN(run->file, file_system_.open(run->path, OpenMode::kCreateExclusive));
  Run& to = *runs_.emplace_back(std::move(run));
  to.records = sorted.size();
  std::string bytes;
  for (size_t first = 0; first < sorted.size(); first += kBlockRecords) {
    to.fences.push_back(fence_of(sorted[first].hash));
    const size_t begin = bytes.size();
    for (size_t i = first; i < std::min(sorted.size(), first + kBlockRecords); ++i) {
      put_mark(bytes, sorted[i]);
    }
    put_u64(bytes, hash64(std::string_view(bytes).substr(begin)));
    if (bytes.size() >= kWriteBuffer) {
      QANAT_RETURN_IF_ERROR(to.file->append(bytes));
      bytes.clear();
    }
  }
  QANAT_RETURN_IF_ERROR(to.file->append(bytes));
  table_.clear();
  return ok_status();
}

// --- Cursor ---

struct MarkSet::Cursor::Impl {
  struct Input {
    const Run* run = nullptr;
    std::vector<Mark> marks;  // of the block, or the whole table
    size_t at = 0;
    size_t next_block = 0;
  };
  std::vector<Input> inputs;

  // Makes sure that the input has a mark at `at`, if it has any left.
  static Status fill(Input* input) {
    if (input->at < input->marks.size() || input->run == nullptr ||
        input->next_block == input->run->fences.size()) {
      return ok_status();
    }
    input->at = 0;
    return input->run->read(input->next_block++, &input->marks);
  }
};

MarkSet::Cursor::Cursor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MarkSet::Cursor::~Cursor() = default;
MarkSet::Cursor::Cursor(Cursor&&) noexcept = default;

MarkSet::Cursor MarkSet::cursor() const {
  auto impl = std::make_unique<Cursor::Impl>();
  Cursor::Impl::Input& table = impl->inputs.emplace_back();
  table.marks.assign(table_.begin(), table_.end());
  std::sort(table.marks.begin(), table.marks.end());
  for (const auto& run : runs_) impl->inputs.emplace_back().run = run.get();
  return Cursor(std::move(impl));
}

// A few dozen inputs at most: the smallest is looked for one by one.
Result<std::optional<Mark>> MarkSet::Cursor::next() {
  Impl::Input* smallest = nullptr;
  for (Impl::Input& input : impl_->inputs) {
    QANAT_RETURN_IF_ERROR(Impl::fill(&input));
    if (input.at == input.marks.size()) continue;
    if (smallest == nullptr || input.marks[input.at] < smallest->marks[smallest->at]) {
      smallest = &input;
    }
  }
  if (smallest == nullptr) return std::optional<Mark>();
  return std::optional<Mark>(smallest->marks[smallest->at++]);
}

}  // namespace qanat::content
