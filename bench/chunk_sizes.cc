// chunk_sizes: what average chunk sizes cost and save on versions of real data, by the product's
// own chunker, hash and compressor.
//
//   chunk_sizes DATA_SET...
//
// A data set is a folder whose subfolders are versions, in the order of their names. Each version's
// files are cut, hashed and, where the chunk is new, compressed, one set of sizes after another.
// Prints one row of a Markdown table for each. bench/chunk_sizes.py makes the data sets.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "qanat/chunk/blob_ref.h"
#include "qanat/chunk/chunker.h"
#include "qanat/chunk/codec.h"

namespace {

namespace fs = std::filesystem;
using qanat::chunk::ChunkSizes;

struct Setting {
  const char* name;
  ChunkSizes sizes;
};
// The product's proportions, a quarter and 32 times as large.
constexpr ChunkSizes scaled(int shift) {
  const ChunkSizes& ours = qanat::chunk::kChunkSizes;
  auto size = [&](size_t n) { return shift < 0 ? n >> -shift : n << shift; };
  return {size(ours.min), size(ours.normal), size(ours.max), ours.strict_bits + shift,
          ours.lax_bits + shift};
}
constexpr Setting kSettings[] = {
    {"64 KiB", scaled(-2)}, {"256 KiB", scaled(0)}, {"1 MiB", scaled(2)}, {"8 MiB", scaled(5)}};

// Beside its bytes a chunk costs an entry in the index (key, pack, place) and one in its file's
// list.
constexpr double kEntryBytes = 66 + 36;

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

std::vector<fs::path> sorted(const fs::path& folder, bool folders) {
  std::vector<fs::path> found;
  if (folders) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.is_directory()) found.push_back(entry.path());
    }
  } else {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file() && !entry.is_symlink()) found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

struct Sums {
  double plain = 0;
  double stored = 0;
  double first_stored = 0;  // after the first version
  size_t chunks = 0;        // in all versions' files
  size_t distinct = 0;
  double seconds = 0;
};

Sums study(const fs::path& data_set, const ChunkSizes& sizes) {
  Sums sums;
  std::set<qanat::Hash> seen;
  qanat::chunk::Encoder encoder;
  bool first = true;
  for (const fs::path& version : sorted(data_set, true)) {
    for (const fs::path& path : sorted(version, false)) {
      const std::string bytes = read(path);
      const double begin = processor_seconds();
      std::string_view rest = bytes;
      sums.plain += static_cast<double>(rest.size());
      while (!rest.empty()) {
        const size_t cut = qanat::chunk::find_cut(rest, sizes);
        const std::string_view chunk = rest.substr(0, cut == 0 ? rest.size() : cut);
        rest.remove_prefix(chunk.size());
        ++sums.chunks;
        if (!seen.insert(qanat::sha256(chunk)).second) continue;
        sums.stored += static_cast<double>(encoder.encode(chunk).bytes.size());
      }
      sums.seconds += processor_seconds() - begin;
    }
    if (first) sums.first_stored = sums.stored;
    first = false;
  }
  sums.distinct = seen.size();
  return sums;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: chunk_sizes DATA_SET...\n");
    return 2;
  }
  std::printf(
      "| data | average | bytes in all, MB | stored, MB | of these by later versions, MB | chunks "
      "(distinct) | index and lists, MB | processor, s |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (int i = 1; i < argc; ++i) {
    const fs::path data_set = argv[i];
    for (const Setting& setting : kSettings) {
      const Sums sums = study(data_set, setting.sizes);
      std::printf("| %s | %s | %.1f | %.2f | %.2f | %zu (%zu) | %.2f | %.2f |\n",
                  data_set.filename().c_str(), setting.name, sums.plain / 1e6, sums.stored / 1e6,
                  (sums.stored - sums.first_stored) / 1e6, sums.chunks, sums.distinct,
                  kEntryBytes * static_cast<double>(sums.distinct) / 1e6, sums.seconds);
    }
    std::fflush(stdout);
  }
}
