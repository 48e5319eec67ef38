#include "qanat/pipeline/input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pipeline/pipeline_world.h"
#include "qanat/base/random.h"

namespace qanat::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class InputTest : public ::testing::Test {
 protected:
  content::TreeRoot tree(const Files& files) { return make_tree(blobs_, files, folder_); }

  std::vector<std::string> datums(const api::Input& input, const InputRoots& roots) {
    const InputShape shape = must(InputShape::make(input));
    std::vector<std::string> out;
    std::string last;
    must(enumerate_datums(
        shape, blobs_, roots, folder_.scratch(),
        [&](std::string_view key, const std::vector<DatumInput>& inputs) -> Result<bool> {
          EXPECT_TRUE(out.empty() || last < key) << "out of order";
          EXPECT_TRUE(key.starts_with(sort_key(inputs)));
          last = key;
          out.push_back(must(describe_sort_key(key)));
          return true;
        }));
    return out;
  }

  std::vector<std::string> changes(const api::Input& input, const InputRoots& before,
                                   const InputRoots& after) {
    const InputShape shape = must(InputShape::make(input));
    std::vector<std::string> out;
    std::string last;
    must(visit_datum_changes(
        shape, blobs_, before, after, folder_.scratch(),
        [&](std::string_view key, const std::vector<DatumInput>* inputs) -> Result<bool> {
          EXPECT_TRUE(out.empty() || last < key) << "out of order";
          last = key;
          out.push_back((inputs ? "+" : "-") + must(describe_sort_key(key)));
          return true;
        }));
    return out;
  }

  MemoryBlobs blobs_;
  ScratchFolder folder_;
};

TEST_F(InputTest, GlobsToDatums) {
  const auto root = tree({{"a", "1"}, {"d/x", "2"}, {"d/y", "3"}, {"z.csv", "4"}});
  EXPECT_THAT(datums(pfs("in", "/*"), {root}), ElementsAre("in:/a", "in:/d", "in:/z.csv"));
  EXPECT_THAT(datums(pfs("in", "/"), {root}), ElementsAre("in:/"));
  EXPECT_THAT(datums(pfs("in", "/*/*"), {root}), ElementsAre("in:/d/x", "in:/d/y"));
  EXPECT_THAT(datums(pfs("in", "/*.csv"), {root}), ElementsAre("in:/z.csv"));
  EXPECT_THAT(datums(pfs("in", "/nothing"), {root}), IsEmpty());
}

TEST_F(InputTest, EmptyContentHasNoDatums) {
  EXPECT_THAT(datums(pfs("in", "/"), {{}}), IsEmpty());
  EXPECT_THAT(datums(pfs("in", "/*"), {{}}), IsEmpty());
  const auto root = tree({{"a", "1"}});
  EXPECT_THAT(datums(cross({pfs("a", "/*"), pfs("b", "/")}), {root, {}}), IsEmpty());
  EXPECT_THAT(datums(cross({pfs("a", "/"), pfs("b", "/*")}), {{}, root}), IsEmpty());
  EXPECT_THAT(datums(union_of({pfs("a", "/"), pfs("b", "/*")}), {{}, root}), ElementsAre("b:/a"));
  EXPECT_THAT(changes(pfs("in", "/"), {root}, {{}}), ElementsAre("-in:/"));
  EXPECT_THAT(changes(pfs("in", "/"), {{}}, {root}), ElementsAre("+in:/"));
}

TEST_F(InputTest, CrossIsAProductInOrder) {
  const auto a = tree({{"1", "x"}, {"2", "y"}});
  const auto b = tree({{"3", "z"}, {"4", "w"}});
  EXPECT_THAT(datums(cross({pfs("b", "/*"), pfs("a", "/*")}), {b, a}),
              ElementsAre("b:/3, a:/1", "b:/3, a:/2", "b:/4, a:/1", "b:/4, a:/2"));
}

TEST_F(InputTest, CrossDistributesOverUnion) {
  const auto a = tree({{"1", "x"}});
  const auto b = tree({{"2", "y"}});
  const auto c = tree({{"3", "z"}});
  EXPECT_THAT(
      datums(cross({pfs("a", "/*"), union_of({pfs("c", "/*"), pfs("b", "/*")})}), {a, c, b}),
      ElementsAre("a:/1, b:/2", "a:/1, c:/3"));
  EXPECT_THAT(
      datums(union_of({pfs("a", "/*"), cross({pfs("a", "/*"), pfs("b", "/*")})}), {a, a, b}),
      ElementsAre("a:/1", "a:/1, b:/2"));
}

TEST_F(InputTest, EqualNamesAndPathsInAUnionStayTwoDatums) {
  const auto a = tree({{"f", "1"}, {"g", "1"}});
  const auto b = tree({{"f", "2"}});
  EXPECT_THAT(datums(union_of({pfs("a", "/*", "x"), pfs("b", "/*", "x")}), {a, b}),
              ElementsAre("x:/f", "x:/f (2)", "x:/g"));
}

