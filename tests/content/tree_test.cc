#include "qanat/content/tree.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>
#include <random>
#include <set>

#include "content/memory_blobs.h"
#include "qanat/base/path.h"
#include "qanat/content/edit_buffer.h"
#include "qanat/content/file_reader.h"
#include "qanat/content/file_writer.h"
#include "qanat/content/node.h"
#include "qanat/content/owner_tree.h"
#include "qanat/content/references.h"
#include "qanat/content/tree_editor.h"
#include "qanat/content/tree_order.h"

namespace qanat::content {
namespace {

struct PathLess {
  bool operator()(const std::string& a, const std::string& b) const { return path_before(a, b); }
};
using Files = std::map<std::string, std::string, PathLess>;  // path -> bytes

FileRef file_of(BlobWriter& blobs, std::string_view bytes) {
  return must(write_file(blobs, bytes));
}

TreeRoot build(BlobWriter& blobs, const Files& files) {
  TreeEditor editor(blobs, {});
  for (const auto& [path, bytes] : files) {
    must(editor.apply(TreeEdit::put(path, file_of(blobs, bytes))));
  }
  return must(editor.finish());
}

TreeRoot edit(BlobWriter& blobs, const TreeRoot& root, const std::vector<TreeEdit>& edits) {
  TreeEditor editor(blobs, root);
  for (const TreeEdit& one : edits) must(editor.apply(one));
  return must(editor.finish());
}

Status edit_error(BlobWriter& blobs, const TreeRoot& root, const std::vector<TreeEdit>& edits,
                  TreeEditOptions options = {}) {
  TreeEditor editor(blobs, root, options);
  for (const TreeEdit& one : edits) {
    if (Status status = editor.apply(one); !status.ok()) return status;
  }
  return editor.finish().status();
}

Files dump(BlobReader& blobs, const TreeRoot& root, std::string_view prefix = {},
           std::string_view after = {}) {
  Files files;
  EXPECT_TRUE(must(Tree(blobs, root)
                       .walk(
                           prefix,
                           [&](std::string_view path, const TreeEntry& entry) -> Result<bool> {
                             EXPECT_FALSE(entry.is_directory);
                             EXPECT_TRUE(files.empty() || path_before(files.rbegin()->first, path));
                             files[std::string(path)] =
                                 must(FileReader(blobs, entry.file).read_all(1u << 30));
                             return true;
                           },
                           after)));
  return files;
}

Files within(const Files& files, std::string_view prefix, std::string_view after = {}) {
  Files found;
  for (const auto& [path, bytes] : files) {
    if (path_is_within(path, prefix) && (after.empty() || path_before(after, path))) {
      found[path] = bytes;
    }
  }
  return found;
}

std::set<std::string, PathLess> paths_of(const Files& files) {
  std::set<std::string, PathLess> paths;
  for (const auto& [path, bytes] : files) {
    for (std::string_view at = path; !at.empty(); at = path_parent(at)) paths.emplace(at);
  }
  return paths;
}

Glob pattern(std::string_view text) { return must(Glob::compile(text)); }

std::vector<std::string> glob(BlobReader& blobs, const TreeRoot& root, std::string_view text,
                              std::string_view after = {}) {
  std::vector<std::string> found;
  EXPECT_TRUE(must(Tree(blobs, root)
                       .glob(
                           pattern(text),
                           [&](std::string_view path, const TreeEntry&) -> Result<bool> {
                             found.emplace_back(path);
                             return true;
                           },
                           after)));
  return found;
}

// What one edit after another does to files; false if it is a conflict (the model is then spoilt).
bool apply_to_model(Files& files, const TreeEdit& edit, const std::string& bytes,
                    const Files& copied) {
  const bool is_file = files.contains(edit.path);
  const bool is_directory = !is_file && !within(files, edit.path).empty();
  bool under_file = false;
  for (std::string_view at = path_parent(edit.path); !at.empty(); at = path_parent(at)) {
    under_file |= files.contains(std::string(at));
  }
  if (edit.kind == TreeEdit::Kind::kDelete) {
    for (const auto& [path, old] : within(files, edit.path)) files.erase(path);
    return true;
  }
  if (under_file || is_directory) return false;
  switch (edit.kind) {
    case TreeEdit::Kind::kPutFile:
      files[edit.path] = bytes;
      return true;
    case TreeEdit::Kind::kAppendFile:
      files[edit.path] += bytes;
      return true;
    default:
      if (is_file) return false;
      for (const auto& [path, copy] : copied) files[join_path(edit.path, path)] = copy;
      return true;
  }
}

class TempFolder {
 public:
  TempFolder() {
    std::string name = testing::TempDir() + "qanat-tree-XXXXXX";
    path = mkdtemp(name.data());
  }
  ~TempFolder() { must(posix_file_system().remove_tree(path)); }
  std::string path;
};

using EntryDiff = std::map<std::string, std::pair<std::string, std::string>, PathLess>;

std::string id_of(const std::optional<TreeEntry>& entry) {
  return entry ? entry->content_id().to_hex() : "";
}

TreeDiffVisitor collect(EntryDiff& found) {
  return [&found](const TreeDifference& difference) -> Result<bool> {
    EXPECT_TRUE(found.empty() || path_before(found.rbegin()->first, difference.path));
    EXPECT_NE(difference.before, difference.after);
    found[std::string(difference.path)] = {id_of(difference.before), id_of(difference.after)};
    return true;
  };
}

EntryDiff expected_file_diff(BlobWriter& blobs, const Files& a, const Files& b) {
  EntryDiff expected;
  auto id = [&](const Files& files, const std::string& path) {
    auto found = files.find(path);
    return found == files.end() ? std::string()
                                : file_of(blobs, found->second).content_id().to_hex();
  };
  for (const Files* side : {&a, &b}) {
    for (const auto& [path, bytes] : *side) {
      if (id(a, path) != id(b, path)) expected[path] = {id(a, path), id(b, path)};
    }
  }
  return expected;
}

EntryDiff expected_match_diff(BlobReader& blobs, const TreeRoot& a, const TreeRoot& b,
                              const Files& files_a, const Files& files_b, const Glob& glob) {
  EntryDiff expected;
  std::set<std::string, PathLess> paths = paths_of(files_a);
  paths.merge(paths_of(files_b));
  for (const std::string& path : paths) {
    if (!glob.match(path)) continue;
    const std::string before = id_of(must(Tree(blobs, a).find(path)));
    const std::string after = id_of(must(Tree(blobs, b).find(path)));
    if (before != after) expected[path] = {before, after};
  }
  return expected;
}

// Random edits in any order through an EditBuffer, against the model of one edit after another.
class TreeHistory : public testing::TestWithParam<int> {};

TEST_P(TreeHistory, EqualsTheModel) {
  std::mt19937_64 random(GetParam());
  auto below = [&](uint64_t n) { return random() % n; };
  // Few names, and such as sort differently as bytes and as parts of paths.
  const std::vector<std::string> names = {"a", "a-b", "a.b", "b", "b0", "c", "long-name", "ä"};
  const uint64_t depth = 1 + GetParam() % 4;
  const uint64_t fan = GetParam() % 2 ? names.size() : 400;
  auto path = [&]() {
    std::string text;
    for (uint64_t i = 0, n = 1 + below(depth); i < n; ++i) {
      const uint64_t name = below(fan);
      text = join_path(text, name < names.size() ? names[name] : "n" + std::to_string(name));
    }
    return text;
  };
  MemoryBlobs blobs;
  TempFolder folder;
  Files files;
  TreeRoot root;
  for (int round = 0; round < 16; ++round) {
    EditBuffer buffer(posix_file_system(), folder.path, 1u << 20);
    Files changed = files;
    const uint64_t count = round % 4 == 0 ? below(200) : 1 + below(6);
    for (uint64_t i = 0; i < count; ++i) {
      TreeEdit one{.path = below(60) == 0 ? "" : path()};
      std::string bytes(below(8) == 0 ? 0 : below(200), static_cast<char>('a' + below(26)));
      Files copied;
      const uint64_t dice = below(10);
      if (one.path.empty() || dice < 2) {
        one.kind = TreeEdit::Kind::kDelete;
      } else if (dice < 7) {
        one.kind = TreeEdit::Kind::kPutFile;
        one.file = file_of(blobs, bytes);
      } else if (dice < 9) {
        one.kind = TreeEdit::Kind::kAppendFile;
        one.file = file_of(blobs, bytes);
      } else {
        one.kind = TreeEdit::Kind::kPutDirectory;
        const std::string source = path();
        auto entry = must(Tree(blobs, root).find(source));
        if (!entry || !entry->is_directory) continue;
        one.directory = entry->directory;
        for (const auto& [from, data] : within(files, source)) {
          copied[from.substr(source.size() + 1)] = data;
        }
      }
      // Conflicts have tests of their own.
      Files next = changed;
      if (!apply_to_model(next, one, bytes, copied)) continue;
      changed = std::move(next);
      must(buffer.add(one));
    }
    // A conflict in the middle that a later edit resolved may be none to the model only.
    const TreeRoot edited = must(buffer.apply(blobs, root));
    ASSERT_EQ(dump(blobs, edited), changed) << "round " << round;
    ASSERT_EQ(edited, build(blobs, changed)) << "round " << round;

    for (const char* prefix : {"", "a", "a/b", "b"}) {
      EntryDiff found;
      ASSERT_TRUE(must(diff_trees(blobs, root, edited, prefix, collect(found))));
      ASSERT_EQ(found, expected_file_diff(blobs, within(files, prefix), within(changed, prefix)));
      const std::string after = path();
      EntryDiff rest;
      ASSERT_TRUE(must(diff_trees(blobs, root, edited, prefix, collect(rest), after)));
      ASSERT_EQ(rest, expected_file_diff(blobs, within(files, prefix, after),
                                         within(changed, prefix, after)))
          << prefix << " after " << after;
      ASSERT_EQ(dump(blobs, edited, prefix, after), within(changed, prefix, after));
    }
    for (const char* text : {"/", "/*", "/a", "/a*", "/*/b", "/a/**", "**", "/{a,b}/*", "/a-b/c",
                             "/**/a", "/n1*", "/long-name/*/?"}) {
      const Glob glob_text = pattern(text);
      if (!glob_text.matches_root()) {
        std::vector<std::string> expected;
        for (const std::string& one : paths_of(changed)) {
          if (glob_text.match(one)) expected.push_back(one);
        }
        ASSERT_EQ(glob(blobs, edited, text), expected) << text;
        const std::string after = path();
        std::erase_if(expected, [&](const auto& one) { return !path_before(after, one); });
        ASSERT_EQ(glob(blobs, edited, text, after), expected) << text << " after " << after;
      }
      EntryDiff found;
      ASSERT_TRUE(must(diff_matches(blobs, root, edited, glob_text, collect(found))));
      if (glob_text.matches_root()) {
        ASSERT_EQ(found.size(), root == edited ? 0u : 1u);
      } else {
        ASSERT_EQ(found, expected_match_diff(blobs, root, edited, files, changed, glob_text))
            << text;
      }
    }
    files = std::move(changed);
    root = edited;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, TreeHistory, testing::Range(0, 8));

TEST(TreeOrder, ComparesPartByPart) {
  const std::vector<std::string> sorted = {"a", "a/b", "a/b/c", "a/b-c", "a!", "a-b", "aa", "b"};
  for (size_t i = 0; i < sorted.size(); ++i) {
    for (size_t j = 0; j < sorted.size(); ++j) {
      EXPECT_EQ(path_before(sorted[i], sorted[j]), i < j) << sorted[i] << " " << sorted[j];
      EXPECT_EQ(path_to_key(sorted[i]) < path_to_key(sorted[j]), i < j);
      EXPECT_EQ(path_to_key(sorted[i]) + '\0' + "zz" < path_to_key(sorted[j]) + '\0', i < j);
    }
    EXPECT_EQ(key_to_path(path_to_key(sorted[i])), sorted[i]);
  }
}

TEST(Tree, FindsAndLists) {
  MemoryBlobs blobs;
  const TreeRoot root = build(blobs, {{"a/x", "1"}, {"a/y/z", "22"}, {"b", "333"}, {"e", ""}});
  const Tree tree(blobs, root);
  EXPECT_EQ(root.totals, (Totals{4, 6}));
  EXPECT_EQ(must(tree.stat("b")).bytes(), 3u);
  EXPECT_TRUE(must(tree.stat("")).is_directory);
  EXPECT_EQ(must(tree.stat("a")).files(), 2u);
  EXPECT_EQ(must(tree.stat("a")).bytes(), 3u);
  EXPECT_EQ(must(tree.stat("e")).file, FileRef{});
  EXPECT_EQ(tree.stat("a/nothing").status().code(), Code::kNotFound);
  EXPECT_EQ(must(tree.find("b/under/a/file")), std::nullopt);
  auto names = [](const std::vector<NamedEntry>& entries) {
    std::string text;
    for (const NamedEntry& entry : entries)
      text += entry.name + (entry.entry.is_directory ? "/ " : " ");
    return text;
  };
  EXPECT_EQ(names(must(tree.list("", "", 10))), "a/ b e ");
  EXPECT_EQ(names(must(tree.list("", "a", 1))), "b ");
  EXPECT_EQ(names(must(tree.list("", "aa", 10))), "b e ");
  EXPECT_EQ(names(must(tree.list("a", "", 10))), "x y/ ");
  EXPECT_EQ(tree.list("b", "", 10).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(tree.list("c", "", 10).status().code(), Code::kNotFound);
  EXPECT_EQ(names(must(Tree(blobs, {}).list("", "", 10))), "");
  EXPECT_TRUE(glob(blobs, {}, "/").empty());
  EXPECT_EQ(glob(blobs, root, "/"), std::vector<std::string>{""});
}

TEST(Tree, AsDeepAsAPathCanBe) {
  MemoryBlobs blobs;
  std::string path = "a";
  while (path.size() + 2 <= kMaxPathLength) path += "/a";
  const TreeRoot root = build(blobs, {{path, "deep"}, {"b", "flat"}});
  EXPECT_EQ(dump(blobs, root), (Files{{path, "deep"}, {"b", "flat"}}));
  EntryDiff found;
  must(diff_trees(blobs, {}, root, "", collect(found)));
  EXPECT_EQ(found.size(), 2u);
  // A copy that makes longer paths than anyone may write is noticed when it is walked.
  const TreeRoot deeper = edit(blobs, root, {TreeEdit::put_directory("c", root)});
  const TreeVisitor all = [](std::string_view, const TreeEntry&) -> Result<bool> { return true; };
  EXPECT_EQ(Tree(blobs, deeper).walk("c", all).status().code(), Code::kTooLarge);
  EXPECT_EQ(edit(blobs, deeper, {TreeEdit::remove("c")}), root);
}

TEST(Tree, EqualFilesGiveEqualRootsWhateverTheHistory) {
  MemoryBlobs blobs;
  const Files files = {{"a/1", "x"}, {"a/2", "y"}, {"b/c/d", "z"}, {"b/e", std::string(300, 'q')}};
  const TreeRoot expected = build(blobs, files);
  std::mt19937_64 random(1);
  std::vector<std::pair<std::string, std::string>> order(files.begin(), files.end());
  for (int i = 0; i < 20; ++i) {
    std::shuffle(order.begin(), order.end(), random);
    TreeRoot root = edit(blobs, {}, {TreeEdit::put("gone/for/good", file_of(blobs, "!"))});
    for (const auto& [path, bytes] : order) {
      root = edit(blobs, root, {TreeEdit::put(path, file_of(blobs, bytes.substr(0, 1)))});
      if (bytes.size() > 1) {
        root = edit(blobs, root, {TreeEdit::append(path, file_of(blobs, bytes.substr(1)))});
      }
    }
    root = edit(blobs, root, {TreeEdit::remove("gone/for/good")});
    EXPECT_EQ(root, expected);
    EXPECT_EQ(tree_hash(root), tree_hash(expected));
  }
}

TEST(TreeEditor, RefusesConflictsNamingBoth) {
  MemoryBlobs blobs;
  const FileRef file = file_of(blobs, "x");
  const TreeRoot root = build(blobs, {{"a/b", "1"}, {"f", "2"}});
  const TreeRoot directory = build(blobs, {{"k", "v"}});
  auto expect = [&](const std::vector<TreeEdit>& edits, std::vector<std::string> words) {
    const Status status = edit_error(blobs, root, edits);
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.to_string();
    for (const std::string& word : words) {
      EXPECT_NE(status.message().find(word), std::string::npos) << status.to_string();
    }
    EXPECT_FALSE(status.hint().empty());
  };
  expect({TreeEdit::put("a", file)}, {"/a ", "/a/b"});
  expect({TreeEdit::put("f/g", file)}, {"/f/g", "/f "});
  expect({TreeEdit::put("f/g/h", file)}, {"/f/g/h", "/f "});
  expect({TreeEdit::put("n", file), TreeEdit::put("n/m", file)}, {"/n ", "/n/m"});
  expect({TreeEdit::put_directory("a", directory)}, {"/a"});
  expect({TreeEdit::put_directory("f", directory)}, {"/f"});
  expect({TreeEdit::put_directory("f/x", directory)}, {"/f/x", "/f "});
  expect({TreeEdit::append("a", file)}, {"/a ", "/a/b"});
  expect({TreeEdit::put("a", file), TreeEdit::put("a/c", file)}, {"/a "});

  // Not conflicts: what is in the way goes in the same run.
  EXPECT_EQ(dump(blobs, edit(blobs, root, {TreeEdit::put("a", file), TreeEdit::remove("a/b")})),
            (Files{{"a", "x"}, {"f", "2"}}));
  EXPECT_EQ(dump(blobs, edit(blobs, root, {TreeEdit::remove("f"), TreeEdit::put("f/g", file)})),
            (Files{{"a/b", "1"}, {"f/g", "x"}}));
  EXPECT_EQ(dump(blobs, edit(blobs, root,
                             {TreeEdit::remove("a"), TreeEdit::put_directory("a", directory),
                              TreeEdit::put("a/z", file), TreeEdit::remove("f")})),
            (Files{{"a/k", "v"}, {"a/z", "x"}}));
  EXPECT_EQ(edit(blobs, root, {TreeEdit::put("f/g", file), TreeEdit::remove("f/g")}), root);
}

TEST(TreeEditor, OtherErrors) {
  MemoryBlobs blobs;
  const FileRef file = file_of(blobs, "x");
  const TreeRoot root = build(blobs, {{"a/b", "1"}});
  EXPECT_EQ(edit_error(blobs, root, {TreeEdit::remove("c")}).code(), Code::kOk);
  EXPECT_EQ(
      edit_error(blobs, root, {TreeEdit::remove("c")}, {.missing_delete_is_error = true}).code(),
      Code::kNotFound);
  EXPECT_EQ(edit_error(blobs, root, {TreeEdit::remove("a/b/c")}, {.missing_delete_is_error = true})
                .code(),
            Code::kNotFound);
  EXPECT_EQ(edit_error(blobs, root, {TreeEdit::put("b", file), TreeEdit::put("a", file)}).code(),
            Code::kInternal);
  EXPECT_EQ(edit_error(blobs, root, {TreeEdit::put("a//b", file)}).code(), Code::kInvalidArgument);
  EXPECT_EQ(edit_error(blobs, root, {TreeEdit::put("", file)}).code(), Code::kInvalidArgument);
  EXPECT_EQ(edit_error(blobs, root, {TreeEdit::put_directory("n", {})}).code(),
            Code::kInvalidArgument);
}

TEST(TreeEditor, EditsOfOnePathAndOfTheRoot) {
  MemoryBlobs blobs;
  const FileRef one = file_of(blobs, "1");
  const FileRef two = file_of(blobs, "2");
  const TreeRoot root = build(blobs, {{"a/b", "0"}, {"c", "0"}});
  EXPECT_EQ(dump(blobs, edit(blobs, root,
                             {TreeEdit::append("a/b", one), TreeEdit::append("a/b", two),
                              TreeEdit::put("c", one), TreeEdit::put("c", two)})),
            (Files{{"a/b", "012"}, {"c", "2"}}));
  EXPECT_EQ(dump(blobs, edit(blobs, root,
                             {TreeEdit::remove("c"), TreeEdit::append("c", one),
                              TreeEdit::append("c", one)})),
            (Files{{"a/b", "0"}, {"c", "11"}}));
  EXPECT_EQ(edit(blobs, root, {TreeEdit::remove("")}), TreeRoot{});
  EXPECT_EQ(edit(blobs, root, {TreeEdit::remove(""), TreeEdit::put("x", one)}),
            build(blobs, {{"x", "1"}}));
  EXPECT_EQ(edit(blobs, {}, {TreeEdit::put_directory("", root)}), root);
  EXPECT_EQ(edit(blobs, root, {}), root);
  EXPECT_EQ(edit(blobs, root, {TreeEdit::remove("a/b")}), build(blobs, {{"c", "0"}}));
}

Files many_files(bool nested, int count = 100000) {
  Files files;
  for (int i = 0; i < count; ++i) {
    char path[64];
    if (nested) {
      snprintf(path, sizeof path, "d%02d/e%02d/f%d/file-%05d", i % 50, i / 50 % 40, i / 2000 % 5,
               i);
    } else {
      snprintf(path, sizeof path, "file-%05d", i);
    }
    files[path] = std::to_string(i % 1000);
  }
  return files;
}

// 100,000 files, built once for all tests of costs.
struct BigTree {
  explicit BigTree(bool nested) : files(many_files(nested)), root(build(blobs, files)) {}

  MemoryBlobs blobs;
  Files files;
  TreeRoot root;
};
BigTree& big_tree(bool nested) {
  static BigTree trees[2] = {BigTree(false), BigTree(true)};
  return trees[nested];
}

class TreeCosts : public testing::TestWithParam<bool> {};

TEST_P(TreeCosts, FollowTheChange) {
  auto& [blobs, files, root] = big_tree(GetParam());
  EXPECT_EQ(root.totals.count, 100000u);
  const FileRef file = file_of(blobs, "a new file");
  std::mt19937_64 random(9);
  for (int i = 0; i < 30; ++i) {
    auto at = files.begin();
    std::advance(at, random() % files.size());
    const TreeEdit one = i % 3 == 0   ? TreeEdit::put(at->first, file)
                         : i % 3 == 1 ? TreeEdit::put(at->first + "x", file)
                                      : TreeEdit::remove(at->first);
    blobs.reset_counts();
    const TreeRoot edited = edit(blobs, root, {one});
    EXPECT_LE(blobs.nodes_read, 40u);
    EXPECT_LE(blobs.nodes_written, 15u);
    blobs.reset_counts();
    EntryDiff found;
    must(diff_trees(blobs, root, edited, "", collect(found)));
    EXPECT_EQ(found.size(), 1u);
    EXPECT_LE(blobs.nodes_read, 60u);
    blobs.reset_counts();
    EntryDiff matches;
    must(diff_matches(blobs, root, edited, pattern("/*"), collect(matches)));
    EXPECT_EQ(matches.size(), 1u);
    EXPECT_LE(blobs.nodes_read, 60u);
    blobs.reset_counts();
    must(Tree(blobs, root).stat(at->first));
    EXPECT_LE(blobs.nodes_read, 8u);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, TreeCosts, testing::Values(false, true));

TEST(TreeCosts, CopyingADirectoryIsOneEntry) {
  auto& [blobs, files, root] = big_tree(true);
  const TreeEntry source = must(Tree(blobs, root).stat("d07"));
  EXPECT_EQ(source.files(), 2000u);
  blobs.reset_counts();
  const TreeRoot copied =
      edit(blobs, root, {TreeEdit::put_directory("copy/of/d07", source.directory)});
  EXPECT_LE(blobs.nodes_read, 4u);
  EXPECT_LE(blobs.nodes_written, 4u);
  EXPECT_EQ(copied.totals.count, 102000u);
  EXPECT_EQ(must(Tree(blobs, copied).stat("copy/of/d07")).content_id(), source.content_id());
  blobs.reset_counts();
  const TreeRoot removed = edit(blobs, copied, {TreeEdit::remove("d07")});
  EXPECT_LE(blobs.nodes_read, 4u);
  EXPECT_EQ(removed.totals.count, 100000u);
}

TEST(TreeCosts, GlobsEnterOnlyWhatCanMatch) {
  auto& [blobs, files, root] = big_tree(true);
  blobs.reset_counts();
  EXPECT_EQ(glob(blobs, root, "/d07/e03/f1/file-*").size(), 10u);
  EXPECT_LE(blobs.nodes_read, 6u);
  blobs.reset_counts();
  EXPECT_EQ(glob(blobs, root, "/d0[1-4]/e03/*").size(), 20u);
  EXPECT_LE(blobs.nodes_read, 12u);
  blobs.reset_counts();
  EXPECT_EQ(glob(blobs, root, "/*").size(), 50u);
  EXPECT_LE(blobs.nodes_read, 2u);
  BigTree& flat = big_tree(false);
  flat.blobs.reset_counts();
  EXPECT_EQ(glob(flat.blobs, flat.root, "/file-0123*").size(), 10u);
  EXPECT_LE(flat.blobs.nodes_read, 6u);
}

TEST(EditBuffer, ManyEditsSpill) {
  MemoryBlobs blobs;
  TempFolder folder;
  EditBuffer buffer(posix_file_system(), folder.path, 1u << 20);
  const Files files = many_files(true, 20000);
  std::vector<std::string> paths;
  for (const auto& [path, bytes] : files) paths.push_back(path);
  std::shuffle(paths.begin(), paths.end(), std::mt19937_64(4));
  for (const std::string& path : paths) {
    must(buffer.add(TreeEdit::put(path, file_of(blobs, files.at(path)))));
  }
  EXPECT_EQ(buffer.size(), 20000u);
  EXPECT_FALSE(must(posix_file_system().list(folder.path)).empty());
  EXPECT_EQ(must(buffer.apply(blobs, {})), build(blobs, files));
}

TEST(EditBuffer, CanBeAppliedAgainToAnotherRoot) {
  MemoryBlobs blobs;
  EditBuffer buffer(posix_file_system(), "/nowhere");
  must(buffer.add(TreeEdit::append("log", file_of(blobs, "+"))));
  must(buffer.add(TreeEdit::remove("x")));
  EXPECT_EQ(must(buffer.apply(blobs, build(blobs, {{"x", "1"}}))), build(blobs, {{"log", "+"}}));
  EXPECT_EQ(must(buffer.apply(blobs, build(blobs, {{"log", "a"}, {"y", "1"}}))),
            build(blobs, {{"log", "a+"}, {"y", "1"}}));
}

TEST(EditBuffer, TimeDecidesBetweenDirectoriesAndWhatIsInThem) {
  MemoryBlobs blobs;
  const FileRef file = file_of(blobs, "x");
  const TreeRoot directory = build(blobs, {{"k", "v"}});
  const TreeRoot root = build(blobs, {{"a/old", "1"}});
  auto apply = [&](const std::vector<TreeEdit>& edits) {
    EditBuffer buffer(posix_file_system(), "/nowhere");
    for (const TreeEdit& one : edits) must(buffer.add(one));
    return buffer.apply(blobs, root);
  };
  EXPECT_EQ(must(apply({TreeEdit::put("a/b", file), TreeEdit::remove("a")})), TreeRoot{});
  EXPECT_EQ(must(apply({TreeEdit::remove("a"), TreeEdit::put("a/b", file)})),
            build(blobs, {{"a/b", "x"}}));
  EXPECT_EQ(must(apply(
                {TreeEdit::put("a/b/c", file), TreeEdit::remove("a"), TreeEdit::put("a/d", file)})),
            build(blobs, {{"a/d", "x"}}));
  EXPECT_EQ(must(apply({TreeEdit::put("a/b", file), TreeEdit::remove(""),
                        TreeEdit::put_directory("a", directory), TreeEdit::append("a/k", file)})),
            build(blobs, {{"a/k", "vx"}}));
  // A copy does not silently replace what was put there before.
  EXPECT_EQ(
      apply({TreeEdit::put("n/m", file), TreeEdit::put_directory("n", directory)}).status().code(),
      Code::kFailedPrecondition);
  // What was put there and is gone again is not in the way.
  const TreeRoot copied = build(blobs, {{"a/old", "1"}, {"n/k", "v"}});
  const TreeEdit copy = TreeEdit::put_directory("n", directory);
  EXPECT_EQ(must(apply({TreeEdit::put("n/m", file), TreeEdit::remove("n/m"), copy})), copied);
  EXPECT_EQ(must(apply({TreeEdit::put("n/m/x", file), TreeEdit::remove("n/m"), copy})), copied);
  EXPECT_EQ(must(apply({TreeEdit::put("n/m", file), TreeEdit::remove("n/m"),
                        TreeEdit::put("n/m", file), TreeEdit::append("n/m", file),
                        TreeEdit::remove("n/m"), copy, TreeEdit::put("n/m", file)})),
            build(blobs, {{"a/old", "1"}, {"n/k", "v"}, {"n/m", "x"}}));
  for (const std::vector<TreeEdit>& before :
       {std::vector<TreeEdit>{TreeEdit::remove("n/m"), TreeEdit::put("n/m", file)},
        {TreeEdit::put("n/m", file), TreeEdit::remove("n/m"), TreeEdit::append("n/m", file)},
        {TreeEdit::put("n/m", file), TreeEdit::put("n/o", file), TreeEdit::remove("n/o")},
        {TreeEdit::put("n/m/x", file), TreeEdit::remove("n/m"), TreeEdit::put("n/m/y", file)},
        {TreeEdit::put_directory("n/m", directory)}}) {
    std::vector<TreeEdit> edits = before;
    edits.push_back(copy);
    const auto conflict = apply(edits);
    EXPECT_EQ(conflict.status().code(), Code::kFailedPrecondition);
    EXPECT_NE(conflict.status().message().find("/n/m"), std::string::npos)
        << conflict.status().message();
  }
  EXPECT_EQ(apply({TreeEdit::put("a/b", file), TreeEdit::put("a", file)}).status().code(),
            Code::kFailedPrecondition);
  EXPECT_FALSE(EditBuffer(posix_file_system(), "/").add(TreeEdit::put("../x", file)).ok());
}

TEST(OwnerTree, ScansByPath) {
  MemoryBlobs blobs;
  const FileRef one = file_of(blobs, "1");
  const FileRef two = file_of(blobs, "2");
  OwnerTreeEditor editor(blobs, {});
  must(editor.put("a", std::string("k\0a", 3), one));
  must(editor.put("a", std::string("k\0b", 3), two));
  must(editor.put("a/b", "k", one));
  must(editor.put("a-b", "k", two));
  const OwnerTree tree(blobs, must(editor.finish()));
  std::vector<std::string> seen;
  EXPECT_TRUE(
      must(tree.visit_owners("a", [&](std::string_view key, const FileRef&) -> Result<bool> {
        seen.emplace_back(key);
        return true;
      })));
  EXPECT_EQ(seen, (std::vector<std::string>{std::string("k\0a", 3), std::string("k\0b", 3)}));
  auto under = [&](std::string_view prefix) {
    std::string text;
    must(tree.visit_under(prefix, [&](const OwnerKey& key, const FileRef&) -> Result<bool> {
      text += key.path + " ";
      return true;
    }));
    return text;
  };
  EXPECT_EQ(under(""), "a a a/b a-b ");
  EXPECT_EQ(under("a"), "a a a/b ");
  EXPECT_EQ(under("a-b"), "a-b ");
  OwnerTreeEditor removal(blobs, tree.root());
  must(removal.erase("a", std::string("k\0a", 3)));
  EXPECT_EQ(must(removal.finish()).totals.count, 3u);
}

TEST(References, ReachEveryBlob) {
  MemoryBlobs blobs;
  Files files = many_files(true, 20000);
  files["big"] = std::string(5u << 20, 'b') + "end";
  const TreeRoot root = build(blobs, files);
  std::set<BlobRef> seen;
  std::vector<BlobRef> open;
  const auto visit = [&open](const BlobRef& to) {
    open.push_back(to);
    return ok_status();
  };
  must(visit_root(root, visit, {}));
  while (!open.empty()) {
    const BlobRef ref = open.back();
    open.pop_back();
    if (!seen.insert(ref).second || ref.kind == BlobKind::kChunk) continue;
    must(visit_references(must(blobs.read(ref)), visit, {}));
  }
  EXPECT_EQ(seen.size(), blobs.blobs().size());
}

}  // namespace
}  // namespace qanat::content
