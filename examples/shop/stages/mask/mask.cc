// Masks what nobody downstream may see: names, streets and card numbers.
//
// Reads every tab-separated file under /pfs/standardize and writes the same path under /pfs/out
// with the values of the columns below replaced. Columns are found by their name in the header. The
// image of this stage holds this one static program and nothing else.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const std::set<std::string> kMaskedColumns = {"customer_name", "street", "card"};
constexpr char kMask[] = "***";

std::vector<std::string> split_tabs(const std::string& line) {
  std::vector<std::string> fields;
  std::string field;
  std::istringstream in(line);
  while (std::getline(in, field, '\t')) fields.push_back(field);
  if (!line.empty() && line.back() == '\t') fields.emplace_back();
  return fields;
}

// Returns the number of rows, or -1 (with a message, which never contains a value) on a bad file.
int mask_file(const fs::path& source, const fs::path& target) {
  std::ifstream in(source);
  std::string line;
  if (!std::getline(in, line)) {
    std::fprintf(stderr, "%s: no header\n", source.filename().c_str());
    return -1;
  }
  fs::create_directories(target.parent_path());
  std::ofstream out(target);
  out << line << '\n';
  const std::vector<std::string> header = split_tabs(line);
  int rows = 0;
  while (std::getline(in, line)) {
    ++rows;
    const std::vector<std::string> fields = split_tabs(line);
    if (fields.size() != header.size()) {
      std::fprintf(stderr, "%s: row %d has %zu fields, the header %zu\n", source.filename().c_str(),
                   rows, fields.size(), header.size());
      return -1;
    }
    for (size_t i = 0; i < fields.size(); ++i) {
      if (i > 0) out << '\t';
      out << (kMaskedColumns.count(header[i]) > 0 ? kMask : fields[i]);
    }
    out << '\n';
  }
  out.flush();
  return out ? rows : -1;
}

}  // namespace

int main() {
  const char* root = std::getenv("PFS");
  const fs::path pfs = root != nullptr ? root : "/pfs";
  const fs::path input = pfs / "standardize";
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(input)) {
    if (!entry.is_regular_file()) continue;
    const fs::path path = fs::relative(entry.path(), input);
    const int rows = mask_file(entry.path(), pfs / "out" / path);
    if (rows < 0) return 1;
    std::printf("%s: %d rows masked\n", path.c_str(), rows);
  }
  return 0;
}
