#include "qanat/base/glob.h"

#include <gtest/gtest.h>

#include <chrono>

#include "qanat/base/random.h"
#include "qanat/base/string.h"

namespace qanat {
namespace {

Glob glob(std::string_view pattern) {
  Result<Glob> compiled = Glob::compile(pattern);
  EXPECT_TRUE(compiled.ok()) << compiled.status().to_string();
  return *std::move(compiled);
}

bool match(std::string_view pattern, std::string_view path) { return glob(pattern).match(path); }

TEST(Glob, StarStopsAtASlash) {
  EXPECT_TRUE(match("/*", "/a"));
  EXPECT_TRUE(match("/*", "a"));
  EXPECT_TRUE(match("*", "/a"));
  EXPECT_FALSE(match("/*", "/a/b"));
  EXPECT_TRUE(match("/*/b*.csv", "/a/b-1.csv"));
  EXPECT_TRUE(match("/*/b*.csv", "/a/b.csv"));
  EXPECT_FALSE(match("/*/b*.csv", "/a/c.csv"));
  EXPECT_TRUE(match("/a*b*c", "/aXbYbZc"));
  EXPECT_TRUE(match("/*é", "/caf\xC3\xA9"));
}

TEST(Glob, TwoStarsCrossSlashes) {
  EXPECT_TRUE(match("/**", "/a/b/c"));
  EXPECT_TRUE(match("/a/**", "/a/b/c"));
  EXPECT_FALSE(match("/a/**", "/a"));
  EXPECT_TRUE(match("**.txt", "/a/b.txt"));
  EXPECT_FALSE(match("/**/x", "/x"));
  EXPECT_TRUE(match("/{**/,}x", "/x"));
  EXPECT_TRUE(match("/{**/,}x", "/a/b/x"));
}

TEST(Glob, QuestionMarkIsOneCharacter) {
  EXPECT_TRUE(match("/a?c", "/abc"));
  EXPECT_TRUE(match("/a?c",
                    "/a\xC3\xA9"
                    "c"));
  EXPECT_FALSE(match("/a?c", "/ac"));
  EXPECT_FALSE(match("/a?c", "/a/c"));
}

TEST(Glob, Classes) {
  EXPECT_TRUE(match("/[abc]", "/b"));
  EXPECT_FALSE(match("/[abc]", "/d"));
  EXPECT_TRUE(match("/[a-z0-9]", "/7"));
  EXPECT_FALSE(match("/[!a-z]", "/q"));
  EXPECT_TRUE(match("/[!a-z]", "/Q"));
  EXPECT_TRUE(match("/[^a-z]", "/Q"));
  EXPECT_FALSE(match("/a[!b]c", "/a/c"));
  EXPECT_TRUE(match("/[]x]", "/]"));
  EXPECT_TRUE(match("/[a-]", "/-"));
  EXPECT_TRUE(match("/[\\]]", "/]"));
  EXPECT_TRUE(match("/[[:digit:]_]", "/5"));
  EXPECT_TRUE(match("/[[:digit:]_]", "/_"));
  EXPECT_TRUE(match("/[\xC3\xA0-\xC3\xBF]", "/\xC3\xA9"));
}

TEST(Glob, Braces) {
  EXPECT_TRUE(match("/{a,b}.csv", "/b.csv"));
  EXPECT_FALSE(match("/{a,b}.csv", "/c.csv"));
  EXPECT_TRUE(match("/x{,-old}", "/x"));
  EXPECT_TRUE(match("/x{,-old}", "/x-old"));
  EXPECT_TRUE(match("/{a{1,2},b*}/c", "/a2/c"));
  EXPECT_TRUE(match("/{a{1,2},b*}/c", "/bcd/c"));
  EXPECT_TRUE(match("{/a,/b/c}", "/b/c"));
  EXPECT_TRUE(match("/a,b", "/a,b"));
  EXPECT_TRUE(match("/{(a,b),c}", "/a,b"));
}

TEST(Glob, EscapesMakePlain) {
  EXPECT_TRUE(match("/a\\*b", "/a*b"));
  EXPECT_FALSE(match("/a\\*b", "/axb"));
  const std::string odd = "a*?[x]{y,z}(w)\\v";
  EXPECT_TRUE(match(Glob::escape(odd), odd));
  EXPECT_TRUE(glob(Glob::escape(odd)).is_literal());
  EXPECT_EQ(glob(Glob::escape(odd)).literal_prefix(), odd);
}

TEST(Glob, TheRoot) {
  for (std::string_view pattern : {"/", "", "//"}) {
    EXPECT_TRUE(glob(pattern).matches_root());
    EXPECT_TRUE(match(pattern, "/"));
    EXPECT_TRUE(match(pattern, ""));
    EXPECT_FALSE(match(pattern, "/a"));
  }
  EXPECT_FALSE(match("/*", "/"));
  EXPECT_FALSE(match("/**", "/"));
  EXPECT_FALSE(glob("/*").matches_root());
}

TEST(Glob, ASlashAtTheEndIsLeftOut) {
  EXPECT_TRUE(match("/data/", "/data"));
  EXPECT_TRUE(match("/*/", "/data"));
}

TEST(Glob, Captures) {
  using Texts = std::vector<std::string>;
  EXPECT_EQ(glob("/(*)/(*).csv").captures("/2024/x.csv"), (Texts{"2024", "x"}));
  EXPECT_EQ(glob("/(*)-(*)").captures("/a-b-c"), (Texts{"a-b", "c"}));
  EXPECT_EQ(glob("/(a(*)c)").captures("/abc"), (Texts{"abc", "b"}));
  EXPECT_EQ(glob("/{(a),(b)}").captures("/b"), (Texts{"", "b"}));
  EXPECT_EQ(glob("/(**)/x").captures("/a/b/x"), (Texts{"a/b"}));
  EXPECT_EQ(glob("(*)").captures("/abc"), (Texts{"abc"}));
  EXPECT_EQ(glob("/([0-9]*)_?.txt").captures("12_a.txt"), (Texts{"12"}));
  EXPECT_EQ(glob("/(*).csv").captures("/x.txt"), std::nullopt);
  EXPECT_EQ(glob("/*").captures("/x"), Texts{});
  EXPECT_EQ(glob("/(*)/(*)").group_count(), 2U);
}

TEST(Glob, LiteralPrefix) {
  EXPECT_EQ(glob("/data/2024-*/x").literal_prefix(), "data/2024-");
  EXPECT_EQ(glob("data/x").literal_prefix(), "data/x");
  EXPECT_TRUE(glob("data/x").is_literal());
  EXPECT_EQ(glob("/*").literal_prefix(), "");
  EXPECT_EQ(glob("/(ab)c").literal_prefix(), "abc");
  EXPECT_EQ(glob("{a,b}/c").literal_prefix(), "");
}

TEST(Glob, CouldMatchBelow) {
  EXPECT_TRUE(glob("/*").could_match_below(""));
  EXPECT_FALSE(glob("/*").could_match_below("a"));
  EXPECT_TRUE(glob("/a/*/c").could_match_below("a"));
  EXPECT_TRUE(glob("/a/*/c").could_match_below("/a/b"));
  EXPECT_FALSE(glob("/a/*/c").could_match_below("/b"));
  EXPECT_FALSE(glob("/a/*/c").could_match_below("/a/b/c"));
  EXPECT_FALSE(glob("/ab/c").could_match_below("/a"));
  EXPECT_TRUE(glob("/**.csv").could_match_below("/a/b/c"));
  EXPECT_FALSE(glob("/").could_match_below(""));
  EXPECT_TRUE(glob("{/a/b,/c}").could_match_below("a"));
  EXPECT_FALSE(glob("{/a/b,/c}").could_match_below("c"));
}

TEST(Glob, SaysWhatIsWrong) {
  for (std::string_view pattern :
       {"/a[b", "/a[", "/a[]", "/a{b", "/a{b,c", "/(a", "/a)", "/a}", "/a\\", "/[z-a]",
        "/[[:nope:]]", "/[[:digit", "/[([:digit:", "/{a)", "/(a}", "/[a\\", "/\xFF"}) {
    Result<Glob> compiled = Glob::compile(pattern);
    EXPECT_EQ(compiled.code(), Code::kInvalidArgument) << pattern;
  }
  EXPECT_NE(Glob::compile("/ab(c").status().message().find("position 4"), std::string::npos);
  EXPECT_FALSE(Glob::compile(std::string(5000, 'a')).ok());
  EXPECT_FALSE(Glob::compile(std::string(1000, '(')).ok());
}

TEST(Glob, TimeIsBoundedWhateverThePattern) {
  std::string pattern = "/";
  for (int i = 0; i < 200; ++i) pattern += "{a*,*a}";
  pattern += "b";
  const std::string path(2000, 'a');
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(match(pattern, path));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

// The definition, by trying everything: exponential, for short texts only.
bool matches_by_definition(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern.starts_with("**") || pattern[0] == '*') {
    const size_t stars = pattern.starts_with("**") ? 2 : 1;
    for (size_t length = 0; length <= text.size(); ++length) {
      if (stars == 1 && text.substr(0, length).find('/') != std::string_view::npos) break;
      if (matches_by_definition(pattern.substr(stars), text.substr(length))) return true;
    }
    return false;
  }
  if (text.empty()) return false;
  const bool same = pattern[0] == '?' ? text[0] != '/' : pattern[0] == text[0];
  return same && matches_by_definition(pattern.substr(1), text.substr(1));
}

TEST(Glob, AgreesWithItsDefinition) {
  SeededRandom random(7);
  const auto text_of = [&](std::string_view alphabet) {
    std::string text = "/";
    for (uint64_t n = random.below(7); n > 0; --n) {
      const char c = alphabet[random.below(alphabet.size())];
      // Three stars in a row have no meaning of their own, nor have empty parts.
      if (c == '/' && text.back() == '/') continue;
      if (c == '*' && text.ends_with("**")) continue;
      text.push_back(c);
    }
    return text + "a";
  };
  for (int i = 0; i < 20'000; ++i) {
    const std::string pattern = text_of("ab/*?*");
    const std::string path = text_of("ab/");
    EXPECT_EQ(match(pattern, path), matches_by_definition(pattern, path)) << pattern << " " << path;
    // A walk that prunes must not miss a match.
    if (!match(pattern, path)) continue;
    for (size_t slash = 1; (slash = path.find('/', slash)) != std::string::npos; ++slash) {
      EXPECT_TRUE(glob(pattern).could_match_below(path.substr(0, slash))) << pattern << " " << path;
    }
  }
}

}  // namespace
}  // namespace qanat
