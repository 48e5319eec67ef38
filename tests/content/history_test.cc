// Random histories of a small repo with branches, against a model that a reader can check by eye: a
// map of paths to bytes. What tree_test.cc checks of one edit after another is checked here across
// versions: any two of them differ by what the model says, a difference applied to one gives the
// other, and equal content has equal roots, whichever way it came about.
//
// QANAT_SEEDS=n (./dev sim n) tries n seeds.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "content/memory_blobs.h"
#include "qanat/base/path.h"
#include "qanat/chunk/chunker.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/path_difference.h"
#include "qanat/content/tree.h"
#include "qanat/content/tree_editor.h"
#include "qanat/content/tree_order.h"
#include "support/seeds.h"

namespace qanat::content {
namespace {

struct PathLess {
  bool operator()(const std::string& a, const std::string& b) const { return path_before(a, b); }
};
using Files = std::map<std::string, std::string, PathLess>;

struct Version {
  TreeRoot root;
  Files files;
};

class History {
 public:
  explicit History(uint64_t seed) : random_(seed) { versions_.push_back({}); }

  // A commit on any version that there is: so histories branch.
  void commit() {
    Version next = versions_[below(versions_.size())];
    EditBuffer buffer(posix_file_system(), ::testing::TempDir(), 1u << 20);
    const uint64_t edits = 1 + (below(4) == 0 ? below(60) : below(5));
    for (uint64_t i = 0; i < edits; ++i) edit(next.files, buffer, versions_.back());
    next.root = must(buffer.apply(blobs_, next.root));
    versions_.push_back(std::move(next));
  }

  void check_last() {
    const Version& last = versions_.back();
    ASSERT_EQ(read(last.root), last.files);
    ASSERT_EQ(last.root, build(last.files));
    check_list("");
    for (const auto& [path, bytes] : last.files) check_list(std::string(path_parent(path)));
    check_glob();
    check_difference(versions_[below(versions_.size())], last);
    check_difference(last, versions_[below(versions_.size())]);
    check_any_order();
  }

 private:
  uint64_t below(uint64_t n) { return random_() % n; }

  std::string some_path() {
    static const std::vector<std::string> kNames = {"a", "a-b", "a.b", "b", "c0", "é", "z z"};
    std::string path;
    for (uint64_t i = 0, parts = 1 + below(4); i < parts; ++i) {
      path = join_path(
          path, below(3) == 0 ? "n" + std::to_string(below(300)) : kNames[below(kNames.size())]);
    }
    return path;
  }