TEST_F(InputTest, TooManyTermsAreRefused) {
  std::vector<api::Input> arms;
  for (int i = 0; i < 9; ++i) {
    const std::string n = std::to_string(i);
    arms.push_back(union_of({pfs("a" + n, "/"), pfs("b" + n, "/")}));
  }
  EXPECT_EQ(InputShape::make(cross(arms)).code(), Code::kInvalidArgument);
  EXPECT_EQ(InputShape::make(pfs("a", "/[")).code(), Code::kInvalidArgument);
  EXPECT_EQ(InputShape::make(cross({})).code(), Code::kInvalidArgument);
}

TEST_F(InputTest, TreeOrderHoldsInKeys) {
  const auto root = tree({{"a/b", "1"}, {"a-b", "2"}, {"a.c", "3"}});
  EXPECT_THAT(datums(pfs("in", "/**"), {root}),
              ElementsAre("in:/a", "in:/a/b", "in:/a-b", "in:/a.c"));
}

TEST_F(InputTest, DatumIdIsTheHashOfTheKey) {
  EXPECT_EQ(datum_id(sort_key({{"in", "a/b", {}}})), sha256(std::string_view("in\0a\1b\0", 7)));
  EXPECT_FALSE(describe_sort_key("x").ok());
  EXPECT_FALSE(describe_sort_key("").ok());
  EXPECT_FALSE(describe_sort_key(std::string_view("in\0a", 4)).ok());
}

TEST_F(InputTest, StoppingStops) {
  const auto root = tree({{"a", "1"}, {"b", "1"}});
  const InputShape shape = must(InputShape::make(pfs("in", "/*")));
  int seen = 0;
  const bool finished =
      must(enumerate_datums(shape, blobs_, {root}, folder_.scratch(),
                            [&](auto, const auto&) -> Result<bool> { return ++seen < 1; }));
  EXPECT_FALSE(finished);
  EXPECT_EQ(seen, 1);
}

// Whatever changes: visit_datum_changes tells exactly how the two enumerations differ.
TEST_F(InputTest, ChangesAreTheDifferenceOfEnumerations) {
  SeededRandom random(7);
  const std::vector<api::Input> shapes = {
      pfs("a", "/*"),
      pfs("a", "/"),
      pfs("a", "/**"),
      cross({pfs("a", "/*"), pfs("b", "/*/*")}),
      cross({pfs("b", "/"), pfs("a", "/*"), pfs("c", "/*")}),
      union_of({pfs("a", "/*"), pfs("b", "/*")}),
      union_of({pfs("a", "/*", "x"), pfs("b", "/**", "x"),
                cross({pfs("c", "/", "x"), pfs("a", "/*", "y")})}),
      cross({union_of({pfs("a", "/*"), pfs("b", "/*")}), pfs("c", "/*")}),
  };
  const auto random_files = [&](Files files) {
    for (uint64_t edits = random.below(6); edits > 0; --edits) {
      std::string path(1, static_cast<char>('p' + random.below(4)));
      if (random.below(2) == 0)
        path += "/" + std::string(1, static_cast<char>('p' + random.below(3)));
      for (auto it = files.begin();
           it != files.end();) {  // no file in a directory's place, nor the reverse
        const bool clash = path_is_within(it->first, path) || path_is_within(path, it->first);
        it = clash ? files.erase(it) : std::next(it);
      }
      if (random.below(3) != 0) files[path] = std::to_string(random.below(3));
    }
    return files;
  };
  for (int round = 0; round < 300; ++round) {
    const api::Input& input = shapes[random.below(shapes.size())];
    const InputShape shape = must(InputShape::make(input));
    InputRoots before;
    InputRoots after;
    for (size_t arm = 0; arm < shape.arms().size(); ++arm) {
      const Files old_files = random_files({});
      before.push_back(tree(old_files));
      after.push_back(random.below(3) == 0 ? before.back() : tree(random_files(old_files)));
    }
    std::map<std::string, std::vector<DatumInput>> expected[2];
    for (int i = 0; i < 2; ++i) {
      must(enumerate_datums(
          shape, blobs_, i == 0 ? before : after, folder_.scratch(),
          [&](std::string_view key, const std::vector<DatumInput>& inputs) -> Result<bool> {
            expected[i][std::string(key)] = inputs;
            return true;
          }));
    }
    std::map<std::string, std::optional<std::vector<DatumInput>>> told;
    std::string last;
    must(visit_datum_changes(
        shape, blobs_, before, after, folder_.scratch(),
        [&](std::string_view key, const std::vector<DatumInput>* inputs) -> Result<bool> {
          EXPECT_LT(last, key);
          last = key;
          told[last] = inputs ? std::optional(*inputs) : std::nullopt;
          return true;
        }));
    std::map<std::string, std::optional<std::vector<DatumInput>>> wanted;
    for (const auto& [key, inputs] : expected[1]) {
      const auto old = expected[0].find(key);
      if (old == expected[0].end() || old->second != inputs) wanted[key] = inputs;
    }
    for (const auto& [key, inputs] : expected[0]) {
      if (!expected[1].contains(key)) wanted[key] = std::nullopt;
    }
    ASSERT_EQ(told, wanted) << "round " << round;
  }
}

}  // namespace
}  // namespace qanat::pipeline