  // Mostly small; now and then of several chunks; now and then what was there before.
  std::string some_bytes() {
    if (!pool_.empty() && below(4) == 0) return pool_[below(pool_.size())];
    std::string bytes;
    const uint64_t dice = below(40);
    const uint64_t length = dice == 0 ? below(1'500'000) : dice < 4 ? below(90'000) : below(60);
    bytes.resize(length);
    const uint64_t alphabet = below(3) == 0 ? 1 : 256;
    std::mt19937_64 fill(random_());
    for (char& c : bytes) c = static_cast<char>('a' + fill() % alphabet);
    if (pool_.size() < 30) pool_.push_back(bytes);
    return bytes;
  }

  static Files within(const Files& files, const std::string& directory) {
    Files found;
    for (const auto& [path, bytes] : files) {
      if (path_is_within(path, directory)) found[path] = bytes;
    }
    return found;
  }

  static bool may_hold_file(const Files& files, const std::string& path) {
    for (std::string_view at = path_parent(path); !at.empty(); at = path_parent(at)) {
      if (files.contains(std::string(at))) return false;
    }
    return files.contains(path) || within(files, path).empty();
  }

  void edit(Files& files, EditBuffer& buffer, const Version& other) {
    const std::string path = some_path();
    switch (below(8)) {
      case 0: {  // a file or directory
        for (const auto& [gone, bytes] : within(files, path)) files.erase(gone);
        must(buffer.add(TreeEdit::remove(path)));
        return;
      }
      case 1: {  // a file's copy, from another version
        if (other.files.empty() || !may_hold_file(files, path)) return;
        auto from = other.files.begin();
        std::advance(from, below(other.files.size()));
        files[path] = from->second;
        must(
            buffer.add(TreeEdit::put(path, must(Tree(blobs_, other.root).stat(from->first)).file)));
        return;
      }
      case 2: {  // a directory's copy, from another version
        const std::string source = some_path();
        const auto entry = must(Tree(blobs_, other.root).find(source));
        if (!entry || !entry->is_directory) return;
        if (!may_hold_file(files, path) || files.contains(path)) return;
        for (const auto& [from, bytes] : within(other.files, source)) {
          files[join_path(path, from.substr(source.size() + 1))] = bytes;
        }
        must(buffer.add(TreeEdit::put_directory(path, entry->directory)));
        return;
      }
      default: {
        if (!may_hold_file(files, path)) return;
        const std::string bytes = some_bytes();
        const FileRef file = must(write_file(blobs_, bytes));
        if (below(3) == 0) {
          files[path] += bytes;
          must(buffer.add(TreeEdit::append(path, file)));
        } else {
          files[path] = bytes;
          must(buffer.add(TreeEdit::put(path, file)));
        }
      }
    }
  }

  TreeRoot build(const Files& files) {
    TreeEditor editor(blobs_, {});
    for (const auto& [path, bytes] : files) {
      must(editor.apply(TreeEdit::put(path, must(write_file(blobs_, bytes)))));
    }
    return must(editor.finish());
  }

  Files read(const TreeRoot& root) {
    Files files;
    must(Tree(blobs_, root).walk("", [&](std::string_view path, const TreeEntry& entry) {
      files[std::string(path)] = must(FileReader(blobs_, entry.file).read_all(1u << 30));
      return Result<bool>(true);
    }));
    return files;
  }

  // The names in a directory, in pages.
  void check_list(const std::string& directory) {
    const Version& last = versions_.back();
    std::map<std::string, uint64_t> expected;  // name -> files at and below it
    for (const auto& [path, bytes] : within(last.files, directory)) {
      const std::string rest = directory.empty() ? path : path.substr(directory.size() + 1);
      ++expected[rest.substr(0, rest.find('/'))];
    }
    std::map<std::string, uint64_t> found;
    const size_t page = 1 + below(4);
    std::string after;
    while (true) {
      const auto entries = must(Tree(blobs_, last.root).list(directory, after, page));
      for (const NamedEntry& entry : entries) found[entry.name] = entry.entry.files();
      if (entries.size() < page) break;
      after = entries.back().name;
    }
    ASSERT_EQ(found, expected) << directory;
  }

  void check_glob() {
    static const std::vector<std::string> kPatterns = {"/*",     "/**",    "/a/*",       "/*/b",
                                                       "/a*/**", "**/n1*", "/{a,b,é}/*", "/?/?"};
    const Version& last = versions_.back();
    std::set<std::string, PathLess> paths;
    for (const auto& [path, bytes] : last.files) {
      for (std::string_view at = path; !at.empty(); at = path_parent(at)) paths.emplace(at);
    }
    const Glob glob = must(Glob::compile(kPatterns[below(kPatterns.size())]));
    std::vector<std::string> expected;
    for (const std::string& path : paths) {
      if (glob.match(path)) expected.push_back(path);
    }
    std::vector<std::string> found;
    must(Tree(blobs_, last.root).glob(glob, [&](std::string_view path, const TreeEntry&) {
      found.emplace_back(path);
      return Result<bool>(true);
    }));
    ASSERT_EQ(found, expected);
  }

  // The difference from a to b is the model's, and applied to a it gives b.
  void check_difference(const Version& a, const Version& b) {
    std::map<std::string, std::string, PathLess> found;
    EditBuffer patch(posix_file_system(), ::testing::TempDir(), 1u << 20);
    must(diff_trees(blobs_, a.root, b.root, "", [&](const TreeDifference& difference) {
      const std::string path(difference.path);
      EXPECT_TRUE(found.empty() || path_before(found.rbegin()->first, path));
      found[path] = str_cat(difference.before ? "-" : "", difference.after ? "+" : "");
      must(patch.add(difference.after ? TreeEdit::put(path, difference.after->file)
                                      : TreeEdit::remove(path)));
      return Result<bool>(true);
    }));
    std::map<std::string, std::string, PathLess> expected;
    for (const auto& [path, bytes] : a.files) {
      auto other = b.files.find(path);
      if (other == b.files.end()) {
        expected[path] = "-";
      } else if (other->second != bytes) {
        expected[path] = "-+";
      }
    }
    for (const auto& [path, bytes] : b.files) {
      if (!a.files.contains(path)) expected[path] = "+";
    }
    ASSERT_EQ(found, expected);
    ASSERT_EQ(must(patch.apply(blobs_, a.root)), b.root);
    for (int i = 0; i < 8; ++i) {
      const std::string path = i == 0 ? "" : some_path();
      ASSERT_EQ(must(differs_at(blobs_, a.root, b.root, path)),
                within(a.files, path) != within(b.files, path))
          << path;
    }
  }

  // Puts of the same files, one commit each or several at once, in any order, and with detours.
  void check_any_order() {
    const Version& last = versions_.back();
    std::vector<std::string> order;
    for (const auto& [path, bytes] : last.files) order.push_back(path);
    if (order.empty() || order.size() > 40) return;
    std::shuffle(order.begin(), order.end(), random_);
    TreeRoot root;
    for (size_t at = 0; at < order.size();) {
      EditBuffer buffer(posix_file_system(), ::testing::TempDir(), 1u << 20);
      for (size_t end = std::min(order.size(), at + 1 + below(5)); at < end; ++at) {
        const std::string& bytes = last.files.at(order[at]);
        if (below(4) == 0) must(buffer.add(TreeEdit::put(order[at], file_of("another"))));
        const size_t cut = below(bytes.size() + 1);
        must(buffer.add(TreeEdit::put(order[at], file_of(bytes.substr(0, cut)))));
        if (below(2) == 0) {
          must(buffer.add(TreeEdit::append(order[at], file_of(bytes.substr(cut)))));
        } else {
          must(buffer.add(TreeEdit::remove(order[at])));
          must(buffer.add(TreeEdit::put(order[at], file_of(bytes))));
        }
      }
      root = must(buffer.apply(blobs_, root));
    }
    ASSERT_EQ(root, last.root);
  }

  FileRef file_of(std::string_view bytes) { return must(write_file(blobs_, bytes)); }

  std::mt19937_64 random_;
  MemoryBlobs blobs_;
  std::vector<Version> versions_;
  std::vector<std::string> pool_;  // bytes that may come again
};

TEST(History, EqualsAMapOfPaths) {
  for (uint64_t seed = 0; seed < qanat::testing::seed_count(6); ++seed) {
    SCOPED_TRACE(str_cat("seed ", seed));
    History history(seed);
    for (int i = 0; i < 12; ++i) {
      history.commit();
      ASSERT_NO_FATAL_FAILURE(history.check_last()) << "commit " << i;
    }
  }
}

// An edit anywhere changes the chunks at that place, and no others.
TEST(History, ChunksAwayFromAnEditStay) {
  for (uint64_t seed = 0; seed < qanat::testing::seed_count(4); ++seed) {
    SCOPED_TRACE(str_cat("seed ", seed));
    std::mt19937_64 random(seed);
    std::string bytes(8u << 20, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    MemoryBlobs blobs;
    const FileRef before = must(write_file(blobs, bytes));
    for (int i = 0; i < 4; ++i) {
      std::string edited = bytes;
      const size_t at = random() % bytes.size();
      const size_t length = std::min<size_t>(1 + random() % 300, bytes.size() - at);
      switch (random() % 3) {
        case 0:
          edited.insert(at, std::string(length, 'x'));
          break;
        case 1:
          edited.erase(at, length);
          break;
        default:
          edited.replace(at, length, std::string(length, 'y'));
      }
      blobs.reset_counts();
      const FileRef after = must(write_file(blobs, edited));
      EXPECT_NE(after, before);
      EXPECT_LE(blobs.bytes, 4 * chunk::kMaxChunk) << "edit at " << at;
      // And back: nothing new at all.
      blobs.reset_counts();
      EXPECT_EQ(must(write_file(blobs, bytes)), before);
      EXPECT_EQ(blobs.bytes, 0u);
    }
  }
}

}  // namespace
}  // namespace qanat::content
